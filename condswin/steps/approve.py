"""What people do about a champion: approve or reject a challenger that was held, freeze, and look back."""

import json

from mlflow import MlflowClient

from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.errors import GateError
from condswin.registry import aliases
from condswin.registry import history as histories
from condswin.registry.aliases import CHAMPION, RECORD, Answer, aliased, find_version
from condswin.registry.approval import approve_held, complete
from condswin.registry.events import check_words, told
from condswin.registry.package import model_name
from condswin.registry.tracking import connect, tracking_errors, tracking_uri


def approve(config: Config, task_name: TaskName, version: str, *, by: str, why: str) -> Answer:
    """Makes a version champion that the gate let through and held; completes the journal if it is champion.

    Args:
        config: Names the registry.
        task_name: Which task.
        version: The version.
        by: Who approves it.
        why: Why; both are kept with the decision.

    Raises:
        TrackingError: MLflow cannot be reached.
        GateError: The version is not held, cannot be loaded, or another champion was made since it was judged.
    """
    client, name = connect(config), model_name(task_name)
    with tracking_errors(tracking_uri(config)), told(client, name):
        tags = _tags(client, name, version)
        if aliased(client, name, CHAMPION) == version:
            complete(client, name, version, json.loads(tags.get(RECORD, "{}")))
            return Answer(False, version, f"nothing to do, champion is version {version} already")
        approve_held(client, config, name, version, tags, by=by, why=why)
    return Answer(True, version, f"champion is version {version}")


def reject(config: Config, task_name: TaskName, version: str, *, by: str, why: str) -> Answer:
    """Notes that a version shall not become champion; `promote` then leaves it alone.

    Raises:
        TrackingError: MLflow cannot be reached.
        GateError: There is no such version, or it is champion; or a word is empty, or they are too long.
    """
    check_words(by, why)
    client, name = connect(config), model_name(task_name)
    with tracking_errors(tracking_uri(config)):
        _tags(client, name, version)
        return aliases.reject(client, name, version, by=by, why=why)


def freeze(config: Config, task_name: TaskName, *, by: str, why: str, lift: bool = False) -> Answer:
    """Stops every move of a task's champion (promotion, approval, roll-back), or allows them again.

    Raises:
        TrackingError: MLflow cannot be reached.
        GateError: Others have held the right to move it for minutes; or a word is empty, or they are too long.
    """
    check_words(by, why)
    client, name = connect(config), model_name(task_name)
    with tracking_errors(tracking_uri(config)), told(client, name):
        return aliases.freeze(client, name, by=by, why=why, lift=lift)


def history(config: Config, task_name: TaskName) -> list[dict[str, str]]:
    """What happened to a task's versions, oldest first; see `condswin.registry.history`.

    Raises:
        TrackingError: MLflow cannot be reached, or nothing was registered yet.
    """
    client = connect(config)
    with tracking_errors(tracking_uri(config)):
        return histories.history(client, model_name(task_name))


def _tags(client: MlflowClient, name: str, version: str) -> dict[str, str]:
    entry = find_version(client, name, version)
    if entry is None:
        raise GateError(f"{name} has no version {version}; `condswin history` lists those there are")
    return dict(entry.tags)

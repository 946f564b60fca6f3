"""What people do about a champion: approve or reject a challenger that was held, freeze, and look back."""

from mlflow import MlflowClient

from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.errors import GateError
from condswin.registry import aliases
from condswin.registry.aliases import find_version
from condswin.registry.approval import approve_held
from condswin.registry.events import told
from condswin.registry.package import model_name
from condswin.registry.tracking import connect, tracking_errors, tracking_uri


def approve(config: Config, task_name: TaskName, version: str, *, by: str, why: str) -> None:
    """Makes a version champion that the gate let through and held.

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
        approve_held(client, config, name, version, _tags(client, name, version), by=by, why=why)


def reject(config: Config, task_name: TaskName, version: str, *, by: str, why: str) -> None:
    """Notes that a version shall not become champion; `promote` then leaves it alone.

    Raises:
        TrackingError: MLflow cannot be reached.
        GateError: There is no such version, or it is champion.
    """
    client, name = connect(config), model_name(task_name)
    with tracking_errors(tracking_uri(config)):
        _tags(client, name, version)
        aliases.reject(client, name, version, by=by, why=why)


def freeze(config: Config, task_name: TaskName, *, by: str, why: str, lift: bool = False) -> None:
    """Stops every move of a task's champion (promotion, approval, roll-back), or allows them again.

    Raises:
        TrackingError: MLflow cannot be reached.
        GateError: It is so already, or nothing was registered yet.
    """
    client, name = connect(config), model_name(task_name)
    with tracking_errors(tracking_uri(config)), told(client, name):
        aliases.freeze(client, name, by=by, why=why, lift=lift)


def history(config: Config, task_name: TaskName) -> list[dict[str, str]]:
    """What happened to a task's versions, oldest first; see `condswin.registry.aliases.history`.

    Raises:
        TrackingError: MLflow cannot be reached, or nothing was registered yet.
    """
    client = connect(config)
    with tracking_errors(tracking_uri(config)):
        return aliases.history(client, model_name(task_name))


def _tags(client: MlflowClient, name: str, version: str) -> dict[str, str]:
    entry = find_version(client, name, version)
    if entry is None:
        raise GateError(f"{name} has no version {version}; `condswin history` lists those there are")
    return dict(entry.tags)

"""Promotes a registered challenger to champion, if it earns it; and takes a promotion back."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mlflow import MlflowClient

from condswin.checksums import checksums
from condswin.code import closure
from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.devices import device
from condswin.errors import BadFileError, GateError
from condswin.evaluation.run import evaluate_split
from condswin.files import fingerprint, read_json
from condswin.outputs import check_file, write_result
from condswin.registry.aliases import (
    KEY,
    PREVIOUS,
    RECORD,
    ROLLED_BACK,
    aliased,
    current_champion,
    find_version,
    journal,
    move_champion,
    note_rejection,
    roll_back,
)
from condswin.registry.gate import check_metric, decide
from condswin.registry.package import (
    ModelAlteredError,
    ModelUnavailableError,
    load_package,
    load_registered,
    model_name,
    verified_package,
)
from condswin.registry.smoke import smoke
from condswin.registry.tracking import connect, tracking_errors, tracking_uri
from condswin.tasks.facts import Facts
from condswin.tasks.judging import Judging
from condswin.tasks.loading import load
from condswin.tasks.prediction import Prediction


class Promotion(NamedTuple):
    """What `promote` found.

    Attributes:
        champion: The version is champion now.
        known: It was decided before, and nothing was done.
        record: The JSON that was written.
    """

    champion: bool
    known: bool
    record: dict[str, Any]


def promote(config: Config, task_name: TaskName, registered: Path, prepared: Path, out: Path) -> Promotion:
    """Makes a registered version champion if it works elsewhere and passes the gate.

    1. A version that is champion already, or that the same gate, code and parameters of the prediction rejected
       against the same champion on the same test cases, is left alone: a rerun changes nothing and writes the same
       record.
    2. The version's files are fetched once and found to be those that were registered, before any of them is used.
    3. Smoke test: a clean process loads the version and gives this process's output for a golden batch.
    4. Challenger and champion are both evaluated now, on the same test cases; the gate decides.
    5. Under a lock: the champion is read again, `previous-champion` and `champion` move, the journal is written.

    A version that was rolled back stays rejected until its tag `condswin.rolled_back` is deleted.

    Args:
        config: All parameters; `<task>.gate` has the thresholds.
        task_name: Which task.
        registered: JSON of the register step.
        prepared: Folder with the prepared test split.
        out: JSON to write: `promoted`, `champion`, `previous`, `reasons`, `metrics` and the rest of the decision.

    Returns:
        The decision. A rejected challenger is no error.

    Raises:
        BadFileError: `registered` is missing or not the register step's.
        ConfigError: The gate names a metric that the task does not have.
        OutputError: `out` is there and not ours; no alias changed.
        TrackingError: MLflow cannot be reached.
        GateError: The version is not the network that was registered, the challenger or the champion cannot be loaded,
            or the champion moved meanwhile; no alias changed.
    """
    check_file(out)
    name, version, key = _read_registered(registered, task_name)
    check_metric(load(Facts, task_name, config), config.task(task_name).gate)
    client = connect(config)
    uri = tracking_uri(config)
    with tracking_errors(uri):
        entry = find_version(client, name, version)
        if entry is None:
            raise GateError(f"{name} has no version {version} (any more); run register again")
        if entry.tags.get(KEY) != key:  # the registry was replaced, and counts from 1 again
            raise GateError(f"{registered}: {name} version {version} is another network now; run register again")
        champion = current_champion(client, name)
        if champion == version:
            record = _settle(client, name, version, entry.tags)
            write_result(out, "promote", record)
            return Promotion(champion=True, known=True, record=record)
        previous = aliased(client, name, PREVIOUS)

    record = {
        "name": name,
        "version": version,
        "champion": champion,
        "previous": previous,
        "promoted": False,
        "reasons": [],
        "metrics": {},
        "gate": config.task(task_name).gate.model_dump(mode="json"),
        "predict": load(Prediction, task_name, config).parameters(),
        "code_sha256": fingerprint(closure("promote", task_name)),
    }
    if ROLLED_BACK in entry.tags:
        when = json.loads(entry.tags[ROLLED_BACK])["at"]
        record["reasons"] = [
            f"version {version} was rolled back at {when}; delete its tag {ROLLED_BACK!r} to try again"
        ]
        write_result(out, "promote", record)
        return Promotion(champion=False, known=True, record=record)
    before = json.loads(entry.tags.get(RECORD, "{}"))
    judging = load(Judging, task_name, config)
    if _is_rejection(before, record) and before["test_sha256"] == _test_fingerprint(judging, prepared):
        write_result(out, "promote", before)
        return Promotion(champion=False, known=True, record=before)

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-promote-", dir=out.parent) as predictions:
        record |= _judge(config, task_name, name, version, champion, prepared, Path(predictions))
    with tracking_errors(uri):
        if record["promoted"]:
            record |= {"champion": version, "previous": champion}
            move_champion(client, name, version, expected=champion, record=record)
        else:
            note_rejection(client, name, version, record)
    write_result(out, "promote", record)
    return Promotion(champion=bool(record["promoted"]), known=False, record=record)


def rollback(config: Config, task_name: TaskName) -> str:
    """Makes the previous champion champion again, after making sure that it loads.

    Returns:
        The version that is champion now.

    Raises:
        TrackingError: MLflow cannot be reached.
        GateError: There is no previous champion, it cannot be loaded, or the champion moved meanwhile.
    """
    client = connect(config)
    name = model_name(task_name)
    with tracking_errors(tracking_uri(config)):
        _, champion = roll_back(client, name, lambda version: _check_loads(config, name, version))
    return champion


def _read_registered(path: Path, task_name: TaskName) -> tuple[str, str, str]:
    values = read_json(path)
    wanted = ("name", "version", "key")
    name, version, key = (values.get(field) if isinstance(values, dict) else None for field in wanted)
    if not isinstance(name, str) or not isinstance(version, str) or not isinstance(key, str):
        raise BadFileError(path, "not written by register; run register again")
    if name != model_name(task_name):
        raise BadFileError(path, f"names the model {name}, expected {model_name(task_name)}")
    return name, version, key


def _settle(client: MlflowClient, name: str, version: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """The record of a version that is champion already; completes the journal of an interrupted promotion."""
    record: dict[str, Any] = json.loads(tags.get(RECORD, "{}"))
    if not record.get("promoted"):  # somebody set the alias by hand
        previous = aliased(client, name, PREVIOUS)
        reasons = [f"version {version} is champion already, but not by the gate"]
        return {
            "name": name,
            "version": version,
            "champion": version,
            "previous": previous,
            "promoted": True,
            "reasons": reasons,
            "metrics": {},
        }
    journal(client, name, version, previous=record["previous"])
    return record


def _is_rejection(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a record tells that the gate rejected the version in the circumstances of another record."""
    same = all(before.get(key) == now[key] for key in ("promoted", "champion", "gate", "predict", "code_sha256"))
    return same and "test_sha256" in before


def _judge(
    config: Config,
    task_name: TaskName,
    name: str,
    version: str,
    champion: str | None,
    prepared: Path,
    predictions: Path,
) -> dict[str, Any]:
    """Smoke test, evaluation and gate: the part of the record that they decide."""
    judging, prediction = load(Judging, task_name, config), load(Prediction, task_name, config)
    uri = f"models:/{name}/{version}"
    with _unavailable("challenger"), verified_package(uri, config) as package:
        model, spec = load_package(uri, package)
        smoked = smoke(uri, package, model, spec)
    if smoked.problems:
        return {"reasons": smoked.problems, "latency_ms": smoked.latency_ms}
    place = device(config.task(task_name).train.device)
    challenger = partial(prediction.predict, model.to(place))
    rows = evaluate_split(judging, challenger, prepared, "test", predictions / "challenger")
    champion_rows = None
    if champion is not None:
        with _unavailable("champion"):
            other, _ = load_registered(f"models:/{name}/{champion}", config)
        reference = partial(prediction.predict, other.to(place))
        champion_rows = evaluate_split(judging, reference, prepared, "test", predictions / "champion")
    decision = decide(load(Facts, task_name, config), config.task(task_name).gate, rows, champion_rows)
    return {
        "promoted": decision.promoted,
        "reasons": decision.failed or decision.passed,
        "metrics": decision.metrics,
        "latency_ms": smoked.latency_ms,
        "test_sha256": _test_fingerprint(judging, prepared),
    }


@contextmanager
def _unavailable(role: str) -> Iterator[None]:
    """Says what to do about a version that cannot be loaded."""
    try:
        yield
    except ModelUnavailableError as error:
        remedy = "run register again"
        if isinstance(error, ModelAlteredError):  # register takes a version for whole by its description alone
            remedy = "after deleting the version in MLflow, run register again"
        if role == "champion":
            remedy = "`condswin rollback` restores its predecessor, or delete the alias 'champion' to start without one"
        raise GateError(f"the {role} cannot be loaded, nothing was changed: {error}; {remedy}") from error


def _check_loads(config: Config, name: str, version: str) -> None:
    try:
        load_registered(f"models:/{name}/{version}", config)
    except ModelUnavailableError as error:
        raise GateError(f"cannot roll back, nothing was changed: {error}") from error


def _test_fingerprint(judging: Judging, prepared: Path) -> str:
    """Says which test set decided; equal for equal files."""
    known = checksums(prepared)
    found = fingerprint({case: known.sha256(file) for case, file in judging.case_files(prepared / "test").items()})
    known.save()
    return found

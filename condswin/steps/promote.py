"""Promotes a registered challenger to champion, if it earns it; and takes a promotion back."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import json

import torch
from mlflow import MlflowClient
from torch import nn

from condswin.config import Config, TaskName
from condswin.errors import BadFileError, GateError
from condswin.evaluation import Summary, evaluate_split
from condswin.files import fingerprint, read_json, sha256, write_json
from condswin.registry.aliases import (
    CHAMPION,
    PREVIOUS,
    RECORD,
    ROLLED_BACK,
    aliased,
    current_champion,
    find_version,
    journal,
    move_champion,
    roll_back,
)
from condswin.registry.gate import check_metric, decide
from condswin.registry.package import ModelUnavailableError, load_registered, model_name
from condswin.registry.smoke import smoke
from condswin.registry.tracking import connect, tracking_errors, tracking_uri
from condswin.tasks import Row, Task, get_task


def promote(config: Config, task_name: TaskName, registered: Path, prepared: Path, out: Path) -> bool:
    """Makes a registered version champion if it works elsewhere and passes the gate.

    1. A version that is champion already is left alone: a rerun changes nothing and writes the same record.
    2. Smoke test: a clean process loads the version and gives this process's output for a golden batch.
    3. Challenger and champion are both evaluated now, on the same test cases; the gate decides.
    4. Under a lock: the champion is read again, then `previous-champion` and `champion` move, then the tags are written.

    A version that was rolled back stays rejected until its tag `condswin.rolled_back` is deleted.

    Args:
        config: All parameters; `<task>.gate` has the thresholds.
        task_name: Which task.
        registered: JSON of the register step.
        prepared: Folder with the prepared test split.
        out: JSON to write: `promoted`, `champion`, `previous`, `reasons`, `metrics` and the rest of the decision.

    Returns:
        Whether the version is champion now. A rejected challenger is no error.

    Raises:
        BadFileError: `registered` is missing or not the register step's.
        ConfigError: The gate names a metric that the task does not have.
        TrackingError: MLflow cannot be reached.
        GateError: The challenger or the champion cannot be loaded, or the champion moved meanwhile. No alias was changed.
    """
    name, version = _read_registered(registered, task_name)
    task = get_task(task_name, config)
    gate = config.task(task_name).gate
    check_metric(task, gate)
    client = connect(config)
    uri = tracking_uri(config)
    with tracking_errors(uri):
        entry = find_version(client, name, version)
        if entry is None:
            raise GateError(f"{name} has no version {version} (any more); run register again")
        champion = current_champion(client, name)
        if champion == version:
            write_json(out, _settle(client, name, version, entry.tags))
            return True

    record: dict[str, Any] = {
        "name": name,
        "version": version,
        "champion": champion,
        "previous": aliased_previous(client, uri, name),
        "promoted": False,
        "reasons": [],
        "metrics": {},
        "gate": gate.model_dump(mode="json"),
    }
    if ROLLED_BACK in entry.tags:
        when = json.loads(entry.tags[ROLLED_BACK])["at"]
        record["reasons"] = [f"version {version} was rolled back at {when}; delete its tag {ROLLED_BACK!r} to try again"]
        write_json(out, record)
        return False

    model, spec = _load(config, name, version, "challenger")
    smoked = smoke(f"models:/{name}/{version}", model, spec, tracking=uri)
    record["latency_ms"] = smoked.latency_ms
    reasons = smoked.problems
    if not reasons:
        device = _device(config, task_name)
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-promote-", dir=out.parent) as temporary:
            predictions = Path(temporary)
            challenger_rows = _evaluate(task, model, prepared, predictions / "challenger", device)
            champion_rows = None
            if champion is not None:
                other, _ = _load(config, name, champion, "champion")
                champion_rows = _evaluate(task, other, prepared, predictions / "champion", device)
        decision = decide(task, gate, challenger_rows, champion_rows)
        reasons = decision.failed or decision.passed
        record["promoted"] = decision.promoted
        record["metrics"] = decision.metrics
        record["test_sha256"] = _cases_fingerprint(task, prepared)
    record["reasons"] = reasons
    with tracking_errors(uri):
        if record["promoted"]:
            record |= {"champion": version, "previous": champion}
            move_champion(client, name, version, expected=champion, record=record)
        else:
            client.set_model_version_tag(name, version, RECORD, json.dumps(record, sort_keys=True))
    write_json(out, record)
    return bool(record["promoted"])

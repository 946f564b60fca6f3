"""Promotes a registered challenger to champion, if it earns it; and takes a promotion back."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mlflow import MlflowClient
from torch import nn

from condswin.checksums import checksums
from condswin.code import closure
from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.devices import device
from condswin.errors import BadFileError, GateError
from condswin.evaluation.results import METRICS, cases_file, read_rows
from condswin.evaluation.run import evaluate_split
from condswin.files import fingerprint, read_json
from condswin.leaks import refuse_trained_on, trained_on
from condswin.manifest import GENERATED, Manifest
from condswin.outputs import check_file, write_result
from condswin.registry.aliases import (
    KEY,
    PREVIOUS,
    RECORD,
    Answer,
    aliased,
    current_champion,
    find_version,
    frozen,
    move_champion,
    note_rejection,
    refusal,
    roll_back,
)
from condswin.registry.approval import approval_in, approve_held, complete, decision_in
from condswin.registry.events import told
from condswin.registry.gate import Evidence, check_gate, decide
from condswin.registry.package import (
    ModelUnavailableError,
    load_package,
    load_registered,
    model_name,
    verified_package,
)
from condswin.registry.smoke import smoke
from condswin.registry.tracking import connect, tracking_errors, tracking_uri
from condswin.tasks.facts import Facts, Row
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


def promote(
    config: Config,
    task_name: TaskName,
    registered: Path,
    prepared: Path,
    out: Path,
    *,
    baseline: Path | None = None,
    hold: bool = False,
) -> Promotion:
    """Makes a registered version champion if it works elsewhere and passes the gate.

    1. A version that is champion already, or that the same gate, code and parameters of the prediction did not promote
       against the same champion and reference methods on the same test cases, is left alone: a rerun changes nothing
       and writes the same record.
    2. The version's files are fetched once and found to be those that were registered, before any of them is used.
    3. Smoke test: a clean process loads the version and gives this process's output for a golden batch.
    4. Challenger and champion are both evaluated now, on the same test cases; the gate decides. A challenger that was
       trained on one of them is refused; those that the champion was trained on are left out of comparisons with it.
    5. Under a lock: the champion is read again, `previous-champion` and `champion` move, the journal is written.

    A version that is held becomes champion if somebody set the tag `condswin.approval` on it since (see
    `registry.approval`). One that was rolled back, or that a person rejected, stays refused until its tag
    `condswin.rolled_back` or `condswin.rejected` is deleted. While the champion is frozen nothing is decided.

    Args:
        config: All parameters; `<task>.gate` has the thresholds.
        task_name: Which task.
        registered: JSON of the register step.
        prepared: Folder with the prepared test split.
        out: JSON to write: `promoted`, `outcome` (`promoted`, `refused`, `undecided`, `held`), `champion`, `previous`,
            `reasons`, `rules` and the rest of the decision.
        baseline: Evaluation of the task's reference method. One of other data counts as none.
        hold: Leave a challenger that passes for `approve`, as `<task>.gate.hold` does.

    Returns:
        The decision. A challenger that is refused, or of which too little is known, is no error.

    Raises:
        BadFileError: `registered` is missing or not the register step's.
        BadDataError: The prepared files are not those that their manifest names, or the challenger was trained on
            test cases.
        ConfigError: The gate names what the task does not have.
        OutputError: `out` is there and not ours; no alias changed.
        TrackingError: MLflow cannot be reached.
        GateError: The version is not the network that was registered, the challenger or the champion cannot be loaded,
            or the champion moved meanwhile; no alias changed.
    """
    check_file(out)
    name, version, key = _read_registered(registered, task_name)
    check_gate(load(Facts, task_name, config), config.task(task_name).gate)
    client = connect(config)
    with told(client, name):
        return _promote(client, config, task_name, registered, (name, version, key), prepared, out, baseline, hold)


def _promote(
    client: MlflowClient,
    config: Config,
    task_name: TaskName,
    registered: Path,
    known_as: tuple[str, str, str],
    prepared: Path,
    out: Path,
    baseline: Path | None,
    hold: bool,
) -> Promotion:
    name, version, key = known_as
    gate, facts, judging = config.task(task_name).gate, load(Facts, task_name, config), load(Judging, task_name, config)
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
        previous, is_frozen = aliased(client, name, PREVIOUS), frozen(client, name)
        before = decision_in(client, name, version, entry.tags)

    record = {
        "name": name,
        "version": version,
        "champion": champion,
        "previous": previous,
        "promoted": False,
        "outcome": "refused",
        "reasons": [],
        "gate": gate.model_dump(mode="json"),
        "predict": load(Prediction, task_name, config).parameters(),
        "code_sha256": fingerprint(closure("promote", task_name)),
    }
    if stop := is_frozen or refusal(version, entry.tags):
        record |= {"outcome": "held" if is_frozen else "refused", "reasons": [stop]}
        write_result(out, "promote", record)
        return Promotion(champion=False, known=True, record=record)
    manifest = Manifest.read(prepared, task_name)
    manifest.verify(prepared)
    manifest.require("test", prepared)
    method = facts.reference_method
    compared = {method: _reference(facts, baseline, manifest)} if method else {}
    patients = {case.name: case.patient for case in manifest.cases if case.split == "test"}
    record["test_sha256"] = _test_fingerprint(judging, prepared, patients)
    record["references_sha256"] = fingerprint(compared)
    cases = sorted(patients)
    if _is_known(before, record):
        yes = approval_in(entry.tags) if before["outcome"] == "held" else None
        if yes:
            by, why = yes
            with tracking_errors(uri):
                before = approve_held(client, config, name, version, entry.tags, by=by, why=why)
        before = _named(before, cases)
        write_result(out, "promote", before)
        return Promotion(champion=yes is not None, known=yes is None, record=before)

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-promote-", dir=out.parent) as predictions:
        evidence = Evidence([], patients, compared, generated={"test": manifest.generated("test")})
        record |= _judge(config, task_name, name, version, champion, evidence, manifest, prepared, Path(predictions))
    with tracking_errors(uri):
        record["decided_at"] = datetime.now(UTC).isoformat(timespec="seconds")
        if record["promoted"] and (hold or gate.hold):
            record |= {"promoted": False, "outcome": "held"}
        if record["promoted"]:
            record |= {"champion": version, "previous": champion}
            move_champion(client, name, version, expected=champion, record=record)
        else:
            note_rejection(client, name, version, record)
    record = _named(record, cases)
    write_result(out, "promote", record)
    return Promotion(champion=bool(record["promoted"]), known=False, record=record)


def rollback(config: Config, task_name: TaskName, *, leaving: str | None = None) -> Answer:
    """Makes the previous champion champion again, after making sure that it loads; done twice, it goes back once.

    Args:
        config: Names the registry.
        task_name: Which task.
        leaving: The champion to roll back from, where that is one that a roll-back made.

    Raises:
        TrackingError: MLflow cannot be reached.
        GateError: There is no previous champion, it cannot be loaded, `leaving` is not champion and was not rolled
            back, or the champion moved meanwhile.
    """
    client = connect(config)
    name = model_name(task_name)
    with tracking_errors(tracking_uri(config)), told(client, name):
        return roll_back(client, name, lambda version: _check_loads(config, name, version), leaving=leaving)


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
    if not complete(client, name, version, record):  # somebody set the alias by hand
        previous = aliased(client, name, PREVIOUS)
        reasons = [f"version {version} is champion already, but not by the gate"]
        return {
            "name": name,
            "version": version,
            "champion": version,
            "previous": previous,
            "promoted": True,
            "outcome": "promoted",
            "reasons": reasons,
        }
    return record


def _is_known(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a record tells that the gate did not promote the version in the circumstances of another record."""
    circumstances = ("promoted", "champion", "gate", "predict", "code_sha256", "test_sha256", "references_sha256")
    return "rules" in before and all(before.get(key) == now[key] for key in circumstances)


def _reference(facts: Facts, folder: Path | None, manifest: Manifest) -> list[Row] | str:
    """The reference method's scores of the test cases; a sentence where there are none."""
    method, again = facts.reference_method, f"run `condswin baseline` for {facts.name}"
    if folder is None or not (folder / METRICS).is_file():
        return f"there are no scores of {method}; {again}"
    if read_json(folder / METRICS).get("data_sha256") != manifest.fingerprint():
        return f"the scores of {method} are of other data; {again}"
    return read_rows(folder / cases_file("test"), [*facts.metrics, *facts.further])


def _named(record: dict[str, Any], cases: Sequence[str]) -> dict[str, Any]:
    """A record with the names of cases, for files here; in the registry they are places in the sorted list of names."""
    rules = [
        {**rule, "worst": [cases[place] for place in rule["worst"]]} if "worst" in rule else rule
        for rule in record.get("rules", [])
    ]
    return {**record, "rules": rules} if rules else record


def _judge(
    config: Config,
    task_name: TaskName,
    name: str,
    version: str,
    champion: str | None,
    evidence: Evidence,
    manifest: Manifest,
    prepared: Path,
    predictions: Path,
) -> dict[str, Any]:
    """Smoke test, evaluation and gate: the part of the record that they decide."""
    judging, prediction = load(Judging, task_name, config), load(Prediction, task_name, config)
    uri = f"models:/{name}/{version}"
    with _unavailable("challenger"), verified_package(uri, config) as package:
        model, spec = load_package(uri, package)
        untold = [] if refuse_trained_on(spec, manifest, prepared, "test") else ["challenger"]
        smoked = smoke(uri, package, model, spec)
    generated = {**evidence.generated, "challenger": spec.provenance.get(GENERATED, "unknown")}
    if smoked.problems:
        return {"reasons": smoked.problems, "latency_ms": smoked.latency_ms, GENERATED: generated}
    place = device(config.task(task_name).train.device)
    challenger = partial(prediction.predict, model.to(place))
    evidence = replace(
        evidence,
        rows=evaluate_split(judging, challenger, prepared, "test", predictions / "challenger"),
        figures={"latency_ms": smoked.latency_ms, **_size(model)},
    )
    if champion is not None:
        with _unavailable("champion"):
            other, other_spec = load_registered(f"models:/{name}/{champion}", config)
        reference = partial(prediction.predict, other.to(place))
        rows = evaluate_split(judging, reference, prepared, "test", predictions / "champion")
        generated["champion"] = other_spec.provenance.get(GENERATED, "unknown")
        learned = trained_on(other_spec, manifest, "test")
        untold += [] if learned.told else ["champion"]
        evidence = replace(evidence, champion=rows, left_out=frozenset(learned.cases))
    decision = decide(
        load(Facts, task_name, config),
        config.task(task_name).gate,
        replace(evidence, generated=generated, untold=untold),
    )
    return {
        "promoted": decision.outcome == "promoted",
        "outcome": decision.outcome,
        "reasons": decision.reasons,
        "rules": [ruling.record() for ruling in decision.rulings],
        "patients": decision.patients,
        "cases": len(evidence.rows),
        **evidence.figures,
        GENERATED: generated,
        "untold": untold,
        "left_out": len(evidence.left_out),
    }


def _size(model: nn.Module) -> dict[str, float]:
    weights = list(model.parameters())
    return {
        "parameters": sum(weight.numel() for weight in weights),
        "megabytes": sum(weight.numel() * weight.element_size() for weight in weights) / 1e6,
    }


@contextmanager
def _unavailable(role: str) -> Iterator[None]:
    """Says what to do about a version that cannot be loaded."""
    try:
        yield
    except ModelUnavailableError as error:
        remedy = "run register again"
        if role == "champion":
            remedy = "`condswin rollback` restores its predecessor, or delete the alias 'champion' to start without one"
        raise GateError(f"the {role} cannot be loaded, nothing was changed: {error}; {remedy}") from error


def _check_loads(config: Config, name: str, version: str) -> None:
    try:
        load_registered(f"models:/{name}/{version}", config)
    except ModelUnavailableError as error:
        raise GateError(f"cannot roll back, nothing was changed: {error}") from error


def _test_fingerprint(judging: Judging, prepared: Path, patients: Mapping[str, str]) -> str:
    """Says which test set decided; equal for equal files of the same people."""
    known = checksums(prepared)
    files = {case: known.sha256(file) for case, file in judging.case_files(prepared / "test").items()}
    known.save()
    # By a case of theirs: keys of patients are other ones under another secret.
    people = {patient: case for case, patient in sorted(patients.items(), reverse=True)}
    return fingerprint([files, {case: people[patient] for case, patient in patients.items()}])

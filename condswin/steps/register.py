"""Registers the best network of a comparison as challenger."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.errors import BadFileError
from condswin.evaluation.results import cases_file, read_rows
from condswin.files import MANIFEST, fingerprint, read_json, sha256
from condswin.manifest import GENERATED, Manifest
from condswin.networks.saving import DESCRIPTION, WEIGHTS, ModelSpec, load_model
from condswin.outputs import check_file, write_result
from condswin.progress import say
from condswin.provenance import git_state
from condswin.registry.aliases import CHALLENGER, KEY, aliased
from condswin.registry.cards import CARD as DATA_CARD
from condswin.registry.cards import keep_card
from condswin.registry.linked import send_data, send_evaluations, training_of
from condswin.registry.lock import promotion_lock
from condswin.registry.package import CARD, PACKAGE, log_package, model_name
from condswin.registry.signing import SIGNED_BY, check_key
from condswin.registry.tracking import connect, tracked_run, tracking_errors, tracking_uri
from condswin.registry.versions import finished, versions_of, whole_version
from condswin.reporting.model_card import Card, worst_pictures
from condswin.tasks.facts import Facts, Row
from condswin.tasks.loading import load
from condswin.tasks.pictures import Pictures
from condswin.tasks.serving import Serving
from condswin.versioned import recorded_md5

#: Version tag: those of the same network whose files are not what was registered.
SUPERSEDES = "condswin.supersedes"
#: What tells the run of a training.
_IDENTITY = ("params_sha256", "data_sha256", "weights_sha256")
#: Version tags that the model card shows.
_LINEAGE = (
    *("training_run", "hours", "device", "seed", "git_commit", "git_dirty", "code_sha256", "params_sha256"),
    *("data_sha256", "dvc_md5", "source_md5", "weights_sha256", "libraries", "image", "pipeline_run"),
)


@dataclass(frozen=True)
class Evidence:
    """What of a working folder tells more of a network than its comparison; folders that are not there count as none.

    Attributes:
        evaluations: One evaluation per variant.
        prepared: The prepared data.
        ingested: The ingested files.
        card: The data card.
    """

    evaluations: Path
    prepared: Path
    ingested: Path
    card: Path


def register(
    config: Config,
    task_name: TaskName,
    comparison: Path,
    model: Path,
    out: Path,
    *,
    evidence: Evidence | None = None,
    image: str = "",
    pipeline_run: str = "",
    source_md5: str = "",
) -> dict[str, Any]:
    """Registers the best network as a new version of the task's model, and points the alias `challenger` at it.

    The same weights, description, data, parameters and training code are registered once: a rerun finds the version and
    keeps it. One whose files are gone or altered does not count: the network gets a new version beside it.
    A version is created together with its tags, after its files are stored: an interrupted run leaves no half version.
    Where MLflow goes on working on a version, that is waited for.
    Where a key is given (`condswin.registry.signing`) its package is signed, and versions without such a signature do
    not count as registered.

    The runs that trained the compared networks get what `evidence` has of each; see `registry.linked`.

    Args:
        config: All parameters.
        task_name: Which task.
        comparison: JSON of the compare step: `task`, `best`, `data_sha256`, `params_sha256`, `weights_sha256`,
            `variants`.
        model: Folder of the best network.
        out: JSON to write: `name`, `version`, `run_id`, `uri`, `key`, `variant`. A rerun writes the same bytes.
        evidence: For the model card and the runs of trainings.
        image: Container image that the network was trained in, for a tag; empty outside of containers.
        pipeline_run: Identifier of the pipeline run that made the network, for a tag; empty outside of pipelines.
        source_md5: Of the ingested files in DVC's remote, for a tag; empty for what `dvc.lock` has of them.

    Returns:
        The content of `out`, `already_registered`, and `moved`: the alias pointed elsewhere.

    Raises:
        BadFileError: The comparison, the network or the signing key is missing, damaged or belongs to another task, or
            the scores are those of other weights.
        OutputError: `out` is there and not ours; nothing was registered.
        TrackingError: MLflow cannot be reached.
        GateError: Others have held the right to change the model's versions for minutes, or MLflow does not finish the
            version.
    """
    check_file(out)
    compared = _read_comparison(comparison, task_name)
    best = compared["best"]
    _, spec = load_model(model)  # proves that files and description fit together before anybody relies on them
    if (spec.task, spec.variant) != (task_name, best):
        raise BadFileError(model / DESCRIPTION, f"describes {spec.task}/{spec.variant}, expected {task_name}/{best}")
    weights = sha256(model / WEIGHTS)
    if compared["weights_sha256"] != weights:
        raise BadFileError(
            comparison, f"has the scores of other weights than {model / WEIGHTS}; evaluate and compare again"
        )
    key = _key(model, weights, compared)
    name = model_name(task_name)
    check_key()  # before any work

    client = connect(config)
    with tracking_errors(tracking_uri(config)):
        broken: list[str] = []
        known = chosen = whole_version(client, config, name, key, broken)
        if chosen is None:
            origin = {"image": image, "pipeline_run": pipeline_run, "source_md5": source_md5}
            origin |= _origin(client, compared, evidence)
            tags = _tags(compared, spec, key, weights, origin)
            card = _card(config, compared, spec, tags, evidence)
            chosen, known = _register_new(client, config, name, model, key, broken, tags, compared, card)
        if not chosen.description:  # new, or of a run that died before it wrote one
            _link(client, chosen)
            card = _card(config, compared, spec, chosen.tags, evidence)
            client.update_model_version(name, str(chosen.version), card.description())
            client.update_registered_model(name, _about(card))
        moved = aliased(client, name, CHALLENGER) != str(chosen.version)
        if moved:
            with promotion_lock(client, name) as write:
                write(client.set_registered_model_alias, name, CHALLENGER, str(chosen.version))
        if evidence:
            described = evidence.card if _is_described(compared, evidence) else None
            draw = partial(_draw, config, task_name, evidence)
            send_evaluations(client, evidence.evaluations, compared["data_sha256"], described, draw)
            if described:
                keep_card(config, chosen.run_id, described)
    result = {
        "name": name,
        "version": str(chosen.version),
        "run_id": chosen.run_id,
        "uri": f"models:/{name}/{chosen.version}",
        "key": key,
        "variant": best,
        "weights_sha256": weights,
    }
    write_result(out, "register", result)
    return {**result, "already_registered": known is not None, "moved": moved}


def _read_comparison(path: Path, task_name: TaskName) -> dict[str, Any]:
    compared = read_json(path)
    if not isinstance(compared, dict):
        raise BadFileError(path, "not a comparison; run compare again")
    for key in ("task", "best", "data_sha256", "params_sha256", "weights_sha256"):
        if not isinstance(compared.get(key), str):
            raise BadFileError(path, f"{key!r} is missing or no text; run compare again")
    if compared["task"] != task_name:
        raise BadFileError(path, f"compares networks for {compared['task']}, expected {task_name}")
    variants = compared.get("variants")
    best = variants.get(compared["best"]) if isinstance(variants, dict) else None
    if not isinstance(best, dict) or not isinstance(best.get("test"), dict):
        raise BadFileError(path, f"has no test results of its best variant {compared['best']!r}; run compare again")
    return compared


def _register_new(
    client: MlflowClient,
    config: Config,
    name: str,
    folder: Path,
    key: str,
    broken: list[str],
    tags: Mapping[str, str],
    compared: Mapping[str, Any],
    card: Card,
) -> tuple[ModelVersion, ModelVersion | None]:
    """The version to take, and the same again if another process made it meanwhile."""
    with tracked_run(
        config, f"register {compared['task']} {compared['best']}", {"condswin.step": "register"}
    ) as run_id:
        mlflow.log_metrics(_means(compared))
        source = {tag: tags[tag] for tag in ("dvc_md5", "source_md5", GENERATED) if tag in tags}
        send_data(client, run_id, compared["task"], compared["data_sha256"], source)
        beside = {CARD: card.text().encode()} | {f"pictures/{name}": png for name, png in card.pictures.items()}
        logged = log_package(folder, beside)
    # The run has ended then: whoever finds the version need not look whether this process lived on.
    signed = {SIGNED_BY: logged.signed_by} if logged.signed_by else {}
    tags = {**tags, PACKAGE: logged.sha256, **signed}
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # One version at a time: MLflow gives up where several are made at once, and of one network there shall be one.
    made: dict[str, Any] = {"model_id": logged.uri.removeprefix("models:/"), "await_creation_for": 0}
    while True:
        with promotion_lock(client, name) as write:
            found = versions_of(client, name, key, broken)
            if not found:
                made["tags"] = {**tags, **({SUPERSEDES: ", ".join(broken)} if broken else {})}
                new = write(partial(client.create_model_version, name, logged.uri, **made))
        # Both take long: not under the lock.
        if not found:
            return finished(client, new), None
        if other := whole_version(client, config, name, key, broken):
            return other, other


def _link(client: MlflowClient, version: ModelVersion) -> None:
    """Lets MLflow's page of a package name the version that was made of it, as MLflow does itself."""
    known = json.dumps([{"name": version.name, "version": version.version}])
    client.set_logged_model_tags(version.source.removeprefix("models:/"), {MLFLOW_MODEL_VERSIONS: known})


def _key(model: Path, weights: str, compared: Mapping[str, Any]) -> str:
    """Says which network this is; equal for a training that was run again with the same code, data and parameters.

    Commit, library versions and whatever else a training records are left out: they differ where the network does not.
    """
    description: dict[str, Any] = read_json(model / DESCRIPTION)
    provenance = description.pop("provenance", {})
    trained = [provenance.get("data_sha256"), provenance.get("params_sha256"), _code(provenance).get("code_sha256")]
    return fingerprint([weights, description, trained, compared["data_sha256"], compared["params_sha256"]])


def _code(provenance: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a description says of the code that trained the network; nothing in older ones."""
    code: Mapping[str, Any] = provenance.get("code", {})
    return code


def _tags(
    compared: Mapping[str, Any], spec: ModelSpec, key: str, weights: str, origin: Mapping[str, str]
) -> dict[str, str]:
    """What a version is tagged with: checksums, means and names of code, never a case or a person."""
    code, parameters = _code(spec.provenance), spec.provenance.get("parameters", {})
    return {
        KEY: key,
        "task": compared["task"],
        "variant": compared["best"],
        "data_sha256": compared["data_sha256"],
        "params_sha256": compared["params_sha256"],
        "weights_sha256": weights,
        "seed": str(parameters.get("seed", "unknown")),
        GENERATED: str(spec.provenance.get(GENERATED, "unknown")),
        **{tag: str(code.get(tag, "unknown")) for tag in ("git_commit", "git_dirty", "code_sha256")},
        **({"libraries": json.dumps(code["libraries"], sort_keys=True)} if "libraries" in code else {}),
        "registered_by_commit": git_state()["git_commit"],
        **{metric: f"{mean:.6g}" for metric, mean in _means(compared).items()},
        **{tag: value for tag, value in origin.items() if value},
    }


def _origin(client: MlflowClient, compared: Mapping[str, Any], evidence: Evidence | None) -> dict[str, str]:
    """Tags that say where a network was trained, and DVC's checksums of its data if the data is still here."""
    trained = training_of(client, **{name: compared[name] for name in _IDENTITY})
    found: dict[str, str] = {}
    if trained is not None:
        hours = "" if trained.hours is None else f"{trained.hours:.4g}"
        found |= {"training_run": trained.run_id, "device": trained.device, "hours": hours}
    manifest = _manifest(compared, evidence)
    if evidence and manifest:
        known = {"dvc_md5": recorded_md5(evidence.prepared), "source_md5": recorded_md5(evidence.ingested)}
        found |= {tag: md5 for tag, md5 in known.items() if md5}
    return found


def _manifest(compared: Mapping[str, Any], evidence: Evidence | None) -> Manifest | None:
    """The manifest of the data that was compared on, if the working folder still has it."""
    if evidence is None or not (evidence.prepared / MANIFEST).is_file():
        return None
    found = Manifest.read(evidence.prepared, compared["task"])
    return found if found.fingerprint() == compared["data_sha256"] else None


def _is_described(compared: Mapping[str, Any], evidence: Evidence) -> bool:
    """Whether the data card that lies there is of the files that the compared data was prepared from."""
    prepared = _manifest(compared, evidence)
    if prepared is None or not (evidence.card / DATA_CARD).is_file() or not (evidence.ingested / MANIFEST).is_file():
        return False
    ingested = Manifest.read(evidence.ingested, compared["task"])
    sources = {case.name: {role: file.sha256 for role, file in case.files.items()} for case in ingested.cases}
    if read_json(evidence.card / DATA_CARD).get("data_sha256") == ingested.fingerprint() and all(
        case.details.get("source_sha256") == sources.get(case.name) for case in prepared.cases
    ):
        return True
    say(f"{evidence.card / DATA_CARD}: of other data than {evidence.prepared}, not kept; run `condswin data-card`")
    return False


def _card(
    config: Config,
    compared: Mapping[str, Any],
    spec: ModelSpec,
    tags: Mapping[str, str],
    evidence: Evidence | None,
) -> Card:
    task = compared["task"]
    lineage = {tag: tags[tag] for tag in _LINEAGE if tag in tags}
    card = Card(load(Facts, task, config), load(Serving, task, config), spec, compared, lineage)
    manifest = _manifest(compared, evidence)
    if evidence is None or manifest is None:
        return card
    folder = evidence.evaluations / compared["best"]
    return replace(
        card,
        rows=_rows(card.facts, folder),
        counts={str(split): count for split, count in manifest.counts().items()},
        test_generated=manifest.generated("test"),
        pictures=_draw(config, task, evidence, folder),
    )


def _rows(facts: Facts, folder: Path) -> list[Row]:
    path = folder / cases_file("test")
    return read_rows(path, [*facts.metrics, *facts.details]) if path.is_file() else []


def _draw(config: Config, task_name: TaskName, evidence: Evidence, folder: Path) -> dict[str, bytes]:
    """Pictures of the worst test cases of an evaluation."""
    facts = load(Facts, task_name, config)
    rows, predictions = _rows(facts, folder), folder / "predictions" / "test"
    if not rows or not predictions.is_dir() or not (evidence.prepared / "test").is_dir():
        return {}
    return worst_pictures(facts, load(Pictures, task_name, config), rows, evidence.prepared / "test", predictions)


def _about(card: Card) -> str:
    """What the registered model is, for MLflow's page."""
    metric = next(iter(card.facts.metrics))
    return (
        f"Networks for {card.facts.name}, judged by {metric} first. `champion` is the one to use: "
        f"`condswin predict --model models:/{model_name(card.facts.name)}@champion`. It moves by `condswin promote` "
        f"alone; `condswin history {card.facts.name}` tells when and why."
    )


def _means(compared: Mapping[str, Any]) -> dict[str, float]:
    """Means of the best variant on the test split, `test_<metric>`; those without a value are left out."""
    means = {}
    for metric, summary in compared["variants"][compared["best"]]["test"].items():
        mean = summary.get("mean") if isinstance(summary, dict) else None
        if mean is not None and math.isfinite(mean):
            means[f"test_{metric}"] = float(mean)
    return means

"""What makes a version's history walkable in MLflow: the run that trained it, and what other steps made of it there."""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import requests  # type: ignore[import-untyped]
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import MAX_METRICS_PER_BATCH
from sqlalchemy.exc import SQLAlchemyError

from condswin.config.root import Config
from condswin.errors import BadFileError
from condswin.evaluation.results import METRICS
from condswin.files import fingerprint, read_json
from condswin.registry.tracking import TrackingError, connect, is_there, without_password

#: Run tag: what was sent of an evaluation, so that it is sent once.
SENT = "condswin.evaluation"
#: Characters that MLflow keeps of a dataset's checksum.
_DIGEST = 36
_ARTIFACTS = "evaluation"
#: What asking an MLflow that is away ends with.
_AWAY = (TrackingError, MlflowException, requests.RequestException, SQLAlchemyError, OSError)


class Trained(NamedTuple):
    """The run of a training.

    Attributes:
        run_id: Its id.
        hours: Between its start and its end, pauses included; None while it runs.
        device: Of the training, as it said.
        certain: It says that it left these weights; else it was cut off before it said which.
    """

    run_id: str
    hours: float | None
    device: str
    certain: bool


def training_of(client: MlflowClient, *, params_sha256: str, data_sha256: str, weights_sha256: str) -> Trained | None:
    """The run that trained a network; None if MLflow has none here, as where DVC fetched the network.

    Raises:
        MlflowException: MLflow cannot be asked.
    """
    run = _training_run(client, params_sha256, data_sha256, weights_sha256)
    if run is None:
        return None
    ended = run.info.end_time
    hours = None if ended is None else (ended - run.info.start_time) / 3.6e6
    tags = run.data.tags
    return Trained(str(run.info.run_id), hours, str(tags.get("device", "unknown")), "weights_sha256" in tags)


def _training_run(client: MlflowClient, params: str, data: str, weights: str) -> Run | None:
    asked = f"tags.step = 'train' and tags.params_sha256 = '{params}' and tags.data_sha256 = '{data}'"
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(experiments, asked, order_by=["attributes.start_time DESC"]) if experiments else []
    # A run that was cut off before it could say which weights it left may be the one; one that left others is not.
    exact = [run for run in found if run.data.tags.get("weights_sha256") == weights]
    silent = [run for run in found if "weights_sha256" not in run.data.tags]
    return next(iter([*exact, *silent]), None)


def send_data(client: MlflowClient, run_id: str, name: str, data_sha256: str, source: Mapping[str, Any]) -> None:
    """Makes prepared data, on which a network was evaluated, an input of a run.

    Args:
        client: Connected.
        run_id: The run.
        name: The task.
        data_sha256: Fingerprint of the prepared cases.
        source: JSON-able facts: checksums by which it is found again.
    """
    text = json.dumps({"data_sha256": data_sha256, **source}, sort_keys=True)
    dataset = Dataset(name=name, digest=data_sha256[:_DIGEST], source_type="condswin", source=text)
    given = [DatasetInput(dataset, [InputTag("mlflow.data.context", "evaluation")])]
    try:
        client.log_inputs(run_id, given)
    except MlflowException:  # also where another run makes the same data known at this moment
        client.log_inputs(run_id, given)


def send_evaluations(
    client: MlflowClient, folder: Path, data_sha256: str, card: Path | None, draw: Callable[[Path], Mapping[str, bytes]]
) -> list[str]:
    """Gives the run that says it left an evaluated network its scores, pictures and the data card, once.

    Args:
        client: Connected.
        folder: One evaluation per variant.
        data_sha256: Of the data that was compared on; evaluations of other data are left out.
        card: Folder of the data card, if there is one of this data.
        draw: Draws pictures of an evaluation, PNG by file name.

    Returns:
        The runs that got something.
    """
    told = []
    for path in sorted(folder.glob(f"*/{METRICS}")):
        try:
            result = read_json(path)
        except BadFileError:
            continue
        wanted = _identity(result)
        if not wanted or wanted["data_sha256"] != data_sha256:
            continue
        trained = training_of(client, **wanted)
        if trained is not None and trained.certain and _send(client, trained.run_id, path.parent, result, card, draw):
            told.append(trained.run_id)
    return told


def send_report(config: Config, registered: Path, page: Path) -> None:
    """Gives the run of a version the report on it; MLflow that is away misses it, and a line says so.

    Args:
        config: Names the registry.
        registered: JSON of the register step; where there is none, nothing is sent.
        page: HTML file.
    """
    if registered.is_file():
        _send_page(config, lambda client: str(read_json(registered)["run_id"]), page, "report", str(registered))


def send_page(config: Config, result: Mapping[str, Any], page: Path) -> None:
    """Gives the run that trained an evaluated network the report on its evaluation; as `send_report`.

    Args:
        config: Names the registry.
        result: What `metrics.json` of the evaluation holds; a reference method was trained by no run.
        page: HTML file.
    """
    if (identity := _identity(result)) and is_there(config):

        def run(client: MlflowClient) -> str | None:
            trained = training_of(client, **identity)
            return trained.run_id if trained is not None and trained.certain else None

        _send_page(config, run, page, _ARTIFACTS, str(result["variant"]))


def _send_page(config: Config, find: Callable[[MlflowClient], str | None], page: Path, folder: str, whose: str) -> None:
    try:
        client = connect(config)
        if run_id := find(client):
            client.log_artifact(run_id, str(page), folder)
    except _AWAY as error:
        reason = without_password((str(error).strip().splitlines() or [""])[0])
        print(f"{page.name}: not on MLflow's page of {whose} ({type(error).__name__}: {reason})", file=sys.stderr)


def training_hours(config: Config) -> Callable[[Mapping[str, Any]], float | None]:
    """Tells the hours of the training that left an evaluated network; None where MLflow does not know or is away.

    Args:
        config: Names the registry.

    Returns:
        A function of what `metrics.json` of an evaluation holds. MLflow that is away is asked once.
    """
    away = False

    def hours(result: Mapping[str, Any]) -> float | None:
        nonlocal away
        identity = _identity(result)
        if away or not identity or not is_there(config):
            return None
        try:
            trained = training_of(connect(config), **identity)
        except _AWAY:
            away = True
            return None
        return trained.hours if trained is not None and trained.certain else None

    return hours


def _identity(result: Mapping[str, Any]) -> dict[str, str]:
    """What tells the training of an evaluated network; nothing of a reference method, which has no weights."""
    found = {key: str(result.get(key) or "") for key in ("params_sha256", "data_sha256", "weights_sha256")}
    return found if all(found.values()) else {}


def _send(
    client: MlflowClient,
    run_id: str,
    folder: Path,
    result: Mapping[str, Any],
    card: Path | None,
    draw: Callable[[Path], Mapping[str, bytes]],
) -> bool:
    described = read_json(card / "card.json") if card else {}
    mark = fingerprint([result, described])
    if client.get_run(run_id).data.tags.get(SENT) == mark:
        return False
    metrics = [Metric(name, value, 0, 0) for name, value in _means(result)]
    for start in range(0, len(metrics), MAX_METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + MAX_METRICS_PER_BATCH])
    # Not the table of cases: it names files, and more people read MLflow than the files.
    client.log_artifact(run_id, str(folder / METRICS), _ARTIFACTS)
    with tempfile.TemporaryDirectory(prefix="condswin-pictures-") as temporary:
        for name, content in draw(folder).items():
            path = Path(temporary, name)
            path.write_bytes(content)
            client.log_artifact(run_id, str(path), _ARTIFACTS)
    if card and not described.get("duplicates"):  # which are names of files
        for name in ("card.html", "card.json"):
            client.log_artifact(run_id, str(card / name), "data-card")
    send_data(client, run_id, str(result["task"]), str(result["data_sha256"]), {})
    client.set_tag(run_id, SENT, mark)
    return True


def _means(result: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """`test_psnr` and the ends of its interval, `test_psnr_low` and `test_psnr_high`; of validation cases too."""
    for split in ("val", "test"):
        for metric, summary in result.get(split, {}).items():
            for value, name in (("mean", ""), ("low", "_low"), ("high", "_high")):
                if isinstance(summary, dict) and isinstance(summary.get(value), int | float):
                    yield f"{split}_{metric}{name}", float(summary[value])

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
from condswin.registry.tracking import TrackingError, connect, without_password

#: Run tag: what was sent of an evaluation, so that it is sent once.
SENT = "condswin.evaluation"
#: Characters that MLflow keeps of a dataset's checksum.
_DIGEST = 36
_ARTIFACTS = "evaluation"


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


def dataset_input(name: str, data_sha256: str, context: str, source: Mapping[str, Any]) -> DatasetInput:
    """Prepared data as an input of a run.

    Args:
        name: The task.
        data_sha256: Fingerprint of the prepared cases.
        context: `training` or `evaluation`.
        source: JSON-able facts: checksums by which it is found again.
    """
    text = json.dumps({"data_sha256": data_sha256, **source}, sort_keys=True)
    dataset = Dataset(name=name, digest=data_sha256[:_DIGEST], source_type="condswin", source=text)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])


def send_evaluations(
    client: MlflowClient, folder: Path, data_sha256: str, card: Path, draw: Callable[[Path], Mapping[str, bytes]]
) -> list[str]:
    """Gives the run that says it left an evaluated network its scores, pictures and the data card, once.

    Args:
        client: Connected.
        folder: One evaluation per variant.
        data_sha256: Of the data that was compared on; evaluations of other data are left out.
        card: Folder of the data card, which need not be there.
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
        wanted = {key: result.get(key) for key in ("params_sha256", "data_sha256", "weights_sha256")}
        if not all(wanted.values()) or wanted["data_sha256"] != data_sha256:  # a reference method has no weights
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
    if not registered.is_file():
        return
    try:
        connect(config).log_artifact(read_json(registered)["run_id"], str(page), "report")
    except (TrackingError, MlflowException, requests.RequestException, SQLAlchemyError, OSError) as error:
        reason = without_password((str(error).strip().splitlines() or [""])[0])
        print(f"{page.name}: not on MLflow's page of {registered} ({type(error).__name__}: {reason})", file=sys.stderr)


def _send(
    client: MlflowClient,
    run_id: str,
    folder: Path,
    result: Mapping[str, Any],
    card: Path,
    draw: Callable[[Path], Mapping[str, bytes]],
) -> bool:
    page, facts = card / "card.html", card / "card.json"
    described = read_json(facts) if facts.is_file() else {}
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
    if described and not described.get("duplicates"):  # which are names of files
        for path in (page, facts):
            client.log_artifact(run_id, str(path), "data-card")
    client.log_inputs(run_id, [dataset_input(str(result["task"]), str(result["data_sha256"]), "evaluation", {})])
    client.set_tag(run_id, SENT, mark)
    return True


def _means(result: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """`test_psnr` and the ends of its interval, `test_psnr_low` and `test_psnr_high`; of validation cases too."""
    for split in ("val", "test"):
        for metric, summary in result.get(split, {}).items():
            for value, name in (("mean", ""), ("low", "_low"), ("high", "_high")):
                if isinstance(summary, dict) and isinstance(summary.get(value), int | float):
                    yield f"{split}_{metric}{name}", float(summary[value])

"""The MLflow run of a training: one, however often the training is interrupted, every epoch and picture in it once.

The history of a training is part of its checkpoints, and its pictures lie beside them. So nothing has to be spooled
while MLflow is away: what the run lacks is sent when it is back, at the end, or by a later start of a training that is
done already.
"""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests  # type: ignore[import-untyped]
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import MAX_METRICS_PER_BATCH
from sqlalchemy.exc import SQLAlchemyError

from condswin.config.root import Config
from condswin.errors import BadFileError, PrunedError
from condswin.files import read_json, write_json
from condswin.registry.tracking import (
    PATIENCE,
    connect,
    environment_kept,
    experiment_id,
    tracking_errors,
    tracking_uri,
    without_password,
)
from condswin.training.history import Rows, read_history, write_history
from condswin.training.ownership import is_owned

#: In the folder of a training's checkpoints: which run is its, and whether that has everything.
RUN = "run.json"
#: There too: what is or will be sent of each epoch.
TOLD = "epochs.csv"
#: Seconds between two attempts to reach a server that did not answer.
RETRY_AFTER = 60.0
#: Tag of a run that belongs to another one, which MLflow then shows around it.
PARENT = "mlflow.parentRunId"
#: Seconds for which a training that is done waits for a server.
WAIT_AT_END = 30.0

#: Of every row, so that the run's history of it tells which epochs it has.
_ALWAYS = "train/loss"
_ERRORS = (MlflowException, requests.RequestException, SQLAlchemyError)
# A parameter of MLflow's is a line, not a text.
_LONGEST_VALUE = 500


class TrainingRun:
    """A run to log epochs to.

    Attributes:
        id: The run's.
    """

    def __init__(self, client: MlflowClient, uri: str, run_id: str, file: Path) -> None:
        self.id = run_id
        self._client, self._uri, self._file = client, uri, file
        self._sent: set[int] | None = None
        # By name, when that picture was written; of those that the run had before it is not known.
        self._pictures: dict[str, float] | None = None
        self._refused = False
        self._next_try = 0.0

    def log(self, rows: Rows) -> None:
        """Sends the epochs that the run lacks; a server that is away is asked again later, and the training goes on."""
        self._keep(rows)
        if time.monotonic() < self._next_try:
            return
        try:
            self._send(rows)
            if not self._refused:
                self._send_pictures()
        except _ERRORS as error:
            self._next_try = time.monotonic() + RETRY_AFTER
            print(
                f"MLflow at {without_password(self._uri)} does not take all of epoch {rows[-1]['epoch']:g} "
                f"({type(error).__name__}); it is kept, and sent with a later one",
                file=sys.stderr,
            )

    def finish(self, rows: Rows, tags: Mapping[str, str] | None = None) -> None:
        """Sends what the run lacks, tags it and closes it; if that cannot be done soon, says how to do it later."""
        self._keep(rows)
        give_up = time.monotonic() + WAIT_AT_END
        while True:
            try:
                self._send(rows)
                for name, value in (tags or {}).items():
                    self._client.set_tag(self.id, name, value)
                self._client.set_terminated(self.id, "FINISHED")
                complete = self._send_pictures()
            except _ERRORS as error:
                if time.monotonic() + 1 < give_up:
                    time.sleep(1)
                    continue
                print(
                    f"MLflow at {without_password(self._uri)} does not answer ({type(error).__name__}): its run "
                    f"{self.id} lacks epochs or pictures and may be open. The training is done; the same command again "
                    "trains nothing and sends them",
                    file=sys.stderr,
                )
                return
            write_json(self._file, {"run_id": self.id, "ended": complete})
            return

    def _keep(self, rows: Rows) -> None:
        file = self._file.with_name(TOLD)
        if not rows:  # the run is around others that have some
            return
        try:
            write_history(file, rows)
        except OSError as error:
            print(f"{file}: cannot be written ({error.strerror}); the training goes on", file=sys.stderr)

    def _send_pictures(self) -> bool:
        """Sends the pictures that the run lacks or has in an older form; whether it has them all then."""
        folder = self._file.parent
        files = {
            path.relative_to(folder).as_posix(): path
            for path in sorted((*folder.glob("[!.]*.png"), *folder.glob("pictures/[!.]*.png")))
        }
        if not files:
            return True
        name = ""
        try:
            if self._pictures is None:
                known = {entry.path for entry in self._client.list_artifacts(self.id, "pictures")}
                self._pictures = {name: files[name].stat().st_mtime for name in known & set(files)}
            for name, path in files.items():
                written = path.stat().st_mtime
                if self._pictures.get(name) != written:
                    self._client.log_artifact(self.id, str(path), str(Path(name).parent).strip("."))
                    self._pictures[name] = written
        except _ERRORS:
            raise
        except Exception as error:  # artifacts may lie elsewhere, with errors of a client of its own
            reason = without_password((str(error).splitlines() or [""])[0])
            print(
                f"{folder / name}: MLflow's artifact store does not take it ({type(error).__name__}: {reason}); "
                f"the training goes on, and its pictures stay in {folder}. The same command again, once the training "
                "is done, sends them",
                file=sys.stderr,
            )
            self._refused = True
            return False
        return True

    def _send(self, rows: Rows) -> None:
        if self._sent is None:
            self._sent = {metric.step for metric in self._client.get_metric_history(self.id, _ALWAYS)}
        try:
            for row in rows:
                epoch = int(row["epoch"])
                if epoch in self._sent:
                    continue
                now = int(time.time() * 1000)
                # What tells that an epoch is there comes with the last part of it.
                names = sorted(row.keys() - {"epoch"}, key=lambda name: (name == _ALWAYS, name))
                values = [Metric(name, float(row[name]), now, epoch) for name in names]
                for start in range(0, len(values), MAX_METRICS_PER_BATCH):
                    self._client.log_batch(self.id, metrics=values[start : start + MAX_METRICS_PER_BATCH])
                self._sent.add(epoch)
        except _ERRORS:
            # What was sent may have arrived although no answer came back.
            self._sent = None
            raise


@contextmanager
def training_run(
    config: Config, name: str, *, tags: Mapping[str, str], parameters: Mapping[str, Any], folder: Path
) -> Iterator[TrainingRun]:
    """The run of a training: MLFLOW_RUN_ID's if that is set, else the one that its folder names, else a new one.

    A run with the tag `PARENT` is never MLFLOW_RUN_ID's: that is the one around it. The run ends as KILLED if the block
    is told to exit or pruned, as FAILED if it raises anything else; after `finish`, as FINISHED. Runs of other
    trainings beside it whose processes were killed are closed.

    Args:
        config: Parameters.
        name: Of a new run.
        tags: To set.
        parameters: To log; nested mappings become `outer/inner`.
        folder: Of the training's checkpoints.

    Raises:
        TrackingError: MLflow cannot be reached when the training starts, or the run to adopt does not exist there.
    """
    client, uri, file = connect(config), tracking_uri(config), folder / RUN
    with tracking_errors(uri), _quick_requests():
        adopted = _adopted(client) if PARENT not in tags else None
        run_id = adopted or _known(client, file) or _created(client, config, uri, name)
        write_json(file, {"run_id": run_id, "ended": False})
        client.update_run(run_id, status="RUNNING")
        for key, value in tags.items():
            client.set_tag(run_id, key, value)
        client.log_batch(run_id, params=[Param(key, value[:_LONGEST_VALUE]) for key, value in _flat(parameters)])
        _close_killed(client, folder)
    with _quick_requests():
        try:
            yield TrainingRun(client, uri, run_id, file)
        except BaseException as error:
            with suppress(Exception):
                stopped = isinstance(error, SystemExit | KeyboardInterrupt | PrunedError)
                client.set_terminated(run_id, "KILLED" if stopped else "FAILED")
            raise


def send_rest(config: Config, folder: Path, tags: Mapping[str, str]) -> None:
    """Sends what the run of a training that is done lacks, if anything; see `TrainingRun.finish`.

    Args:
        config: Parameters.
        folder: Of the training's checkpoints.
        tags: That the run has when it has everything.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    known = _read(folder / RUN)
    if known and not known.get("ended"):
        uri = tracking_uri(config)
        with _quick_requests():
            TrainingRun(connect(config), uri, known["run_id"], folder / RUN).finish(
                read_history(folder / TOLD) if (folder / TOLD).is_file() else [], tags
            )


def _adopted(client: MlflowClient) -> str | None:
    run_id = os.environ.get("MLFLOW_RUN_ID", "").strip()
    return client.get_run(run_id).info.run_id if run_id else None


def _known(client: MlflowClient, file: Path) -> str | None:
    """The run that a training began in, if it is still there."""
    known = _read(file)
    try:
        run = client.get_run(known["run_id"]) if known else None
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None  # another server than before
    return run.info.run_id if run and run.info.lifecycle_stage == "active" else None


def _created(client: MlflowClient, config: Config, uri: str, name: str) -> str:
    return str(client.create_run(experiment_id(client, config, uri), run_name=name).info.run_id)


def _close_killed(client: MlflowClient, folder: Path) -> None:
    for file in folder.parent.glob(f"*/{RUN}"):
        known = _read(file)
        if file.parent == folder or not known or known.get("ended") or is_owned(file.parent):
            continue
        with suppress(MlflowException):  # not of this server
            client.set_terminated(known["run_id"], "KILLED")
        write_json(file, {**known, "ended": True})


def _read(file: Path) -> dict[str, Any]:
    try:
        known = read_json(file)
    except BadFileError:
        return {}
    return known if isinstance(known, dict) and isinstance(known.get("run_id"), str) else {}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", str(value)


@contextmanager
def _quick_requests() -> Iterator[None]:
    """Keeps MLflow's client from waiting minutes for a server that is gone, while a card waits for it."""
    ours = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": f"{PATIENCE:.0f}"}
    with environment_kept(*ours):
        for name, value in ours.items():
            os.environ.setdefault(name, value)
        yield

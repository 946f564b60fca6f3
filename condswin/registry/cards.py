"""Data cards of what registered networks were trained on, kept with the runs that registered them."""

import shutil
import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.files import atomic_file, read_json, sha256, write_json
from condswin.registry.package import ModelAlteredError, model_name
from condswin.registry.tracking import connect, tracking_errors, tracking_uri

CARD = "card.json"
#: Run tag: SHA-256 of the card, which lies in the artifact store while the tag lies in the database.
CARD_SHA256 = "condswin.card_sha256"
_FOLDER = "data-card"


def keep_card(config: Config, run_id: str, card: Path) -> None:
    """Keeps a data card with a run, unless it has one or is gone; without its duplicates, which name cases.

    Args:
        config: Names the tracking server.
        run_id: The run that registered a version.
        card: Folder with `card.json`.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    client = connect(config)
    with tracking_errors(tracking_uri(config)):
        run = _run(client, run_id)
        if run is None or (CARD_SHA256 in run.data.tags and client.list_artifacts(run_id, _FOLDER)):
            return
        with tempfile.TemporaryDirectory(prefix="condswin-card-") as temporary:
            told = Path(temporary) / CARD
            write_json(told, {**read_json(card / CARD), "duplicates": []})
            client.set_tag(run_id, CARD_SHA256, sha256(told))
            client.log_artifact(run_id, str(told), _FOLDER)


def fetch_card(config: Config, task: TaskName, version: str, folder: Path) -> bool:
    """Puts the `card.json` of a version's training data into a folder.

    Args:
        config: Names the tracking server.
        task: Which task.
        version: Of the task's registered model.
        folder: Where to; made if it is not there.

    Returns:
        Whether the version has one.

    Raises:
        TrackingError: MLflow cannot be reached.
        ModelAlteredError: The card is not the one that was kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    client, name = connect(config), model_name(task)
    with tracking_errors(tracking_uri(config)), tempfile.TemporaryDirectory(prefix="condswin-card-") as temporary:
        run_id = client.get_model_version(name, version).run_id
        run = _run(client, run_id) if run_id else None
        if run is None or not client.list_artifacts(run_id, _FOLDER):
            return False
        fetched = Path(client.download_artifacts(run_id, f"{_FOLDER}/{CARD}", temporary))
        if sha256(fetched) != run.data.tags.get(CARD_SHA256):
            raise ModelAlteredError(
                f"models:/{name}/{version}: its {CARD} is not the one that was kept when it was registered (tag "
                f"{CARD_SHA256} of run {run_id}); delete the artifact {_FOLDER} of that run and register again"
            )
        with atomic_file(folder / CARD) as partial:
            shutil.copyfile(fetched, partial)
    return True


def _run(client: MlflowClient, run_id: str) -> Run | None:
    """A run; None where `mlflow gc` removed it, which a version outlives."""
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None

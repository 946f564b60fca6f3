"""Data cards of what registered networks were trained on, kept with the runs that registered them."""

from pathlib import Path

from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.registry.package import model_name
from condswin.registry.tracking import connect, tracking_errors, tracking_uri

CARD = "card.json"
_FOLDER = "data-card"


def keep_card(config: Config, run_id: str, card: Path) -> None:
    """Keeps a data card with a run, unless it has one.

    Args:
        config: Names the tracking server.
        run_id: The run that registered a version.
        card: Folder with `card.json`.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    client = connect(config)
    with tracking_errors(tracking_uri(config)):
        if not client.list_artifacts(run_id, _FOLDER):
            client.log_artifact(run_id, str(card / CARD), _FOLDER)


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
    """
    folder.mkdir(parents=True, exist_ok=True)
    client = connect(config)
    with tracking_errors(tracking_uri(config)):
        run_id = client.get_model_version(model_name(task), version).run_id
        if not run_id or not client.list_artifacts(run_id, _FOLDER):
            return False
        fetched = Path(client.download_artifacts(run_id, f"{_FOLDER}/{CARD}", str(folder)))
    fetched.replace(folder / CARD)
    if fetched.parent != folder:
        fetched.parent.rmdir()
    return True

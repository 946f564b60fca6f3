"""Where the steps keep their files below a working folder, unless told otherwise; `dvc.yaml` names the same places."""

from collections.abc import Sequence
from pathlib import Path

from condswin.config.names import TaskName
from condswin.errors import BadDataError

#: Losses and scores by epoch, in a model's folder.
HISTORY = "history.csv"


def demo(task: TaskName) -> Path:
    """Generated raw files."""
    return Path("data/demo", task)


def ingested(task: TaskName) -> Path:
    """Checked and split raw files."""
    return Path("data/ingested", task)


def prepared(task: TaskName) -> Path:
    """Undersampled k-space or windowed slices."""
    return Path("data/prepared", task)


def model(task: TaskName, variant: str) -> Path:
    """A trained network."""
    return Path("models", task, variant)


def checkpoints(task: TaskName, variant: str) -> Path:
    """What an interrupted training goes on from."""
    return Path("checkpoints", task, variant)


def pretrained(task: TaskName, variant: str) -> Path:
    """A network trained without labels."""
    return Path("pretrained", task, variant)


def pretraining(task: TaskName, variant: str) -> Path:
    """What an interrupted training without labels goes on from."""
    return Path("checkpoints/pretrained", task, variant)


def search(task: TaskName, variant: str) -> Path:
    """Trials of a search, and the networks that they trained."""
    return Path("tune", task, variant)


def evaluations(task: TaskName) -> Path:
    """Those of all variants."""
    return Path("evaluation", task)


def evaluation(task: TaskName, variant: str) -> Path:
    """Predictions, scores and pictures of one variant."""
    return evaluations(task) / variant


def comparison(task: TaskName) -> Path:
    """Variants beside each other."""
    return Path("comparison", f"{task}.json")


def compared(tasks: Sequence[TaskName]) -> list[TaskName]:
    """Those of the tasks whose variants were compared here.

    Raises:
        BadDataError: There is none.
    """
    found = [task for task in tasks if comparison(task).is_file()]
    if not found:
        raise BadDataError(f"{comparison(tasks[0]).parent}: no comparison yet; run `make repro`")
    return found


def registered(task: TaskName) -> Path:
    """Which registry version the best variant became."""
    return Path("promotion", task, "registered.json")


def promoted(task: TaskName) -> Path:
    """The gate's decision on it."""
    return Path("promotion", task, "promoted.json")


def report() -> Path:
    """The HTML report."""
    return Path("report", "report.html")


def page(task: TaskName, variant: str) -> Path:
    """The HTML report of one evaluation."""
    return report().with_name(f"{task}-{variant}.html")


def card(task: TaskName) -> Path:
    """The data card of the ingested files."""
    return Path("report", f"card-{task}")

"""Predicts the cases of one split and scores the files."""

from pathlib import Path

from torch import nn

from condswin.config import Split
from condswin.progress import track
from condswin.tasks import Row, Task


def evaluate_split(task: Task, model: nn.Module, prepared: Path, split: Split, out: Path) -> list[Row]:
    """Writes a prediction per case of `prepared/<split>` to `out` and scores them from the files.

    Args:
        task: The task that the model was trained for.
        model: In evaluation mode, on the device that shall do the work.
        prepared: Folder with one folder per split.
        split: Which of them.
        out: Folder for the predictions; files of other cases in it are removed.

    Returns:
        One row per case.
    """
    targets = prepared / split
    cases = task.case_files(targets)
    out.mkdir(parents=True, exist_ok=True)
    wanted = {task.prediction_name(case) for case in cases}
    for stale in out.iterdir():
        if stale.name not in wanted:
            stale.unlink()
    for case, file in track(cases.items(), f"predict {split}", total=len(cases)):
        task.predict(model, file, out / task.prediction_name(case))
    return task.score(targets, out)

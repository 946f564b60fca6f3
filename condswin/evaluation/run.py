"""Predicts the cases of one split and scores the files."""

from collections.abc import Callable
from pathlib import Path

from condswin.config.names import Split
from condswin.progress import track
from condswin.tasks.facts import Row
from condswin.tasks.judging import Judging

#: Writes the prediction (second path) for a prepared case file (first path), atomically.
Predictor = Callable[[Path, Path], None]


def evaluate_split(judging: Judging, predictor: Predictor, prepared: Path, split: Split, out: Path) -> list[Row]:
    """Writes a prediction per case of `prepared/<split>` to `out` and scores them from the files.

    Args:
        judging: The task's.
        predictor: A network, or a reference method.
        prepared: Folder with one folder per split.
        split: Which of them.
        out: Folder for the predictions, and nothing else.

    Returns:
        One row per case.
    """
    targets = prepared / split
    cases = judging.case_files(targets)
    for case, file in track(cases.items(), f"predict {split}", total=len(cases)):
        predictor(file, out / judging.prediction_name(case))
    return judging.score(targets, out)

"""Step: score any folder of predictions, whoever made them. Loads neither networks nor what trains them."""

from pathlib import Path
from typing import Any

from condswin.config import Config, TaskName
from condswin.errors import BadDataError
from condswin.evaluation.results import METRICS, draw_pictures, summaries, write_rows
from condswin.files import write_json
from condswin.tasks.facts import Facts
from condswin.tasks.judging import Judging
from condswin.tasks.loading import load
from condswin.tasks.pictures import Pictures


def score_folders(
    config: Config, task_name: TaskName, *, targets: Path, predictions: Path, out: Path | None
) -> dict[str, Any]:
    """Scores any folder of predictions against a folder of targets, whoever made them.

    Args:
        config: Parameters.
        task_name: Which task.
        targets: fastMRI HDF5 files with targets, or NIfTI segmentations.
        predictions: Files of the same names.
        out: Folder for `cases.csv`, `metrics.json` and `pictures/`; None to write nothing.
    """
    for folder in (targets, predictions):
        if not folder.is_dir():
            raise BadDataError(f"{folder}: no such folder")
    facts = load(Facts, task_name, config)
    rows = load(Judging, task_name, config).score(targets, predictions)
    result = summaries(facts, rows)
    if out is not None:
        write_rows(out / "cases.csv", rows)
        pictures = load(Pictures, task_name, config)
        draw_pictures(facts, pictures, rows, targets, predictions, out / "pictures")
        write_json(out / METRICS, result)
    return result

"""Step: score any folder of predictions, whoever made them. Loads neither networks nor what trains them."""

from collections import Counter
from pathlib import Path
from typing import Any

from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.errors import BadDataError
from condswin.evaluation.results import METRICS, PICTURES, draw_pictures, summaries, write_rows
from condswin.files import write_json
from condswin.outputs import open_output
from condswin.progress import say
from condswin.tasks.facts import Facts
from condswin.tasks.judging import Judging
from condswin.tasks.loading import load
from condswin.tasks.pictures import Pictures

#: Table of the cases.
CASES = "cases.csv"


def score_folders(
    config: Config,
    task_name: TaskName,
    *,
    targets: Path,
    predictions: Path,
    out: Path | None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Scores any folder of predictions against a folder of targets, whoever made them.

    Args:
        config: Parameters.
        task_name: Which task.
        targets: fastMRI HDF5 files with targets, or NIfTI segmentations.
        predictions: Files of the same names.
        out: Folder for `cases.csv`, `metrics.json` and `pictures/`; None to write nothing.
        overwrite: Write into a folder that holds other files too.

    Raises:
        OutputError: Writing to `out` would hurt something.
    """
    for folder in (targets, predictions):
        if not folder.is_dir():
            raise BadDataError(f"{folder}: no such folder")
    if out is not None:
        output = open_output(out, step="score", inputs=[targets, predictions], overwrite=overwrite)
    facts = load(Facts, task_name, config)
    rows = load(Judging, task_name, config).score(targets, predictions)
    assumed = Counter(what for row in rows for what in str(row.get("assumed", "")).split("; ") if what)
    for what, count in assumed.most_common():
        say(f"assumed for {count} of {len(rows)} cases: {what}")
    result = summaries(facts, rows)
    if out is not None:
        output.claim([CASES, METRICS, *(f"pictures/{name}.png" for name in PICTURES)])
        write_rows(out / CASES, rows)
        pictures = load(Pictures, task_name, config)
        drawn = draw_pictures(facts, pictures, rows, targets, predictions, out / "pictures")
        write_json(out / METRICS, result)
        output.finish([CASES, METRICS, *(str(path.relative_to(out)) for path in drawn)])
    return result

"""Step: reconstruct the validation and test cases by compressed sensing, the rival that a network has to beat."""

from pathlib import Path
from typing import Any

import h5py

from condswin.config import Config, Split
from condswin.datasets import Manifest
from condswin.files import atomic_file, write_json
from condswin.mri.compressed_sensing import reconstruct_volume, tune
from condswin.mri.scoring import PREDICTION
from condswin.progress import track
from condswin.steps.evaluate import METRICS, draw_pictures, summaries, write_rows
from condswin.steps.prepare import require_split
from condswin.tasks import get_task

#: Its name beside the variants.
NAME = "compressed-sensing"

#: Validation volumes that choose the weight.
TUNING_VOLUMES = 12


def baseline(config: Config, *, prepared: Path, out: Path) -> dict[str, Any]:
    """Tunes total-variation reconstruction on validation cases and scores it as a trained variant is scored.

    Args:
        config: Parameters.
        prepared: Output of the undersample step.
        out: Folder for `predictions/<split>/`, `<split>-cases.csv`, `pictures/` and `metrics.json`.

    Returns:
        What `metrics.json` holds: as of the evaluate step, with `weights`, the validation PSNR by weight, and `weight`.

    Raises:
        BadDataError: There is no validation case to tune on, or no test case.
    """
    task = get_task("reconstruction", config)
    manifest = Manifest.read(prepared, "reconstruction")
    manifest.verify(prepared)
    splits: tuple[Split, ...] = ("val", "test")
    for split in splits:
        require_split(prepared, task, split)
    cases = list(task.case_files(prepared / "val").values())
    # Evenly over the names, which follow the scans: not the first dozen of one kind.
    scores = tune(cases[:: -(-len(cases) // TUNING_VOLUMES)])
    weight = max(scores, key=lambda value: scores[value])
    result: dict[str, Any] = {
        "task": "reconstruction",
        "variant": NAME,
        "data_sha256": manifest.fingerprint(),
        "params_sha256": "",
        "weight": weight,
        "weights": {str(value): score for value, score in scores.items()},
    }
    for split in splits:
        folder = out / "predictions" / split
        files = task.case_files(prepared / split)
        for case, file in track(files.items(), f"{NAME} {split}", total=len(files)):
            write_prediction(file, folder / task.prediction_name(case), weight)
        rows = task.score(prepared / split, folder)
        write_rows(out / f"{split}-cases.csv", rows)
        result[split] = summaries(task, rows)
        if split == "test":
            draw_pictures(task, rows, prepared / split, folder, out / "pictures")
    write_json(out / METRICS, result)
    return result


def write_prediction(file: Path, out: Path, weight: float) -> None:
    """Writes a prepared file's reconstruction as predictions are written, atomically."""
    images = reconstruct_volume(file, weight)
    with atomic_file(out) as temporary, h5py.File(temporary, "w") as written:
        written[PREDICTION] = images

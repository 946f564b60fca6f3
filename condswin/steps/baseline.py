"""Step: reconstruct the validation and test cases by compressed sensing, the rival that a network has to beat."""

from functools import partial
from pathlib import Path
from typing import Any

from condswin.config import Config, Split
from condswin.datasets import Manifest
from condswin.evaluation.results import METRICS, cases_file, draw_pictures, summaries, write_rows
from condswin.evaluation.run import evaluate_split
from condswin.files import write_json
from condswin.layout import COMPRESSED_SENSING
from condswin.mri.compressed_sensing import tune, write_reconstruction
from condswin.tasks.facts import Facts
from condswin.tasks.judging import Judging
from condswin.tasks.loading import load
from condswin.tasks.pictures import Pictures

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
    facts, judging = load(Facts, "reconstruction", config), load(Judging, "reconstruction", config)
    pictures = load(Pictures, "reconstruction", config)
    manifest = Manifest.read(prepared, "reconstruction")
    manifest.verify(prepared)
    splits: tuple[Split, ...] = ("val", "test")
    for split in splits:
        manifest.require(split, prepared)
    cases = list(judging.case_files(prepared / "val").values())
    # Evenly over the names, which follow the scans: not the first dozen of one kind.
    scores = tune(cases[:: -(-len(cases) // TUNING_VOLUMES)])
    weight = max(scores, key=lambda value: scores[value])
    result: dict[str, Any] = {
        "task": "reconstruction",
        "variant": COMPRESSED_SENSING,
        "data_sha256": manifest.fingerprint(),
        "params_sha256": "",
        "weight": weight,
        "weights": {str(value): score for value, score in scores.items()},
    }
    for split in splits:
        predictions = out / "predictions" / split
        rows = evaluate_split(judging, partial(write_reconstruction, weight=weight), prepared, split, predictions)
        write_rows(out / cases_file(split), rows)
        result[split] = summaries(facts, rows)
        if split == "test":
            draw_pictures(facts, pictures, rows, prepared / split, predictions, out / "pictures")
    write_json(out / METRICS, result)
    return result

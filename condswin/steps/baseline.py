"""Step: reconstruct the validation and test cases by compressed sensing, the reference method to beat."""

from functools import partial
from pathlib import Path
from typing import Any

from condswin.config.root import Config
from condswin.evaluation.folder import known_evaluation, write_evaluation
from condswin.layout import COMPRESSED_SENSING
from condswin.manifest import Manifest
from condswin.mri.compressed_sensing import tune, write_reconstruction
from condswin.outputs import open_output
from condswin.tasks.judging import Judging
from condswin.tasks.loading import load
from condswin.validity import make_key

#: Validation volumes that choose the weight.
TUNING_VOLUMES = 12


def baseline(config: Config, *, prepared: Path, out: Path, overwrite: bool = False) -> dict[str, Any]:
    """Tunes total-variation reconstruction on validation cases and scores it as a trained variant is scored.

    Args:
        config: Parameters.
        prepared: Output of the undersample step.
        out: Folder for `predictions/<split>/`, `<split>-cases.csv`, `pictures/` and `metrics.json`. A whole evaluation
            of the same data and code is kept.
        overwrite: Write into a folder that holds other files too.

    Returns:
        What `metrics.json` holds: as of the evaluate step, with `weights`, the validation PSNR by weight, and `weight`.

    Raises:
        BadDataError: There is no validation case to tune on, or no test case.
        OutputError: Writing to `out` would hurt something.
    """
    manifest = Manifest.read(prepared, "reconstruction")
    manifest.verify(prepared)
    manifest.require("val", prepared)
    key = make_key("baseline", "reconstruction", parameters={}, inputs={"data": manifest.fingerprint()})
    output = open_output(out, step="baseline", inputs=[prepared], overwrite=overwrite)
    if (known := known_evaluation(output, key)) is not None:
        return known
    cases = list(load(Judging, "reconstruction", config).case_files(prepared / "val").values())
    # Evenly over the names, which follow the scans: not the first dozen of one kind.
    scores = tune(cases[:: -(-len(cases) // TUNING_VOLUMES)])
    weight = max(scores, key=lambda value: scores[value])
    return write_evaluation(
        config,
        manifest,
        partial(write_reconstruction, weight=weight),
        prepared=prepared,
        output=output,
        key=key,
        variant=COMPRESSED_SENSING,
        params_sha256="",
        weight=weight,
        weights={str(value): score for value, score in scores.items()},
    )

"""CT volumes of kinds that the demo data never draws, to see what a network makes of what it did not train on.

`python -m tests.ct.stress FOLDER` writes them in LiTS's format, two of each kind, the same ones every time. Then:

    condswin predict FOLDER --force --model MODEL --out PREDICTIONS
    condswin evaluate segmentation --targets FOLDER --predictions PREDICTIONS --out SCORES

and `python -m tests.ct.stress FOLDER SCORES` prints the scores by kind. For the reference method beside it,
`python -m tests.ct.stress FOLDER BAND DEPTH PREDICTIONS` segments any folder's volumes by it.
"""

import csv
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np

from condswin.ct.active_contour import write_segmentation
from condswin.ct.config import PrepareCtConfig
from condswin.ct.demo.phantom import Abdomen
from condswin.ct.nifti import read_image
from condswin.ct.prepare import write_inputs

SEED = 77
#: Of each kind.
CASES = 2


class Kind:
    """How volumes of a kind differ: voxels (slices, pixels, mm between slices, mm of a pixel), and what else."""

    def __init__(
        self, slices: int, size: int, thickness: float, pixel: float, change: Callable[[Abdomen], None] = lambda _: None
    ) -> None:
        self.shape = (slices, size, size)
        self.spacing = (thickness, pixel, pixel)
        self.change = change


def _shift(millimetres: float) -> Callable[[Abdomen], None]:
    def change(abdomen: Abdomen) -> None:
        abdomen.z = abdomen.z + np.float32(millimetres)

    return change


def _tint(**hu: float) -> Callable[[Abdomen], None]:
    def change(abdomen: Abdomen) -> None:
        abdomen.tints = replace(abdomen.tints, **hu)

    return change


KINDS = {
    # From the shoulders to the thighs; the demo's reach 430 mm at most.
    "whole torso": Kind(44, 160, 15.0, 3.1),
    # A chest with the liver's dome, and a pelvis with its tip.
    "chest": Kind(24, 128, 8.0, 3.0, _shift(120)),
    "pelvis": Kind(24, 128, 8.0, 3.0, _shift(-120)),
    # 512 pixels, as scanners give them.
    "fine pixels": Kind(10, 512, 15.0, 0.7),
    "thick slices": Kind(7, 128, 24.0, 3.0),
    # Fat and iron, beyond the demo's 30 to 170 HU; the spleen as usual.
    "fatty liver": Kind(24, 128, 7.0, 3.0, _tint(liver=10, vessels=40, spleen=55)),
    "iron": Kind(24, 128, 7.0, 3.0, _tint(liver=190, vessels=-60, spleen=60)),
    # Contrast agent in the arteries that the demo has less of.
    "early arterial": Kind(24, 128, 7.0, 3.0, _tint(artery=600, cortex=330, spleen=180, liver=60, vessels=40)),
}


def write(folder: Path) -> None:
    """Writes `volume-N.nii.gz` and `segmentation-N.nii.gz`, `CASES` for each kind in order."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(len(KINDS) * CASES):
        kind = list(KINDS.values())[number // CASES]
        abdomen = Abdomen(np.random.default_rng([SEED, number]), kind.shape, kind.spacing, tumours=2 * (number % CASES))
        kind.change(abdomen)
        affine = np.diag([-kind.spacing[2], -kind.spacing[1], kind.spacing[0], 1.0])
        for name, array in zip(("volume", "segmentation"), abdomen.draw(), strict=True):
            nib.save(nib.Nifti1Image(array.transpose(2, 1, 0), affine), folder / f"{name}-{number}.nii.gz")


def table(scores: Path) -> str:
    """Markdown of an evaluation's table of cases, a row for each kind."""
    with (scores / "cases.csv").open() as file:
        rows = {int(row["case"].rpartition("-")[2]): row for row in csv.DictReader(file)}
    lines = ["| kind | liver Dice | tumour Dice | false lesions |", "|---|---:|---:|---:|"]
    for index, name in enumerate(KINDS):
        cases = [rows[index * CASES + case] for case in range(CASES)]
        cells = [
            " / ".join(format(float(case[column]), shown) for case in cases)
            for column, shown in (("liver_dice", ".3f"), ("tumour_dice", ".3f"), ("lesions_false", ".0f"))
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    values = {column: [float(row[column]) for row in rows.values()] for column in ("liver_dice", "lesions_false")}
    means = {column: float(np.mean(numbers)) for column, numbers in values.items()}
    tumours = float(np.nanmean([float(row["tumour_dice"]) for row in rows.values()]))
    return "\n".join([*lines, f"| mean | {means['liver_dice']:.3f} | {tumours:.3f} | {means['lesions_false']:.1f} |"])


def segment(folder: Path, band: float, depth: float, out: Path) -> None:
    """Writes `segmentation-N.nii.gz` by the reference method for every volume of a folder."""
    with TemporaryDirectory() as scratch:
        for volume in sorted(folder.glob("volume-*.nii.gz")):
            prepared = Path(scratch, f"{volume.name}.h5")
            write_inputs(read_image(volume), None, prepared, PrepareCtConfig())
            write_segmentation(prepared, out / volume.name.replace("volume", "segmentation"), band, depth)


if __name__ == "__main__":
    match sys.argv[1:]:
        case [folder_]:
            write(Path(folder_))
        case [_, scores_]:
            print(table(Path(scores_)))
        case [folder_, band_, depth_, out_]:
            segment(Path(folder_), float(band_), float(depth_), Path(out_))

"""Generated abdominal CT in LiTS's format, which nothing downstream can tell from scans."""

from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from condswin.ct.config import DemoCtConfig
from condswin.ct.demo.phantom import Abdomen
from condswin.files import atomic_file
from condswin.tasks.generation import Advance

_FREE_EVERY = 4  # one case in four has no tumour
_TORSO = 0.3  # share of the cases that reach from chest to hips, or half as far
_SLICE_MM = (1.0, 16.0)


def write_demo(folder: Path, settings: DemoCtConfig, seed: int, advance: Advance) -> None:
    """Writes all cases of the settings, in parallel; equal settings and seeds give equal bytes.

    Args:
        folder: Where a user's own source would be.
        settings: Number of cases, slices and the size of the images.
        seed: Of everything.
        advance: Called after each case.
    """
    with ThreadPoolExecutor(cpu_count()) as pool:
        cases = range(settings.cases)
        for _ in pool.map(lambda case: write_demo_case(folder, case, seed=seed, config=settings), cases):
            advance()


def write_demo_case(folder: Path, case: int, *, seed: int, config: DemoCtConfig) -> tuple[Path, Path]:
    """Writes `volume-<case>.nii.gz` (int16, HU through slope and intercept) and `segmentation-<case>.nii.gz` (uint8).

    Files depend on nothing but `seed`, `case` and the sizes in `config`. Spacing, order and direction of the axes,
    obliquity, header codes and stored offset vary as between scanners.

    Returns:
        The two files.
    """
    rng = np.random.default_rng([seed, case])
    slices = max(1, round(config.slices * rng.uniform(0.75, 1.25)))
    pixel = rng.uniform(320, 480) / config.size
    height = rng.uniform(200, 430) if rng.random() < _TORSO else rng.uniform(130, 175)
    thickness = float(np.clip(height / slices, *_SLICE_MM))
    tumours = 0 if (case + seed) % _FREE_EVERY == 0 else int(min(8, 1 + rng.poisson(1.8)))
    shape, spacing = (slices, config.size, config.size), (thickness, pixel, pixel)
    hu, labels = Abdomen(rng, shape, spacing, tumours).draw()

    turned, affine = _position(rng, shape, spacing)
    codes = [(1, 1), (2, 0), (0, 1)][rng.integers(3)]
    offset = int(rng.choice([0, -1024]))
    unit = rng.choice(["mm", "unknown"])  # LiTS itself leaves it out
    paths = []
    # nibabel stores integers as they are, so the intercept is taken off here.
    for name, array in (("volume", hu - np.int16(offset)), ("segmentation", labels)):
        image = nib.Nifti1Image(np.flip(array.transpose(2, 1, 0), turned), affine)
        image.set_sform(affine, codes[0])
        image.set_qform(affine, codes[1])
        image.header.set_xyzt_units(unit)
        if name == "volume":
            image.header.set_slope_inter(1, offset)
        path = folder / f"{name}-{case}.nii.gz"
        with atomic_file(path) as temporary:
            nib.save(image, temporary)
        paths.append(path)
    return paths[0], paths[1]


def _position(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Axes of (columns, rows, slices) to turn round, and the affine of the result."""
    turned = tuple(axis for axis in range(3) if rng.random() < 0.4)
    # Columns run to the patient's left and rows to the back, against nibabel's right and front.
    directions = np.array([-1.0, -1.0, 1.0])
    directions[list(turned)] *= -1
    tilt = np.eye(3)
    if rng.random() < 0.25:  # a tilted gantry or couch
        angle, axis = np.deg2rad(rng.uniform(3, 12)), rng.integers(3)
        one, two = np.delete(np.arange(3), axis)
        tilt[one, one] = tilt[two, two] = np.cos(angle)
        tilt[one, two], tilt[two, one] = -np.sin(angle), np.sin(angle)
    affine = np.eye(4)
    affine[:3, :3] = tilt @ np.diag(directions * np.array(spacing[::-1]))
    affine[:3, 3] = rng.uniform(-200, 200, 3) - affine[:3, :3] @ (np.array(shape[::-1]) / 2)
    return turned, affine

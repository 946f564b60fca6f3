"""A CT volume and its segmentation, and whether the labels lie on what they name."""

from itertools import permutations, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from condswin.ct.config import CtIngestConfig
from condswin.ct.nifti import Volume, read_image, read_labels
from condswin.errors import BadFileError

#: What a liver's median can be, HU. Unenhanced 55 to 65, portal venous about 110; 65, 23 and -3 HU are 0.5, 25 and 40 %
#: of fat (Starekova et al., Radiology 2021;301:250, figure 2), so that -75 is more than the fattest; above 150 lie
#: deposits of iron, iodine (amiodarone) and thorium, enhanced. Subcutaneous fat is at -100, lung at -800.
LIVER_HU = (-75.0, 300.0)
#: No tissue is below: air, lung and bowel gas.
_AIR = -300
#: The share of labelled voxels that may be air: the rim at the lung, gas after embolisation or ablation.
_AIR_SHARE = 0.25
_SCALE = (-1024, 1024)  # HU that are told apart
_CHUNK = 1 << 22


class Tissue(NamedTuple):
    """What lies under a label: median and spread (between the quartiles) in HU, and the share that is air."""

    median: float
    spread: float
    air: float

    @property
    def liver(self) -> bool:
        """Whether it can be one."""
        return LIVER_HU[0] <= self.median <= LIVER_HU[1] and self.air <= _AIR_SHARE


def read_pair(
    image_path: Path,
    label_path: Path,
    rules: CtIngestConfig = CtIngestConfig(),  # noqa: B008 (frozen)
) -> tuple[Volume, Volume]:
    """Reads a CT volume and its segmentation, and checks that they belong together.

    Args:
        image_path: The CT.
        label_path: Its labels.
        rules: What to do where headers leave something open, or differ.

    Returns:
        Image and labels, on one grid.

    Raises:
        BadFileError: Either is unusable, they lie elsewhere, no voxel is liver or tumour, or labels lie on no liver.
    """
    image = read_image(image_path, rules)
    labels = read_labels(label_path, like=(image.geometry, f"its image {image_path.name}"), rules=rules)
    if not labels.data.any():
        raise BadFileError(label_path, "all voxels are background; a labelled abdomen shows liver")
    found = tissue(image.data, labels.data)
    if not found.liver:
        low, high = LIVER_HU
        raise BadFileError(
            label_path,
            f"its labels lie on {found.median:g} HU (median; livers have {low:g} to {high:g}), {found.air:.0%} of them "
            f"on air, in {image_path.name}: {_remedy(image, labels)}",
        )
    return image, labels


def tissue(hu: NDArray[np.float32], labels: NDArray[np.uint8]) -> Tissue:
    """What lies under the labels that are not 0.

    Args:
        hu: CT in HU.
        labels: Of the same shape, with at least one that is not 0.
    """
    low, high = _SCALE
    counts = np.zeros(high - low + 1, np.int64)
    axis = int(np.argmax(hu.shape))
    step = max(1, _CHUNK * hu.shape[axis] // hu.size)
    for start in range(0, hu.shape[axis], step):  # bounds the memory
        part = (*(slice(None),) * axis, slice(start, start + step))
        values = np.rint(hu[part][labels[part] > 0]).clip(low, high).astype(np.int64)
        counts += np.bincount(values - low, minlength=len(counts))
    ranks = np.cumsum(counts)
    quarter, half, rest = (low + int(np.searchsorted(ranks, share * ranks[-1])) for share in (0.25, 0.5, 0.75))
    return Tissue(half, rest - quarter, float(ranks[_AIR - low - 1] / ranks[-1]))


def _remedy(image: Volume, labels: Volume) -> str:
    """Names the swap and turns of axes that would put labels on the most even tissue that can be liver."""
    shape = image.data.shape
    names = [f"{axis + 1} ({direction})" for axis, direction in enumerate(image.geometry.directions)]
    found: list[tuple[int, float, str]] = []
    for order, flips in product(permutations(range(3)), product((False, True), repeat=3)):
        swapped = [axis for axis in range(3) if order[axis] != axis]
        turned = [axis for axis in range(3) if flips[axis]]
        if tuple(shape[axis] for axis in order) != shape or len(swapped) > 2 or not swapped + turned:
            continue
        moved: NDArray[Any] = np.flip(labels.data.transpose(order), tuple(turned))
        if (under := tissue(image.data, moved)).liver:
            words = [f"axes {' and '.join(names[axis] for axis in swapped)} swapped"] if swapped else []
            words += [f"axis {names[axis]} reversed" for axis in turned]
            found.append((len(words), under.spread, f"{' and '.join(words)} (median {under.median:g} HU)"))
    if not found:
        return "shifted, or of another image"
    return f"with {min(found)[2]} they would lie on soft tissue; one of the two is flipped"

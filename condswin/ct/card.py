"""The data card of CT: how ingested volumes were scanned, and what is in them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import matplotlib.figure
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from condswin.ct.config import SegmentationConfig
from condswin.ct.guard import letters
from condswin.ct.nifti import Volume
from condswin.ct.pairs import read_pair, tissue
from condswin.manifest import CaseRecord
from condswin.plain import label
from condswin.reporting.figures import grid
from condswin.tasks.card import DataCard, Described

#: Slices of a volume that its body is looked for in.
SLICES = 24

# HU that are air below, and that are soft tissue between.
_AIR, _SOFT = -300.0, (-50.0, 200.0)
# From the median of absolute differences of neighbours to the standard deviation of one, if both are normal.
_MEDIAN_TO_DEVIATION = 1 / (0.6745 * np.sqrt(2))
_WHOLE = np.ones((3, 3, 3), int)
# What pictures show, HU.
_WINDOW = (-160, 240)


class SegmentationCard(DataCard):
    """By the geometry, HU inside of the body, and labels of each volume."""

    statistics: ClassVar[Mapping[str, str]] = {
        "pixel": "pixel size, mm",
        "slice": "slice spacing, mm",
        "slices": "slices",
        "width": "field of view, mm",
        "height": "height, mm",
        "edge": "image's edge that is body",
        "body": "pixels that are body",
        "hu_low": "HU in the body, 5th percentile",
        "hu_median": "HU in the body, median",
        "hu_high": "HU in the body, 95th percentile",
        "hu_lowest": "lowest HU",
        "hu_highest": "highest HU",
        "noise": "noise of soft tissue, HU",
        "liver_hu": "liver with tumours, median HU",
        "liver_ml": "liver with tumours, ml",
        "tumour_ml": "tumours, ml",
        "tumours": "tumours, pieces",
    }
    compared: ClassVar[tuple[str, ...]] = ("orientation",)

    def measure(self, case: CaseRecord, files: Mapping[str, Path]) -> dict[str, float]:
        """See `volume_statistics`."""
        return volume_statistics(*self._read(files))

    def facts(self, case: CaseRecord) -> dict[str, str]:
        """How voxels lie."""
        rows, columns = self._shape(case)[1:]
        return {
            "orientation": str(case.details["orientation"]),
            "rows x columns": f"{rows} x {columns}",
            "position from": str(case.details["geometry_from"]),
        }

    def slices(self, case: CaseRecord) -> int:
        """Axial ones."""
        return self._shape(case)[0]

    def figures(self, cases: Sequence[Described]) -> dict[str, matplotlib.figure.Figure]:
        """The slice of each that shows most liver, with its labels."""
        figure, axes = grid(len(cases), 3.1)
        for axis, (case, files) in zip(axes, cases, strict=True):
            axis.axis("off")
            image, labels = self._read(files)
            most = int((labels.canonical > 0).sum(axis=(1, 2)).argmax())
            _, row, column = image.geometry.spacing
            shown = labels.canonical[most]
            low, high = _WINDOW
            axis.imshow(image.canonical[most], cmap="gray", vmin=low, vmax=high, aspect=row / column)
            for value, colour in ((1, "#f0e442"), (2, "#56b4e9")):
                if (shown >= value).any() and not (shown >= value).all():
                    axis.contour(shown >= value, levels=[0.5], colors=colour, linewidths=0.8)
            axis.set_title(
                f"{label(case.name, 30)}\n{case.split}, slice {most + 1} of {len(labels.canonical)}", fontsize=8
            )
        return {f"Slices with most liver, {low} to {high} HU: liver (yellow) and tumours (blue).": figure}

    def _read(self, files: Mapping[str, Path]) -> tuple[Volume, Volume]:
        return read_pair(files["volume"], files["segmentation"], self.config.section(SegmentationConfig).ingest)

    def _shape(self, case: CaseRecord) -> tuple[int, int, int]:
        orientation = case.details["orientation"]
        slices, rows, columns = (
            int(case.details["shape"][orientation.index(letter)]) for letter in letters(orientation)
        )
        return slices, rows, columns


def volume_statistics(image: Volume, labels: Volume) -> dict[str, float]:
    """Statistics of one volume, by their names.

    The body is what is connected and no air in an axial slice, with the air that it encloses, in at most `SLICES`
    slices at equal distances. Its HU are compared, and not the image's, since what scanners and tools put around it
    (air, -1024, -3024) takes up half of an image and says nothing of a patient.

    Args:
        image: CT in HU.
        labels: On its grid, with liver or tumour.
    """
    hu, marks = image.canonical, labels.canonical
    spacing = image.geometry.spacing
    _, row, column = spacing
    slices, rows, columns = hu.shape
    places = np.unique(np.linspace(0, slices - 1, min(slices, SLICES)).round().astype(int))
    chosen = hu[places]
    inside = np.stack([_body(each) for each in chosen])
    edge = np.concatenate([inside[:, 0], inside[:, -1], inside[:, :, 0], inside[:, :, -1]], axis=1)
    found = chosen[inside] if inside.any() else chosen.ravel()
    low, median, high = np.quantile(found, (0.05, 0.5, 0.95))
    millilitres = float(np.prod(spacing)) / 1000
    return {
        "pixel": max(row, column),
        "slice": spacing[0],
        "slices": float(slices),
        "width": max(rows * row, columns * column),
        "height": slices * spacing[0],
        "edge": float(edge.mean()),
        "body": float(inside.mean()),
        "hu_low": float(low),
        "hu_median": float(median),
        "hu_high": float(high),
        "hu_lowest": float(hu.min()),
        "hu_highest": float(hu.max()),
        "noise": _noise(chosen, inside),
        "liver_hu": tissue(image.data, labels.data).median,
        "liver_ml": np.count_nonzero(marks) * millilitres,
        "tumour_ml": np.count_nonzero(marks == 2) * millilitres,
        "tumours": float(ndimage.label(marks == 2, _WHOLE)[1]),
    }


def _body(hu: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The largest connected part of a slice that is no air, and what it encloses."""
    parts, count = ndimage.label(hu > _AIR)
    if not count:
        return np.zeros(hu.shape, bool)
    largest = np.bincount(parts.ravel())[1:].argmax() + 1
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(parts == largest)
    return filled


def _noise(hu: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
    """Standard deviation of noise by differences of neighbouring columns in soft tissue; 0 where there is none."""
    low, high = _SOFT
    soft = inside & (hu > low) & (hu < high)
    differences = np.abs(np.diff(hu, axis=2))[soft[:, :, 1:] & soft[:, :, :-1]]
    return float(np.median(differences) * _MEDIAN_TO_DEVIATION) if differences.size else 0.0


PART = SegmentationCard

"""Whether a CT volume resembles what a network was trained on, and at which pixel size the network should see it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from condswin.ct.geometry import Geometry
from condswin.manifest import CaseRecord
from condswin.plain import span

#: Pixel sizes, slice spacings and extents may lie beyond those trained on by this factor.
TOLERANCE = 1.5
#: So may the slice spacing of a network that looks at single slices: it sees that as noise alone.
SINGLE_SLICE_TOLERANCE = 3.0
#: Pixels that are finer or coarser than all that were trained on by more than this factor are resampled.
SAME_PIXELS = 1.1

# Axes of a file by the letters of their directions, in canonical order: slices, rows, columns.
_AXES = ("SI", "AP", "RL")

Range = Sequence[float]


def seen(cases: Sequence[CaseRecord]) -> dict[str, Any]:
    """What cases are like: lowest, median and highest of each, mm.

    Args:
        cases: Of a manifest of ingested or prepared data.

    Returns:
        `pixel` and `slice` spacing, `plane` (extent along rows and columns) and `height` (extent along slices). Empty
        if there is no case.
    """
    values: dict[str, list[float]] = {"pixel": [], "slice": [], "plane": [], "height": []}
    for case in cases:
        slices, row, column = case.details["spacing"]
        places = [case.details["orientation"].index(letter) for letter in letters(case.details["orientation"])]
        count, rows, columns = (case.details["shape"][place] for place in places)
        values["pixel"] += [row, column]
        values["slice"] += [slices]
        values["plane"] += [rows * row, columns * column]
        values["height"] += [count * slices]
    return {name: [round(float(x), 4) for x in np.quantile(all_, (0, 0.5, 1))] for name, all_ in values.items() if all_}


def refusals(geometry: Geometry, known: Mapping[str, Range], *, single_slices: bool) -> list[str]:
    """Why a network should not be trusted with a volume; nothing if it may, or if nothing is known.

    Args:
        geometry: Of the volume.
        known: What `seen` said of the training's cases.
        single_slices: Whether the network looks at one slice at a time.
    """
    if not known:
        return []
    slices, row, column = geometry.spacing
    count, rows, columns = geometry.canonical_shape
    between = SINGLE_SLICE_TOLERANCE if single_slices else TOLERANCE
    return [
        # Finer pixels are averaged; what coarser ones lack cannot be made up.
        *_far("pixels are {:.3g} mm wide", [row, column], known["pixel"], below=None),
        *_far("slices are {:.3g} mm apart", [slices], known["slice"], below=between, above=between),
        *_far("the field of view is {:.0f} mm wide", [rows * row, columns * column], known["plane"]),
        *_far("the volume is {:.0f} mm high", [count * slices], known["height"], below=None),
    ]


def wanted_spacing(geometry: Geometry, known: Mapping[str, Range]) -> float | None:
    """Pixel size in mm to resample a volume to; None if its own is about one that the network was trained on."""
    if not known:
        return None
    low, median, high = known["pixel"]
    _, row, column = geometry.spacing
    return None if low / SAME_PIXELS <= min(row, column) and max(row, column) <= high * SAME_PIXELS else median


def _far(
    what: str, values: Range, known: Range, *, below: float | None = TOLERANCE, above: float = TOLERANCE
) -> list[str]:
    low, _, high = known
    wrong = [value for value in values if value > high * above or (below is not None and value < low / below)]
    return [f"{what.format(wrong[0])}, the network was trained with {span(known[0], known[-1])} mm"] if wrong else []


def letters(orientation: str) -> list[str]:
    """The letters of an orientation such as `LPS` in canonical order: of slices, rows and columns."""
    return [next(letter for letter in orientation if letter in axis) for axis in _AXES]

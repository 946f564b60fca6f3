"""Whether a file resembles what a network was trained on, judged by its mask before anything is reconstructed."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from condswin.mri.config import UndersampleConfig
from condswin.mri.masks import draw_mask
from condswin.mri.prepared import MASK, read_mask
from condswin.mri.reading import KSPACE, VolumeReader, check_kspace

#: Accelerations and widths of the centre may differ from those trained on by this factor, either way.
TOLERANCE = 1.5

# Masks drawn to see what training showed the network.
_DRAWS = 24


def refusals(path: Path, undersample: UndersampleConfig) -> list[str]:
    """Why a network trained with these masks should not be trusted with a file; nothing if it may.

    Args:
        path: A single-coil file; a fully sampled one, which is undersampled as in training, is always fine.
        undersample: The masks that training drew.

    Raises:
        BadFileError: The file is unusable, or its mask is none.
    """
    with VolumeReader(path) as reader:
        check_kspace(reader)
        if MASK not in reader:
            return _unmarked(reader)
        sampled = read_mask(reader)
    width = sampled.size
    trained = [draw_mask(undersample, width, seed).sampled for seed in range(_DRAWS)]
    return [
        *_far("its true acceleration is {:.1f}x", width / sampled.sum(), [width / mask.sum() for mask in trained]),
        *_far("its fully sampled centre is {:.0f} columns wide", center(sampled), [center(mask) for mask in trained]),
        *_pattern(sampled, trained, undersample.mask),
    ]


def center(sampled: NDArray[np.bool_]) -> int:
    """Columns of the fully sampled centre of a mask (W,); zero if frequency zero was not measured."""
    middle = sampled.size // 2
    below, above = sampled[:middle][::-1], sampled[middle:]
    return int(_run(below) + _run(above)) if sampled[middle] else 0


def _run(values: NDArray[np.bool_]) -> int:
    return int(values.argmin()) if not values.all() else values.size


def _far(what: str, value: float, trained: list[float] | list[int]) -> list[str]:
    low, high = min(trained), max(trained)
    if low / TOLERANCE <= value <= high * TOLERANCE:
        return []
    span = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    return [f"{what.format(value)}, the network was trained with {span}"]


def _pattern(sampled: NDArray[np.bool_], trained: list[NDArray[np.bool_]], kind: str) -> list[str]:
    """Regular lines alias into ghosts, random ones into noise: a network knows one of the two."""
    seen = [_irregularity(mask) for mask in trained]
    value = _irregularity(sampled)
    if np.isnan(value) or np.isnan(seen).all() or (value > 0.5) == (np.nanmedian(seen) > 0.5):
        return []
    return [f"its lines are {'random' if value > 0.5 else 'regular'}, the network was trained with {kind} masks"]


def _irregularity(sampled: NDArray[np.bool_]) -> float:
    """Spread of the distances between neighbouring lines relative to their mean, the centre left out; 1 is random."""
    middle, wide = sampled.size // 2, center(sampled)
    lines = np.flatnonzero(sampled)
    sides = [lines[lines < middle - wide // 2 - 1], lines[lines > middle + wide // 2 + 1]]
    gaps = np.concatenate([np.diff(side) for side in sides])
    return float(gaps.std() / gaps.mean()) if gaps.size >= 4 else float("nan")


def _unmarked(reader: VolumeReader) -> list[str]:
    """A file without mask must be fully sampled but for its edges."""
    for _, block in reader.blocks(KSPACE):
        measured = np.flatnonzero(np.abs(block).any(axis=tuple(range(block.ndim - 1))))
        if measured.size:
            missing = int(measured[-1]) - int(measured[0]) + 1 - measured.size
            if missing:
                return [f"{missing} columns between measured ones are zero but there is no `mask` that says so"]
            return []
    return []

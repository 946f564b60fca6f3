"""Whether a file resembles what a network was trained on, judged by its mask before anything is reconstructed."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from condswin.mri.coils import Multicoil, open_volume
from condswin.mri.config import UndersampleConfig
from condswin.mri.extent import center
from condswin.mri.masks import draw_mask
from condswin.mri.prepared import read_sampling
from condswin.mri.reading import KSPACE, MASK, VolumeReader, check_kspace
from condswin.plain import span

#: Accelerations and widths of the centre may differ from those trained on by this factor, either way.
TOLERANCE = 1.5

# Masks drawn to see what training showed the network.
_DRAWS = 24


def refusals(path: Path, undersample: UndersampleConfig, multicoil: Multicoil = "refuse") -> list[str]:
    """Why a network trained with these masks should not be trusted with a file; nothing if it may.

    Args:
        path: A file; a fully sampled one, which is undersampled as in training, is always fine.
        undersample: The masks that training drew.
        multicoil: What to do with a multi-coil file.

    Raises:
        BadFileError: The file is unusable, or its mask is none.
    """
    with open_volume(path, multicoil) as reader:
        held = check_kspace(reader)
        if MASK not in reader:
            return _unmarked(reader)
        sampled, extent = read_sampling(reader, held)
    trained = [draw_mask(undersample, sampled.size, seed).within(extent) for seed in range(_DRAWS)]
    accelerations, masks = [mask.true_acceleration for mask in trained], [mask.sampled for mask in trained]
    return [
        *_far("its true acceleration is {:.1f}x", extent.width / sampled.sum(), accelerations),
        *_far(
            "its fully sampled centre is {:.0f} columns wide",
            center(sampled).width,
            [center(mask).width for mask in masks],
        ),
        *_pattern(sampled, masks, undersample.mask),
    ]


def _far(what: str, value: float, trained: list[float] | list[int]) -> list[str]:
    low, high = min(trained), max(trained)
    if low / TOLERANCE <= value <= high * TOLERANCE:
        return []
    return [f"{what.format(value)}, the network was trained with {span(low, high)}"]


def _pattern(sampled: NDArray[np.bool_], trained: list[NDArray[np.bool_]], kind: str) -> list[str]:
    """Regular lines alias into ghosts, random ones into noise: a network knows one of the two."""
    seen = [_irregularity(mask) for mask in trained]
    value = _irregularity(sampled)
    if np.isnan(value) or np.isnan(seen).all() or (value > 0.5) == (np.nanmedian(seen) > 0.5):
        return []
    return [f"its lines are {'random' if value > 0.5 else 'regular'}, the network was trained with {kind} masks"]


def _irregularity(sampled: NDArray[np.bool_]) -> float:
    """Spread of the distances between neighbouring lines relative to their mean, the centre left out; 1 is random."""
    middle, wide = sampled.size // 2, center(sampled).width
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

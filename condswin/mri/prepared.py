"""Reading prepared files, and what others wrote in the layout of fastMRI's test set.

Undersampled files have masked k-space, the mask, the target and the zero-filled image; fully sampled ones, of training,
k-space and the target alone. `undersample` writes both.
"""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from condswin.errors import BadFileError
from condswin.fourier import FloatArray, magnitude_image
from condswin.mri.reading import KSPACE, SUFFIXES, VolumeReader, kspace_shape, target_shape

MASK = "mask"
ZERO_FILLED = "zero_filled"


def prepared_files(folder: Path) -> dict[str, Path]:
    """The prepared files of a folder by case name (file name without suffix), sorted."""
    found = (path for path in folder.glob("*") if path.suffix in SUFFIXES and not path.name.startswith("."))
    return {path.stem: path for path in sorted(found)}


def read_mask(reader: VolumeReader) -> NDArray[np.bool_]:
    """The measured columns (W,) of an undersampled file, whatever singleton axes its mask has.

    Raises:
        BadFileError: It is no mask of k-space's columns, or measures none.
    """
    shape = reader.shape(MASK)
    # Targets to score against may come with their mask alone.
    width = kspace_shape(reader)[-1] if KSPACE in reader else math.prod(shape)
    if math.prod(shape) != width or width not in shape or reader.dtype(MASK).kind not in "biuf":
        raise BadFileError(reader.path, f"mask of shape {shape} does not say which of kspace's {width} columns count")
    sampled: NDArray[np.bool_] = reader.read(MASK).reshape(-1).astype(np.bool_)
    if not sampled.any():
        raise BadFileError(reader.path, f"mask says that none of kspace's {width} columns was measured")
    return sampled


def read_zero_filled(reader: VolumeReader) -> FloatArray | None:
    """Zero-filled magnitudes (slices, h, w) of the target's size: as stored, else computed from k-space and mask.

    None if the file has neither, or no target that says how large they are.

    Raises:
        BadFileError: What there is cannot be used.
    """
    if ZERO_FILLED in reader:
        stored: FloatArray = reader.read(ZERO_FILLED)
        return stored
    target = reader.target_name()
    if target is None or MASK not in reader or KSPACE not in reader:
        return None
    sampled, (_, rows, columns) = read_mask(reader), target_shape(reader, target)
    blocks = [magnitude_image(block, (rows, columns), sampled) for _, block in reader.blocks(KSPACE)]
    return np.concatenate(blocks)

"""Reading prepared files, and what others wrote in the layout of fastMRI's test set.

Undersampled files have masked k-space, the mask, the target if there is one, and the zero-filled image; fully sampled
ones, of training, k-space and the target alone. `undersample` writes both.
"""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from condswin.cases import by_case
from condswin.errors import BadFileError
from condswin.fourier import FloatArray, magnitude_image
from condswin.mri.extent import Extent, measurable
from condswin.mri.reading import (
    KSPACE,
    MASK,
    SUFFIXES,
    ZERO_FILLED,
    VolumeReader,
    held_columns,
    read_header,
    target_shape,
)

#: Attributes of prepared files: first and one past the last column that the scan went over, as fastMRI calls them.
PADDING = ("padding_left", "padding_right")


def prepared_files(folder: Path) -> dict[str, Path]:
    """The prepared files of a folder by case name (file name without suffix), sorted.

    Raises:
        BadDataError: Two files are of one case (`v.h5` and `v.hdf5`).
    """
    found = (path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    return by_case(found, lambda path: path.stem)


def read_mask(reader: VolumeReader) -> NDArray[np.bool_]:
    """The columns (W,) that an undersampled file says were measured, whatever singleton axes its mask has.

    Raises:
        BadFileError: It is no mask of k-space's columns, or measures none.
    """
    shape = reader.shape(MASK)
    # Targets to score against may come with their mask alone.
    width = reader.shape(KSPACE)[-1] if KSPACE in reader else math.prod(shape)
    if math.prod(shape) != width or width not in shape or reader.dtype(MASK).kind not in "biuf":
        raise BadFileError(reader.path, f"mask of shape {shape} does not say which of kspace's {width} columns count")
    sampled: NDArray[np.bool_] = reader.read(MASK).reshape(-1).astype(np.bool_)
    if not sampled.any():
        raise BadFileError(reader.path, f"mask says that none of kspace's {width} columns was measured")
    return sampled


def read_extent(reader: VolumeReader, sampled: NDArray[np.bool_] | None, held: Extent | None = None) -> Extent:
    """The columns of k-space that the scan went over.

    Prepared files say so; of others k-space is read, unless there is none.

    Args:
        reader: Of single-coil or multi-coil k-space.
        sampled: (W,), the file's mask if it has one.
        held: The columns that hold values, if they are known.

    Raises:
        BadFileError: The file is unusable.
    """
    width = reader.shape(KSPACE)[-1] if KSPACE in reader or sampled is None else sampled.size
    first, last = (reader.attribute(name) for name in PADDING)
    if isinstance(first, int) and isinstance(last, int) and 0 <= first < last <= width:
        return Extent(first, last)
    claimed = read_header(reader).measured(width)
    if KSPACE not in reader:
        return Extent(*(claimed or (0, width)))
    return measurable(held or held_columns(reader), width, claimed=claimed, sampled=sampled)


def read_sampling(reader: VolumeReader, held: Extent | None = None) -> tuple[NDArray[np.bool_], Extent]:
    """The measured columns (W,) of an undersampled file, and the columns that the scan went over.

    Columns of the mask that the scan did not go over are not among the measured ones. The number of columns by that of
    measured ones is the true acceleration.

    Args:
        reader: Of single-coil or multi-coil k-space.
        held: As in `read_extent`.

    Raises:
        BadFileError: The file is unusable, or nothing was measured.
    """
    sampled = read_mask(reader)
    extent = read_extent(reader, sampled, held)
    sampled = extent.within(sampled)
    if not sampled.any():
        raise BadFileError(reader.path, "mask samples none of the columns that the scan went over")
    return sampled, extent


def image_size(reader: VolumeReader) -> tuple[int, int]:
    """Rows and columns of the image: the target's, else of the reconstructed matrix that the header has.

    Where k-space is narrower than that matrix, the image is a square of k-space's columns, as fastMRI makes it.

    Raises:
        BadFileError: The file does not say.
    """
    target = reader.target_name()
    if target is not None:
        return target_shape(reader, target)[1:]
    recon, (rows, columns) = read_header(reader).recon, reader.shape(KSPACE)[-2:]
    if recon is None:
        raise BadFileError(
            reader.path, "neither a target nor a reconstructed matrix in ismrmrd_header says how large the image is"
        )
    if 0 in recon[:2]:
        raise BadFileError(reader.path, f"ismrmrd_header: a reconstructed matrix of {recon[0]} x {recon[1]}")
    height, width = recon[:2] if recon[1] <= columns else (columns, columns)
    return min(height, rows), width


def read_zero_filled(reader: VolumeReader) -> FloatArray | None:
    """Zero-filled magnitudes (slices, h, w) of the target's size: as stored, else computed from k-space and mask.

    Of several coils the root of their sum of squares, as fastMRI's. None if the file has neither, or no target that
    says how large they are.

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
    blocks = (magnitude_image(block, (rows, columns), sampled) for _, block in reader.blocks(KSPACE))
    return np.concatenate([image if image.ndim == 3 else np.linalg.norm(image, axis=1) for image in blocks])

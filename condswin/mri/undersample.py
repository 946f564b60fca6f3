"""From a checked, fully sampled file to a prepared one.

Validation and test files come out in the layout of fastMRI's own test set (masked `kspace`, `mask`, attributes
`acceleration` and `num_low_frequency`), with the target and the zero-filled image beside them. Training files stay
fully sampled, because each epoch draws fresh masks. Neither holds anything that identifies a person: the header is
copied without it and `patient` is a hashed key.
"""

import math
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from condswin.errors import BadFileError
from condswin.files import atomic_file
from condswin.fourier import ComplexArray, FloatArray, magnitude_image
from condswin.mri.coils import Multicoil, open_volume
from condswin.mri.config import UndersampleConfig
from condswin.mri.header import strip_header
from condswin.mri.masks import Mask, draw_mask, name_seed
from condswin.mri.prepared import MASK, ZERO_FILLED
from condswin.mri.reading import HEADER, KSPACE, VolumeReader, checked_blocks, kspace_shape, read_info


def prepare_full(source: Path, out: Path, multicoil: Multicoil = "refuse") -> None:
    """Copies a file for training: fully sampled `kspace`, target, header and attributes without personal data.

    Args:
        source: Fully sampled single-coil file.
        out: The file to write, atomically.
        multicoil: What to do with a multi-coil file.

    Raises:
        BadFileError: The source is unusable; nothing is written.
    """
    with open_volume(source, multicoil) as reader:
        _prepare(reader, out, None)


def prepare_undersampled(source: Path, out: Path, settings: UndersampleConfig, multicoil: Multicoil = "refuse") -> Mask:
    """Undersamples a file with one mask for all its slices, seeded by the name of `out` as fastMRI does.

    Args:
        source: Fully sampled single-coil file.
        out: The file to write, atomically. Its datasets: `kspace` (slices, H, W) complex64 with unmeasured columns
            exactly zero, `mask` (W,) bool, target and `zero_filled` (slices, h, w) float32.
        settings: Kind of mask, accelerations and centre fractions.
        multicoil: What to do with a multi-coil file.

    Returns:
        The mask, with its true acceleration.

    Raises:
        BadFileError: The source is unusable; nothing is written.
        ConfigError: The settings cannot be met.
    """
    with open_volume(source, multicoil) as reader:
        mask = draw_mask(settings, kspace_shape(reader)[-1], name_seed(out.name))
        _prepare(reader, out, mask)
    return mask


def undersample(kspace: ComplexArray, sampled: NDArray[np.bool_], size: tuple[int, int]) -> FloatArray:
    """Sets unmeasured columns of k-space to zero, in place.

    Args:
        kspace: (slices, H, W), fully sampled; contiguous.
        sampled: (W,), the columns to keep.
        size: Rows and columns of the images.

    Returns:
        Its zero-filled magnitude images (slices, *size).
    """
    # Bit by bit, which is several times faster than choosing between complex numbers and leaves no negative zeros.
    bits = kspace.view(np.uint64)
    np.bitwise_and(bits, np.where(sampled, ~np.uint64(0), np.uint64(0)), out=bits)
    return magnitude_image(kspace, size, sampled)


def _prepare(reader: VolumeReader, out: Path, mask: Mask | None) -> None:
    with atomic_file(out) as temporary, h5py.File(temporary, "w") as file:
        info = read_info(reader)
        _copy_target(reader, file, info.target)
        _copy_kspace(reader, file, info.shape, info.target_shape, mask)
        if (raw := reader.header()) is not None:
            try:
                file[HEADER] = strip_header(raw)
            except ValueError as error:
                raise BadFileError(reader.path, f"{HEADER}: {error}") from None
        file.attrs["acquisition"] = info.acquisition
        file.attrs["patient"] = info.patient
        if mask is not None:
            file[MASK] = mask.sampled
            file.attrs["acceleration"] = mask.acceleration
            file.attrs["center_fraction"] = mask.center_fraction
            file.attrs["num_low_frequency"] = mask.num_low_frequencies
            file.attrs["true_acceleration"] = mask.true_acceleration


def _copy_target(reader: VolumeReader, file: h5py.File, name: str) -> None:
    """Writes the target and, computed from it, fastMRI's attributes `max` and `norm`."""
    target = file.create_dataset(name, reader.shape(name), np.float32)
    largest, squares = 0.0, 0.0
    for start, block in checked_blocks(reader, name):
        target[start : start + len(block)] = block
        largest = max(largest, float(block.max()))
        squares += float(np.square(block, dtype=np.float64).sum())
    file.attrs["max"] = largest
    file.attrs["norm"] = math.sqrt(squares)


def _copy_kspace(
    reader: VolumeReader,
    file: h5py.File,
    shape: tuple[int, int, int],
    image_shape: tuple[int, int, int],
    mask: Mask | None,
) -> None:
    kspace = file.create_dataset(KSPACE, shape, np.complex64)
    if mask is None:
        for start, block in checked_blocks(reader, KSPACE):
            kspace[start : start + len(block)] = block
        return
    zero_filled = file.create_dataset(ZERO_FILLED, image_shape, np.float32)
    size = (image_shape[1], image_shape[2])
    for start, block in checked_blocks(reader, KSPACE):
        end = start + len(block)
        zero_filled[start:end] = undersample(block, mask.sampled, size)
        kspace[start:end] = block

"""From a checked file to a prepared one.

Validation and test files come out in the layout of fastMRI's own test set (masked `kspace`, `mask`, attributes
`acceleration` and `num_low_frequency`), with the target and the zero-filled image beside them. Masks are drawn over all
columns, and those that the scan did not go over are taken out then. Training files stay fully sampled, because each
epoch draws fresh masks. What was undersampled at the scanner keeps its mask in every split. None holds anything that
identifies a person: the header is copied without it and `patient` is a hashed key.
"""

import math
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from condswin.errors import BadDataError, BadFileError
from condswin.files import atomic_file
from condswin.fourier import ComplexArray, FloatArray, magnitude_image
from condswin.hdf5 import create_slices
from condswin.mri.coils import Multicoil, open_volume
from condswin.mri.config import UndersampleConfig
from condswin.mri.extent import Extent
from condswin.mri.header import strip_header
from condswin.mri.info import VolumeInfo, read_info
from condswin.mri.masks import Mask, draw_mask, name_seed
from condswin.mri.prepared import PADDING, image_size, read_sampling
from condswin.mri.reading import HEADER, KSPACE, MASK, ZERO_FILLED, VolumeReader, checked_blocks, kspace_shape


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
        The mask, without columns that the scan did not go over, and its true acceleration.

    Raises:
        BadFileError: The source is unusable; nothing is written.
        ConfigError: The settings cannot be met.
    """
    with open_volume(source, multicoil) as reader:
        drawn = draw_mask(settings, kspace_shape(reader)[-1], name_seed(out.name))
        mask = _prepare(reader, out, drawn)
    return mask or drawn


def prepare_measured(source: Path, out: Path, multicoil: Multicoil = "refuse") -> None:
    """Prepares a file that was undersampled at the scanner, in the layout of `prepare_undersampled`.

    Args:
        source: Single-coil file with a mask.
        out: The file to write, atomically; without a target where the source has none.
        multicoil: What to do with a multi-coil file.

    Raises:
        BadFileError: The source is unusable; nothing is written.
    """
    with open_volume(source, multicoil) as reader, atomic_file(out) as temporary, h5py.File(temporary, "w") as file:
        info = read_info(reader, undersampled="accept")
        _write_measured(reader, file)
        _write_facts(reader, file, info)
        nominal = reader.attribute("acceleration")
        file.attrs["acceleration"] = nominal if isinstance(nominal, int | float) else file.attrs["true_acceleration"]


def prepare_scan(source: Path, out: Path, settings: UndersampleConfig, multicoil: Multicoil = "refuse") -> None:
    """Prepares any scan as a test file, for a look at it, without header and patient.

    One that was undersampled keeps its mask; another is undersampled as `prepare_undersampled` does. Either may lack a
    target, and then so does what is written; its images are as large as the header says.

    Args:
        source: File with k-space.
        out: The file to write, atomically.
        settings: Masks for files that have none.
        multicoil: What to do with a multi-coil file.

    Raises:
        BadFileError: The source is unusable; nothing is written.
        ConfigError: The settings cannot be met.
    """
    with open_volume(source, multicoil) as reader:
        if MASK not in reader and reader.target_name() is not None:
            _prepare(reader, out, draw_mask(settings, kspace_shape(reader)[-1], name_seed(out.name)))
            return
        with atomic_file(out) as temporary, h5py.File(temporary, "w") as file:
            if MASK in reader:
                _write_measured(reader, file)
                return
            drawn = draw_mask(settings, kspace_shape(reader)[-1], name_seed(out.name))
            extent = _copy(reader, file, drawn.sampled)
            _write_mask(reader, file, drawn, extent)
            file.attrs.update(zip(PADDING, extent, strict=True))


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


def _prepare(reader: VolumeReader, out: Path, mask: Mask | None) -> Mask | None:
    """Writes a prepared file; returns the mask without the columns that the scan did not go over."""
    with atomic_file(out) as temporary, h5py.File(temporary, "w") as file:
        info = read_info(reader)
        extent = _copy(reader, file, mask.sampled if mask else None)
        _write_facts(reader, file, info)
        file.attrs.update(zip(PADDING, extent, strict=True))
        return _write_mask(reader, file, mask, extent) if mask else None


def _write_facts(reader: VolumeReader, file: h5py.File, info: VolumeInfo) -> None:
    if (raw := reader.header()) is not None:
        try:
            file[HEADER] = strip_header(raw)
        except ValueError as error:
            raise BadFileError(reader.path, f"{HEADER}: {error}") from None
    file.attrs["acquisition"] = info.acquisition
    file.attrs["patient"] = info.patient


def _write_measured(reader: VolumeReader, file: h5py.File) -> None:
    """Copies an undersampled scan with its mask."""
    sampled, extent = read_sampling(reader)
    _copy(reader, file, sampled)
    file[MASK] = sampled
    file.attrs["true_acceleration"] = extent.width / int(sampled.sum())
    file.attrs.update(zip(PADDING, extent, strict=True))


def _write_mask(reader: VolumeReader, file: h5py.File, drawn: Mask, extent: Extent) -> Mask:
    try:
        mask = drawn.within(extent)
    except BadDataError as error:
        raise BadFileError(reader.path, str(error)) from None
    file[MASK] = mask.sampled
    file.attrs["acceleration"] = mask.acceleration
    file.attrs["center_fraction"] = mask.center_fraction
    file.attrs["num_low_frequency"] = mask.num_low_frequencies
    file.attrs["true_acceleration"] = mask.true_acceleration
    return mask


def _copy(reader: VolumeReader, file: h5py.File, sampled: NDArray[np.bool_] | None) -> Extent:
    """Copies target, if there is one, and k-space, undersampled if `sampled`; returns the columns that hold values."""
    if (target := reader.target_name()) is not None:
        _copy_target(reader, file, target)
    shape, size = kspace_shape(reader), image_size(reader)
    kspace, held = create_slices(file, KSPACE, shape, np.complex64), Extent.nothing(shape[-1])
    zero_filled = None if sampled is None else create_slices(file, ZERO_FILLED, (shape[0], *size), np.float32)
    for start, block in checked_blocks(reader, KSPACE):
        end, held = start + len(block), held.seen(block)
        if sampled is not None and zero_filled is not None:
            zero_filled[start:end] = undersample(block, sampled, size)
        kspace[start:end] = block
    return held


def _copy_target(reader: VolumeReader, file: h5py.File, name: str) -> None:
    """Writes the target and, computed from it, fastMRI's attributes `max` and `norm`."""
    target = create_slices(file, name, reader.shape(name), np.float32)
    largest, squares = 0.0, 0.0
    for start, block in checked_blocks(reader, name):
        target[start : start + len(block)] = block
        largest = max(largest, float(block.max()))
        squares += float(np.square(block, dtype=np.float64).sum())
    file.attrs["max"] = largest
    file.attrs["norm"] = math.sqrt(squares)

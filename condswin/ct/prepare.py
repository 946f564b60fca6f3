"""From a CT volume to network inputs, and from network outputs back to the scanner's grid."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from condswin.config import PrepareCtConfig
from condswin.ct.cases import target_stem
from condswin.ct.geometry import Geometry
from condswin.ct.nifti import LABELS, SUFFIXES, Volume, read_pair
from condswin.errors import BadFileError
from condswin.files import atomic_file, copy_with_sha256

# Slices resampled at a time: bounds the memory for one-hot labels.
_BATCH = 16


def prepare_case(name: str, volume: Path, segmentation: Path, folder: Path, config: PrepareCtConfig) -> None:
    """Writes a case's network inputs, and its segmentation as target beside them.

    `<name>.h5` holds `image` (slices, rows, columns), float16 in -1..1 over the HU window; `label`, uint8, the same
    shape; `liver_slices` and `tumour_slices`, the indices of the slices that show them; and, as attributes, the
    geometry of the source file. `segmentation-N.nii[.gz]` is a byte copy of the source, so that the folder serves
    any evaluation as reference.

    Args:
        name: The case.
        volume: CT in HU.
        segmentation: Its labels.
        folder: Where to write.
        config: Window and resampling.

    Raises:
        BadFileError: A file is unusable, or the two do not belong together.
    """
    image, labels = read_pair(volume, segmentation)
    out = folder / f"{name}.h5"
    write_inputs(image, labels, out, config)
    copy_with_sha256(segmentation, folder / prepared_names(name, segmentation)[1])


def prepared_names(name: str, segmentation: Path) -> list[str]:
    """Names of the files that `prepare_case` writes: inputs and target."""
    suffix = next(suffix for suffix in SUFFIXES if segmentation.name.endswith(suffix))
    return [f"{name}.h5", f"{target_stem(name)}{suffix}"]


def prepared_files(folder: Path) -> dict[str, Path]:
    """Prepared `<case>.h5` files of a folder by case name."""
    return {path.stem: path for path in sorted(folder.glob("*.h5")) if not path.name.startswith(".")}


def write_inputs(image: Volume, labels: Volume | None, out: Path, config: PrepareCtConfig) -> None:
    """Writes the HDF5 part of `prepare_case`; without labels only what a network needs to predict.

    Args:
        image: CT in HU.
        labels: Of the same geometry, if there are any.
        out: File to write, atomically.
        config: Window and resampling.
    """
    geometry = image.geometry
    slices, *scanned = geometry.canonical_shape
    size = resampled_size(geometry, config.spacing)
    shape = (slices, *size)
    with atomic_file(out) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(geometry.attributes())
        file.attrs["window"] = config.window
        file.attrs["pixel_spacing"] = np.array(geometry.spacing[1:]) * scanned / size  # mm
        # float16 resolves 0.1 HU of a 400 HU window and halves what training reads. Noise does not compress, labels do.
        images = file.create_dataset("image", shape, np.float16, chunks=(1, *size))
        for start in range(0, slices, _BATCH):
            part = slice(start, start + _BATCH)
            images[part] = resample_image(apply_window(image.canonical[part], config.window), size)
        if labels is not None:
            _write_labels(file, labels, size)


def _write_labels(file: h5py.File, labels: Volume, size: tuple[int, int]) -> None:
    slices = len(labels.canonical)
    shows = np.zeros((len(LABELS), slices), dtype=bool)
    targets = file.create_dataset(
        "label", (slices, *size), np.uint8, chunks=(1, *size), compression="gzip", compression_opts=1
    )
    for start in range(0, slices, _BATCH):
        part = slice(start, start + _BATCH)
        targets[part] = label = resample_labels(labels.canonical[part], size)
        for value in LABELS:
            shows[value, part] = (label == value).any(axis=(1, 2))
    file["liver_slices"] = np.flatnonzero(shows[1] | shows[2]).astype(np.int32)
    file["tumour_slices"] = np.flatnonzero(shows[2]).astype(np.int32)


def apply_window(hu: NDArray[np.float32], window: tuple[float, float]) -> NDArray[np.float32]:
    """Clips Hounsfield units to a window and maps it linearly to -1..1."""
    low, high = window
    clipped = np.clip(hu, np.float32(low), np.float32(high))
    scaled: NDArray[np.float32] = (clipped - np.float32(low)) * np.float32(2 / (high - low)) - np.float32(1)
    return scaled


def resampled_size(geometry: Geometry, spacing: float | None) -> tuple[int, int]:
    """Rows and columns of a slice after in-plane resampling to `spacing` mm; None keeps the scanner's grid."""
    _, rows, columns = geometry.canonical_shape
    if spacing is None:
        return rows, columns
    _, row_step, column_step = geometry.spacing
    return max(1, round(rows * row_step / spacing)), max(1, round(columns * column_step / spacing))


def resample_image(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Linear in-plane resampling of (slices, rows, columns) to `size`; unchanged if it has that size."""
    if image.shape[1:] == size:
        return image
    resampled: NDArray[np.float32] = _linear(torch.from_numpy(image.copy())[:, None], size)[:, 0].numpy()
    return resampled


def resample_labels(labels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """In-plane resampling of (slices, rows, columns) labels to `size`; unchanged if they have that size."""
    if labels.shape[1:] == size:
        return labels
    return labels_at(one_hot(labels), size)


def one_hot(labels: NDArray[np.uint8]) -> Tensor:
    """Labels (slices, rows, columns) as certain class probabilities (slices, classes, rows, columns)."""
    return F.one_hot(torch.from_numpy(labels.astype(np.int64)), len(LABELS)).movedim(-1, 1).float()


def labels_at(probabilities: Tensor, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The likeliest class at every pixel of a grid of `size` over the same slices.

    Probabilities are interpolated linearly and decided afterwards, which keeps small lesions and smooth outlines that
    interpolating labels would lose.

    Args:
        probabilities: (slices, classes, rows, columns).
        size: Rows and columns wanted.

    Returns:
        (slices, rows, columns), uint8.
    """
    labels: NDArray[np.uint8] = _linear(probabilities, size).argmax(dim=1).to(torch.uint8).cpu().numpy()
    return labels


@contextmanager
def open_prepared(path: Path) -> Iterator[h5py.File]:
    """Opens a prepared case for reading.

    Raises:
        BadFileError: The file is missing, damaged or not one that `prepare_case` wrote.
    """
    try:
        with h5py.File(path, "r") as file:
            if "image" not in file or "shape" not in file.attrs:
                raise BadFileError(path, "not a prepared CT case; run prepare-ct again")
            yield file
    except OSError as error:
        raise BadFileError(path, f"not readable as HDF5 ({error}); run prepare-ct again") from None


def read_slices(file: h5py.File, start: int, stop: int, neighbours: int) -> NDArray[np.float32]:
    """Slices `start` to `stop` of a prepared case with their neighbours as channels.

    Returns:
        (slices, 1 + 2 * neighbours, rows, columns); beyond the volume its last slice is repeated.
    """
    images = file["image"]
    first, last = max(0, start - neighbours), min(len(images), stop + neighbours)
    block = images[first:last].astype(np.float32)
    wanted = np.arange(start, stop)[:, None] + np.arange(-neighbours, neighbours + 1)
    stacked: NDArray[np.float32] = block[np.clip(wanted, 0, len(images) - 1) - first]
    return stacked


def _linear(images: Tensor, size: tuple[int, int]) -> Tensor:
    if images.shape[-2:] == size:
        return images
    # Grids of different spacing share their outer edges (align_corners=False), so that there and back is no shift;
    # antialiasing averages where pixels grow and changes nothing where they shrink.
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)

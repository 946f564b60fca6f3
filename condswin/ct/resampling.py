"""Windowing and in-plane resampling, to what networks see and back to the scanner's grid."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from condswin.ct.geometry import Geometry
from condswin.ct.nifti import LABELS

#: Lowest and highest HU of each channel.
Windows = Sequence[tuple[float, float]]


def hounsfield_range(windows: Windows) -> tuple[float, float]:
    """Lowest and highest HU that any window keeps."""
    return min(low for low, _ in windows), max(high for _, high in windows)


def channels(hu: Tensor, windows: Windows, *, position: bool) -> Tensor:
    """What a network sees of whole slices in HU.

    Args:
        hu: (..., C, H, W): a slice with its neighbours.
        windows: Lowest and highest HU of each.
        position: Whether it sees where pixels are.

    Returns:
        (..., windows * C, H, W) in -1..1: all slices in the first window, then all in the next. With positions two
        more: -1 in the first row to 1 in the last, and so for columns.
    """
    shown = [(hu.clamp(low, high) - low) * (2 / (high - low)) - 1 for low, high in windows]
    if position:
        ranges = [torch.linspace(-1, 1, side, device=hu.device, dtype=hu.dtype) for side in hu.shape[-2:]]
        places = torch.stack(torch.meshgrid(*ranges, indexing="ij"))
        shown.append(places.expand(*hu.shape[:-3], *places.shape))
    return torch.cat(shown, dim=-3)


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


def _linear(images: Tensor, size: tuple[int, int]) -> Tensor:
    if images.shape[-2:] == size:
        return images
    # Grids of different spacing share their outer edges (align_corners=False), so that there and back is no shift;
    # antialiasing averages where pixels grow and changes nothing where they shrink.
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)

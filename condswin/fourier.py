"""Centred orthonormal Fourier transforms between k-space and image, in complex64 throughout.

The four transforms take arrays and tensors on any device alike. The other functions serve the preparation of data,
where most of a transform can be saved.

Conventions are fastMRI's (Zbontar et al. 2018, section 4): frequency zero sits at index `n // 2`, the transforms keep
the norm, and a centre crop from `n` to `m` starts at `(n - m) // 2`.
"""

from typing import Literal, TypeVar

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray
from torch import Tensor

ComplexArray = NDArray[np.complex64]
FloatArray = NDArray[np.float32]
#: What is transformed: the result is of the same kind.
Data = TypeVar("Data", ComplexArray, Tensor)


def fft2c(image: Data) -> Data:
    """Image (..., H, W) to k-space (..., H, W)."""
    return _centred("fftn", image, (-2, -1))


def ifft2c(kspace: Data) -> Data:
    """K-space (..., H, W) to image (..., H, W)."""
    return _centred("ifftn", kspace, (-2, -1))


def fftc(image: Data) -> Data:
    """Image (..., H, W) to hybrid space (..., H, W): the transform along columns alone."""
    return _centred("fftn", image, (-1,))


def ifftc(hybrid: Data) -> Data:
    """Hybrid space (..., H, W), as of `readout_hybrid`, to image (..., H, W); undoes `fftc`."""
    return _centred("ifftn", hybrid, (-1,))


def center_crop(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle (..., h, w) of an image (..., H, W), as a view.

    Raises:
        ValueError: The image is smaller than the crop.
    """
    height, width = size
    top, left = crop_start(image.shape[-2], height), crop_start(image.shape[-1], width)
    return image[..., top : top + height, left : left + width]


def crop_start(length: int, wanted: int) -> int:
    """First index of a centre crop.

    Raises:
        ValueError: `wanted` is not in 1..length.
    """
    if not 0 < wanted <= length:
        raise ValueError(f"cannot crop {wanted} from the middle of {length}: the image must be at least as large")
    return (length - wanted) // 2


def readout_hybrid(kspace: ComplexArray, rows: int) -> ComplexArray:
    """Inverse transform along the readout: k-space (..., H, W) to hybrid space (..., rows, W), cropped to `rows`.

    Undersampling acts on columns alone, so this half of the transform can be done once, on less data, before any mask.
    """
    length = kspace.shape[-2]
    # On CPUs scipy's transform is several times faster than torch's along columns, and as fast along rows.
    image = scipy.fft.ifft(kspace, axis=-2, norm="ortho")
    # A shift of the input by half its length is a phase of the output, which costs less there.
    phase = np.exp(2j * np.pi * (length // 2) / length * -np.arange(length)).astype(np.complex64)[:, None]
    hybrid = np.empty((*kspace.shape[:-2], rows, kspace.shape[-1]), dtype=np.complex64)
    for place, part in _crop(length, rows):
        np.multiply(image[..., part, :], phase[part], out=hybrid[..., place, :])
    return hybrid


def hybrid_image(hybrid: Tensor) -> Tensor:
    """Images (..., rows, W) of hybrid space (..., rows, W) from `readout_hybrid`: `ifftc`, on CPUs by scipy."""
    return torch.from_numpy(ifftc(hybrid.numpy())) if _scipy_takes(hybrid) else ifftc(hybrid)


def hybrid_magnitude(hybrid: Tensor, columns: int) -> Tensor:
    """Magnitude images (..., rows, columns) of hybrid space (..., rows, W) from `readout_hybrid`, on CPUs by scipy."""
    if not _scipy_takes(hybrid):
        return center_crop(ifftc(hybrid), (hybrid.shape[-2], columns)).abs()
    image = scipy.fft.ifft(hybrid.numpy(), axis=-1, norm="ortho")
    return torch.from_numpy(_cropped_magnitude(image, columns))


def magnitude_image(
    kspace: ComplexArray, size: tuple[int, int], sampled: NDArray[np.bool_] | None = None
) -> FloatArray:
    """Centre-cropped magnitude image of k-space whose other columns count as zero.

    Args:
        kspace: (..., H, W), complex64.
        size: Rows and columns of the image.
        sampled: (W,); only these columns are used, and only they cost time. All of them if None.

    Returns:
        (..., *size), float32. Equals `center_crop(ifft2c(kspace * sampled), size).abs()`.
    """
    height, width = kspace.shape[-2:]
    columns = np.arange(width) if sampled is None else np.flatnonzero(sampled)
    # Without shifts of the input, which give the output phases that magnitudes do not see.
    measured = scipy.fft.ifft(kspace[..., columns], axis=-2, norm="ortho", overwrite_x=True)
    hybrid = np.zeros((*kspace.shape[:-2], size[0], width), dtype=np.complex64)
    for place, part in _crop(height, size[0]):
        hybrid[..., place, columns] = measured[..., part, :]
    return _cropped_magnitude(scipy.fft.ifft(hybrid, axis=-1, norm="ortho", overwrite_x=True), size[1])


def _scipy_takes(data: Tensor) -> bool:
    """Scipy's transforms give the same bits whatever the number of threads, in the training process and in loaders."""
    return data.device.type == "cpu"


def _centred(transform: Literal["fftn", "ifftn"], data: Data, axes: tuple[int, ...]) -> Data:
    if isinstance(data, Tensor):
        shifted = torch.fft.ifftshift(data, dim=axes)
        centred: Tensor = torch.fft.fftshift(getattr(torch.fft, transform)(shifted, dim=axes, norm="ortho"), dim=axes)
        return centred
    # scipy's transform keeps complex64, and gives the same bits whatever the number of threads.
    array = scipy.fft.ifftshift(data, axes=axes)
    return np.asarray(scipy.fft.fftshift(getattr(scipy.fft, transform)(array, axes=axes, norm="ortho"), axes=axes))


def _cropped_magnitude(image: ComplexArray, columns: int) -> FloatArray:
    """Magnitudes (..., columns) of the middle of an unshifted transform (..., W)."""
    magnitude = np.empty((*image.shape[:-1], columns), dtype=np.float32)
    for place, part in _crop(image.shape[-1], columns):
        np.abs(image[..., part], out=magnitude[..., place])
    return magnitude


def _crop(length: int, wanted: int) -> list[tuple[slice, slice]]:
    """Pairs of slices: a part of the centre crop of a shifted transform, and the same of the unshifted one."""
    first = (crop_start(length, wanted) - length // 2) % length
    before = min(wanted, length - first)
    return [(slice(before), slice(first, first + before)), (slice(before, wanted), slice(wanted - before))]

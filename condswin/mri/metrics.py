"""FastMRI's image metrics, per volume (Zbontar et al. 2018, section 5).

All take a target and a prediction (slices, rows, columns) in the same units and use the largest value of the target
*volume* as data range: a slice's own maximum flatters dark slices by decibels.
"""

import math
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Volume = NDArray[np.floating[Any]]
T = TypeVar("T")

#: Side of SSIM's uniform window, pixels, and its two constants (Wang et al. 2004; scikit-image's defaults).
WINDOW = 7
K1, K2 = 0.01, 0.03


def volume_metrics(target: Volume, prediction: Volume) -> dict[str, float]:
    """PSNR (dB), SSIM, NMSE and MAE of one volume, by name.

    Raises:
        ValueError: The shapes differ or are not (slices, rows, columns).
    """
    if target.shape != prediction.shape or target.ndim != 3:
        raise ValueError(f"prediction {prediction.shape} and target {target.shape} must be of one 3-D shape")
    _require_windows(target)
    maximum = float(target.max())
    scale, unit = 1 / maximum, _unit(target)
    slices = _by_slice(lambda x, y: (_slice_sums(x, y, unit), _slice_ssim(x, y, scale)), target, prediction)
    sums = _total(sums for sums, _ in slices)
    similarity = sum(similarity for _, similarity in slices) / len(slices)
    return {"psnr": sums.psnr(maximum), "ssim": similarity, "nmse": sums.nmse, "mae": sums.mae}


def mae(target: Volume, prediction: Volume) -> float:
    """Mean absolute error, in the units of the images."""
    return _sums(target, prediction).mae


def nmse(target: Volume, prediction: Volume) -> float:
    """Squared norm of the error divided by that of the target, both over the volume."""
    return _sums(target, prediction).nmse


def psnr(target: Volume, prediction: Volume, *, maximum: float | None = None) -> float:
    """Peak signal-to-noise ratio, dB; infinite for a perfect prediction.

    Args:
        target: (slices, H, W).
        prediction: The same shape.
        maximum: Data range; the target's largest value if None. To be given for a part of a volume.
    """
    return _sums(target, prediction).psnr(float(target.max()) if maximum is None else maximum)


def slice_psnr(target: Tensor, prediction: Tensor, maximum: Tensor) -> Tensor:
    """PSNR (B,) of slices (B, 1, H, W) against the maxima (B,) of their volumes: for monitoring, not for reports."""
    error = (target.float() - prediction.float()) / maximum.float()[:, None, None, None]
    return -10 * torch.log10(error.square().mean(dim=(1, 2, 3)).clamp_min(1e-12))


def ssim(target: Volume, prediction: Volume, *, maximum: float | None = None) -> float:
    """Structural similarity, mean over slices and over the windows that lie inside the image.

    Equals the mean of `skimage.metrics.structural_similarity` over slices with its default window.

    Args:
        target: (slices, H, W).
        prediction: The same shape.
        maximum: Data range; the target's largest value if None. To be given for a part of a volume.

    Raises:
        ValueError: A slice is smaller than the window.
    """
    _require_windows(target)
    scale = 1 / (float(target.max()) if maximum is None else maximum)
    values = _by_slice(lambda x, y: _slice_ssim(x, y, scale), target, prediction)
    return sum(values) / len(values)


def _require_windows(target: Volume) -> None:
    rows, columns = target.shape[-2:]
    if min(rows, columns) < WINDOW:
        raise ValueError(f"slices of {rows}x{columns} are smaller than SSIM's window of {WINDOW}")


def _slice_ssim(x: Volume, y: Volume, scale: float) -> float:
    """Mean SSIM over the windows inside two images (H, W), multiplied by `scale` to a data range of one.

    With u = x + y and v = x - y, both factors of SSIM need squares alone: 2 x y = (u^2 - v^2) / 2 and
    x^2 + y^2 = (u^2 + v^2) / 2, of means as of (co)variances. In float32, which halves the traffic through the cache:
    with a data range of one and u and v centred, rounding is five orders of magnitude below the constants that
    variances are compared with. All planes lie in one array, for few calls on long runs.
    """
    rows, columns = x.shape
    # Six more than pixels, for the windows that begin in the last columns of the last row.
    planes = np.zeros((4, x.size + WINDOW - 1), np.float32)
    np.add(x, y, out=planes[0, : x.size].reshape(x.shape), dtype=np.float32, casting="same_kind")
    np.subtract(x, y, out=planes[1, : x.size].reshape(x.shape), dtype=np.float32, casting="same_kind")
    planes[:2] *= np.float32(scale)
    centers = planes[:2].mean(axis=1, keepdims=True)
    planes[:2] -= centers
    np.multiply(planes[:2], planes[:2], out=planes[2:])
    # Sums over windows of n pixels instead of means: everything is n or n^2 times larger, the constants included.
    n = np.float32(WINDOW * WINDOW)
    sums = _window_sums(planes, columns)
    means, variances = sums[:2], sums[2:]
    variances *= n
    variances -= means * means
    # The means need the centres back; variances do not depend on them.
    means += n * centers
    means *= means
    pairs = sums.reshape(2, 2, -1)
    # Variances are the sample's, n / (n - 1) times what the sums give.
    constants = np.array([[2 * K1**2 * n * n], [2 * K2**2 * n * (n - 1)]], np.float32)
    above = pairs[:, 0] - pairs[:, 1]
    above += constants
    below = pairs[:, 0]
    below += pairs[:, 1]
    below += constants
    values = above[0]
    values *= above[1]
    values /= below[0]
    values /= below[1]
    # Windows that wrap around the right edge were computed along with the others, and are left out here.
    inside = values.reshape(rows - WINDOW + 1, columns)[:, : columns - WINDOW + 1]
    return float(inside.mean(dtype=np.float64))


def _window_sums(planes: NDArray[np.float32], columns: int) -> NDArray[np.float32]:
    """Sums over the 7x7 windows of flat images (n, H * W + 6) by their first pixel: (n, (H - 6) * W).

    Windows that begin in the last six columns wrap around.
    """
    for step in (columns, 1):
        # Sums of two, then of four; 7 = 4 + 2 + 1.
        inside = planes.shape[1] - 6 * step
        two = planes[:, : inside + 5 * step] + planes[:, step:]
        sums = two[:, :inside] + two[:, 2 * step : 2 * step + inside]
        sums += two[:, 4 * step : 4 * step + inside]
        sums += planes[:, 6 * step :]
        planes = sums
    return planes


class _Sums(NamedTuple):
    """Sums over the pixels of a part of a volume: all that metrics but SSIM need of it."""

    pixels: int
    absolute_error: float
    squared_error: float
    squared_target: float

    @property
    def mae(self) -> float:
        return self.absolute_error / self.pixels

    @property
    def nmse(self) -> float:
        return self.squared_error / self.squared_target

    def psnr(self, maximum: float) -> float:
        error = self.squared_error / self.pixels
        return 10 * math.log10(maximum**2 / error) if error > 0 else math.inf


def _sums(target: Volume, prediction: Volume) -> _Sums:
    unit = _unit(target)
    return _total(_by_slice(lambda x, y: _slice_sums(x, y, unit), target, prediction))


def _unit(target: Volume) -> float:
    """A power of two near the largest value: scaling by it is exact, and squares neither overflow nor vanish."""
    return math.ldexp(1.0, math.frexp(float(target.max()))[1])


def _slice_sums(x: Volume, y: Volume, unit: float) -> _Sums:
    """Row by row in the images' own precision, the sum of rows in float64: in total as good as all in float64."""
    error = x - y
    error /= error.dtype.type(unit)
    squared = np.einsum("ij,ij->i", error, error)
    absolute = np.einsum("ij->i", np.abs(error, out=error))
    target = np.divide(x, error.dtype.type(unit), out=error)
    of_target = np.einsum("ij,ij->i", target, target)
    return _Sums(
        x.size,
        float(absolute.sum(dtype=np.float64)) * unit,
        float(squared.sum(dtype=np.float64)) * unit**2,
        float(of_target.sum(dtype=np.float64)) * unit**2,
    )


def _total(parts: Iterable[_Sums]) -> _Sums:
    return _Sums(*(sum(values) for values in zip(*parts, strict=True)))


def _by_slice(measure: Callable[[Volume, Volume], T], target: Volume, prediction: Volume) -> list[T]:
    with ThreadPoolExecutor(min(len(target), os.cpu_count() or 1)) as pool:
        return list(pool.map(measure, target, prediction))

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
from torch.nn import functional as F

Volume = NDArray[np.floating[Any]]
T = TypeVar("T")

#: Side of SSIM's uniform window, pixels, and its two constants (Wang et al. 2004; scikit-image's defaults).
WINDOW = 7
K1, K2 = 0.01, 0.03


def volume_metrics(target: Volume, prediction: Volume) -> dict[str, float]:
    """PSNR (dB), SSIM, NMSE and MAE of one volume, by name.

    NMSE is the squared norm of the error divided by that of the target, both over the volume; MAE has the images' unit.

    Raises:
        ValueError: The shapes differ or are not (slices, rows, columns).
    """
    if target.shape != prediction.shape or target.ndim != 3:
        raise ValueError(f"prediction {prediction.shape} and target {target.shape} must be of one 3-D shape")
    _require_windows(target)
    maximum = float(target.max())
    scale, unit = 1 / maximum, _unit(target)
    parts = _by_part(lambda x, y: (_part_sums(x, y, unit), _part_ssim(x, y, scale)), target, prediction)
    sums = _total(sums for sums, _ in parts)
    similarity = sum(similarity for _, similarity in parts) / len(target)
    return {"psnr": sums.psnr(maximum), "ssim": similarity, "nmse": sums.nmse, "mae": sums.mae}


def psnr(target: Volume, prediction: Volume, *, maximum: float | None = None) -> float:
    """Peak signal-to-noise ratio, dB; infinite for a perfect prediction.

    Args:
        target: (slices, H, W).
        prediction: The same shape.
        maximum: Data range; the target's largest value if None. To be given for a part of a volume.
    """
    unit = _unit(target)
    sums = _total(_by_part(lambda x, y: _part_sums(x, y, unit), target, prediction))
    return sums.psnr(float(target.max()) if maximum is None else maximum)


def slice_psnr(target: Tensor, prediction: Tensor, maximum: Tensor) -> Tensor:
    """PSNR (B,) of slices (B, 1, H, W) against the maxima (B,) of their volumes: for monitoring, not for reports."""
    error = (target.float() - prediction.float()) / maximum.float()[:, None, None, None]
    return -10 * torch.log10(error.square().mean(dim=(1, 2, 3)).clamp_min(1e-12))


def slice_ssim(target: Tensor, prediction: Tensor, maximum: Tensor) -> Tensor:
    """SSIM (B,) of slices (B, 1, H, W) against the maxima (B,) of their volumes, with a gradient; `ssim` is faster.

    Raises:
        ValueError: A slice is smaller than the window.
    """
    _require_size(*target.shape[-2:])
    scale = maximum.float()[:, None, None, None]
    x, y = target.float() / scale, prediction.float() / scale
    # Shifted towards zero: variances are differences of means of squares, which lose digits where means are large.
    centre = x.mean(dim=(1, 2, 3), keepdim=True)
    x, y = x - centre, y - centre
    means = F.avg_pool2d(torch.cat([x, y, x * x, y * y, x * y], dim=1), WINDOW, stride=1)
    ux, uy, uxx, uyy, uxy = torch.split(means, 1, dim=1)
    of_sample = WINDOW**2 / (WINDOW**2 - 1)
    vx, vy, vxy = (of_sample * (both - one * other) for both, one, other in
                   ((uxx, ux, ux), (uyy, uy, uy), (uxy, ux, uy)))  # fmt: skip
    ux, uy = ux + centre, uy + centre
    above = (2 * ux * uy + K1**2) * (2 * vxy + K2**2)
    similarity: Tensor = above / ((ux**2 + uy**2 + K1**2) * (vx + vy + K2**2))
    return similarity.mean(dim=(1, 2, 3))


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
    return sum(_by_part(lambda x, y: _part_ssim(x, y, scale), target, prediction)) / len(target)


def _require_windows(target: Volume) -> None:
    _require_size(*target.shape[-2:])


def _require_size(rows: int, columns: int) -> None:
    if min(rows, columns) < WINDOW:
        raise ValueError(f"slices of {rows}x{columns} are smaller than SSIM's window of {WINDOW}")


def _part_ssim(target: Volume, prediction: Volume, scale: float) -> float:
    """Sum over slices of the mean SSIM of the windows inside, of two volumes times `scale`: to a data range of one.

    With u = x + y and v = x - y, both factors of SSIM need squares alone: 2 x y = (u^2 - v^2) / 2 and
    x^2 + y^2 = (u^2 + v^2) / 2, of means as of (co)variances. In float32, which halves the traffic through the cache:
    with a data range of one and u and v centred, rounding is five orders of magnitude below the constants that
    variances are compared with. All planes lie in one array, for few calls on long runs, and slice after slice in the
    same arrays: threads that ask for fresh memory wait for each other.
    """
    rows, columns = target.shape[1:]
    pixels = rows * columns
    # Six more than pixels, for the windows that begin in the last columns of the last row.
    planes, scratch, sums = np.zeros((3, 4, pixels + WINDOW - 1), np.float32)
    images = planes[:2, :pixels]
    # Sums over windows of n pixels instead of means: everything is n or n^2 times larger, the constants included.
    n = np.float32(WINDOW * WINDOW)
    # Variances are the sample's, n / (n - 1) times what the sums give.
    constants = np.array([[2 * K1**2 * n * n], [2 * K2**2 * n * (n - 1)]], np.float32)
    total = 0.0
    for x, y in zip(target, prediction, strict=True):
        np.add(x.ravel(), y.ravel(), out=images[0], dtype=np.float32, casting="same_kind")
        np.subtract(x.ravel(), y.ravel(), out=images[1], dtype=np.float32, casting="same_kind")
        images *= np.float32(scale)
        centers = images.mean(axis=1, keepdims=True)
        images -= centers
        planes[:2, pixels:] = 0
        np.multiply(planes[:2], planes[:2], out=planes[2:])
        columnwise = _window_sums(planes, columns, scratch, sums)
        means, variances = np.split(_window_sums(columnwise, 1, scratch, planes), 2)
        above, squares = scratch[:2, : means.shape[1]], scratch[2:, : means.shape[1]]
        variances *= n
        variances -= np.multiply(means, means, out=squares)
        # The means need the centres back; variances do not depend on them.
        means += n * centers
        means *= means
        for factor, (of_u, of_v) in enumerate((means, variances)):
            np.subtract(of_u, of_v, out=above[factor])
            of_u += of_v
            above[factor] += constants[factor]
            of_u += constants[factor]
        values = above[0]
        values *= above[1]
        values /= means[0]
        values /= variances[0]
        # Windows that wrap around the right edge were computed along with the others, and are left out here.
        inside = values.reshape(rows - WINDOW + 1, columns)[:, : columns - WINDOW + 1]
        total += float(inside.mean(dtype=np.float64))
    return total


def _window_sums(
    planes: NDArray[np.float32], step: int, scratch: NDArray[np.float32], out: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Sums of seven numbers `step` apart in flat images (n, L), by the first of them: (n, L - 6 * step), in `out`.

    With the columns as step, and then 1, these are sums over 7x7 windows; those that begin in the last six columns wrap
    around.
    """
    inside = planes.shape[1] - 6 * step
    # Sums of two, then of four; 7 = 4 + 2 + 1.
    two = np.add(planes[:, :-step], planes[:, step:], out=scratch[:, : inside + 5 * step])
    sums = np.add(two[:, :inside], two[:, 2 * step : 2 * step + inside], out=out[:, :inside])
    sums += two[:, 4 * step : 4 * step + inside]
    sums += planes[:, 6 * step :]
    return sums


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


def _unit(target: Volume) -> float:
    """A power of two near the largest value: scaling by it is exact, and squares neither overflow nor vanish."""
    return math.ldexp(1.0, math.frexp(float(target.max()))[1])


def _part_sums(target: Volume, prediction: Volume, unit: float) -> _Sums:
    """Row by row in the images' own precision, the sum of rows in float64: in total as good as all in float64."""
    return _total(_slice_sums(x, y, unit) for x, y in zip(target, prediction, strict=True))


def _slice_sums(x: Volume, y: Volume, unit: float) -> _Sums:
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


def _by_part(measure: Callable[[Volume, Volume], T], target: Volume, prediction: Volume) -> list[T]:
    """What `measure` gives for runs of slices, as many as there are cores."""
    parts = min(len(target), os.cpu_count() or 1)
    with ThreadPoolExecutor(parts) as pool:
        return list(pool.map(measure, np.array_split(target, parts), np.array_split(prediction, parts)))

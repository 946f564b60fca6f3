"""FastMRI's image metrics, per volume (Zbontar et al. 2018, section 5).

All take a target and a prediction (slices, rows, columns) in the same units and use the largest value of the target
*volume* as data range: a slice's own maximum flatters dark slices by decibels.
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Volume = NDArray[np.floating[Any]]

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
    return {
        "psnr": psnr(target, prediction),
        "ssim": ssim(target, prediction),
        "nmse": nmse(target, prediction),
        "mae": mae(target, prediction),
    }


def mae(target: Volume, prediction: Volume) -> float:
    """Mean absolute error, in the units of the images."""
    return float(np.abs(_error(target, prediction)).mean())


def nmse(target: Volume, prediction: Volume) -> float:
    """Squared norm of the error divided by that of the target, both over the volume."""
    return _squares(_error(target, prediction)) / _squares(target.astype(np.float64))


def psnr(target: Volume, prediction: Volume, *, maximum: float | None = None) -> float:
    """Peak signal-to-noise ratio, dB; infinite for a perfect prediction.

    Args:
        target: (slices, H, W).
        prediction: The same shape.
        maximum: Data range; the target's largest value if None. To be given for a part of a volume.
    """
    maximum = float(target.max()) if maximum is None else maximum
    error = _squares(_error(target, prediction)) / target.size
    return 10 * math.log10(maximum**2 / error) if error > 0 else math.inf


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
    rows, columns = target.shape[-2:]
    if min(rows, columns) < WINDOW:
        raise ValueError(f"slices of {rows}x{columns} are smaller than SSIM's window of {WINDOW}")
    scale = 1 / (float(target.max()) if maximum is None else maximum)
    with ThreadPoolExecutor(min(len(target), os.cpu_count() or 1)) as pool:
        values = list(pool.map(lambda x, y: _slice_ssim(x, y, scale), target, prediction))
    return sum(values) / len(values)


def _slice_ssim(x: Volume, y: Volume, scale: float) -> float:
    """Mean SSIM over the windows inside two images (H, W), multiplied by `scale` to a data range of one.

    In float32, which halves the traffic through the cache: with a data range of one and the images centred, rounding is
    five orders of magnitude below the constants that variances are compared with.
    """
    shape = x.shape
    (x, center_x), (y, center_y) = (_centred(image, scale) for image in (x, y))
    # Sums over windows of n pixels instead of means: everything is n or n^2 times larger, the constants included.
    n = WINDOW * WINDOW
    sum_x, sum_y, product = _window_sums(x), _window_sums(y), _window_sums(x * y)
    x *= x
    y *= y
    x += y
    squares = _window_sums(x)
    sums = sum_x * sum_y
    powers = sum_x * sum_x
    powers += sum_y * sum_y
    # Sample covariance is n / (n - 1) * (E[xy] - E[x] E[y]); in sums, times n^2: n / (n - 1) * (n S_xy - S_x S_y).
    c2 = np.float32(K2**2 * n * (n - 1))
    product *= n
    product -= sums
    product *= 2
    product += c2
    squares *= n
    squares -= powers
    squares += c2
    product /= squares
    # The means need the centres back; variances and covariance do not depend on them.
    sum_x += n * center_x
    sum_y += n * center_y
    c1 = np.float32(K1**2 * n * n)
    np.multiply(sum_x, sum_y, out=sums)
    sums *= 2
    sums += c1
    sum_x *= sum_x
    sum_y *= sum_y
    sum_x += sum_y
    sum_x += c1
    product *= sums
    product /= sum_x
    # Windows that wrap around the right edge were computed along with the others, and are left out here.
    inside = np.resize(product, (shape[0] - WINDOW + 1, shape[1]))[:, : shape[1] - WINDOW + 1]
    return float(inside.mean(dtype=np.float64))


def _centred(image: Volume, scale: float) -> tuple[NDArray[np.float32], np.float32]:
    """Scaled image minus its mean, and that mean."""
    center = np.float32(image.mean(dtype=np.float64) * scale)
    centred = image.astype(np.float32)
    centred *= np.float32(scale)
    centred -= center
    return centred, center


def _window_sums(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums over the 7x7 windows of an image (H, W) by their first pixel, flat: ((H - 6) * W - 6,).

    Flat, because long runs are faster than many rows; windows that begin in the last six columns wrap around.
    """
    flat = image.reshape(-1)
    for step in (image.shape[1], 1):
        # Sums of two, then of four; 7 = 4 + 2 + 1.
        inside = flat.size - 6 * step
        two = flat[: inside + 5 * step] + flat[step:]
        sums = two[:inside] + two[2 * step : 2 * step + inside]
        sums += two[4 * step : 4 * step + inside]
        sums += flat[6 * step :]
        flat = sums
    return flat


def _error(target: Volume, prediction: Volume) -> NDArray[np.float64]:
    return np.subtract(target, prediction, dtype=np.float64)


def _squares(values: NDArray[np.float64]) -> float:
    return float(np.vdot(values, values))

"""Scores and pictures of reconstructions, from files alone, whoever made them."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from condswin.errors import BadFileError
from condswin.mri.fourier import FloatArray
from condswin.mri.metrics import WINDOW, psnr, ssim, volume_metrics
from condswin.mri.reading import TARGETS, VolumeReader, acquisition
from condswin.mri.undersample import MASK, ZERO_FILLED, read_mask, read_zero_filled
from condswin.tasks import Row

#: Dataset of a prediction file, as in fastMRI.
PREDICTION = "reconstruction"

METRICS = ("psnr", "ssim", "nmse", "mae")

#: Error maps are shown this many times brighter than the images.
ERROR_GAIN = 5


class _Truth(NamedTuple):
    target: FloatArray
    zero_filled: FloatArray | None
    acquisition: str
    acceleration: float


def score_case(case: str, target_file: Path, prediction_file: Path) -> Row:
    """Metrics of one volume, and of its zero-filled image under `zero_filled_`.

    That image is the target file's, else computed from its k-space and mask; without these its metrics are NaN.

    Returns:
        `case`, `acquisition`, `acceleration` (the true one; NaN if the file does not say) and metric columns.

    Raises:
        BadFileError: A file is unusable, or the prediction has another shape than the target or is not finite.
    """
    truth = _read_truth(target_file)
    prediction = _read_images(prediction_file, PREDICTION)
    _require_shape(prediction_file, prediction, truth.target)
    row: Row = {"case": case, "acquisition": truth.acquisition, "acceleration": truth.acceleration}
    row.update(volume_metrics(truth.target, prediction))
    if truth.zero_filled is None:
        baseline = dict.fromkeys(METRICS, math.nan)
    else:
        baseline = volume_metrics(truth.target, truth.zero_filled)
    row.update({f"zero_filled_{name}": value for name, value in baseline.items()})
    return row


def picture_case(case: str, target_file: Path, prediction_file: Path) -> Figure:
    """Middle slice: target, zero-filled image (where there is one) and prediction above their errors.

    PSNR and SSIM in the titles are the slice's own, with the volume's maximum as data range.

    Raises:
        BadFileError: As in `score_case`.
    """
    truth = _read_truth(target_file)
    prediction = _read_images(prediction_file, PREDICTION)
    _require_shape(prediction_file, prediction, truth.target)
    rivals = {"zero-filled": truth.zero_filled, "reconstruction": prediction}
    shown = {name: volume for name, volume in rivals.items() if volume is not None}
    middle, maximum = len(truth.target) // 2, float(truth.target.max())
    target = truth.target[middle : middle + 1]

    rows, columns = target.shape[-2:]
    figure = Figure(figsize=(3 * (1 + len(shown)), 6 * rows / columns + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 1 + len(shown), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    # A little below the maximum, which single bright vessels set.
    white = float(np.quantile(target, 0.998)) or maximum
    axes[0, 0].imshow(target[0], cmap="gray", vmin=0, vmax=white)
    axes[0, 0].set_title("target")
    axes[1, 0].text(0.5, 0.5, f"errors x {ERROR_GAIN}", ha="center", va="center", transform=axes[1, 0].transAxes)
    for column, (name, volume) in enumerate(shown.items(), start=1):
        image = volume[middle : middle + 1]
        decibels, similarity = psnr(target, image, maximum=maximum), ssim(target, image, maximum=maximum)
        axes[0, column].imshow(image[0], cmap="gray", vmin=0, vmax=white)
        axes[0, column].set_title(f"{name}\n{decibels:.2f} dB, SSIM {similarity:.3f}")
        axes[1, column].imshow(np.abs(image - target)[0], cmap="gray", vmin=0, vmax=white / ERROR_GAIN)
    faster = f", {truth.acceleration:.2f}x" if math.isfinite(truth.acceleration) else ""
    figure.suptitle(f"{case} ({truth.acquisition}{faster}), slice {middle + 1} of {len(truth.target)}")
    return figure


def _read_truth(path: Path) -> _Truth:
    with VolumeReader(path) as reader:
        name = reader.target_name()
        if name is None:
            raise BadFileError(path, f"has neither {' nor '.join(TARGETS)} to score against")
        kind, acceleration = acquisition(reader), reader.attribute("true_acceleration")
        if not isinstance(acceleration, int | float) and MASK in reader:
            sampled = read_mask(reader)
            acceleration = sampled.size / int(sampled.sum())
        zero_filled = read_zero_filled(reader)
    target = _read_images(path, name)
    if float(target.max()) <= 0:
        raise BadFileError(path, f"{name} is zero everywhere")
    if zero_filled is not None:
        _require_shape(path, zero_filled, target)
        if not np.isfinite(zero_filled).all():
            raise BadFileError(path, f"{ZERO_FILLED} or kspace has NaN or infinite values")
    known = isinstance(acceleration, int | float)
    return _Truth(target, zero_filled, kind, float(acceleration) if known else math.nan)


def _read_images(path: Path, name: str) -> FloatArray:
    with VolumeReader(path) as reader:
        shape, dtype = reader.shape(name), reader.dtype(name)
        if len(shape) != 3 or 0 in shape or min(shape[1:]) < WINDOW or dtype.kind != "f":
            raise BadFileError(
                path,
                f"{name} is {dtype.name} {shape}, expected real (slices, rows, columns) of at least {WINDOW}x{WINDOW}",
            )
        images: FloatArray = reader.read(name).astype(np.float32, copy=False)
    if not np.isfinite(images).all():
        raise BadFileError(path, f"{name} has NaN or infinite values; predict it again with a sound model")
    return images


def _require_shape(path: Path, images: FloatArray, target: FloatArray) -> None:
    if images.shape != target.shape:
        raise BadFileError(path, f"images of shape {images.shape}, the target has {target.shape}: predict it again")

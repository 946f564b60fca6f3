"""Scores of reconstructions, from files alone, whoever made them."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from condswin.errors import BadDataError, BadFileError
from condswin.fourier import FloatArray
from condswin.mri.config import ReconstructionConfig
from condswin.mri.metrics import WINDOW, volume_metrics
from condswin.mri.prepared import MASK, ZERO_FILLED, prepared_files, read_mask, read_zero_filled
from condswin.mri.reading import PREDICTION, TARGETS, VolumeReader, acquisition
from condswin.tasks.facts import Row


class Truth(NamedTuple):
    """What a target file says.

    Attributes:
        target: (slices, H, W).
        zero_filled: The same shape; None where the file has neither it nor masked k-space.
        acquisition: Kind of scan.
        acceleration: The true one; NaN if unknown.
    """

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
    truth = read_truth(target_file)
    prediction = read_prediction(prediction_file, truth)
    row: Row = {"case": case, "acquisition": truth.acquisition, "acceleration": truth.acceleration}
    row.update(volume_metrics(truth.target, prediction))
    if truth.zero_filled is None:
        zero_filled = dict.fromkeys(ReconstructionConfig.metrics, math.nan)
    else:
        zero_filled = volume_metrics(truth.target, truth.zero_filled)
    row.update({f"zero_filled_{name}": value for name, value in zero_filled.items()})
    return row


def read_truth(path: Path) -> Truth:
    """Reads a target file.

    Raises:
        BadFileError: It has no target, or what it has cannot be scored against.
    """
    with VolumeReader(path) as reader:
        name = reader.target_name()
        if name is None:
            raise BadFileError(path, f"has neither {' nor '.join(TARGETS)} to score against")
        kind, acceleration = acquisition(reader), reader.attribute("true_acceleration")
        if not isinstance(acceleration, int | float) and MASK in reader:
            sampled = read_mask(reader)
            acceleration = sampled.size / int(sampled.sum())
        zero_filled = read_zero_filled(reader)
        target = _read_images(reader, name)
    if float(target.max()) <= 0:
        raise BadFileError(path, f"{name} is zero everywhere")
    if zero_filled is not None:
        _require_shape(path, zero_filled, target)
        if not np.isfinite(zero_filled).all():
            raise BadFileError(path, f"{ZERO_FILLED} or kspace has NaN or infinite values")
    known = isinstance(acceleration, int | float)
    return Truth(target, zero_filled, kind, float(acceleration) if known else math.nan)


def read_prediction(path: Path, truth: Truth) -> FloatArray:
    """Images (slices, H, W) of a prediction file, of the target's shape.

    Raises:
        BadFileError: They cannot be scored.
    """
    with VolumeReader(path) as reader:
        prediction = _read_images(reader, PREDICTION)
    _require_shape(path, prediction, truth.target)
    return prediction


def _read_images(reader: VolumeReader, name: str) -> FloatArray:
    shape, dtype = reader.shape(name), reader.dtype(name)
    if len(shape) != 3 or 0 in shape or min(shape[1:]) < WINDOW or dtype.kind != "f":
        raise BadFileError(
            reader.path,
            f"{name} is {dtype.name} {shape}, expected real (slices, rows, columns) of at least {WINDOW}x{WINDOW}",
        )
    images: FloatArray = reader.read(name).astype(np.float32, copy=False)
    if not np.isfinite(images).all():
        raise BadFileError(reader.path, f"{name} has NaN or infinite values; predict it again with a sound model")
    return images


def _require_shape(path: Path, images: FloatArray, target: FloatArray) -> None:
    if images.shape != target.shape:
        raise BadFileError(path, f"images of shape {images.shape}, the target has {target.shape}: predict it again")


def score_pairs(targets: Path, predictions: Path) -> dict[str, tuple[Path, Path]]:
    """Target and prediction file by case name.

    Raises:
        BadDataError: A target without prediction, or nothing to score.
    """
    wanted, found = prepared_files(targets), prepared_files(predictions)
    if not wanted:
        raise BadDataError(f"{targets}: no target file to score against")
    if missing := sorted(set(wanted) - set(found)):
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise BadDataError(f"{predictions}: no prediction for {', '.join(missing[:5])}{more}; predict them first")
    return {case: (path, found[case]) for case, path in wanted.items()}

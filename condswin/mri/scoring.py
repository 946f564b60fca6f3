"""Scores of reconstructions, from files alone, whoever made them."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from condswin.cases import endings
from condswin.errors import BadDataError, BadFileError
from condswin.fourier import FloatArray, crop_start
from condswin.mri.config import ReconstructionConfig
from condswin.mri.metrics import WINDOW, volume_metrics
from condswin.mri.prepared import prepared_files, read_sampling, read_zero_filled
from condswin.mri.reading import (
    MASK,
    METHOD,
    NETWORK,
    PREDICTION,
    SUFFIXES,
    TARGETS,
    ZERO_FILLED,
    VolumeReader,
    acquisition,
)
from condswin.tasks.facts import Row


class Truth(NamedTuple):
    """What a target file says.

    Attributes:
        target: (slices, H, W).
        zero_filled: The same shape; None where the file has neither it nor masked k-space.
        acquisition: Kind of scan.
        acceleration: The true one; NaN if unknown.
        nominal: The acceleration that the mask was drawn for; NaN if unknown.
    """

    target: FloatArray
    zero_filled: FloatArray | None
    acquisition: str
    acceleration: float
    nominal: float

    @property
    def faster(self) -> str:
        """Both accelerations for a caption, as far as they are known."""
        if not math.isfinite(self.acceleration):
            return ""
        return f"{self.acceleration:.2f}x" + (f", nominally {self.nominal:g}x" if math.isfinite(self.nominal) else "")


def score_case(case: str, target_file: Path, prediction_file: Path) -> Row:
    """Metrics of one volume, and of its zero-filled image under `zero_filled_`.

    That image is the target file's, else computed from its k-space and mask; without these its metrics are NaN.

    Returns:
        `case`, `acquisition`, `acceleration` (the true one, of the columns that could be measured),
        `nominal_acceleration` (both NaN if the file does not say), `fallback` (1 if another method made the
        prediction than the network that was asked, 0 if not, NaN if the prediction does not say) and metric columns.

    Raises:
        BadFileError: A file is unusable, or the prediction has another shape than the target or is not finite.
    """
    truth, prediction, fallback = read_case(target_file, prediction_file)
    row: Row = {
        "case": case,
        "acquisition": truth.acquisition,
        "acceleration": truth.acceleration,
        "nominal_acceleration": truth.nominal,
        "fallback": fallback,
    }
    row.update(volume_metrics(truth.target, prediction))
    if truth.zero_filled is None:
        zero_filled = dict.fromkeys(ReconstructionConfig.metrics, math.nan)
    else:
        zero_filled = volume_metrics(truth.target, truth.zero_filled)
    row.update({f"zero_filled_{name}": value for name, value in zero_filled.items()})
    return row


def read_case(target_file: Path, prediction_file: Path) -> tuple[Truth, FloatArray, float]:
    """A target and its prediction, of one shape, and `fallback` as in `score_case`.

    Where a prediction is the square of the target's columns, the target is cropped to it, as fastMRI's evaluation does
    with scans whose k-space is narrower than their header's matrix.

    Raises:
        BadFileError: One is unusable, or they are of other shapes.
    """
    truth = read_truth(target_file)
    with VolumeReader(prediction_file) as reader:
        prediction, method = _read_images(reader, PREDICTION), reader.attribute(METHOD)
    slices, rows, columns = truth.target.shape
    if prediction.shape == (slices, columns, columns) and columns < rows:
        top = crop_start(rows, columns)
        zero_filled = None if truth.zero_filled is None else truth.zero_filled[:, top : top + columns]
        truth = truth._replace(target=truth.target[:, top : top + columns], zero_filled=zero_filled)
    _require_shape(prediction_file, prediction, truth.target)
    return truth, prediction, math.nan if method is None else float(method != NETWORK)


def read_truth(path: Path) -> Truth:
    """Reads a target file.

    Raises:
        BadFileError: It has no target, or what it has cannot be scored against.
    """
    with VolumeReader(path) as reader:
        name = reader.target_name()
        if name is None:
            raise BadFileError(path, f"has neither {' nor '.join(TARGETS)} to score against")
        kind = acquisition(reader)
        acceleration, nominal = (_number(reader.attribute(name)) for name in ("true_acceleration", "acceleration"))
        if math.isnan(acceleration) and MASK in reader:
            sampled, extent = read_sampling(reader)
            acceleration = extent.width / int(sampled.sum())
        zero_filled = read_zero_filled(reader)
        target = _read_images(reader, name)
    if float(target.max()) <= 0:
        raise BadFileError(path, f"{name} is zero everywhere")
    if zero_filled is not None:
        _require_shape(path, zero_filled, target)
        if not np.isfinite(zero_filled).all():
            raise BadFileError(path, f"{ZERO_FILLED} or kspace has NaN or infinite values")
    return Truth(target, zero_filled, kind, acceleration, nominal)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _read_images(reader: VolumeReader, name: str) -> FloatArray:
    shape = reader.shape(name)
    if len(shape) != 3 or 0 in shape or min(shape[1:]) < WINDOW:
        raise BadFileError(
            reader.path, f"{name} is {shape}, expected (slices, rows, columns) of at least {WINDOW}x{WINDOW}"
        )
    images: FloatArray = reader.read(name)
    if not np.isfinite(images).all():
        raise BadFileError(reader.path, f"{name} has NaN or infinite values; predict it again with a sound model")
    return images


def _require_shape(path: Path, images: FloatArray, target: FloatArray) -> None:
    if images.shape != target.shape:
        raise BadFileError(path, f"images of shape {images.shape}, the target has {target.shape}: predict it again")


def score_pairs(targets: Path, predictions: Path) -> dict[str, tuple[Path, Path]]:
    """Target and prediction file by case name.

    Raises:
        BadDataError: A target without prediction, two files of one case, or nothing to score.
    """
    wanted, found = prepared_files(targets), prepared_files(predictions)
    if not wanted:
        raise BadDataError(
            f"{targets}: no target file ({', '.join(SUFFIXES)}) to score reconstructions against; {endings(targets)}"
        )
    if missing := sorted(set(wanted) - set(found)):
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise BadDataError(
            f"{predictions}: no prediction for {', '.join(missing[:5])}{more}; {endings(predictions)}: "
            "predict them first"
        )
    return {case: (path, found[case]) for case, path in wanted.items()}

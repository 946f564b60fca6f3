"""Overlap, volume, surface and lesion scores of one case, over the whole volume in its own geometry (LiTS)."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

Mask = NDArray[np.bool_]

#: Lesions that touch by a corner are one.
_CONNECTED = np.ones((3, 3, 3), dtype=bool)
#: Bands of lesions' diameters, mm, from and below. 10 mm is the least that counts as measurable on CT, 20 mm where
#: slices are thick (RECIST 1.1: Eisenhauer et al., Eur J Cancer 2009;45:228).
_BANDS = {"under_10mm": (0.0, 10.0), "10_to_20mm": (10.0, 20.0), "from_20mm": (20.0, math.inf)}


class Overlap(NamedTuple):
    """How two masks agree; a score whose denominator is empty is NaN, and means over cases leave it out.

    Attributes:
        dice: Twice the common voxels over the sum of both; NaN if both are empty, 0 if one is.
        iou: Common voxels over voxels of either.
        sensitivity: Fraction of the target found.
        precision: Fraction of the prediction that is right.
        volume_error: Predicted minus true volume, relative to the true one.
    """

    dice: float
    iou: float
    sensitivity: float
    precision: float
    volume_error: float


class Lesions(NamedTuple):
    """Lesion-wise detection: connected components that overlap the other volume by at least one voxel, or do not.

    Attributes:
        found: Target lesions that the prediction touches.
        missed: Target lesions that it does not touch.
        false: Predicted lesions that touch no target lesion.
        right: Predicted lesions that touch one.
        sizes: Voxels of each target lesion.
        touched: Whether the prediction touches it.
    """

    found: int
    missed: int
    false: int
    right: int
    sizes: NDArray[np.int64]
    touched: Mask

    def recall(self, least: float, below: float, voxel: float) -> float:
        """Fraction found of the target lesions of some size; NaN if there is none.

        Args:
            least: Diameter of a ball of the same volume, mm.
            below: The same; lesions are smaller.
            voxel: Volume, mm^3.
        """
        diameters = np.cbrt(6 / math.pi * voxel * self.sizes)
        chosen = self.touched[(diameters >= least) & (diameters < below)]
        return _ratio(int(np.count_nonzero(chosen)), chosen.size)


def overlap(target: Mask, prediction: Mask) -> Overlap:
    """Scores two masks of one shape."""
    true, predicted = int(np.count_nonzero(target)), int(np.count_nonzero(prediction))
    common = int(np.count_nonzero(target & prediction))
    return Overlap(
        dice=_ratio(2 * common, true + predicted),
        iou=_ratio(common, true + predicted - common),
        sensitivity=_ratio(common, true),
        precision=_ratio(common, predicted),
        volume_error=_ratio(predicted - true, true),
    )


def lesions(target: Mask, prediction: Mask) -> Lesions:
    """Counts lesions found, missed and invented.

    Args:
        target: Tumour voxels of the reference, (X, Y, Z).
        prediction: Tumour voxels predicted, same shape.
    """
    target, prediction = _cropped(target | prediction, target, prediction)
    true, true_count = ndimage.label(target, _CONNECTED)
    predicted, predicted_count = ndimage.label(prediction, _CONNECTED)
    touched = np.isin(np.arange(1, true_count + 1), true[prediction])
    found = int(np.count_nonzero(touched))
    right = np.count_nonzero(np.unique(predicted[target]))
    sizes = np.bincount(true.ravel(), minlength=true_count + 1)[1:]
    return Lesions(found, int(true_count - found), int(predicted_count - right), int(right), sizes, touched)


def untouched(lesions: Mask, other: Mask) -> NDArray[np.int32]:
    """Numbers of the lesions that touch nothing of the other volume, from 1; 0 elsewhere.

    Args:
        lesions: Tumour voxels of one volume, (X, Y, Z): of the target, whose missed lesions these are, or predicted,
            whose false ones they are.
        other: Tumour voxels of the other, same shape.
    """
    found = np.zeros(lesions.shape, np.int32)
    # The box around all lesions, if there is any.
    for box in ndimage.find_objects(lesions.view(np.uint8)):
        numbers, count = ndimage.label(lesions[box], _CONNECTED)
        alone = ~np.isin(np.arange(count + 1), numbers[other[box]])
        alone[0] = False
        found[box] = np.where(alone, np.cumsum(alone), 0)[numbers]
    return found


def hd95(target: Mask, prediction: Mask, steps: NDArray[np.float64]) -> float:
    """Hausdorff distance at the 95th percentile, mm: the larger of both directions' percentiles, as MONAI's.

    Distances are between the centres of surface voxels (those with a neighbour by a face outside the mask). MONAI's
    own function is not used because importing it takes seconds and brings MLflow along; the tests compare the two.

    Args:
        target: Voxels of the reference, (X, Y, Z).
        prediction: Voxels predicted, same shape.
        steps: The affine's 3x3 part: millimetres along the world's axes per step along each file axis, so that
            tilted and sheared grids are measured in the patient.

    Returns:
        NaN if either is empty: there is no distance to nothing (Dice is 0 there, or NaN if both are empty).
    """
    if not (target.any() and prediction.any()):
        return math.nan
    one, two = (_surface(mask) @ steps.T for mask in _cropped(target | prediction, target, prediction))
    return max(
        float(np.percentile(KDTree(there).query(here, workers=-1)[0], 95)) for here, there in ((one, two), (two, one))
    )


def score_case(
    target: NDArray[np.uint8], prediction: NDArray[np.uint8], steps: NDArray[np.float64]
) -> dict[str, float]:
    """All scores of one case.

    Args:
        target: Reference labels 0, 1, 2 of the whole volume, (X, Y, Z).
        prediction: Predicted labels, same shape.
        steps: The affine's 3x3 part, mm per step along each axis.

    Returns:
        `liver_*` over liver with tumour included, `tumour_*` over tumour, `mean_dice` (the slides' metric: the mean
        over the classes liver-without-tumour and tumour, background ignored), and counts of lesions. `_volume_error`
        is unsigned and relative, `_hd95` in mm, `_ml` the reference's volume. `lesion_recall_` of a band is over the
        reference's lesions of such a diameter, that of a ball of the same volume.
    """
    voxel = _voxel_mm3(steps)
    # Nearly all of an abdomen is background on both sides, and no score looks at it.
    target, prediction = _cropped((target > 0) | (prediction > 0), target, prediction)
    masks = {"liver": (target > 0, prediction > 0), "tumour": (target == 2, prediction == 2)}
    scores: dict[str, float] = {}
    for name, pair in masks.items():
        scores |= {f"{name}_{score}": value for score, value in overlap(*pair)._asdict().items()}
        scores[f"{name}_volume_error"] = abs(scores[f"{name}_volume_error"])
        scores[f"{name}_hd95"] = hd95(*pair, steps)
        scores[f"{name}_ml"] = int(np.count_nonzero(pair[0])) * (voxel / 1000)
    dices = [overlap(target == 1, prediction == 1).dice, scores["tumour_dice"]]
    dices = [dice for dice in dices if not math.isnan(dice)]
    scores["mean_dice"] = _ratio(sum(dices), len(dices))
    found = lesions(*masks["tumour"])
    scores["lesion_recall"] = _ratio(found.found, found.found + found.missed)
    scores |= {f"lesion_recall_{band}": found.recall(*limits, voxel) for band, limits in _BANDS.items()}
    scores["lesion_precision"] = _ratio(found.right, found.right + found.false)
    return scores | {f"lesions_{name}": float(getattr(found, name)) for name in ("found", "missed", "false")}


def tumour_ml(labels: NDArray[np.uint8], steps: NDArray[np.float64]) -> float:
    """Volume of tumour in labels (X, Y, Z) of a grid; `steps` as for `score_case`."""
    return int(np.count_nonzero(labels == 2)) * (_voxel_mm3(steps) / 1000)


def receiver_operating_characteristic(scored: Sequence[tuple[float, bool]]) -> list[tuple[float, float, float]]:
    """False positive rate, true positive rate and threshold, from where nothing counts as positive down.

    Args:
        scored: Of each case its score, and whether it is positive; a score at the threshold counts as positive.

    Returns:
        A point for each score that occurs, after one above them all; none if there are no positives or no negatives.
    """
    positives = sum(positive for _, positive in scored)
    negatives = len(scored) - positives
    if not (positives and negatives):
        return []
    highest = max(score for score, _ in scored)
    thresholds = [math.nextafter(highest, math.inf), *sorted({score for score, _ in scored}, reverse=True)]
    return [
        (
            sum(score >= threshold and not positive for score, positive in scored) / negatives,
            sum(score >= threshold and positive for score, positive in scored) / positives,
            threshold,
        )
        for threshold in thresholds
    ]


def _voxel_mm3(steps: NDArray[np.float64]) -> float:
    return abs(float(np.linalg.det(steps)))


def _cropped(shown: Mask, *arrays: NDArray[Any]) -> list[NDArray[Any]]:
    """Arrays cut to the smallest box that holds all of `shown`; of no voxels if there is nothing."""
    box = []
    for axis in range(shown.ndim):
        places = np.flatnonzero(shown.any(axis=tuple(other for other in range(shown.ndim) if other != axis)))
        box.append(slice(places[0], places[-1] + 1) if places.size else slice(0))
    return [array[tuple(box)] for array in arrays]


def _surface(mask: Mask) -> NDArray[np.float64]:
    """Indices (n, 3) of the voxels of a mask that have a neighbour outside it, or outside the array."""
    inside = mask.copy(order="K")
    # Six passes over bytes, several times faster than a general binary erosion.
    for axis in range(mask.ndim):
        within, whole = np.moveaxis(inside, axis, 0), np.moveaxis(mask, axis, 0)
        within[1:] &= whole[:-1]
        within[:-1] &= whole[1:]
        within[[0, -1]] = False
    return np.argwhere(mask & ~inside).astype(np.float64)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan

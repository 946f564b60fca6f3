"""Overlap, volume, surface and lesion scores of one case, over the whole volume in its own geometry (LiTS)."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

Mask = NDArray[np.bool_]

#: Lesions that touch by a corner are one.
_CONNECTED = np.ones((3, 3, 3), dtype=bool)


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
    """

    found: int
    missed: int
    false: int
    right: int


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
    found = np.count_nonzero(np.unique(true[prediction]))
    right = np.count_nonzero(np.unique(predicted[target]))
    return Lesions(int(found), int(true_count - found), int(predicted_count - right), int(right))


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
        is unsigned and relative, `_hd95` in mm, `_ml` the reference's volume.
    """
    millilitres = abs(float(np.linalg.det(steps))) / 1000
    # Nearly all of an abdomen is background on both sides, and no score looks at it.
    target, prediction = _cropped((target > 0) | (prediction > 0), target, prediction)
    masks = {"liver": (target > 0, prediction > 0), "tumour": (target == 2, prediction == 2)}
    scores: dict[str, float] = {}
    for name, pair in masks.items():
        scores |= {f"{name}_{score}": value for score, value in overlap(*pair)._asdict().items()}
        scores[f"{name}_volume_error"] = abs(scores[f"{name}_volume_error"])
        scores[f"{name}_hd95"] = hd95(*pair, steps)
        scores[f"{name}_ml"] = int(np.count_nonzero(pair[0])) * millilitres
    dices = [overlap(target == 1, prediction == 1).dice, scores["tumour_dice"]]
    dices = [dice for dice in dices if not math.isnan(dice)]
    scores["mean_dice"] = _ratio(sum(dices), len(dices))
    found = lesions(*masks["tumour"])
    scores["lesion_recall"] = _ratio(found.found, found.found + found.missed)
    scores["lesion_precision"] = _ratio(found.right, found.right + found.false)
    return scores | {f"lesions_{name}": float(getattr(found, name)) for name in ("found", "missed", "false")}


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

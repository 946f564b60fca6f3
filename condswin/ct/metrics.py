"""Overlap, volume and lesion scores of one case, over the whole volume in its own geometry (LiTS)."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

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
    """

    found: int
    missed: int
    false: int


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
    box = ndimage.find_objects((target | prediction).astype(np.uint8))
    if not box:
        return Lesions(0, 0, 0)
    # Labelling the box that holds all tumour instead of the whole abdomen saves most of the time.
    target, prediction = target[box[0]], prediction[box[0]]
    true, true_count = ndimage.label(target, _CONNECTED)
    predicted, predicted_count = ndimage.label(prediction, _CONNECTED)
    found = np.count_nonzero(np.unique(true[prediction]))
    right = np.count_nonzero(np.unique(predicted[target]))
    return Lesions(int(found), int(true_count - found), int(predicted_count - right))


def score_case(target: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> dict[str, float]:
    """All scores of one case.

    Args:
        target: Reference labels 0, 1, 2 of the whole volume.
        prediction: Predicted labels, same shape.

    Returns:
        `liver_*` over liver with tumour included, `tumour_*` over tumour, `mean_dice` (the slides' metric: the mean
        over the classes liver-without-tumour and tumour, background ignored), and counts of lesions.
    """
    liver = overlap(target > 0, prediction > 0)
    tumour = overlap(target == 2, prediction == 2)
    parenchyma = overlap(target == 1, prediction == 1)
    found = lesions(target == 2, prediction == 2)
    dices = [dice for dice in (parenchyma.dice, tumour.dice) if not math.isnan(dice)]
    return {
        "liver_dice": liver.dice,
        "tumour_dice": tumour.dice,
        "mean_dice": _ratio(sum(dices), len(dices)),
        "liver_iou": liver.iou,
        "liver_sensitivity": liver.sensitivity,
        "liver_precision": liver.precision,
        "liver_volume_error": abs(liver.volume_error),
        "tumour_iou": tumour.iou,
        "tumour_sensitivity": tumour.sensitivity,
        "tumour_precision": tumour.precision,
        "lesion_recall": _ratio(found.found, found.found + found.missed),
        "lesions_found": float(found.found),
        "lesions_missed": float(found.missed),
        "lesions_false": float(found.false),
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan

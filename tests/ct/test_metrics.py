import math

import numpy as np
import pytest
import torch

from condswin.ct import metrics
from condswin.ct.metrics import hd95, lesions, overlap, receiver_operating_characteristic, tumour_ml, untouched

from .fakes import affine


def score_case(target, prediction, steps=None):
    return metrics.score_case(target, prediction, np.eye(3) if steps is None else steps)


def labels(*rows):
    return np.array([rows], np.uint8)


def test_by_hand():
    target = labels([1, 1, 2, 2, 0, 0, 0, 0])
    prediction = labels([0, 1, 1, 2, 2, 0, 0, 0])
    scores = score_case(target, prediction)
    assert scores["liver_dice"] == pytest.approx(6 / 8)  # tumour counts as liver: 3 common, 4 + 4
    assert scores["liver_iou"] == pytest.approx(3 / 5)
    assert scores["tumour_dice"] == pytest.approx(1 / 2)
    assert scores["mean_dice"] == pytest.approx((1 / 2 + 1 / 2) / 2)  # classes 1 and 2 on their own
    assert scores["tumour_sensitivity"] == scores["tumour_precision"] == pytest.approx(1 / 2)
    assert scores["liver_volume_error"] == 0
    assert (scores["lesions_found"], scores["lesions_missed"], scores["lesions_false"]) == (1, 0, 0)


def test_volume_error_is_relative_and_unsigned_per_case():
    target = np.zeros((2, 3, 4), bool)
    target[0, 0] = True
    assert overlap(target, np.zeros_like(target)).volume_error == -1
    assert score_case(target.astype(np.uint8), np.zeros((2, 3, 4), np.uint8))["liver_volume_error"] == 1


def test_nan_rules():
    nothing, liver, both = labels([0, 0, 0]), labels([1, 1, 0]), labels([1, 2, 0])
    absent = score_case(liver, liver)  # neither volume has tumour: left out of every mean
    assert math.isnan(absent["tumour_dice"])
    assert math.isnan(absent["lesion_recall"])
    assert absent["mean_dice"] == absent["liver_dice"] == 1
    invented = score_case(liver, both)  # false positives on an empty reference
    assert invented["tumour_dice"] == 0
    assert invented["tumour_precision"] == 0
    assert math.isnan(invented["tumour_sensitivity"])
    assert math.isnan(invented["lesion_recall"])
    assert invented["lesions_false"] == 1
    missed = score_case(both, liver)
    assert missed["tumour_dice"] == missed["tumour_sensitivity"] == missed["lesion_recall"] == 0
    assert math.isnan(missed["tumour_precision"])
    assert math.isnan(missed["lesion_precision"])
    assert all(math.isnan(scores["tumour_hd95"]) for scores in (absent, invented, missed))  # no distance to nothing
    assert all(
        math.isnan(value)
        for key, value in score_case(nothing, nothing).items()
        if not key.startswith("lesions_") and not key.endswith("_ml")
    )


def test_liver_and_tumour_are_scored_per_case_not_pooled():
    """The notebook pooled all foreground pixels of a batch: a large case hid a small one, liver hid tumour."""
    large = np.ones((20, 20, 5), np.uint8)
    small_target, small_prediction = np.zeros((2, 20, 20, 5), np.uint8)
    small_target[:2, :2, :2] = 2
    cases = [(large, large), (small_target, small_prediction)]
    dices = [score_case(*case)["liver_dice"] for case in cases]
    assert np.mean(dices) == 0.5
    pooled = overlap(np.concatenate([t > 0 for t, _ in cases]), np.concatenate([p > 0 for _, p in cases])).dice
    assert pooled > 0.99  # what the notebook would have reported
    # Tumour called liver is right for the liver and wrong for the tumour; pooled foreground would be perfect.
    scores = score_case(small_target, (small_target > 0).astype(np.uint8))
    assert (scores["liver_dice"], scores["tumour_dice"], scores["mean_dice"]) == (1, 0, 0)


def test_agrees_with_monai():
    from monai.metrics import compute_dice, compute_iou

    rng = np.random.default_rng(3)
    for _ in range(5):
        target, prediction = rng.choice(3, (2, 7, 8, 9), p=[0.5, 0.3, 0.2]).astype(np.uint8)
        hot = [
            torch.nn.functional.one_hot(torch.from_numpy(x).long(), 3).movedim(-1, 0)[None]
            for x in (prediction, target)
        ]
        one, two = compute_dice(*hot, include_background=False)[0].tolist()
        scores = score_case(target, prediction)
        assert scores["tumour_dice"] == pytest.approx(two, abs=1e-6)
        assert scores["mean_dice"] == pytest.approx((one + two) / 2, abs=1e-6)
        assert scores["tumour_iou"] == pytest.approx(float(compute_iou(*hot, include_background=False)[0, 1]), abs=1e-6)
        liver = [torch.from_numpy(x > 0)[None, None] for x in (prediction, target)]
        assert scores["liver_dice"] == pytest.approx(float(compute_dice(*liver)), abs=1e-6)


def test_lesions_are_counted_one_by_one():
    target, prediction = np.zeros((2, 30, 30, 4), bool)
    target[2:6, 2:6, 1] = target[6, 6, 2] = True  # one lesion: its parts touch by a corner
    target[20, 20, 0] = target[25:28, 3:5, 2:4] = True  # two more
    prediction[3, 3, 1] = prediction[5, 5, 1] = True  # two pieces in the first
    prediction[25, 3, 2] = True
    prediction[10, 25, 3] = prediction[15, 25, 3] = True  # two false ones
    assert lesions(target, prediction)[:4] == (2, 1, 2, 3)
    assert lesions(prediction, target)[:4] == (3, 2, 1, 2)
    assert lesions(target & False, prediction)[:4] == (0, 0, 5, 0)
    assert lesions(target & False, target & False)[:4] == (0, 0, 0, 0)
    false, missed = untouched(prediction, target), untouched(target, prediction)
    assert [np.argwhere(false == number).tolist() for number in (1, 2)] == [[[10, 25, 3]], [[15, 25, 3]]]
    assert (np.argwhere(missed).tolist(), false.max(), missed.max()) == ([[20, 20, 0]], 2, 1)
    assert untouched(prediction, target & False).max() == 5
    assert not untouched(target & False, target).any()


def test_lesions_of_each_size_have_a_recall_of_their_own():
    # Diameters of balls of the same volume, mm: of 1 voxel 5.8, of 4 9.3, of 6 10.6, of 40 19.95, of 41 20.1.
    steps = np.diag([-4.0, 4.0, 6.5])
    target, prediction = np.zeros((2, 12, 12, 12), np.uint8)
    target[:, :, :] = 1
    target[0, 0, 0] = target[0, 0, 2:6] = 2
    target[0, 2, :6] = target[0, 4, :6] = 2
    target[2:7, 8:10, 2:6] = target[9:11, 1:11, 7:9] = 2
    target[11, 1, 7] = 2
    assert [int(size) for size in np.sort(lesions(target == 2, prediction == 2).sizes)] == [1, 4, 6, 6, 40, 41]
    prediction[0, 0, 0] = prediction[0, 2, 3] = prediction[11, 1, 7] = 2
    scores = score_case(target, prediction, steps)
    assert scores["lesion_recall_under_10mm"] == 1 / 2
    assert scores["lesion_recall_10_to_20mm"] == 1 / 3
    assert scores["lesion_recall_from_20mm"] == 1
    assert scores["lesion_recall"] == 3 / 6
    # On a finer grid the same voxels are smaller lesions, and there are none of the largest.
    finer = score_case(target, prediction, steps / 2)
    assert finer["lesion_recall_under_10mm"] == 2 / 5
    assert finer["lesion_recall_10_to_20mm"] == 1
    assert math.isnan(finer["lesion_recall_from_20mm"])


def test_surface_distance_agrees_with_monai():
    from monai.metrics import compute_hausdorff_distance
    from scipy import ndimage

    rng = np.random.default_rng(5)
    spacing = (0.8, 1.1, 5.0)
    for threshold in (0.4, 0.6, 0.9):
        smooth = ndimage.gaussian_filter(rng.standard_normal((2, 24, 20, 9)), (0, 3, 3, 1))
        one, two = smooth > smooth.std() * threshold
        assert one.any()
        assert two.any()
        both = [torch.from_numpy(mask)[None, None] for mask in (two, one)]
        theirs = float(compute_hausdorff_distance(*both, include_background=True, percentile=95, spacing=spacing))
        assert hd95(one, two, np.diag(spacing)) == pytest.approx(theirs, rel=1e-5)


def test_distances_are_in_millimetres_of_the_patient_however_the_grid_lies():
    target, prediction = np.zeros((2, 9, 8, 7), bool)
    target[1, 1, 1] = prediction[5, 4, 1] = True
    for matrix in (affine((2.0, 1.0, 5.0)), affine((2.0, 1.0, 5.0), order=(2, 0, 1), flips=(-1, 1, -1), tilt=9.0)):
        assert hd95(target, prediction, matrix[:3, :3]) == pytest.approx(np.hypot(4 * 2.0, 3 * 1.0))
    sheared = np.array([[1.0, 0.5, 0], [0, 1, 0], [0, 0, 1]])
    assert hd95(target, prediction, sheared) == pytest.approx(np.hypot(4 + 3 * 0.5, 3))
    scores = score_case(target.astype(np.uint8), prediction.astype(np.uint8), affine((2.0, 1.0, 5.0), tilt=9.0)[:3, :3])
    assert scores["liver_ml"] == pytest.approx(0.01)
    assert scores["liver_hd95"] == pytest.approx(np.hypot(8, 3))


def test_one_far_voxel_does_not_decide_the_distance():
    target = np.zeros((40, 40, 3), bool)
    target[5:25, 5:25] = True
    prediction = target.copy()
    prediction[38, 38, 1] = True
    assert hd95(target, prediction, np.eye(3)) == 0
    assert hd95(target, np.roll(target, 3, 0), np.eye(3)) == pytest.approx(3)


def test_receiver_operating_characteristic_by_hand():
    curve = receiver_operating_characteristic([(5.0, True), (0.0, False), (2.0, True), (2.0, False), (0.0, True)])
    assert [(false, true) for false, true, _ in curve] == [(0, 0), (0, 1 / 3), (1 / 2, 2 / 3), (1, 1)]
    assert [threshold for *_, threshold in curve[1:]] == [5, 2, 0]
    assert 5 < curve[0][2] < 5.001


@pytest.mark.parametrize("scored", [[], [(1.0, True)], [(1.0, False), (2.0, False)]])
def test_of_one_kind_alone_there_is_no_curve(scored):
    assert receiver_operating_characteristic(scored) == []


def test_tumour_is_measured_in_millilitres():
    assert tumour_ml(labels([2, 1, 2, 0]), np.diag([2.0, 5.0, -10.0])) == pytest.approx(0.2)

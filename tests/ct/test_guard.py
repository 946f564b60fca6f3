import numpy as np
import pytest

from condswin.ct.guard import refusals, seen, wanted_spacing
from condswin.manifest import CaseRecord

from .fakes import affine, geometry

#: Lowest, median and highest of a training set, mm.
KNOWN = {"pixel": [0.6, 0.8, 1.0], "slice": [1.0, 2.0, 5.0], "plane": [300, 400, 500], "height": [150, 400, 900]}


def case(shape, spacing, orientation, split="train"):
    details = {"shape": shape, "spacing": spacing, "orientation": orientation}
    return CaseRecord("volume-0", split, "p", {}, details)


def volume(pixel=0.8, slices=2.0, shape=(500, 480, 150)):
    return geometry(shape, affine((pixel, pixel, slices)))


def test_cases_are_described_along_the_patients_axes():
    # Axes of the file: sagittal (anterior-posterior, inferior-superior, left-right) and axial.
    cases = [case([500, 100, 400], [3.0, 0.5, 0.7], "PSR"), case([200, 300, 50], [5.0, 1.5, 1.0], "LAS")]
    assert seen(cases) == {
        "pixel": [0.5, 0.85, 1.5],
        "slice": [3.0, 4.0, 5.0],
        "plane": [200.0, 265.0, 450.0],
        "height": [250.0, 275.0, 300.0],
    }
    assert seen([]) == {}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"pixel": 0.7}, None),
        ({"pixel": 1.49, "shape": (340, 340, 150)}, None),
        ({"pixel": 0.2, "shape": (2000, 2000, 150)}, None),
        ({"pixel": 1.6, "shape": (300, 300, 150)}, "pixels are 1.6 mm wide, the network was trained with 0.6 to 1 mm"),
        ({"slices": 8.0, "shape": (500, 480, 50)}, "slices are 8 mm apart, the network was trained with 1 to 5 mm"),
        ({"slices": 0.5}, "slices are 0.5 mm apart"),
        ({"shape": (500, 200, 150)}, "the field of view is 160 mm wide, the network was trained with 300 to 500 mm"),
        ({"shape": (1000, 500, 150)}, "the field of view is 800 mm wide"),
        ({"slices": 5.0, "shape": (500, 480, 300)}, "the volume is 1500 mm high"),
        ({"shape": (500, 480, 1)}, None),
    ],
)
def test_what_is_far_from_training_is_named(changes, reason):
    found = refusals(volume(**changes), KNOWN, single_slices=False)
    assert (reason is None) == (found == [])
    assert reason is None or found[0].startswith(reason)
    assert refusals(volume(**changes), {}, single_slices=False) == []


def test_single_slices_may_be_thinner_and_thicker():
    for slices, allowed in ((0.4, True), (0.3, False), (14.0, True), (16.0, False)):
        near = volume(slices=slices, shape=(500, 480, 20))
        assert (refusals(near, KNOWN, single_slices=True) == []) == allowed
        assert refusals(near, KNOWN, single_slices=False)


@pytest.mark.parametrize(
    ("pixel", "wanted"), [(0.55, None), (0.6, None), (1.09, None), (0.5, 0.8), (0.3, 0.8), (1.2, 0.8)]
)
def test_pixels_beyond_those_of_the_training_are_resampled_to_their_median(pixel, wanted):
    assert wanted_spacing(volume(pixel), KNOWN) == wanted
    assert wanted_spacing(volume(pixel), {}) is None


def test_one_of_two_unequal_sides_is_enough():
    assert wanted_spacing(geometry((50, 50, 5), affine((0.8, 1.4, 2.0))), KNOWN) == 0.8
    assert np.isclose(geometry((50, 50, 5), affine((0.8, 1.4, 2.0))).spacing[1], 1.4)

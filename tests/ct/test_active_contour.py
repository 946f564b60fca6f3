import numpy as np
import pytest

from condswin.ct.active_contour import segment, tune, write_segmentation
from condswin.ct.config import PrepareCtConfig
from condswin.ct.metrics import overlap
from condswin.ct.nifti import read_labels
from condswin.ct.prepare import prepare_case

from .fakes import write

STEPS = (7.0, 3.0, 3.0)


def body(pixel=3.0):
    """A liver on the patient's right with a tumour in it, a spleen of the same HU on the left, muscle, air."""
    count = round(300 / pixel)
    z, y, x = np.ogrid[-60:60:7, -150 : 150 : count * 1j, -150 : 150 : count * 1j]
    hu = np.full(np.broadcast_shapes(z.shape, y.shape, x.shape), -1000, np.float32)
    hu[np.broadcast_to((x / 140) ** 2 + (y / 110) ** 2 < 1, hu.shape)] = -100
    liver = (x + 60) ** 2 + y**2 + z**2 < 50**2
    hu[liver] = hu[(x - 75) ** 2 + (y - 10) ** 2 + z**2 < 40**2] = 110
    tumour = (x + 65) ** 2 + (y + 5) ** 2 + z**2 < 15**2
    hu[tumour] = 60
    hu += np.random.default_rng(0).normal(0, 10, hu.shape).astype(np.float32)
    return hu, liver.astype(np.uint8) + tumour


def test_the_liver_is_what_lies_on_the_right_and_tumours_what_is_dark_in_it():
    hu, truth = body()
    found = segment(hu, STEPS, 30.0, 25.0)
    assert overlap(truth > 0, found > 0).dice > 0.95
    assert overlap(truth == 2, found == 2).dice > 0.75
    mirrored = segment(hu[..., ::-1], STEPS, 30.0, 25.0)
    assert overlap(truth[..., ::-1] > 0, mirrored > 0).dice < 0.1  # it takes the other organ


@pytest.mark.parametrize("hu", [-1000.0, 0.0, 100.0, 1500.0])
def test_volumes_without_a_liver(hu):
    labels = segment(np.full((3, 20, 20), hu, np.float32), STEPS, 25.0, 25.0)
    assert labels.shape == (3, 20, 20)
    assert labels.dtype == np.uint8


def test_one_slice():
    hu, truth = body()
    assert overlap(truth[8:9] > 0, segment(hu[8:9], STEPS, 30.0, 25.0) > 0).dice > 0.9


def test_segmentations_lie_on_their_image_whatever_its_pixels(tmp_path):
    hu, truth = body(1.5)
    matrix = np.diag([-1.5, -1.5, 7.0, 1.0])
    pair = [
        write(tmp_path / f"{name}-0.nii.gz", array.transpose(2, 1, 0), matrix)
        for name, array in (("volume", hu.astype(np.int16)), ("segmentation", truth))
    ]
    prepare_case("volume-0", *pair, tmp_path, PrepareCtConfig())
    write_segmentation(tmp_path / "volume-0.h5", tmp_path / "out.nii.gz", 30.0, 25.0)
    found, target = read_labels(tmp_path / "out.nii.gz"), read_labels(pair[1])
    np.testing.assert_allclose(found.geometry.affine, target.geometry.affine)
    assert overlap(target.data > 0, found.data > 0).dice > 0.95
    scores = tune([tmp_path / "volume-0.h5"])
    assert len(scores) == 9
    assert max(scores.values()) > 0.85

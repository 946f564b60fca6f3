"""Segmentations of users' files: the pixel size that the network sees, and the picture beside a segmentation."""

import numpy as np
import pytest
from PIL import Image

from condswin.ct.nifti import read_labels
from condswin.errors import BadFileError
from condswin.tasks.serving import Origin
from tests.whole import Whole

from .fakes import affine, anatomy, config, write, write_pair
from .test_task import Position


def about_pixels(notes):
    """Without what is said of the file itself."""
    return [note for note in notes if "pixel" in note]


def test_the_network_sees_pixels_of_the_size_that_it_was_trained_with(tmp_path):
    """A body at half the pixel size is segmented as at the trained one, by a network that counts pixels."""
    hu, labels = anatomy((64, 56, 5), seed=2)
    fine = [np.repeat(np.repeat(array, 2, axis=0), 2, axis=1) for array in (hu, labels)]
    volumes = {
        "trained": write(tmp_path / "raw/volume-1.nii.gz", hu, affine((2.8, 2.8, 5.0))),
        "half": write(tmp_path / "raw/volume-2.nii.gz", fine[0], affine((1.4, 1.4, 5.0))),
    }
    known = {"pixel": [2.6, 2.8, 3.0], "slice": [5, 5, 5], "plane": [150, 170, 190], "height": [25, 25, 25]}
    task, segmented, notes = Whole("segmentation", config()), {}, {}
    for name, seen in (("trained", known), ("half", known), ("half", {})):
        model = Position()
        predicted = task.predict_raw(model, volumes[name], tmp_path / "out", Origin(seen=seen))
        key = name if seen else "unknown"
        segmented[key], notes[key] = read_labels(predicted.path), about_pixels(predicted.notes)
        assert model.sizes == {(112, 128) if key == "unknown" else (56, 64)}
    # In the grid of the input, whatever the network saw.
    assert segmented["half"].data.shape == fine[0].shape
    np.testing.assert_allclose(segmented["half"].geometry.affine, affine((1.4, 1.4, 5.0)), atol=1e-5)
    expected = np.repeat(np.repeat(segmented["trained"].data, 2, axis=0), 2, axis=1) > 0
    dice = {}
    for name in ("half", "unknown"):
        found = segmented[name].data > 0
        dice[name] = 2 * (found & expected).sum() / (found.sum() + expected.sum())
    assert dice["half"] > 0.98
    assert dice["unknown"] < dice["half"] - 0.01
    assert notes["trained"] == []
    assert notes["half"] == ["pixels of 1.4 mm resampled to 2.8 mm: the network was trained with 2.6 to 3 mm"]
    assert notes["unknown"] == ["the model does not say at which pixel size it was trained: predicted at 1.4 mm"]


def test_a_chosen_pixel_size_comes_first(tmp_path):
    volume, model = write_pair(tmp_path / "raw", 0, (60, 40, 3), affine((2.0, 2.0, 5.0)))[0], Position()
    seen = {"pixel": [5.0, 6.0, 7.0], "slice": [5, 5, 5], "plane": [80, 100, 120], "height": [15, 15, 15]}
    task = Whole("segmentation", config(prepare={"spacing": 4.0}))
    assert about_pixels(task.predict_raw(model, volume, tmp_path / "out", Origin(seen=seen)).notes) == []
    assert model.sizes == {(20, 30)}


def test_slices_that_resampling_would_blow_up_are_refused(tmp_path):
    volume = write_pair(tmp_path / "raw", 0, (60, 40, 3), affine((80.0, 80.0, 5.0)))[0]
    seen = {"pixel": [0.5, 0.6, 0.7], "slice": [5, 5, 5], "plane": [80, 100, 120], "height": [15, 15, 15]}
    with pytest.raises(BadFileError, match=r"volume-0\.nii\.gz: slices would have more than 4096 pixels"):
        Whole("segmentation", config()).predict_raw(Position(), volume, tmp_path / "out", Origin(seen=seen))
    assert not (tmp_path / "out").exists()


def test_the_picture_shows_most_liver_with_square_pixels(tmp_path):
    hu, labels = anatomy((40, 36, 5))
    volume = write(tmp_path / "volume-0.nii.gz", hu, affine((1.0, 2.0, 5.0)))
    write(tmp_path / "segmentation-0.nii.gz", labels, affine((1.0, 2.0, 5.0)))
    task = Whole("segmentation", config())
    assert task.write_form("png", volume, tmp_path / "segmentation-0.nii.gz", tmp_path / "out.png") == []
    picture = np.asarray(Image.open(tmp_path / "out.png")).astype(int)
    assert picture.shape == (72, 40, 3)
    middle = int((labels > 0).sum(axis=(0, 1)).argmax())
    # Anterior at the top and the patient's right on the left.
    liver = np.repeat(labels[::-1, ::-1, middle].T, 2, axis=0) == 1
    green = picture[..., 1] - picture[..., 0] > 40
    assert (green == liver).mean() > 0.95

"""Readers of prepared files: who depends on what writes them, and that what is done with one file opens it once."""

import h5py
import numpy as np
import pytest

from condswin.code import closure
from condswin.errors import BadFileError
from condswin.mri.compressed_sensing import tune
from condswin.mri.config import UndersampleConfig
from condswin.mri.guard import refusals
from condswin.mri.inputs import complex_volume, zero_filled_volume
from condswin.mri.metrics import volume_metrics
from condswin.mri.pictures import ReconstructionPictures, picture_case
from condswin.mri.prepared import image_size
from condswin.mri.reading import VolumeReader
from condswin.mri.scoring import score_case
from condswin.mri.undersample import prepare_full, prepare_undersampled
from condswin.steps.code import STEPS
from condswin.tasks.source import Case

from .conftest import HEADER, make_config

SETTINGS = UndersampleConfig(center_fractions=[0.16])


@pytest.mark.parametrize(("step", "tasks"), STEPS.items())
def test_only_who_writes_files_depends_on_what_writes_them(step, tasks):
    for task in tasks:
        files = closure(step, task)
        assert any("/demo/" in file for file in files) == (step == "demo_data")
        written = {"condswin/mri/undersample.py", "condswin/ct/prepare.py"} & set(files)
        assert bool(written) == (step == "prepare")


@pytest.fixture
def opened(monkeypatch):
    """Paths in the order in which they are opened for reading from here on."""
    paths = []
    original = h5py.File

    def recording(path, mode="r", **options):
        if mode == "r":
            paths.append(path)
        return original(path, mode, **options)

    monkeypatch.setattr("condswin.mri.reading.h5py.File", recording)
    return paths


@pytest.fixture
def prepared(write_volume, tmp_path):
    path = tmp_path / "test" / "file1000001.h5"
    prepare_undersampled(write_volume(), path, SETTINGS)
    return path


@pytest.mark.parametrize("multicoil", ["refuse", "combine"])
def test_checking_and_preparing(write_volume, tmp_path, task, opened, multicoil):
    source = write_volume()
    task.check_case(Case("file1000001", "", {"kspace": source}))
    prepare_full(source, tmp_path / "out" / "full.h5", multicoil)
    prepare_undersampled(source, tmp_path / "out" / "masked.h5", SETTINGS, multicoil)
    assert opened == [source] * 3


def test_scoring_judging_and_tuning(prepared, tmp_path, opened):
    prediction = tmp_path / "predictions" / prepared.name
    prediction.parent.mkdir()
    with h5py.File(prepared) as file, h5py.File(prediction, "w") as out:
        out["reconstruction"] = file["zero_filled"][()]
    opened.clear()
    score_case("a", prepared, prediction)
    picture_case("a", prepared, prediction)
    assert opened == [prepared, prediction] * 2
    refusals(prepared, SETTINGS)
    tune([prepared], (0.001, 0.01))
    assert opened[4:] == [prepared] * 2


def test_errors_of_all_cases_are_on_one_scale(prepared, tmp_path):
    folders = {"zero": tmp_path / "zero", "right": tmp_path / "right"}
    with h5py.File(prepared) as file:
        target = file["reconstruction_esc"][()]
    for folder, image in zip(folders.values(), (0 * target, target), strict=True):
        folder.mkdir()
        with h5py.File(folder / prepared.name, "w") as out:
            out["reconstruction"] = image
    found = ReconstructionPictures(make_config()).panels(prepared.parent, folders, prepared.stem)
    assert (found.errors, found.error_unit) == ((0.0, 40.0), "% of white")
    pictures = {panel.name: panel.slices[0] for panel in found.panels if panel.error}
    shares = target[found.places[0]] / np.quantile(target, 0.998)
    expected = (shares / 0.4 * 255).clip(0, 255).round()
    np.testing.assert_allclose(pictures["error of zero"], expected, atol=1)
    assert not pictures["error of right"].any()
    assert list(pictures) == ["error of zero-filled", "error of zero", "error of right"]
    assert "% of the pixels shown are above its end" in found.legend


def matrix(rows, columns):
    return HEADER.replace(b"<x>20</x><y>22</y>", b"<x>%d</x><y>%d</y>" % (rows, columns))


@pytest.mark.parametrize(
    ("header", "size"),
    [
        (HEADER, (20, 22)),
        (matrix(20, 31), (20, 31)),
        # As fastMRI: k-space narrower than the matrix gives a square of its columns, whatever the rows.
        (matrix(40, 40), (31, 31)),
        (matrix(20, 32), (31, 31)),
        # Rows have no such rule; there are no more than were read out.
        (matrix(64, 22), (42, 22)),
    ],
)
def test_images_without_target_are_as_large_as_the_header_says(write_volume, header, size):
    path = write_volume(header=header, datasets={"reconstruction_esc": None})
    with VolumeReader(path) as reader:
        assert image_size(reader) == size
    assert zero_filled_volume(path, SETTINGS).shape == (3, *size)
    inputs = complex_volume(path, SETTINGS)
    assert (inputs.image.shape[-2], inputs.columns) == size


def test_images_with_target_are_as_large_as_that(write_volume):
    with VolumeReader(write_volume(header=matrix(40, 40), size=(30, 24))) as reader:
        assert image_size(reader) == (30, 24)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, "neither a target nor a reconstructed matrix in ismrmrd_header says how large"),
        (b"<ismrmrdHeader/>", "neither a target nor a reconstructed matrix"),
        (matrix(0, 22), "a reconstructed matrix of 0 x 22"),
        (b"<a>", "ismrmrd_header: not well-formed"),
    ],
)
def test_images_of_unknown_size_are_refused(write_volume, header, reason):
    path = write_volume(header=header, datasets={"reconstruction_esc": None})
    with pytest.raises(BadFileError, match=reason):
        zero_filled_volume(path, SETTINGS)


def test_a_prediction_of_narrow_kspace_is_scored_as_fastmri_does(write_volume, tmp_path):
    """Both are cropped to the target's columns where the target has more rows."""
    target = write_volume(size=(40, 31))
    with h5py.File(target) as file:
        truth = file["reconstruction_esc"][()]
    images = 1.1 * truth[:, 4:35]
    with h5py.File(tmp_path / "prediction.h5", "w") as file:
        file["reconstruction"] = images
    row = score_case("a", target, tmp_path / "prediction.h5")
    assert {name: row[name] for name in ("psnr", "ssim", "nmse")} == {
        name: value for name, value in volume_metrics(truth[:, 4:35], images).items() if name != "mae"
    }
    with h5py.File(tmp_path / "prediction.h5", "w") as file:
        file["reconstruction"] = truth[:, 4:34, :30]
    with pytest.raises(BadFileError, match=r"\(3, 30, 30\), the target has \(3, 40, 31\)"):
        score_case("a", target, tmp_path / "prediction.h5")

"""Readers of prepared files: who depends on what writes them, and that what is done with one file opens it once."""

import h5py
import pytest

from condswin.code import closure
from condswin.mri.compressed_sensing import tune
from condswin.mri.config import UndersampleConfig
from condswin.mri.guard import refusals
from condswin.mri.pictures import picture_case
from condswin.mri.scoring import score_case
from condswin.mri.undersample import prepare_full, prepare_undersampled
from condswin.steps.code import STEPS
from condswin.tasks.source import Case

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

import math
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from condswin.errors import BadDataError, BadFileError
from condswin.evaluation.run import evaluate_split
from condswin.evaluation.summary import summarise
from condswin.mri.learning import ReconstructionLearning
from condswin.mri.metrics import volume_metrics
from condswin.tasks.learning import Learning
from condswin.tasks.loading import load
from tests.whole import Whole

from .conftest import make_config


class Double(nn.Module):
    """Stands for a network: twice the normalised input."""

    def forward(self, image):
        return 2 * image


@pytest.fixture
def evaluated(task, write_volume, tmp_path):
    """Targets of two volumes in different sizes, and the predictions of the identity."""
    for name, size, kind in (("file1", (20, 22), "CORPD_FBK"), ("file2", (21, 24), "CORPDFS_FBK")):
        source = write_volume(f"{name}.h5", size=size, slices=9, attributes={"acquisition": kind})
        task.prepare_case(name, {"kspace": source}, "test", tmp_path / "test")
        assert task.outputs(name, {"kspace": source}, "test") == [f"{name}.h5"]
    rows = evaluate_split(task, partial(task.predict, nn.Identity()), tmp_path, "test", tmp_path / "reconstructions")
    return tmp_path / "test", tmp_path / "reconstructions", rows


def test_is_found_by_name():
    learning = load(Learning, "reconstruction", make_config())
    assert isinstance(learning, ReconstructionLearning)
    assert learning.channels("swin") == (1, 1)


def test_the_monitor_is_no_metric_of_cases(task):
    assert next(iter(task.metrics)) == "psnr"
    assert task.monitor[0] not in task.metrics


def test_demo_goes_all_the_way(task, tmp_path):
    calls = []
    task.write(tmp_path / "source", lambda: calls.append(1))
    assert len(calls) == task.count() == 3
    cases = task.find_cases(tmp_path / "source").cases
    assert [(case.name, case.folder) for case in cases] == [
        ("file1000001", "singlecoil_train"),
        ("file1000002", "singlecoil_train"),
        ("file1002001", "singlecoil_val"),
    ]
    for case, split in zip(cases, ("train", "val", "test"), strict=True):
        info = task.check_case(case)
        assert info.details["target_shape"] == [2, 32, 32]
        task.prepare_case(case.name, case.files, split, tmp_path / "prepared" / split)
    for split, training in (("train", True), ("val", False)):
        loader = torch.utils.data.DataLoader(
            task.dataset(tmp_path / "prepared", split, "swin", training=training), batch_size=2
        )
        batch = next(iter(loader))
        weight = torch.ones(1, requires_grad=True)
        task.loss(weight * batch["image"], batch).backward()
        assert float(weight.grad) != 0
        assert task.validation_scores(batch["image"].bfloat16(), batch)["slice_psnr"].shape == (2,)
    (row,) = evaluate_split(task, partial(task.predict, nn.Identity()), tmp_path / "prepared", "test", tmp_path / "out")
    assert row["psnr"] > 10


def test_find_cases(task, tmp_path):
    for name in ("b.h5", "deep/er/a.hdf5", ".hidden/c.h5", "d/.partial-e.h5", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    cases = task.find_cases(tmp_path).cases
    assert [(case.name, case.folder) for case in cases] == [("a", "deep/er"), ("b", "")]
    assert cases[0].files["kspace"] == (tmp_path / "deep/er/a.hdf5").absolute()
    (tmp_path / "deep" / "b.hdf5").touch()
    with pytest.raises(BadDataError, match="two files of one name"):
        task.find_cases(tmp_path)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "notes.txt").touch()
    with pytest.raises(BadDataError, match=r"no \.h5 or \.hdf5 file.*; skipped 1 file: 1 not .h5 or .hdf5 \(notes.txt"):
        task.find_cases(tmp_path / "none")


def test_details_are_plain_and_name_nobody(task, write_volume, tmp_path):
    write_volume(folder=tmp_path / "source")
    info = task.check_case(task.find_cases(tmp_path / "source").cases[0])
    assert info.details == {
        "shape": [3, 42, 31],
        "dtype": "complex64",
        "target": "reconstruction_esc",
        "target_shape": [3, 20, 22],
        "acquisition": "CORPD_FBK",
        "encoded_matrix": [42, 31, 1],
        "recon_matrix": [20, 22, 1],
        "measured_columns": [0, 31],
        "patient_from": "patient_id attribute",
        "assumed": ["columns with values outside the header's encoding limits taken as measured"],
    }
    assert "PERSON" not in str(info)


def test_predictions_are_fastmri_s(evaluated):
    targets, predictions, _ = evaluated
    assert sorted(path.name for path in predictions.iterdir()) == ["file1.h5", "file2.h5"]
    with h5py.File(predictions / "file1.h5") as file, h5py.File(targets / "file1.h5") as target:
        assert list(file) == ["reconstruction"]
        assert file["reconstruction"].dtype == np.float32
        # The identity gives the zero-filled image back, in its units, where it was not clamped.
        np.testing.assert_allclose(file["reconstruction"], target["zero_filled"], rtol=1e-4, atol=1e-8)


def test_prediction_undoes_the_normalisation(task, evaluated, tmp_path):
    targets, _, _ = evaluated
    task.predict(Double(), targets / "file1.h5", tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file, h5py.File(targets / "file1.h5") as target:
        zero_filled = target["zero_filled"][()]
        mean = zero_filled.mean(axis=(1, 2), keepdims=True)
        np.testing.assert_allclose(file["reconstruction"], 2 * zero_filled - mean, rtol=1e-3, atol=1e-8)


def test_rows(evaluated):
    targets, predictions, rows = evaluated
    assert [(row["case"], row["acquisition"]) for row in rows] == [("file1", "CORPD_FBK"), ("file2", "CORPDFS_FBK")]
    for row in rows:
        with h5py.File(targets / f"{row['case']}.h5") as target, h5py.File(predictions / f"{row['case']}.h5") as found:
            truth = target["reconstruction_esc"][()]
            expected = volume_metrics(truth, found["reconstruction"][()])
            baseline = volume_metrics(truth, target["zero_filled"][()])
            assert row["acceleration"] == target.attrs["true_acceleration"]
        assert {name: row[name] for name in expected} == expected
        assert {name: row[f"zero_filled_{name}"] for name in baseline} == baseline
    assert summarise(rows, ["psnr"])["psnr"]["cases"] == 2


def test_scores_any_pair_of_folders(task, tmp_path):
    """Files of others: a target, a prediction, and nothing else in them."""
    truth = np.random.default_rng(0).random((2, 16, 16), dtype=np.float32)
    for folder, name, images in (("t", "reconstruction_rss", truth), ("p", "reconstruction", truth.astype(np.float64))):
        (tmp_path / folder).mkdir()
        with h5py.File(tmp_path / folder / "x.h5", "w") as file:
            file[name] = images
    (row,) = task.score(tmp_path / "t", tmp_path / "p")
    assert row["ssim"] == pytest.approx(1)
    assert row["acquisition"] == "unknown"
    assert math.isnan(row["zero_filled_psnr"])
    assert math.isnan(row["acceleration"])
    with h5py.File(tmp_path / "t" / "x.h5", "a") as file:
        file["mask"] = np.arange(20) % 4 == 0
    assert task.score(tmp_path / "t", tmp_path / "p")[0]["acceleration"] == 4


@pytest.mark.parametrize(
    ("prediction", "reason"),
    [
        ({"reconstruction": np.ones((9, 20, 21), np.float32)}, "the target has"),
        ({"reconstruction": np.ones((9, 20, 22), np.complex64)}, "expected magnitudes"),
        ({"reconstruction": np.full((9, 20, 22), np.nan, np.float32)}, "NaN"),
        ({"reconstruction": np.ones((20, 22), np.float32)}, "the target has"),
        ({"reconstruction": np.ones((9, 2, 20, 22), np.float32)}, "expected \\(slices, rows, columns\\)"),
        ({"images": np.ones((9, 20, 22), np.float32)}, "no dataset 'reconstruction'"),
    ],
)
def test_refuses_bad_predictions(task, evaluated, prediction, reason):
    targets, predictions, _ = evaluated
    with h5py.File(predictions / "file1.h5", "w") as file:
        for name, value in prediction.items():
            file[name] = value
    with pytest.raises(BadFileError, match=reason) as caught:
        task.score(targets, predictions)
    assert caught.value.path == predictions / "file1.h5"


def test_refuses_missing_predictions_and_empty_folders(task, evaluated, tmp_path):
    targets, predictions, _ = evaluated
    (predictions / "file2.h5").unlink()
    with pytest.raises(BadDataError, match="no prediction for file2"):
        task.score(targets, predictions)
    with pytest.raises(BadDataError, match="no target file"):
        task.score(tmp_path / "nothing", predictions)


def test_refuses_a_network_that_diverged(task, evaluated, tmp_path):
    class Broken(nn.Module):
        def forward(self, image):
            return image / 0

    with pytest.raises(BadDataError, match="NaN or infinite"):
        task.predict(Broken(), evaluated[0] / "file1.h5", tmp_path / "new" / "out.h5")
    assert not (tmp_path / "new" / "out.h5").exists()


def test_monitor_is_the_reported_metric_for_one_slice(task, evaluated, tmp_path):
    """The notebook's validation PSNR took a data range of one; ours takes the volume's maximum."""
    targets, _, _ = evaluated
    data = task.dataset(tmp_path, "test", "swin", training=False)
    batch = torch.utils.data.default_collate([data[index] for index in range(9)])
    scores = task.validation_scores(batch["image"], batch)["slice_psnr"]
    with h5py.File(targets / "file1.h5") as file:
        error = (file["zero_filled"][()] - file["reconstruction_esc"][()]).astype(np.float64)
        expected = 20 * np.log10(file["reconstruction_esc"][()].max()) - 10 * np.log10((error**2).mean(axis=(1, 2)))
    np.testing.assert_allclose(scores, expected, atol=1e-2)


def test_the_monitor_is_the_reported_metric_of_volumes_dark_slices_among_them(task, evaluated, tmp_path):
    """Decibels of dark slices, whose errors are small, would outweigh what happens where there is something to see."""
    targets, _, rows = evaluated
    with h5py.File(targets / "file1.h5", "a") as file:
        for name in ("kspace", "reconstruction_esc", "zero_filled"):
            file[name][:4] *= 1e-3
    rows = evaluate_split(task, partial(task.predict, nn.Identity()), tmp_path, "test", tmp_path / "dark")
    data = task.dataset(tmp_path, "test", "swin", training=False)
    scores = []
    for indices in (range(5), range(5, 9), range(9, 18)):  # batches are of one size, and not of whole volumes
        batch = torch.utils.data.default_collate([data[index] for index in indices])
        scores.append(task.validation_scores(batch["image"], batch))
    together = {name: torch.cat([each[name].float() for each in scores]) for name in scores[0]}
    means = task.validation_means(together)
    expected = np.mean([row["psnr"] for row in rows])
    assert set(means) == {"slice_psnr", "volume_psnr"}
    assert float(means[task.monitor[0]]) == pytest.approx(expected, abs=0.02)
    assert float(means["slice_psnr"]) > expected + 3


@pytest.mark.parametrize(("loss", "expected"), [("l1", 1.0), ("mse", 1.0)])
def test_loss_is_the_configured_one(loss, expected):
    task = Whole("reconstruction", make_config(train={"loss": loss}))
    batch = {"target": torch.zeros(2, 1, 4, 4)}
    assert float(task.loss(torch.ones(2, 1, 4, 4), batch)) == expected
    assert float(task.loss(torch.full((2, 1, 4, 4), 3.0), batch)) == {"l1": 3, "mse": 9}[loss]


def test_picture(task, evaluated, tmp_path):
    targets, predictions, _ = evaluated
    figure = task.picture(targets, predictions, "file1")
    assert isinstance(figure, Figure)
    assert [axis.get_title().split("\n")[0] for axis in figure.axes[:3]] == ["target", "zero-filled", "reconstruction"]
    figure.savefig(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5000
    with pytest.raises(BadDataError, match="no prediction of 'file9'"):
        task.picture(targets, predictions, "file9")


def test_real_files(real_files, tmp_path):
    task = Whole("reconstruction", make_config())
    for case in task.find_cases(real_files[0].parent).cases:
        info = task.check_case(case)
        assert info.details["target_shape"][0] == info.details["shape"][0]
        task.prepare_case(case.name, case.files, "test", tmp_path / "test")
    rows = evaluate_split(task, partial(task.predict, nn.Identity()), tmp_path, "test", tmp_path / "out")
    assert [row["case"] for row in rows] == [path.stem for path in real_files]
    for row in rows:
        assert 20 < row["zero_filled_psnr"] < 32
        # The identity loses a little where bright vessels are clamped.
        assert row["psnr"] == pytest.approx(row["zero_filled_psnr"], abs=0.5)
        assert 3.2 < row["acceleration"] < 5


def test_package_needs_no_training_framework():
    folder = Path(__file__).resolve().parents[2] / "condswin" / "mri"
    for path in folder.glob("*.py"):
        text = path.read_text()
        assert not any(f"import {name}" in text or f"from {name}" in text for name in ("lightning", "mlflow", "kfp"))

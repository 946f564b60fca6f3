import csv
import math
import subprocess
import sys
from contextlib import contextmanager

import matplotlib.figure
import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional as F

from condswin.ct.config import PredictCtConfig
from condswin.ct.facts import EFFECTS
from condswin.ct.nifti import read_image, read_labels, write_labels
from condswin.ct.predict import post_process
from condswin.ct.prepared import open_prepared
from condswin.errors import BadDataError, BadFileError
from condswin.evaluation.results import summaries
from condswin.tasks.serving import Origin
from tests.whole import Whole

from .fakes import AFFINES, SHARED, affine, config, write, write_pair

SMALL = {"demo": {"cases": 4, "slices": 8, "size": 64}}


class Thresholds(nn.Module):
    """Stands in for a trained network: classes by intensity of the middle slice in the first of two windows."""

    def __init__(self, channels=2):
        super().__init__()
        self.middle = channels // 4
        self.channels = channels
        self.scale = nn.Parameter(torch.tensor(20.0))

    def forward(self, image):
        assert image.shape[1] == self.channels
        assert not torch.is_grad_enabled()
        hu = (image[:, self.middle] + 0.2) * 200
        return torch.stack([-(hu - 30).abs(), -(hu - 110).abs(), -(hu - 70).abs()], 1) * self.scale


def prepare(task, folder, *, split="test"):
    cases = task.find_cases(folder / "raw").cases
    for case in cases:
        task.prepare_case(case.name, case.files, split, folder / "prepared" / split)
    return folder / "prepared" / split


def test_the_whole_way_on_demo_data(tmp_path):
    task = Whole("segmentation", config(**SMALL))
    steps = []
    task.write(tmp_path / "raw", lambda: steps.append(1))
    assert len(steps) == task.count() == 4
    targets = prepare(task, tmp_path)
    assert list(task.case_files(targets)) == [f"volume-{number}" for number in range(4)]
    for case, file in task.case_files(targets).items():
        task.predict(Thresholds(), file, tmp_path / "out" / task.prediction_name(case))
    rows = task.score(targets, tmp_path / "out")
    assert [row["case"] for row in rows] == list(task.case_files(targets))
    assert all(set(task.metrics) <= set(row) for row in rows)
    assert all(0 < row["liver_dice"] < 0.9 for row in rows)
    assert math.isnan(task.score(targets, targets)[2]["tumour_dice"])  # (2 + seed 10) % 4 == 0: tumour-free
    figure = task.picture(targets, tmp_path / "out", "volume-1")
    assert isinstance(figure, matplotlib.figure.Figure)
    figure.savefig(tmp_path / "picture.png")


@pytest.mark.parametrize("spacing", [None, 1.1])
@pytest.mark.parametrize("neighbours", [0, 1])
@pytest.mark.parametrize("name", AFFINES)
def test_predictions_lie_on_their_image(tmp_path, name, neighbours, spacing):
    task = Whole("segmentation", config(prepare={"neighbours": neighbours, "spacing": spacing}))
    volume, segmentation = write_pair(tmp_path / "raw", 4, (37, 30, 21), AFFINES[name], codes=(2, 1))
    targets = prepare(task, tmp_path)
    out = tmp_path / "out" / task.prediction_name("volume-4")
    task.predict(Thresholds(task.channels("swin")[0]), targets / "volume-4.h5", out)
    image, written = nib.load(volume), nib.load(out)
    assert out.name == segmentation.name
    assert written.shape == image.shape
    np.testing.assert_allclose(written.affine, image.affine, atol=1e-5)
    (row,) = task.score(targets, tmp_path / "out")
    assert row["liver_dice"] > 0.8  # a wrong axis or flip falls far below


def test_prediction_does_not_depend_on_the_batch(tmp_path, monkeypatch):
    from condswin.ct import predict as module

    task = Whole("segmentation", config(prepare={"neighbours": 1}))
    write_pair(tmp_path / "raw", 0, (20, 16, 19), AFFINES["lits"])
    targets = prepare(task, tmp_path)
    for batch in (1, 5, 100):
        monkeypatch.setattr(module, "_BATCH", batch)
        task.predict(Thresholds(6), targets / "volume-0.h5", tmp_path / f"{batch}.nii.gz")
    assert (tmp_path / "1.nii.gz").read_bytes() == (tmp_path / "5.nii.gz").read_bytes()
    assert (tmp_path / "1.nii.gz").read_bytes() == (tmp_path / "100.nii.gz").read_bytes()


class Position(nn.Module):
    """Liver where the local mean is high: sees 9 pixels around, so windows must overlap and blend to match."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.sizes = set()

    def forward(self, image):
        self.sizes.add(tuple(image.shape[-2:]))
        mean = F.avg_pool2d(F.pad(image[:, :1], (4, 4, 4, 4), value=-1.0), 9, 1)[:, 0]
        return torch.stack([-mean, mean, mean - 1], 1) * self.scale


def test_slices_beyond_the_trained_size_pass_in_windows(tmp_path):
    volume = write_pair(tmp_path / "raw", 0, (150, 100, 3), AFFINES["lits"])[0]
    results = {}
    for name, train, predict, size in (
        ("whole", {}, {}, (100, 150)),
        ("crop", {"crop": 64}, {}, (64, 64)),
        ("window", {"crop": 64}, {"window": 96}, (96, 96)),
        ("roomy", {}, {"window": 160}, (100, 150)),
    ):
        task, model = Whole("segmentation", config(train=train, predict=predict)), Position()
        results[name] = read_labels(task.predict_raw(model, volume, tmp_path / name, Origin()).path).data
        assert model.sizes == {size}
    assert results["whole"].any()
    np.testing.assert_array_equal(results["roomy"], results["whole"])
    for name in ("crop", "window"):  # only the network's view at a window's edge differs, and little of it counts
        assert (results[name] != results["whole"]).mean() < 0.01


def test_post_processing_and_its_effect_are_on_record(tmp_path):
    nothing = {"largest_component": False, "fill_holes": False, "minimum_lesion": 0.0}
    task = Whole("segmentation", config(predict={"minimum_lesion": 0.0}))
    volume, segmentation = write_pair(tmp_path / "raw", 0, (40, 32, 11), AFFINES["lits"])
    hu = read_image(volume).data.copy()
    hu[1:4, 1:4, 1:4] = 110  # what the stand-in takes for liver
    write(volume, hu, AFFINES["lits"])
    targets = prepare(task, tmp_path)
    truth = read_labels(segmentation)
    inside = tuple(np.argwhere(ndimage.binary_erosion(truth.data == 1))[0])
    spoiled = truth.data.copy()
    spoiled[1:3, 1, 1] = 2  # a false lesion far from the liver, and a hole
    spoiled[inside] = 0
    cleaning = PredictCtConfig(minimum_lesion=0.0)
    np.testing.assert_array_equal(post_process(spoiled, cleaning, voxel=1.0), truth.data)
    np.testing.assert_array_equal(post_process(spoiled, PredictCtConfig(**nothing), voxel=1.0), spoiled)
    assert not post_process(spoiled * 0, cleaning, voxel=1.0).any()

    plain = Whole("segmentation", config(predict=nothing))
    for folder, one in (("post", task), ("plain", plain)):
        one.predict(Thresholds(), targets / "volume-0.h5", tmp_path / folder / one.prediction_name("volume-0"))
    assert sorted(path.name for path in (tmp_path / "plain").iterdir()) == ["segmentation-0.nii.gz"]
    raw = tmp_path / "post" / "segmentation-0.unprocessed.nii.gz"
    assert raw.read_bytes() == (tmp_path / "plain" / "segmentation-0.nii.gz").read_bytes()
    (with_effect,), (without,) = task.score(targets, tmp_path / "post"), plain.score(targets, tmp_path / "plain")
    assert set(with_effect) - set(without) == {f"unprocessed_{name}" for name in EFFECTS}
    assert all(with_effect[f"unprocessed_{name}"] == without[name] for name in EFFECTS)
    assert with_effect["liver_dice"] > without["liver_dice"]
    summary = summaries(task, [with_effect])
    assert summary["unprocessed_liver_dice"]["mean"] == without["liver_dice"]
    assert summary["tumour_hd95"]["cases"] == 1
    assert not {name for name in summaries(plain, [without]) if name.startswith("unprocessed")}


def test_an_output_that_is_not_finite_is_no_prediction(tmp_path):
    task, model = Whole("segmentation", config()), Thresholds()
    write_pair(tmp_path / "raw", 0)
    targets = prepare(task, tmp_path)
    model.scale.data[()] = torch.nan
    with pytest.raises(BadDataError, match="NaN"):
        task.predict(model, targets / "volume-0.h5", tmp_path / "out" / "segmentation-0.nii.gz")
    assert not (tmp_path / "out").exists()


def test_a_long_volume_shows_progress(tmp_path, monkeypatch):
    from condswin.ct import predict as module

    task = Whole("segmentation", config())
    volume = write_pair(tmp_path / "raw", 0, (20, 16, 19))[0]
    bars = []

    @contextmanager
    def progress(label, total):
        bars.append([label, total])
        yield lambda: bars.append(1)

    monkeypatch.setattr(module, "progress", progress)
    task.predict_raw(Thresholds(), volume, tmp_path / "a", Origin())
    assert not bars
    monkeypatch.setattr(module, "_LONG", 1)
    task.predict_raw(Thresholds(), volume, tmp_path / "b", Origin())
    assert bars == [["segment volume-0", 3], 1, 1, 1]


@pytest.mark.usefixtures("real_data")
def test_real_scans_go_through(tmp_path):
    task = Whole("segmentation", config())
    for case in task.find_cases(SHARED).cases:
        task.check_case(case)
        task.prepare_case(case.name, case.files, "test", tmp_path / "prepared")
    for case, file in task.case_files(tmp_path / "prepared").items():
        with open_prepared(file) as prepared:
            shape = prepared["image"].shape
        assert shape == (20, 512, 512)
        target = read_labels(tmp_path / "prepared" / task.prediction_name(case))
        write_labels(tmp_path / "out" / task.prediction_name(case), target.data, target.geometry)
    rows = {row["case"]: row for row in task.score(tmp_path / "prepared", tmp_path / "out")}
    assert rows["volume-0"]["liver_dice"] == rows["volume-100"]["liver_dice"] == 1
    assert math.isnan(rows["volume-0"]["tumour_dice"])
    assert rows["volume-100"]["tumour_dice"] == 1
    task.picture(tmp_path / "prepared", tmp_path / "out", "volume-100").savefig(tmp_path / "picture.png")


def test_any_two_folders_can_be_scored(tmp_path):
    """Raw LiTS as targets, someone else's predictions, other suffixes and names."""
    task = Whole("segmentation", config())
    _, segmentation = write_pair(tmp_path / "targets", 1, suffix=".nii")
    labels = read_labels(segmentation)
    write_labels(tmp_path / "targets/liver_7.nii.gz", labels.data, labels.geometry)
    write_labels(tmp_path / "predictions/segmentation-1.nii.gz", labels.data, labels.geometry)
    write_labels(tmp_path / "predictions/liver_7.nii", labels.data * 0, labels.geometry)
    write_labels(tmp_path / "predictions/extra.nii", labels.data, labels.geometry)
    rows = {row["case"]: row["liver_dice"] for row in task.score(tmp_path / "targets", tmp_path / "predictions")}
    assert rows == {"volume-1": 1.0, "liver_7": 0.0}
    task.picture(tmp_path / "targets", tmp_path / "predictions", "liver_7").savefig(tmp_path / "x.png")  # no CT there
    write_pair(tmp_path / "targets", 1, suffix=".nii")
    figures = [task.picture(tmp_path / "targets", tmp_path / "predictions", case) for case in ("liver_7", "volume-1")]
    shown = [np.asarray(figure.axes[0].images[0].get_array()) for figure in figures]
    assert shown[0].shape == (1, 1)
    assert shown[1].shape == (30, 37)  # the volume beside the target
    assert shown[1].std() > 0.1


def test_what_cannot_be_scored_is_named(tmp_path):
    task = Whole("segmentation", config())
    _, segmentation = write_pair(tmp_path / "targets", 5)
    labels = read_labels(segmentation)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadDataError, match=r"no prediction for segmentation-5.nii.gz"):
        task.score(tmp_path / "targets", tmp_path / "empty")
    with pytest.raises(BadDataError, match="no segmentations"):
        task.score(tmp_path / "empty", tmp_path / "targets")
    with pytest.raises(BadDataError, match="no segmentation of volume-6"):
        task.picture(tmp_path / "targets", tmp_path / "targets", "volume-6")
    path = tmp_path / "out" / segmentation.name
    for array, matrix, reason in (
        (labels.data[:, :-1], None, r"shape \(37, 29, 9\) differs"),
        (labels.data, affine(origin=(0, 0, 0)), "affine differs"),
        (labels.data + 5, None, "labels must be 0, 1 or 2, found 5, 6, 7"),
    ):
        write(path, array, matrix)
        with pytest.raises(BadFileError, match=reason) as caught:
            task.score(tmp_path / "targets", tmp_path / "out")
        assert caught.value.path == path


def test_losses():
    torch.manual_seed(0)
    output, label = torch.randn(2, 3, 16, 16, requires_grad=True), torch.randint(0, 3, (2, 16, 16))
    batch = {"label": label}
    plain = Whole("segmentation", config(train={"loss": "cross_entropy"})).loss(output, batch)
    assert plain.item() == pytest.approx(F.cross_entropy(output, label).item())
    both = Whole("segmentation", config()).loss(output, batch)
    probabilities, truth = output.softmax(1), F.one_hot(label, 3).movedim(-1, 1)
    common = (probabilities * truth).sum((0, 2, 3))
    dice = 2 * common / (probabilities.sum((0, 2, 3)) + truth.sum((0, 2, 3)))
    assert both.item() == pytest.approx((plain + 1 - dice[1:].mean()).item(), rel=1e-4)  # as nnU-Net's for 2D
    both.backward()
    assert output.grad is not None
    assert torch.isfinite(output.grad).all()


def test_focal_loss_looks_where_the_network_is_wrong():
    torch.manual_seed(0)
    output, label = torch.randn(2, 3, 16, 16, requires_grad=True), torch.randint(0, 3, (2, 16, 16))
    focal = Whole("segmentation", config(train={"loss": "dice_focal"})).loss(output, {"label": label})
    right = output.softmax(1).gather(1, label[:, None])[:, 0]
    dice = Whole("segmentation", config()).loss(output, {"label": label}) - F.cross_entropy(output, label)
    expected = ((1 - right) ** 2 * -right.log()).mean()  # gamma 2, Lin et al. 2017
    assert (focal - dice).item() == pytest.approx(expected.item(), rel=1e-4)
    focal.backward()
    assert torch.isfinite(output.grad).all()


@pytest.mark.parametrize("loss", ["dice_cross_entropy", "dice_focal"])
def test_loss_of_slices_without_foreground_is_finite_and_small_when_right(loss):
    task = Whole("segmentation", config(train={"loss": loss}))
    logits = torch.tensor([30.0, -30.0, -30.0]).reshape(1, 3, 1, 1).expand(2, 3, 8, 8)
    assert task.loss(logits, {"label": torch.zeros(2, 8, 8, dtype=torch.long)}).item() < 0.1


def test_small_lesions_are_liver_by_their_volume():
    labels = np.ones((9, 9, 9), np.uint8)
    labels[1, 1, 1] = labels[2, 2, 2] = labels[2, 2, 3] = 2  # one lesion, by corners
    labels[7, 7, 7] = 2
    post = PredictCtConfig(minimum_lesion=4.0)
    kept = post_process(labels, post, voxel=1.5)
    assert (kept == 2).sum() == 3
    assert kept[7, 7, 7] == 1
    np.testing.assert_array_equal(post_process(labels, post, voxel=4.0), labels)
    assert not (post_process(labels, post, voxel=1.0) == 2).any()


def test_the_monitor_sees_tumours_that_are_not_there():
    task = Whole("segmentation", config())
    label = torch.tensor([[[0, 0, 0, 0]], [[1, 2, 0, 0]], [[1, 1, 0, 0]], [[0, 0, 0, 0]]])
    predicted = torch.tensor([[[0, 0, 0, 0]], [[1, 1, 0, 0]], [[0, 1, 1, 0]], [[0, 2, 0, 0]]])
    means = task.validation_means(scores_of(task, predicted, label))
    assert means[task.monitor[0]].item() == pytest.approx((2 * 3 / 9 + 0) / 2)
    predicted[1, 0] = label[1, 0]
    means = task.validation_means(scores_of(task, predicted, label))
    assert means["pooled_liver_dice"].item() == pytest.approx(2 * 3 / 9)
    assert means["pooled_tumour_dice"].item() == pytest.approx(2 / 3)  # the false one of the last slice counts
    none = task.validation_means(scores_of(task, label.clamp(max=1), label.clamp(max=1)))
    assert none["pooled_tumour_dice"].isnan()
    assert none["pooled_dice"] == 1


def scores_of(task, predicted, label):
    return task.validation_scores(F.one_hot(predicted, 3).movedim(-1, 1).float(), {"label": label})


@pytest.mark.parametrize(
    ("prepare_", "channels"),
    [({}, (2, 3)), ({"neighbours": 2}, (10, 3)), ({"neighbours": 2, "position": True}, (12, 3))],
)
def test_channels_and_datasets(tmp_path, prepare_, channels):
    task = Whole("segmentation", config(prepare=prepare_))
    assert task.channels("swin") == channels
    write_pair(tmp_path / "raw", 0)
    prepare(task, tmp_path, split="train")
    for training in (True, False):
        data = task.dataset(tmp_path / "prepared", "train", "swin", training=training)
        assert data[0]["image"].shape[0] == channels[0]
    assert torch.equal(data[3]["image"], data[3]["image"])


def test_scoring_files_needs_neither_lightning_nor_mlflow(tmp_path):
    write_pair(tmp_path, 0)
    code = (
        "import sys; from condswin.cli import app; "
        f"app(['evaluate', 'segmentation', '--targets', {str(tmp_path)!r}, '--predictions', {str(tmp_path)!r}, "
        f"'--out', {str(tmp_path / 'scores')!r}], standalone_mode=False); "
        "print([name for name in ('mlflow', 'lightning', 'monai', 'kfp') if name in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout
    assert shown.splitlines()[-1] == "[]"
    assert "tumour_hd95" in shown
    assert (tmp_path / "scores" / "pictures" / "case.png").stat().st_size > 10_000
    with (tmp_path / "scores" / "cases.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["case"], row["tumour_dice"], row["liver_hd95"]) == ("volume-0", "1.0", "0.0")


def test_importing_the_task_stays_light():
    heavy = ("monai", "lightning", "mlflow", "kfp", "matplotlib.pyplot")
    code = "import sys, condswin.ct.judging, condswin.ct.learning; "
    code += f"print([name for name in {heavy} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"

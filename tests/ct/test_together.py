"""Mirror images and several networks: class probabilities that are averaged before anything is decided."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from condswin.config.profiles import compose
from condswin.ct.config import PredictCtConfig
from condswin.ct.ensemble import Ensemble
from condswin.ct.nifti import read_labels
from condswin.errors import BadDataError, ConfigError
from condswin.networks.saving import ModelSpec, save_model
from condswin.steps.predict import Result, predict
from condswin.tasks.serving import Origin
from tests.cli.calling import condswin
from tests.steps.test_predict import SMALL, scan, volume
from tests.whole import Whole

from .fakes import config, write_pair

RAW = {"largest_component": False, "fill_holes": False, "minimum_lesion": 0.0}


class Leaning(nn.Module):
    """Stands for a network whose answer depends on the way round: liver on one side, more or less surely."""

    def __init__(self, sure: float = 3.0) -> None:
        super().__init__()
        self.sure = nn.Parameter(torch.tensor(sure))
        self.calls = 0

    def forward(self, image):
        self.calls += len(image)
        height, width = image.shape[-2:]
        right = torch.zeros(len(image), height, width)
        right[:, height // 2 :, width // 2 :] = 1
        return torch.stack([torch.zeros_like(right), self.sure * (2 * right - 1), -9 * torch.ones_like(right)], 1)


@pytest.mark.parametrize("window", [None, 64])
def test_mirror_images_are_averaged_the_right_way_round(tmp_path, window):
    path = write_pair(tmp_path / "raw", 0, (80, 72, 3))[0]
    found, calls = {}, {}
    for mirrored in (False, True):
        task = Whole("segmentation", config(predict={**RAW, "mirrored": mirrored, "window": window, "overlap": 0.5}))
        # Sure enough that one in four mirror images wins the average, and not more than that.
        for name, sure in (("sure", 3.0), ("always", -1.0)):
            model = Leaning(sure)
            written = task.predict_raw(model, path, tmp_path / f"{mirrored}-{name}", Origin()).path
            found[mirrored, name] = read_labels(written).canonical > 0
            calls[mirrored, name] = model.calls
    assert calls[True, "sure"] == 4 * calls[False, "sure"]
    if window is None:
        once = found[False, "sure"][0]
        assert once.sum() == once.size // 4
        assert once[36:, 40:].all()
        # A quarter says liver at 95 %, three say 5 %: 27 % against 73 %.
        assert not found[True, "sure"].any()
        # One says liver at 27 %, three at 73 %.
        assert found[True, "always"].all()


class Placed(nn.Module):
    """Stands for a network that looks at nothing but where a pixel is: liver in the last quarter."""

    def __init__(self) -> None:
        super().__init__()
        self.sure = nn.Parameter(torch.tensor(9.0))

    def forward(self, image):
        liver = self.sure * (image[:, -2:] > 0).all(dim=1)
        return torch.stack([torch.ones_like(liver), liver, torch.zeros_like(liver)], 1)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("window", [None, 64])
def test_windows_and_mirror_images_know_where_in_the_slice_they_are(tmp_path, window, mirrored):
    path = write_pair(tmp_path / "raw", 0, (80, 72, 3))[0]
    settings = {**RAW, "mirrored": mirrored, "window": window, "overlap": 0.5}
    task = Whole("segmentation", config(prepare={"position": True}, predict=settings))
    written = task.predict_raw(Placed(), path, tmp_path / "out", Origin()).path
    for slice_ in read_labels(written).canonical > 0:
        assert slice_.sum() == slice_.size // 4
        assert slice_[36:, 40:].all()


def test_the_mean_is_of_probabilities_and_its_logits_give_it_back():
    torch.manual_seed(0)
    networks = [nn.Conv2d(2, 3, 1) for _ in range(3)]
    images = 5 * torch.randn(4, 2, 6, 7)
    expected = torch.stack([network(images).softmax(1) for network in networks]).mean(0)
    torch.testing.assert_close(Ensemble(networks)(images).softmax(1), expected)
    extreme = nn.Conv2d(2, 3, 1)
    with torch.no_grad():
        extreme.weight.mul_(1e4)
    assert bool(Ensemble([extreme])(images).softmax(1).isfinite().all())
    # Votes do not win over one that is sure.
    sure, unsure = Leaning(6.0), Leaning(-0.5)
    shown = torch.zeros(1, 1, 8, 8)
    both = Ensemble([sure, unsure, unsure])(shown).softmax(1)[0, 1].detach()
    assert float(both[7, 7]) > 0.5 > float(both[0, 0])


def saved(folder, name: str, *, seed: int = 0, task: str = "segmentation", **parameters: Any) -> str:
    channels = {"segmentation": (4, 3), "reconstruction": (1, 1)}[task]
    if neighbours := parameters.get("data", {}).get("neighbours"):
        channels = (2 * (1 + 2 * neighbours), 3)
    spec = ModelSpec(task, name, "swin", "demo", *channels, SMALL, {"parameters": parameters} if parameters else {})
    torch.manual_seed(seed)
    save_model(folder / name, spec.build(), spec)
    return str(folder / name)


def test_several_models_segment_as_their_mean(tmp_path):
    path = volume(tmp_path / "scans/volume-0.nii.gz")
    models = [saved(tmp_path, f"fold-{seed}", seed=seed) for seed in range(3)]
    settings = compose(["demo"], [f"segmentation.predict.{key}={json.dumps(value)}" for key, value in RAW.items()])
    results: list[tuple[Result, str]] = []
    alone = [predict(settings, [path], model=model, out=tmp_path / f"out-{number}")[0]
             for number, model in enumerate(models)]  # fmt: skip
    (together,) = predict(settings, [path], model=models[0], further=models[1:], out=tmp_path / "together",
                          tell=lambda *told: results.append(told))  # fmt: skip
    labels, others = read_labels(together).data, [read_labels(each).data for each in alone]
    same = np.all([each == others[0] for each in others], axis=0)
    assert not same.all()
    # Where all agree, so does their mean; elsewhere it is no one network's.
    np.testing.assert_array_equal(labels[same], others[0][same])
    assert all((labels != each).any() for each in others)
    assert results[0][1] == " + ".join(models)


def test_on_the_command_line(tmp_path):
    path = volume(tmp_path / "scans/volume-0.nii.gz")
    models = [saved(tmp_path, f"fold-{seed}", seed=seed) for seed in range(2)]
    options = [part for model in models for part in ("--model", model)]
    ran = condswin("predict", str(path), *options, "--out", str(tmp_path / "out"), "--json", cwd=tmp_path)
    (record,) = map(json.loads, ran.splitlines())
    assert record["model"] == " + ".join(models)
    assert record["status"] == "predicted"


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"data": {"windows": [[-100.0, 100.0]] * 2}}, r"prepares its inputs otherwise than .*first .*windows .*-100"),
        ({"data": {"windows": [[-160.0, 240.0], [-20.0, 200.0]], "spacing": 0.8}}, r"\(spacing 0\.8, not None\)"),
        ({"data": {"windows": [[-160.0, 240.0], [-20.0, 200.0]], "neighbours": 1}}, r"neighbours 1, not 0"),
        ({"train": {"crop": 64}}, r"window 64, not None"),
    ],
)
def test_models_whose_inputs_differ_are_refused_by_name(tmp_path, second, message):
    path = volume(tmp_path / "scans/volume-0.nii.gz")
    first = saved(tmp_path, "first", data={"windows": [[-160.0, 240.0], [-20.0, 200.0]]}, train={"crop": None})
    second = {"data": {"windows": [[-160.0, 240.0], [-20.0, 200.0]]}, "train": {"crop": None}, **second}
    other = saved(tmp_path, "other", seed=1, **second)
    settings = compose(["lits"], ["segmentation.predict.window=null", "segmentation.prepare.spacing=null"])
    with pytest.raises(BadDataError, match=message) as refused:
        predict(settings, [path], model=first, further=[other], out=tmp_path / "out")
    assert str(refused.value).startswith(other)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_other_tasks_twins_and_mri_are_refused_by_name(tmp_path):
    path = volume(tmp_path / "scans/volume-0.nii.gz")
    first, twin = saved(tmp_path, "first"), saved(tmp_path, "twin")
    mri, other = (saved(tmp_path, f"mri-{seed}", seed=seed, task="reconstruction") for seed in range(2))
    for given, models, message in (
        (path, [first, twin], r"twin: is the same network as .*first; give each once"),
        (path, [first, mri], r"mri-0: is for MRI \(reconstruction\), .*first is for CT \(segmentation\)"),
        (scan(tmp_path / "scan.h5"), [mri, other], "predictions of networks for MRI are not averaged"),
    ):
        with pytest.raises(BadDataError, match=message):
            predict(compose(["demo"]), [given], model=models[0], further=models[1:], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_volume_that_any_of_them_has_not_seen_the_like_of_is_refused(tmp_path):
    path = volume(tmp_path / "scans/volume-0.nii.gz")
    names = []
    for number, pixel in enumerate((0.8, 0.2)):
        seen = {"pixel": [pixel] * 3, "slice": [5.0] * 3, "plane": [20, 30, 40], "height": [10, 15, 20]}
        spec = ModelSpec("segmentation", f"fold-{number}", "swin", "demo", 4, 3, SMALL, {"seen": seen})
        torch.manual_seed(number)
        save_model(tmp_path / f"fold-{number}", spec.build(), spec)
        names.append(str(tmp_path / f"fold-{number}"))
    settings = compose(["demo"])
    assert len(predict(settings, [path], model=names[0], out=tmp_path / "alone")) == 1
    with pytest.raises(BadDataError, match=r"pixels are 0\.8 mm wide, the network was trained with 0\.2 mm"):
        predict(settings, [path], model=names[0], further=names[1:], out=tmp_path / "out")


@pytest.mark.parametrize("loss", ["dice_cross_entropy", "dice_focal", "cross_entropy"])
def test_answers_of_coarser_scales_count_half_as_much(loss):
    task = Whole("segmentation", config(train={"loss": loss}))
    torch.manual_seed(0)
    answers, label = [torch.randn(2, 3, 16, 16) for _ in range(3)], torch.randint(3, (2, 16, 16))
    alone = [task.loss(answer, {"label": label}) for answer in answers]
    together = task.loss(torch.cat(answers, 1), {"label": label})
    assert float(together) == pytest.approx(float((alone[0] + alone[1] / 2 + alone[2] / 4) / 1.75), rel=1e-5)


def test_the_demo_has_none_of_it_and_overlaps_have_bounds():
    section = compose(["demo"]).segmentation
    assert (section.predict.mirrored, section.predict.overlap) == (False, PredictCtConfig().overlap) == (False, 0.25)
    assert section.train.synthetic_lesions == 0
    assert not any("deep_supervision" in variant.overrides for variant in section.variants.values())
    for overlap in (-0.1, 1.0):
        with pytest.raises(ConfigError, match="overlap"):
            config(predict={"overlap": overlap, "window": 64})

"""A loss that turns to SSIM late in a training, and the score that then picks the best epoch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from condswin.config.profiles import compose
from condswin.config.reading import load_config, parse_config
from condswin.config.root import Config
from condswin.errors import ConfigError
from condswin.mri.facts import ReconstructionFacts
from condswin.mri.learning import ReconstructionLearning
from condswin.mri.metrics import slice_ssim, ssim
from condswin.tasks.slices import PROGRESS, Batch


def config(**train: Any) -> Config:
    return parse_config({"reconstruction": {"variants": {"swin": {}}, "train": train}}, origin="test")


def batch(shape: tuple[int, ...] = (2, 1, 24, 31)) -> tuple[Batch, Tensor]:
    torch.manual_seed(1)
    target = torch.rand(shape)
    scaled = {"std": torch.tensor([0.5, 2.0]), "mean": torch.tensor([0.3, 0.1]), "maximum": torch.tensor([1.0, 2.1])}
    return {"target": target, "volume": torch.arange(2), **scaled}, target + 0.2 * torch.randn(shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-7, 1.0, 1e4])
def test_ssim_of_slices_is_the_reported_one(scale: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    target = (5 + torch.rand(3, 1, 29, 40)).to(dtype) * scale
    prediction = (target.float() + 0.2 * scale * torch.randn(target.shape)).to(dtype)
    maxima = torch.tensor([6.0, 7.0, 9.0]) * scale
    found = slice_ssim(target, prediction, maxima)
    for number in range(3):
        one, other = (each[number].float().numpy().astype(np.float64) for each in (target, prediction))
        assert float(found[number]) == pytest.approx(ssim(one, other, maximum=float(maxima[number])), abs=1e-5)
    torch.testing.assert_close(slice_ssim(target, target, maxima), torch.ones(3))
    with pytest.raises(ValueError, match="6x40 are smaller than SSIM's window"):
        slice_ssim(target[..., :6, :], target[..., :6, :], maxima)


def test_ssim_of_an_empty_slice_has_a_gradient() -> None:
    image = torch.zeros(1, 1, 16, 16, requires_grad=True)
    slice_ssim(torch.zeros(1, 1, 16, 16), image, torch.ones(1)).sum().backward()
    assert image.grad is not None
    assert bool(image.grad.isfinite().all())


@pytest.mark.parametrize(("first", "plain"), [("l1", F.l1_loss), ("mse", F.mse_loss)])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_loss_turns_where_it_says(first: str, plain: Callable[..., Tensor], channels: int) -> None:
    learning = ReconstructionLearning(config(loss=first, epochs=5, late_loss={"after": 0.6, "l1": 0.2}))
    known, image = batch()
    if channels == 2:  # magnitudes of complex images, which are not shifted by a mean
        known["mean"] = torch.zeros(2)
        image = image.abs()
    output = image if channels == 1 else torch.cat([0.6 * image, -0.8 * image], dim=1)
    early, target = plain(image, known["target"]), known["target"]
    std, mean = known["std"][:, None, None, None], known["mean"][:, None, None, None]
    late = 1 - slice_ssim(target * std + mean, image * std + mean, known["maximum"]).mean()
    late = late + 0.2 * F.l1_loss(image, target)
    assert abs(float(late - early)) > 0.01
    for epoch, expected in enumerate([early, early, early, late, late]):
        found = learning.loss(output, {**known, PROGRESS: torch.full((2,), epoch / 5)})
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    # Validation has no progress, so all epochs compare.
    torch.testing.assert_close(learning.loss(output, known), early)


def test_the_best_epoch_is_that_of_the_highest_ssim() -> None:
    known, image = batch()
    for train, monitor, scores in (
        ({}, "volume_psnr", {"slice_psnr", "volume"}),
        ({"late_loss": {}}, "slice_ssim", {"slice_psnr", "slice_ssim", "volume"}),
    ):
        settings = config(**train)
        assert ReconstructionFacts(settings).monitor == (monitor, True)
        found = ReconstructionLearning(settings).validation_scores(image, known)
        assert set(found) == scores
        assert all(values.shape == (2,) for values in found.values())


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_late_loss_that_never_comes_is_refused(epochs: int) -> None:
    with pytest.raises(ConfigError, match=rf"late_loss\.after 0\.6 leaves none of {epochs} epochs"):
        config(epochs=epochs, late_loss={})
    assert config(epochs=3, late_loss={}).reconstruction.train.late_loss.after == 0.6
    for after in (0.0, 1.0):
        with pytest.raises(ConfigError, match=r"late_loss\.after"):
            config(late_loss={"after": after})


@pytest.mark.parametrize("key", ["neighbours=1", "augment={}"])
def test_what_unrolled_networks_alone_heed_is_refused_without_one(key: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("reconstruction: {variants: {mine: {network: swin}}}\n")
    name = key.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"reconstruction\.train\.{name}: unrolled networks alone heed it"):
        load_config(path, [f"reconstruction.train.{key}"])
    path.write_text("reconstruction: {variants: {a: {network: swin}, b: {network: unrolled-swin}}}\n")
    assert load_config(path, [f"reconstruction.train.{key}"])


def test_the_demo_has_none_of_it() -> None:
    train = compose(["demo"]).reconstruction.train
    assert (train.late_loss, train.neighbours, train.augment) == (None, 0, None)


def test_deep_supervision_is_refused_where_no_loss_takes_it() -> None:
    with pytest.raises(ConfigError, match="deep_supervision: reconstruction has no loss"):
        parse_config(
            {"reconstruction": {"variants": {"swin": {"overrides": {"deep_supervision": True}}}}}, origin="test"
        )

"""What makes trainings faster or steadier: each does what it says, and none spoils going on after an interruption."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from condswin.config.root import Config
from condswin.config.train import TrainConfig
from condswin.tasks.learning import Learning
from condswin.tasks.loading import load
from condswin.tasks.slices import Slices
from condswin.training import steps_of
from condswin.training.loaders import training_loader
from condswin.training.module import TrainingModule, peak_learning_rate
from tests.training.runs import TASK, states, weights

#: Slices that nothing asks for.
NONE = cast(Slices, None)


def rows(trained: torch.Tensor, epochs: int) -> torch.Tensor:
    """Training loss, validation loss and score of each epoch."""
    return trained[: 3 * epochs].view(epochs, 3)


@pytest.fixture(scope="module")
def plain(tiny: Config, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    return weights(tiny, prepared, tmp_path_factory.mktemp("plain"), epochs=2)


def test_with_all_of_them_a_training_goes_on_between_two_steps(tiny: Config, prepared: Path, tmp_path: Path) -> None:
    """Killed within a step of two batches: gradients that no state has are computed again."""
    settings: dict[str, Any] = {"epochs": 2, "accumulate": 2, "ema": 0.8, "channels_last": True}
    settings |= {"precision": "bf16-mixed", "learning_rate_rule": "sqrt", "transforms": "device"}
    whole = weights(tiny, prepared, tmp_path / "a", **settings)
    weights(tiny, prepared, tmp_path / "b", (1, 3), checkpoint_minutes=1e-9, **settings)
    assert states(tmp_path / "b") == ["epoch-0001-batch-000000.ckpt", "epoch-0001-batch-000002.ckpt"]
    assert torch.equal(whole, weights(tiny, prepared, tmp_path / "b", activation_checkpointing=True, **settings))


def test_inputs_are_the_same_whoever_makes_them(
    tiny: Config, prepared: Path, tmp_path: Path, plain: torch.Tensor
) -> None:
    assert torch.equal(weights(tiny, prepared, tmp_path, epochs=2, transforms="device", workers=1), plain)


def test_a_moving_average_is_validated_and_kept(
    tiny: Config, prepared: Path, tmp_path: Path, plain: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    step = TrainingModule.optimizer_step

    def noted(self: TrainingModule, *arguments: Any, **others: Any) -> None:
        step(self, *arguments, **others)
        steps.append(torch.cat([parameter.detach().flatten() for parameter in self.network.parameters()]))

    monkeypatch.setattr(TrainingModule, "optimizer_step", noted)
    trained = weights(tiny, prepared, tmp_path, epochs=2, ema=0.9)
    averages = [steps[0]]
    for now in steps[1:]:
        averages.append(0.9 * averages[-1] + 0.1 * now)
    best = int(rows(trained, 2)[:, 2].argmax())
    torch.testing.assert_close(trained[6:], averages[(best + 1) * len(steps) // 2 - 1], rtol=0, atol=1e-6)
    # The weights that are trained are as without it.
    assert torch.equal(rows(trained, 2)[:, 0], rows(plain, 2)[:, 0])
    assert not torch.equal(rows(trained, 2)[:, 1], rows(plain, 2)[:, 1])


def test_layout_and_precision_change_little(tiny: Config, prepared: Path, tmp_path: Path, plain: torch.Tensor) -> None:
    laid_out = weights(tiny, prepared, tmp_path / "a", epochs=2, channels_last=True)
    torch.testing.assert_close(rows(laid_out, 2), rows(plain, 2), rtol=1e-3, atol=0)
    rounded = weights(tiny, prepared, tmp_path / "b", epochs=2, precision="bf16-mixed")
    assert not torch.equal(rounded, plain)
    torch.testing.assert_close(rows(rounded, 2), rows(plain, 2), rtol=3e-2, atol=0)


def test_the_loss_is_fp32_in_mixed_precision(tiny: Config) -> None:
    seen = []
    learning = load(Learning, TASK, tiny)
    module = TrainingModule(torch.nn.Conv2d(1, 1, 1), learning, tiny.reconstruction.train, seed=1, slices=NONE)
    module.task = type("Task", (), {"loss": lambda _, output, batch: seen.append(output.dtype) or output.sum()})()
    with torch.autocast("cpu", torch.bfloat16):
        assert module(torch.ones(1, 1, 4, 4)).dtype == torch.bfloat16
        module.training_step({"image": torch.ones(1, 1, 4, 4)}, 0)
    assert seen == [torch.float32]


def test_what_is_trained_is_compiled_and_what_is_kept_is_not(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(torch, "compile", lambda run: lambda image: calls.append("compiled") or run(image))
    network = torch.nn.Conv2d(1, 1, 1)
    train = TrainConfig(compile=True)
    module = TrainingModule(network, load(Learning, TASK, tiny), train, seed=1, slices=NONE)
    module(torch.ones(1, 1, 4, 4))
    assert calls == ["compiled"]
    assert module.evaluated is network
    assert set(module.state_dict()) == {"network.weight", "network.bias"}


def test_tf32_is_off_unless_asked_for(tiny: Config, prepared: Path, tmp_path: Path) -> None:
    for wanted in (True, False):
        weights(tiny, prepared, tmp_path / str(wanted), epochs=1, tf32=wanted)
        assert torch.backends.cuda.matmul.allow_tf32 is wanted
        assert torch.backends.cudnn.allow_tf32 is wanted


@pytest.mark.parametrize(("rule", "rate"), [("fixed", 0.001), ("linear", 0.004), ("sqrt", 0.002)])
def test_the_learning_rate_follows_its_rule_and_is_said(
    rule: Any,
    rate: float,
    tiny: Config,
    prepared: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert peak_learning_rate(TrainConfig(learning_rate=0.001, learning_rate_rule=rule), 4) == pytest.approx(rate)
    if rule == "fixed":
        return
    weights(tiny, prepared, tmp_path, (0, 1), accumulate=4, learning_rate=0.001, learning_rate_rule=rule)
    assert f"4 slices a step (1 x 4 batches x 1 processes), learning rate {rate:g}" in capsys.readouterr().err


def test_what_a_step_averages_over_is_logged() -> None:
    train = TrainConfig(batch_size=4, accumulate=2, processes=3, device="cpu", learning_rate=0.001)
    assert steps_of(train) == {"effective_batch": 24, "peak_learning_rate": 0.001}
    linear = train.model_copy(update={"learning_rate_rule": "linear"})
    assert steps_of(linear)["peak_learning_rate"] == pytest.approx(0.006)


def test_loading_follows_its_settings(tiny: Config, prepared: Path) -> None:
    learning = load(Learning, TASK, tiny)
    slices = learning.dataset(prepared, "train", "swin", training=True)
    assert slices._cache is not None
    for workers, prefetch in ((0, None), (1, 5)):
        train = TrainConfig(workers=workers, prefetch=5)
        assert training_loader(slices, train, seed=1, rank=0, ranks=1).prefetch_factor == prefetch
    train = tiny.reconstruction.train.model_copy(update={"cache_mb": 0})
    section = tiny.reconstruction.model_copy(update={"train": train})
    learning = load(Learning, TASK, tiny.model_copy(update={TASK: section}))
    assert learning.dataset(prepared, "train", "swin", training=True)._cache is None

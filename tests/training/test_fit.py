"""What a training computes, and what it refuses."""

import math
import shutil
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import pytest
import torch

from condswin.config.root import Config
from condswin.config.train import EarlyStoppingConfig, ScheduleConfig
from condswin.errors import BadDataError, DivergedError
from condswin.training import decisive
from condswin.training.module import learning_rates
from tests.training.runs import TASK, weights


def test_a_loss_that_is_not_finite_stops_the_training(tiny: Config, prepared: Path, tmp_path: Path) -> None:
    def spoil(network: torch.nn.Module) -> None:
        with torch.no_grad():
            next(network.parameters()).fill_(float("nan"))

    with pytest.raises(DivergedError, match=r"became nan at epoch 0, step 0, and the data is finite; lower train\."):
        weights(tiny, prepared, tmp_path, spoil=spoil)


@pytest.mark.parametrize("dataset", ["reconstruction_esc", "kspace"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_value_that_is_not_finite_is_named_with_its_file(
    split: str, dataset: str, tiny: Config, prepared: Path, tmp_path: Path
) -> None:
    """Data, not the learning rate."""
    shutil.copytree(prepared, tmp_path / "data")
    path = sorted((tmp_path / "data" / split).glob("*.h5"))[0]
    with h5py.File(path, "a") as file:
        name = dataset if split == "train" or dataset != "kspace" else "zero_filled"
        file[name][1, 2, 3] = np.nan
    with pytest.raises(BadDataError, match=rf"{path}, slice 2: (image|target) has NaN or infinite values \(epoch 0"):
        weights(tiny, tmp_path / "data", tmp_path / "checkpoints")


@pytest.mark.parametrize("warmup", [0, 1, 2, 10, 60])
@pytest.mark.parametrize("name", ["constant", "step", "cosine"])
def test_learning_rates_follow_their_schedule(name: Literal["constant", "step", "cosine"], warmup: int) -> None:
    steps, epochs = 120, 12
    schedule = ScheduleConfig(name=name, step_size=5, gamma=0.8, warmup_steps=warmup)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = learning_rates(optimizer, schedule, steps=steps, epochs=epochs)

    def expected(step: int) -> float:
        after = {
            "constant": 1.0,
            "step": 0.8 ** (step * epochs // steps // 5),
            "cosine": 0.5 * (1 + math.cos(math.pi * max(step - warmup, 0) / (steps - warmup))),
        }
        return min((step + 1) / max(warmup, 1), 1.0) * after[name]

    rates = []
    for _ in range(steps + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.1 * expected(step) for step in range(steps + 1)], rel=1e-9, abs=1e-12)


def test_what_loads_slices_decides_nothing_and_what_computes_does(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = tiny.task(TASK).train
    known = decisive(train)
    assert known["device"] == "cpu"
    same = {"workers": 7, "prefetch": 5, "pin_memory": False, "cache_mb": 0}
    same |= {"checkpoint_minutes": 1.0, "grace_seconds": 3.0, "processes": 1, "pictures": 9}
    assert decisive(train.model_copy(update=same)) == known
    other = {"precision": "bf16-mixed", "tf32": True, "compile": True, "channels_last": True, "ema": 0.9}
    other |= {"early_stopping": EarlyStoppingConfig(), "schedule": ScheduleConfig(name="plateau")}
    other |= {"accumulate": 2, "learning_rate_rule": "linear", "processes": 2}
    for name, value in other.items():
        assert decisive(train.model_copy(update={name: value})) != known
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    found = []
    for gpus in (1, 8):
        monkeypatch.setattr("torch.cuda.device_count", lambda gpus=gpus: gpus)
        found.append(decisive(train))
    # Each of eight has batches of its own: another training.
    assert [{"device": each["device"], "ranks": each["ranks"]} for each in found] == [
        {"device": "cuda", "ranks": 1},
        {"device": "cuda", "ranks": 8},
    ]

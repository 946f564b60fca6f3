"""Training on a task small enough to check bit by bit."""

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from condswin.config.root import Config
from condswin.config.train import ScheduleConfig
from condswin.networks.models import create_model
from condswin.steps.demo_data import demo_data
from condswin.steps.ingest import ingest
from condswin.steps.prepare import prepare
from condswin.tasks.learning import Learning
from condswin.tasks.loading import load
from condswin.training import decisive, fit
from condswin.training.checkpoints import training_folder
from condswin.training.fit import TERMINATED
from condswin.training.module import learning_rates
from condswin.validity import Key

TASK = "reconstruction"
MONITOR = ("slice_psnr", True)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, tiny: Config) -> Path:
    folder = tmp_path_factory.mktemp("data")
    section = tiny.reconstruction.model_copy(update={"source": str(folder / "raw")})
    demo_data(tiny.model_copy(update={TASK: section}), TASK, out=folder / "raw")
    ingest(tiny, TASK, source=str(folder / "raw"), out=folder / "in")
    prepare(tiny, TASK, ingested=folder / "in", out=folder / "out")
    return folder / "out"


def weights(
    config: Config,
    prepared: Path,
    checkpoints: Path,
    epochs: int,
    *,
    planned: int = 4,
    schedule: ScheduleConfig | None = None,
) -> torch.Tensor:
    """Trains for some epochs of a schedule of `planned`, as an interrupted run does, and returns all weights."""
    import lightning.pytorch as pl

    train = config.reconstruction.train
    train = train.model_copy(update={"epochs": planned, "schedule": schedule or train.schedule})
    task = load(Learning, TASK, config)
    pl.seed_everything(1, workers=True, verbose=False)
    network = create_model("conditional-light", preset="demo", embedding=16, heads=[2, 2], dropout=0.1)
    arguments = {
        "monitor": MONITOR,
        "validated": True,
        "name": "conditional-light",
        "prepared": prepared,
        "checkpoints": checkpoints,
    }
    arguments |= {"checkpoints": checkpoints, "seed": 1, "label": "t", "loggers": []}
    if epochs < planned:

        class StoppedError(Exception):
            pass

        def stop(*_: object) -> None:
            raise StoppedError

        with pytest.MonkeyPatch.context() as patch:
            from condswin.training.module import TrainingModule

            original = TrainingModule.on_train_epoch_start

            def interrupted(self: TrainingModule) -> None:
                if self.current_epoch == epochs:
                    stop()
                original(self)

            patch.setattr(TrainingModule, "on_train_epoch_start", interrupted)
            with pytest.raises(StoppedError):
                fit(task, network, train, **arguments)
        return torch.empty(0)
    fitted = fit(task, network, train, **arguments)
    assert [row["epoch"] for row in fitted.history] == list(range(planned))
    assert not fitted.network.training
    # The best epoch may be an early one; losses tell whether the last one was the same too.
    losses = torch.tensor([row["train/loss"] for row in fitted.history])
    return torch.cat([losses, *(parameter.detach().flatten() for parameter in fitted.network.parameters())])


@pytest.mark.parametrize(
    "schedule",
    [
        {"name": "cosine", "warmup_steps": 2},  # stopped after the warm-up
        {"name": "cosine", "warmup_steps": 7},  # and within it
        {"name": "step", "step_size": 1, "warmup_steps": 2},
    ],
)
def test_an_interrupted_training_ends_where_an_unbroken_one_does(
    schedule: dict[str, Any], tiny: Config, prepared: Path, tmp_path: Path
) -> None:
    settings = {"schedule": ScheduleConfig(**schedule)}
    unbroken = weights(tiny, prepared, tmp_path / "a", 4, **settings)
    weights(tiny, prepared, tmp_path / "b", 2, **settings)
    resumed = weights(tiny, prepared, tmp_path / "b", 4, **settings)
    assert torch.equal(unbroken, resumed)


def test_trainings_of_two_keys_share_no_checkpoint(tiny: Config, prepared: Path, tmp_path: Path) -> None:
    task, checkpoints = load(Learning, TASK, tiny), tmp_path / "checkpoints"
    network = create_model("swin", preset="demo", embedding=16, heads=[2, 2])
    arguments = {"monitor": MONITOR, "validated": True, "name": "swin", "prepared": prepared}
    arguments |= {"seed": 1, "label": "t", "loggers": []}
    train = tiny.reconstruction.train.model_copy(update={"epochs": 1})
    one, other = (Key({"seed": seed}, {"data": "d"}, {"a.py": "1"}) for seed in (1, 2))
    folder, changes = training_folder(checkpoints, one)
    assert changes == []
    fit(task, network, train, checkpoints=folder, **arguments)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert training_folder(checkpoints, one) == (folder, [])
    another, changes = training_folder(checkpoints, other)
    assert changes == ["parameters changed: seed"]
    larger = create_model("swin", preset="demo", embedding=32, heads=[2, 2])
    assert len(fit(task, larger, train, checkpoints=another, **arguments).history) == 1
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_moved_folder_goes_on_to_the_same_weights(tiny: Config, prepared: Path, tmp_path: Path) -> None:
    """The best epoch is remembered by its score, wherever the folder lies."""
    unbroken = weights(tiny, prepared, tmp_path / "a", 4)
    weights(tiny, prepared, tmp_path / "b", 3)
    (tmp_path / "b").rename(tmp_path / "c")
    for path in (tmp_path / "c").glob("*.ckpt"):
        assert str(tmp_path).encode() not in path.read_bytes()
    assert torch.equal(unbroken, weights(tiny, prepared, tmp_path / "c", 4))


def test_checkpoints_hold_nothing_that_must_be_executed_to_be_read(
    tiny: Config, prepared: Path, tmp_path: Path
) -> None:
    weights(tiny, prepared, tmp_path, 4)
    for name in ("last.ckpt", "best.ckpt"):
        torch.load(tmp_path / name, weights_only=True)


def test_a_loss_that_is_not_finite_stops_the_training(tiny: Config, prepared: Path, tmp_path: Path) -> None:
    network = create_model("swin", preset="demo", embedding=16, heads=[2, 2])
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="epoch 0"):
        fit(
            load(Learning, TASK, tiny),
            network,
            tiny.reconstruction.train,
            monitor=MONITOR,
            validated=True,
            name="swin",
            prepared=prepared,
            checkpoints=tmp_path,
            seed=1,
            label="t",
            loggers=[],
        )


SCRIPT = """
import sys, torch
from pathlib import Path
from condswin.config.profiles import compose
from condswin.networks.models import create_model
from condswin.tasks.learning import Learning
from condswin.tasks.loading import load
from condswin.training import fit
config = compose(["demo", "tiny"])
train = config.reconstruction.train.model_copy(update={"epochs": 100000})
network = create_model("swin", preset="demo", embedding=16, heads=[2, 2])
fit(load(Learning, "reconstruction", config), network, train, monitor=("slice_psnr", True), validated=True,
    name="swin", prepared=Path(sys.argv[1]), checkpoints=Path(sys.argv[2]), seed=1, label="t", loggers=[])
"""


def test_a_terminated_training_says_so_and_leaves_a_checkpoint(prepared: Path, tmp_path: Path) -> None:
    """Lightning alone would exit with 0, and an orchestrator would believe that the work is done."""
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(prepared), str(tmp_path)], env={**os.environ})
    deadline = time.monotonic() + 120
    while not (tmp_path / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == TERMINATED
    torch.load(tmp_path / "last.ckpt", weights_only=True)


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
    assert decisive(train.model_copy(update={"workers": 7})) == known
    assert decisive(train.model_copy(update={"precision": "bf16-mixed"})) != known
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

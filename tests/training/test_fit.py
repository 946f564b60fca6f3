"""Training on a task small enough to check bit by bit."""

import math
import os
import resource
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from condswin.config.root import Config
from condswin.config.train import ScheduleConfig
from condswin.errors import CheckpointError
from condswin.networks.models import create_model
from condswin.steps.demo_data import demo_data
from condswin.steps.ingest import ingest
from condswin.steps.prepare import prepare
from condswin.tasks.learning import Learning
from condswin.tasks.loading import load
from condswin.training import decisive, fit
from condswin.training.checkpoints import training_folder
from condswin.training.loaders import training_loader
from condswin.training.module import TrainingModule, learning_rates
from condswin.training.ownership import owned
from condswin.training.stopping import TERMINATED
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


class KilledError(Exception):
    """Ends a training as a kill does: nothing more is saved."""


def weights(
    config: Config,
    prepared: Path,
    checkpoints: Path,
    until: tuple[int, int] | None = None,
    *,
    hook: str = "on_train_batch_start",
    act: Callable[[], None] | None = None,
    epochs: int = 4,
    require_owner: Callable[[], None] = lambda: None,
    **settings: Any,
) -> torch.Tensor:
    """Trains; returns all weights and losses, or nothing if it was ended.

    Args:
        config: Parameters.
        prepared: Data.
        checkpoints: Folder.
        until: Epoch and batch at whose `hook` the training is ended.
        hook: Of the module.
        act: Called there, a KilledError by default.
        epochs: Of the whole training.
        require_owner: See `fit`.
        settings: Of the training, other than the configuration's.
    """
    import lightning.pytorch as pl

    train = config.reconstruction.train.model_copy(update={"epochs": epochs, "batch_size": 1, **settings})
    pl.seed_everything(1, workers=True, verbose=False)
    network = create_model("conditional-light", preset="demo", embedding=16, heads=[2, 2], dropout=0.1)
    with pytest.MonkeyPatch.context() as patch:
        if until:
            original = getattr(TrainingModule, hook)

            def interrupted(self: TrainingModule, batch: Any, index: int) -> Any:
                if (self.current_epoch, index) == until:
                    (act or _kill)()
                return original(self, batch, index)

            patch.setattr(TrainingModule, hook, interrupted)
        try:
            fitted = fit(
                load(Learning, TASK, config),
                network,
                train,
                monitor=MONITOR,
                validated=True,
                name="conditional-light",
                prepared=prepared,
                checkpoints=checkpoints,
                seed=1,
                label="t",
                require_owner=require_owner,
            )
        except KilledError:
            return torch.empty(0)
    assert [row["epoch"] for row in fitted.history] == list(range(epochs))
    assert not fitted.network.training
    # The best epoch may be an early one; losses tell whether the last one was the same too.
    rows = torch.tensor([[row["train/loss"], row["val/loss"], row["val/slice_psnr"]] for row in fitted.history])
    return torch.cat([rows.flatten(), *(parameter.detach().flatten() for parameter in fitted.network.parameters())])


def _kill() -> None:
    raise KilledError


def _terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def states(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.ckpt"))


@pytest.fixture(scope="module")
def unbroken(tiny: Config, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    return weights(tiny, prepared, tmp_path_factory.mktemp("unbroken"))


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
    whole = weights(tiny, prepared, tmp_path / "a", **settings)
    assert not len(weights(tiny, prepared, tmp_path / "b", (2, 0), **settings))
    assert torch.equal(whole, weights(tiny, prepared, tmp_path / "b", **settings))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_goes_on_within_an_epoch(
    workers: int, tiny: Config, prepared: Path, tmp_path: Path, unbroken: torch.Tensor
) -> None:
    """A state after each batch; killed twice, and loaded by another number of workers."""
    often = {"checkpoint_minutes": 1e-9}
    weights(tiny, prepared, tmp_path, (1, 2), **often)
    assert states(tmp_path)[-1] == "epoch-0001-batch-000002.ckpt"
    weights(tiny, prepared, tmp_path, (2, 1), **often, workers=workers)
    assert states(tmp_path) == ["epoch-0002-batch-000000.ckpt", "epoch-0002-batch-000001.ckpt"]
    assert torch.equal(unbroken, weights(tiny, prepared, tmp_path, workers=workers))


@pytest.mark.parametrize(
    ("hook", "until", "saved"),
    [
        ("on_train_batch_start", (1, 1), "epoch-0001-batch-000002.ckpt"),  # the batch under way is finished
        ("on_train_batch_start", (0, 0), "epoch-0000-batch-000001.ckpt"),
        ("validation_step", (1, 0), "epoch-0001-batch-{before_last:06}.ckpt"),
        ("on_train_batch_start", (3, -1), "epoch-0003-batch-{before_last:06}.ckpt"),  # in the last batch of all
    ],
)
def test_a_terminated_training_saves_and_goes_on_from_there(
    hook: str,
    until: tuple[int, int],
    saved: str,
    tiny: Config,
    prepared: Path,
    tmp_path: Path,
    unbroken: torch.Tensor,
    batches: int,
) -> None:
    until = (until[0], until[1] % batches)
    with pytest.raises(SystemExit) as ended:
        weights(tiny, prepared, tmp_path, until, hook=hook, act=_terminate)
    assert ended.value.code == TERMINATED
    assert states(tmp_path)[-1] == saved.format(before_last=batches - 1)
    assert torch.equal(unbroken, weights(tiny, prepared, tmp_path))


@pytest.fixture(scope="module")
def batches(tiny: Config, prepared: Path) -> int:
    slices = load(Learning, TASK, tiny).dataset(prepared, "train", "conditional-light", training=True)
    train = tiny.reconstruction.train.model_copy(update={"batch_size": 1})
    number = len(training_loader(slices, train, seed=1, rank=0, ranks=1))
    assert number > 3
    return number


def test_a_second_request_to_terminate_changes_nothing(
    tiny: Config, prepared: Path, tmp_path: Path, unbroken: torch.Tensor
) -> None:
    def twice() -> None:
        _terminate()
        _terminate()

    with pytest.raises(SystemExit):
        weights(tiny, prepared, tmp_path, (1, 1), act=twice)
    assert torch.equal(unbroken, weights(tiny, prepared, tmp_path))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        _truncate,
        _flip,
        lambda path: path.write_bytes(b""),
        Path.unlink,
        lambda path: path.with_name(f"{path.name}.sha256").unlink(),
    ],
    ids=["truncated", "flipped", "empty", "missing", "without a checksum"],
)
def test_of_a_damaged_state_the_one_before_is_used(
    damage: Callable[[Path], None],
    tiny: Config,
    prepared: Path,
    tmp_path: Path,
    unbroken: torch.Tensor,
    batches: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    weights(tiny, prepared, tmp_path, (2, 0))
    newest = tmp_path / states(tmp_path)[-1]
    damage(newest)
    there = newest.exists()
    assert torch.equal(unbroken, weights(tiny, prepared, tmp_path))
    said = capsys.readouterr().err
    assert (f"{newest}: damaged" in said) == there
    assert f"goes on after {batches - 1} batches of epoch 1" in said
    assert newest.with_name(f"{newest.name}.damaged").exists() == there


def test_where_all_states_are_damaged_the_training_starts_anew(
    tiny: Config, prepared: Path, tmp_path: Path, unbroken: torch.Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    weights(tiny, prepared, tmp_path, (2, 0))
    for name in states(tmp_path):
        _flip(tmp_path / name)
    assert torch.equal(unbroken, weights(tiny, prepared, tmp_path))
    said = capsys.readouterr().err
    assert said.count("damaged") == 4  # the reason and the new name, twice
    assert "goes on" not in said


def test_a_state_that_cannot_be_written_leaves_those_before(
    tiny: Config, prepared: Path, tmp_path: Path, unbroken: torch.Tensor
) -> None:
    weights(tiny, prepared, tmp_path, (1, 0))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("epoch-*")}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"cannot be written .*start again"):
            weights(tiny, prepared, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("epoch-*")} == before
    assert not list(tmp_path.glob(".partial-*"))
    assert torch.equal(unbroken, weights(tiny, prepared, tmp_path))


def test_nothing_of_a_state_passes_the_systems_temporary_folder(
    tiny: Config, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    weights(tiny, prepared, tmp_path / "c", epochs=1)
    assert states(tmp_path / "c")


def test_a_training_that_lost_its_folder_stops_before_it_writes(tiny: Config, prepared: Path, tmp_path: Path) -> None:
    def taken_over() -> None:
        (tmp_path / "owner-00000099.json").write_text('{"host": "node-b", "process": 1, "token": "another"}')

    with (
        owned(tmp_path) as require_owner,
        pytest.raises(CheckpointError, match="process 1 on node-b has taken over"),
    ):
        weights(tiny, prepared, tmp_path, (1, 0), act=taken_over, require_owner=require_owner)
    assert states(tmp_path)[-1] == "epoch-0001-batch-000000.ckpt"


def test_trainings_of_two_keys_share_no_checkpoint(tiny: Config, prepared: Path, tmp_path: Path) -> None:
    task, checkpoints = load(Learning, TASK, tiny), tmp_path / "checkpoints"
    network = create_model("swin", preset="demo", embedding=16, heads=[2, 2])
    arguments = {"monitor": MONITOR, "validated": True, "name": "swin", "prepared": prepared}
    arguments |= {"seed": 1, "label": "t"}
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


def test_a_moved_folder_goes_on_to_the_same_weights(
    tiny: Config, prepared: Path, tmp_path: Path, unbroken: torch.Tensor
) -> None:
    weights(tiny, prepared, tmp_path / "b", (3, 0))
    (tmp_path / "b").rename(tmp_path / "c")
    for path in (tmp_path / "c").glob("*.ckpt"):
        assert str(tmp_path).encode() not in path.read_bytes()
    assert torch.equal(unbroken, weights(tiny, prepared, tmp_path / "c"))


def test_a_finished_training_has_nothing_left_to_do(
    tiny: Config, prepared: Path, tmp_path: Path, unbroken: torch.Tensor
) -> None:
    weights(tiny, prepared, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert torch.equal(unbroken, weights(tiny, prepared, tmp_path))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


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
        )


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
    same = {"workers": 7, "checkpoint_minutes": 1.0, "grace_seconds": 3.0}
    assert decisive(train.model_copy(update=same)) == known
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

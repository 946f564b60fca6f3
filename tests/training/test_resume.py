"""Interrupted trainings end where unbroken ones do, bit for bit."""

import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from condswin.config.root import Config
from condswin.config.train import ScheduleConfig
from condswin.errors import CheckpointError
from condswin.networks.models import create_model
from condswin.tasks.learning import Learning
from condswin.tasks.loading import load
from condswin.training import fit
from condswin.training.checkpoints import training_folder
from condswin.training.ownership import owned
from condswin.training.stopping import TERMINATED
from condswin.validity import Key
from tests.training.runs import MONITOR, TASK, states, terminate, weights


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
def test_aterminated_training_saves_and_goes_on_from_there(
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
        weights(tiny, prepared, tmp_path, until, hook=hook, act=terminate)
    assert ended.value.code == TERMINATED
    assert states(tmp_path)[-1] == saved.format(before_last=batches - 1)
    assert torch.equal(unbroken, weights(tiny, prepared, tmp_path))


def test_a_second_request_toterminate_changes_nothing(
    tiny: Config, prepared: Path, tmp_path: Path, unbroken: torch.Tensor
) -> None:
    def twice() -> None:
        terminate()
        terminate()

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
        with pytest.raises(CheckpointError, match=r"cannot be written \(File too large\).*start again"):
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
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert training_folder(checkpoints, one) == (folder, [])
    another, changes = training_folder(checkpoints, other)
    assert changes == ["parameters changed: seed"]
    larger = create_model("swin", preset="demo", embedding=32, heads=[2, 2])
    assert len(fit(task, larger, train, checkpoints=another, **arguments).history) == 1
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


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
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert torch.equal(unbroken, weights(tiny, prepared, tmp_path))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before

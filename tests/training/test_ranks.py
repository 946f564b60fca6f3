"""Two processes on this machine that train together."""

import csv
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from condswin.config.root import Config
from condswin.config.train import TrainConfig
from condswin.errors import ConfigError
from condswin.training.ranks import _dead, how_many
from condswin.training.shown import Epoch
from condswin.training.stopping import TERMINATED
from tests.training.runs import run, states, weights

TRAINING = {"epochs": 2, "dropout": 0.0}


def listening(process: int) -> set[str]:
    """Addresses, as the kernel writes them, at which a process takes connections."""
    links = []
    for handle in Path(f"/proc/{process}/fd").iterdir():
        try:
            links.append(str(handle.readlink()))
        except FileNotFoundError:
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in links:
                found.add(local.partition(":")[0])
    return found


def helpers() -> list[int]:
    started = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(text) for text in started if b"spawn_main" in Path("/proc", text, "cmdline").read_bytes()]


@pytest.fixture(scope="module")
def unbroken(
    tiny: Config, prepared: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[torch.Tensor, set[str], list[str]]:
    """Weights of two processes, where they listened, and their states."""
    folder, seen = tmp_path_factory.mktemp("unbroken"), set()

    def look() -> None:
        for process in (os.getpid(), *helpers()):
            seen.update(listening(process))

    trained = weights(tiny, prepared, folder, (1, 0), act=look, processes=2, **TRAINING)
    return trained, seen, states(folder)


def test_two_processes_train_as_one_with_twice_the_batches(
    tiny: Config, prepared: Path, tmp_path: Path, unbroken: tuple[torch.Tensor, set[str], list[str]]
) -> None:
    """Equal steps, and validation means over slices, each counted once."""
    one = weights(tiny, prepared, tmp_path, accumulate=2, **TRAINING)
    assert (one - unbroken[0]).abs().max() < 1e-6


def test_the_order_of_two_processes_is_that_of_one_and_one_of_them_draws(
    tiny: Config, prepared: Path, tmp_path: Path
) -> None:
    drawn = []

    def draw(epoch: Epoch, folder: Path) -> None:
        drawn.append((os.getpid(), len(epoch.rows), epoch.shown[0].name))

    settings: dict[str, Any] = {**TRAINING, "epochs": 1}
    two = run(tiny, prepared, tmp_path / "two", processes=2, draw=draw, **settings)
    one = run(tiny, prepared, tmp_path / "one", accumulate=2, **settings)
    assert two is not None
    assert one is not None
    (row,), (other,) = two.history, one.history
    assert row["train/order"] == other["train/order"]
    assert row["train/gradient_norm_max"] == pytest.approx(other["train/gradient_norm_max"], rel=1e-4)
    assert row.keys() == other.keys()
    assert [(process, count) for process, count, _ in drawn] == [(os.getpid(), 1)]
    tables = [list(csv.DictReader((tmp_path / name / "order/epoch-0000.csv").open())) for name in ("two", "one")]
    assert [{each["process"] for each in table} for table in tables] == [{"0", "1"}, {"0"}]
    assert len({each["slice"] for each in tables[0]}) == len(tables[0])


def test_they_listen_on_the_loopback_interface_alone(
    unbroken: tuple[torch.Tensor, set[str], list[str]],
) -> None:
    assert unbroken[1] == {"0100007F"}
    # Where a host's name stands for an address of its own, this is what keeps gloo from it.
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"


def test_both_stop_at_one_step_and_go_on_from_there(
    tiny: Config, prepared: Path, tmp_path: Path, unbroken: tuple[torch.Tensor, set[str], list[str]]
) -> None:
    with pytest.raises(SystemExit) as ended:
        weights(
            tiny,
            prepared,
            tmp_path,
            (1, 0),
            act=lambda: os.kill(os.getpid(), signal.SIGTERM),
            checkpoint_minutes=1e-9,
            processes=2,
            **TRAINING,
        )
    assert ended.value.code == TERMINATED
    assert states(tmp_path)[-1] == "epoch-0001-batch-000001.ckpt"
    assert not helpers()
    # That keeps less, and ends at the same bits.
    again = weights(tiny, prepared, tmp_path, processes=2, activation_checkpointing=True, **TRAINING)
    assert torch.equal(again, unbroken[0])
    assert states(tmp_path) == unbroken[2]


def test_torchrun_decides_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert how_many(TrainConfig(device="cpu")) == 1
    assert how_many(TrainConfig(device="cpu", processes=3)) == 3
    started = {"TORCHELASTIC_RUN_ID": "a", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    assert how_many(TrainConfig(device="cpu")) == 8
    with pytest.raises(ConfigError, match="processes: 3, but torchrun started 4"):
        how_many(TrainConfig(device="cpu", processes=3))


def test_there_are_no_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert how_many(TrainConfig()) == 2
    with pytest.raises(ConfigError, match="processes: 3, but this machine has 2 GPUs"):
        how_many(TrainConfig(processes=3))


def test_a_process_whose_pipe_closes_before_its_status_is_there_is_told_as_dead() -> None:
    reader, writer = os.pipe()
    os.close(writer)

    class Dying:
        sentinel, exitcode = reader, None

        def join(self, _: float) -> None:
            self.exitcode = -signal.SIGKILL

    try:
        said = _dead([Dying()], wait=0)  # type: ignore[list-item]
    finally:
        os.close(reader)
    assert said is not None
    assert "training process 1 of 2, counted from 0, was killed by SIGKILL" in said

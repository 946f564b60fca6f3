"""Owners of a folder of checkpoints, in this process, in others, and on machines that are none."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from condswin.errors import CheckpointError
from condswin.training import ownership
from condswin.training.ownership import Machine, owned

A, B = Machine("node-a", "boot-a"), Machine("node-b", "boot-b")
CHILD = """
import os, sys, time
from pathlib import Path
from condswin.training.ownership import owned
with owned(Path(sys.argv[1])):
    if len(sys.argv) > 2 and os.fork() == 0:  # as a worker that loads slices
        time.sleep(60)
    print(os.getpid(), flush=True)
    time.sleep(60)
"""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "LEASE", 0.8)
    monkeypatch.setattr(ownership, "BEAT", 0.1)


@pytest.fixture
def child(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """Another process that owns the folder."""
    command = [sys.executable, "-c", CHILD, str(tmp_path), *getattr(request, "param", [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout
    process.stdout.readline()
    yield process
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_the_second_is_refused_by_name_and_the_first_leaves_nothing(tmp_path: Path) -> None:
    with owned(tmp_path) as require:
        require()
        with pytest.raises(CheckpointError, match=f"{tmp_path}: process {os.getpid()} on "), owned(tmp_path):
            pass
        require()
    assert not list(tmp_path.iterdir())
    with owned(tmp_path) as require:
        require()


@pytest.mark.usefixtures("quick")
def test_another_host_is_refused_while_the_owner_lives(tmp_path: Path) -> None:
    with owned(tmp_path, A) as require:
        with pytest.raises(CheckpointError, match="on node-a is writing its checkpoints"), owned(tmp_path, B):
            pass
        require()


@pytest.mark.usefixtures("quick")
def test_another_host_takes_over_from_a_dead_one_and_fences_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Node A stands still, B takes over; A must not write when it wakes, neither while B runs nor after."""
    with owned(tmp_path, A) as first:
        beat = ownership._Owner.beat
        monkeypatch.setattr(ownership._Owner, "beat", lambda self: "node-b" in str(self._facts) and beat(self))
        with owned(tmp_path, B) as second:
            with pytest.raises(CheckpointError, match="has taken over"):
                first()
            second()
        with pytest.raises(CheckpointError, match="has taken over"):
            first()


@pytest.mark.parametrize("child", [[], ["with a forked child"]], indirect=True)
def test_on_the_same_machine_a_killed_owner_is_known_at_once(child: subprocess.Popen[str], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"process {child.pid} on"), owned(tmp_path):
        pass
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    began = time.monotonic()
    with owned(tmp_path) as require:
        require()
    assert time.monotonic() - began < ownership.LEASE / 2


def test_of_many_that_start_at_once_one_owns(tmp_path: Path) -> None:
    """Also where a dead owner's file is there."""
    (tmp_path / "owner-00000004.json").write_text(json.dumps({"host": "here", "boot": A.boot, "process": 1}))
    start, done = threading.Barrier(8), threading.Event()
    owners: list[int] = []

    def race(number: int) -> None:
        start.wait()
        try:
            with owned(tmp_path, A) as require:
                done.wait(20)
                require()
                owners.append(number)
        except CheckpointError:
            return

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while sum(thread.is_alive() for thread in threads) > 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    done.set()
    for thread in threads:
        thread.join()
    assert len(owners) == 1

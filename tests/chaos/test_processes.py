"""Trainings of two processes, of which one dies or all are asked to stop. Moments come from CHAOS_SEED."""

import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from condswin.training.checkpoints import newest
from condswin.training.stopping import TERMINATED
from tests.chaos.test_training import (
    CONDSWIN,
    TASK,
    TIMES,
    VARIANT,
    assert_tidy,
    fresh,
    has_begun,
    kill_at_random,
    settings,
    start,
    states,
    states_seen,
    wait,
    weights,
)
from tests.chaos.test_training import chance as chance  # fixtures
from tests.chaos.test_training import folder as folder
from tests.chaos.test_training import project as project

pytestmark = pytest.mark.chaos

TWO = ("--set", "reconstruction.train.processes=2")
TORCHRUN = (str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node=2", "--no-python")


@pytest.fixture(scope="module")
def unbroken(project: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, float]:
    """Checksum of the weights of an unbroken training, and the seconds that it takes from its first state on."""
    folder = fresh(project, tmp_path_factory.mktemp("unbroken"))
    process = start(folder, *TWO)
    wait(lambda: has_begun(folder), process)
    began = time.monotonic()
    assert process.wait() == 0
    return weights(folder), time.monotonic() - began


def ranks_of(parent: int) -> list[int]:
    """Processes that a training started to train with it."""
    started = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(text) for text in started if b"spawn_main" in Path("/proc", text, "cmdline").read_bytes()]


def statuses(folder: Path) -> list[str]:
    """Of MLflow's runs."""
    return [status for (status,) in sqlite3.connect(folder / "mlflow.db").execute("select status from runs")]


def finish(folder: Path) -> tuple[int, str]:
    process = start(folder, *TWO)
    _, said = process.communicate(timeout=300)
    return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_whole_is_stopped_at_random_moments(
    number: signal.Signals, folder: Path, chance: random.Random, unbroken: tuple[str, float]
) -> None:
    ended = kill_at_random(folder, chance, unbroken[1], number, *TWO)
    # After its work is done the signal ends Python itself.
    assert set(ended) <= {TERMINATED, -number, 0}
    status, said = finish(folder)
    assert status == 0, said
    assert weights(folder) == unbroken[0]
    assert_tidy(folder)


def test_one_of_two_is_killed(folder: Path, chance: random.Random, unbroken: tuple[str, float]) -> None:
    """The other ends within a minute, says what happened, and leaves no process."""
    for _ in range(min(TIMES, 5)):
        process = start(folder, *TWO)
        before = states_seen(folder)
        wait(lambda process=process, before=before: states_seen(folder) != before, process)
        time.sleep(chance.uniform(0, unbroken[1] / 10))
        ranks = ranks_of(process.pid)
        if process.poll() is not None or not ranks:
            break
        os.kill(ranks[0], signal.SIGKILL)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 1, said
        assert "error: training process 1 of 2, counted from 0, was killed by SIGKILL; start again" in said
        assert "Traceback" not in said
        assert newest(states(folder)) is not None
    assert finish(folder)[0] == 0
    assert weights(folder) == unbroken[0]


def test_the_first_of_two_is_killed_and_the_other_does_not_stay(folder: Path) -> None:
    process = start(folder, *TWO)
    wait(lambda: has_begun(folder), process)
    (other,) = ranks_of(process.pid)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{other}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_torchrun_starts_one_training_with_one_run(folder: Path, unbroken: tuple[str, float]) -> None:
    """Stopped as an orchestrator does it, with SIGTERM to torchrun; then started again, and once more."""
    command = [*TORCHRUN, CONDSWIN, "train", TASK, VARIANT, "--out", "model", "--checkpoints", "checkpoints"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def torchrun() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, *settings()],
            cwd=folder,
            env=environment,
            text=True,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    process = torchrun()
    wait(lambda: len(states_seen(folder)) == 2, process)
    process.terminate()
    assert process.wait(timeout=60) != 0
    found = newest(states(folder))
    assert found is not None
    process = torchrun()
    said, complained = process.communicate(timeout=300)
    assert process.returncode == 0, complained
    assert f"goes on after {found[0].batch} batches of epoch {found[0].epoch}" in complained
    assert said.count("model: trained") == 1
    assert weights(folder) == unbroken[0]
    assert torchrun().communicate(timeout=300)[0].count("nothing to do") == 1
    assert statuses(folder) == ["FINISHED"]


@pytest.fixture
def nodes(folder: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Two machines, as torchrun knows them: agents that meet over TCP, with a process each."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for agent in started:
        for process in family(agent.pid):
            os.kill(process, signal.SIGKILL)
        agent.communicate()


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    return [pid, *(each for child in text.split() for each in family(int(child)))]


def runs(pid: int) -> bool:
    """Whether a process has not ended; one that has may still be listed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def start_nodes(folder: Path) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    command = [TORCHRUN[0], "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}"]
    command += ["--local-addr=127.0.0.1", "--no-python"]
    command += [CONDSWIN, "train", TASK, VARIANT, "--out", "model", "--checkpoints", "checkpoints", *settings()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}

    def node() -> subprocess.Popen[str]:
        return subprocess.Popen(command, cwd=folder, env=environment, text=True, **pipes)

    first = node()
    wait(lambda: listens(endpoint), first)  # so that the meeting place is on this one
    return [first, node()]


def listens(endpoint: str) -> bool:
    host, _, port = endpoint.partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


FATES = [(signal.SIGKILL, 0), (signal.SIGSTOP, 1), (signal.SIGSTOP, 0), (signal.SIGKILL, 1)]


@pytest.mark.parametrize(("fate", "gone"), FATES[: max(TIMES - 1, 1)])
def test_a_machine_of_two_is_gone(
    fate: signal.Signals, gone: int, folder: Path, nodes: list[subprocess.Popen[str]], unbroken: tuple[str, float]
) -> None:
    """Killed, or as without power: then nothing closes its connections. The other one ends within a minute."""
    nodes += start_nodes(folder)
    wait(lambda: len(states_seen(folder)) == 2, nodes[0])
    for process in family(nodes[gone].pid):
        os.kill(process, fate)
    left = nodes[1 - gone]
    deadline = time.monotonic() + 60
    while training := [process for process in family(left.pid)[1:] if runs(process)]:
        assert time.monotonic() < deadline, training
        time.sleep(0.1)
    if fate is signal.SIGKILL or gone == 1:
        assert left.wait(timeout=60) != 0
    # Otherwise torchrun waits for its meeting place, which is on the machine that is gone.
    for node in nodes:
        for process in family(node.pid):
            os.kill(process, signal.SIGKILL)
    _, complained = left.communicate()
    if fate is signal.SIGSTOP:
        assert re.search(
            "training process [01] of 2, counted from 0, gave no sign of life for 3. s; start all", complained
        )
    assert newest(states(folder)) is not None

    again = start_nodes(folder)
    nodes += again
    said = [node.communicate(timeout=300) for node in again]
    assert [node.returncode for node in again] == [0, 0], said
    assert sum(out.count("model: trained") for out, _ in said) == 1
    assert weights(folder) == unbroken[0]
    assert_tidy(folder)
    assert statuses(folder) == ["FINISHED"]

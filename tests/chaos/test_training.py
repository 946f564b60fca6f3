"""Trainings as users start them, killed at random moments on real file systems. Moments come from CHAOS_SEED."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from condswin.training.checkpoints import newest
from condswin.training.stopping import TERMINATED

pytestmark = pytest.mark.chaos

#: How many times each kind of trouble happens.
TIMES = int(os.environ.get("CHAOS", "20"))
#: Enough epochs for kills to hit all parts of one, a state after nearly every batch.
SETTINGS = ("reconstruction.train.epochs=12", "reconstruction.train.batch_size=1", "seed=3")
OFTEN = "reconstruction.train.checkpoint_minutes=0.0001"
TASK, VARIANT = "reconstruction", "swin"
CONDSWIN = str(Path(sys.executable).with_name("condswin"))


def settings(*more: str) -> list[str]:
    return [part for setting in (*SETTINGS, OFTEN, *more) for part in ("--set", setting)]


def start(
    folder: Path,
    *more: str,
    out: str = "model",
    checkpoints: str = "checkpoints",
    environment: Mapping[str, str] = MappingProxyType({}),
) -> subprocess.Popen[str]:
    command = [CONDSWIN, "train", TASK, VARIANT, "--out", out, "--checkpoints", checkpoints]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment}
    return subprocess.Popen(
        [*command, *settings(), *more], cwd=folder, env=environment, text=True, stderr=subprocess.PIPE
    )


def finish(folder: Path, *more: str, seconds: float = 300, **others: Any) -> tuple[int, str]:
    process = start(folder, *more, **others)
    _, said = process.communicate(timeout=seconds)
    return process.returncode, said


def weights(folder: Path, out: str = "model") -> str:
    return hashlib.sha256((folder / out / "model.safetensors").read_bytes()).hexdigest()


def states(folder: Path) -> Path:
    """The folder of the only training."""
    return next((folder / "checkpoints").glob("*/training.json")).parent


def has_begun(folder: Path) -> bool:
    return bool(states_seen(folder))


def wait(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 600
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with parameters and prepared data."""
    folder = tmp_path_factory.mktemp("project")
    steps = [["params", "use", "demo", "tiny"], ["demo-data", TASK], ["ingest", TASK], ["prepare", TASK]]
    for step in steps:
        subprocess.run([CONDSWIN, *step], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def unbroken(project: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, float]:
    """Checksum of the weights of an unbroken training, and the seconds that it takes from its first state on."""
    folder = fresh(project, tmp_path_factory.mktemp("unbroken"))
    process = start(folder)
    wait(lambda: has_begun(folder), process)
    began = time.monotonic()
    assert process.wait() == 0
    return weights(folder), time.monotonic() - began


def fresh(project: Path, folder: Path) -> Path:
    for name in ("params.yaml", "data"):
        (folder / name).symlink_to(project / name)
    return folder


@pytest.fixture
def folder(project: Path, tmp_path: Path) -> Path:
    return fresh(project, tmp_path)


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("CHAOS_SEED") or time.time())
    print(f"CHAOS_SEED={seed}")
    return random.Random(seed)


def assert_tidy(folder: Path) -> None:
    """What `ls` shows of the checkpoints of a training that has ended: two states with checksums, and what is told."""
    names = sorted(path.name for path in states(folder).iterdir())
    assert len([name for name in names if name.endswith(".ckpt")]) == 2
    assert len([name for name in names if name.endswith(".ckpt.sha256")]) == 2
    assert len(names) == 10, names
    assert {"training.json", "run.json", "epochs.csv", "order", "pictures", "training.png"} <= set(names)
    assert not list(states(folder).rglob(".partial-*"))


def kill_at_random(
    folder: Path, chance: random.Random, seconds: float, number: signal.Signals, *more: str
) -> list[int | None]:
    """Starts a training until it ends by itself, and sends each start but the last a signal."""
    ended: list[int | None] = []
    for _ in range(TIMES):
        process = start(folder, *more)
        before = states_seen(folder)
        wait(lambda before=before: states_seen(folder) != before, process)
        # Half of the training on average, so that all hit a running one.
        time.sleep(chance.uniform(0, seconds / TIMES))
        process.send_signal(number)
        ended.append(process.wait(timeout=60))
        if ended[-1] == -signal.SIGTERM:
            # It hit Python's own exit, which no handler outlives: the work was done.
            assert (folder / "model" / "model.safetensors").exists()
        # Whatever the moment, there is a whole state.
        assert newest(states(folder)) is not None
    return ended


def states_seen(folder: Path) -> list[str]:
    """Names of the whole ones, and not of one that is being written."""
    return sorted(path.name for path in (folder / "checkpoints").glob("*/epoch-*.ckpt"))


@pytest.mark.parametrize(
    ("number", "expected"),
    # A SIGTERM that hits Python's own exit ends it as the signal does; see `kill_at_random`.
    [(signal.SIGKILL, {-signal.SIGKILL, 0}), (signal.SIGTERM, {TERMINATED, -signal.SIGTERM, 0})],
)
def test_ended_at_random_moments(
    number: signal.Signals,
    expected: set[int],
    folder: Path,
    chance: random.Random,
    unbroken: tuple[str, float],
    record_property: Callable[[str, object], None],
) -> None:
    wanted, seconds = unbroken
    ended = kill_at_random(folder, chance, seconds, number)
    assert set(ended) <= expected
    status, _ = finish(folder)
    assert status == 0
    assert weights(folder) == wanted
    assert_tidy(folder)
    running = sum(status in (-signal.SIGKILL, TERMINATED) for status in ended)
    record_property(number.name, f"{running} of {TIMES} hit a running training, weights equal")


def test_asked_to_terminate_before_it_trains(folder: Path, chance: random.Random) -> None:
    """While Python starts and data is read: nothing to save, and no status that says that the work is done."""
    for _ in range(min(TIMES, 5)):
        process = start(folder)
        time.sleep(chance.uniform(0, 3))
        process.terminate()
        # Before condswin runs the signal ends Python itself.
        assert process.wait(timeout=60) in (TERMINATED, -signal.SIGTERM)
        assert not list(folder.rglob(".partial-*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that a test can fill."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount a file system here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk(folder: Path, small_disk: Path, unbroken: tuple[str, float]) -> None:
    (folder / "checkpoints").symlink_to(small_disk)
    process = start(folder)
    wait(lambda: len(states_seen(folder)) == 2, process)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 12))
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "No space left on device" in said
    assert "Traceback" not in said
    assert newest(states(folder)) is not None
    filler.unlink()
    status, said = finish(folder)
    assert status == 0, said
    assert weights(folder) == unbroken[0]
    assert_tidy(folder)


def test_killed_within_a_write_with_another_temporary_file_system(
    folder: Path, chance: random.Random, unbroken: tuple[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("no second file system")
    elsewhere = Path("/dev/shm", f"condswin-{os.getpid()}")
    elsewhere.mkdir()
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    try:
        for _ in range(TIMES):
            process = start(folder)
            wait(lambda: any((folder / "checkpoints").glob("*/.partial-*.ckpt")), process)
            process.kill()
            process.wait()
        status, said = finish(folder)
        assert status == 0, said
        assert weights(folder) == unbroken[0]
        assert_tidy(folder)
    finally:
        shutil.rmtree(elsewhere)


def test_two_at_once(folder: Path, unbroken: tuple[str, float]) -> None:
    """The second is refused by name, and the first has its own result."""
    first = start(folder)
    wait(lambda: has_begun(folder), first)
    # Stands still rather than ends while the second one starts.
    first.send_signal(signal.SIGSTOP)
    status, said = finish(folder, out="other")
    first.send_signal(signal.SIGCONT)
    assert status == 1
    assert f"process {first.pid} on" in said
    assert "Traceback" not in said
    assert first.wait() == 0
    assert weights(folder) == unbroken[0]
    assert not (folder / "other" / "model.safetensors").exists()


def test_the_clock_jumps(folder: Path, unbroken: tuple[str, float]) -> None:
    """Newer states are told from older ones by name, not by time."""
    process = start(folder)
    wait(lambda: len(states_seen(folder)) == 2, process)
    process.kill()
    process.wait()
    *_, old, new = sorted(states(folder).glob("epoch-*.ckpt"))  # a third one if it was killed before removing that
    os.utime(new, (0, 0))
    os.utime(old, (2**32, 2**32))
    found = newest(states(folder))
    assert found is not None
    assert found[1] == new
    assert finish(folder)[0] == 0
    assert weights(folder) == unbroken[0]


LOADED = ("--set", "reconstruction.train.cache_mb=0", "--set", "reconstruction.train.prefetch=1")


def test_a_process_that_loads_is_killed(folder: Path, unbroken: tuple[str, float]) -> None:
    workers = (*LOADED, "--set", "reconstruction.train.workers=2")
    process = start(folder, *workers)
    wait(lambda: has_begun(folder), process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "error: train reconstruction swin: a process that loads slices was killed; start again" in said
    assert "Traceback" not in said
    status, said = finish(folder, *workers)
    assert status == 0, said
    assert weights(folder) == unbroken[0]
    assert_tidy(folder)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("damage", ["cut", "spoilt"])
def test_a_prepared_file_is_damaged_during_training(
    damage: str, workers: int, project: Path, tmp_path: Path, unbroken: tuple[str, float]
) -> None:
    """It is named, and nothing is learned from it: with the file mended, the training ends as if nothing had been."""
    (tmp_path / "params.yaml").symlink_to(project / "params.yaml")
    shutil.copytree(project / "data", tmp_path / "data")
    more = (*LOADED, "--set", f"reconstruction.train.workers={workers}")
    process = start(tmp_path, *more)
    wait(lambda: has_begun(tmp_path), process)
    path = next((tmp_path / "data" / "prepared" / TASK / "train").glob("*.h5"))
    whole = path.read_bytes()
    with path.open("r+b") as file:
        if damage == "cut":
            file.truncate(len(whole) // 2)
        else:
            file.seek(len(whole) // 2)
            file.write(bytes(byte ^ 1 for byte in whole[len(whole) // 2 :]))
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"error: data/prepared/{TASK}/train/{path.name}: cannot be read as HDF5: damaged" in said
    assert "Traceback" not in said
    status, said = finish(tmp_path, *more)
    assert status == 1
    assert "content differs from manifest.json" in said
    path.write_bytes(whole)
    status, said = finish(tmp_path, *more)
    assert status == 0, said
    assert weights(tmp_path) == unbroken[0]
    assert_tidy(tmp_path)


def test_a_compiled_training_goes_on(folder: Path, unbroken: tuple[str, float], tmp_path: Path) -> None:
    """Kernels are built by a real compiler; weights are those of an unbroken training, compiled as well."""
    kernels = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "kernels")}
    compiled = ("--set", "reconstruction.train.compile=true")
    whole = {"out": "whole", "checkpoints": "whole-checkpoints"}
    status, said = finish(folder, *compiled, **whole, environment=kernels, seconds=900)
    assert status == 0, said
    process = start(folder, *compiled, environment=kernels)
    wait(lambda: len(states_seen(folder)) == 2, process)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == TERMINATED
    status, said = finish(folder, *compiled, environment=kernels)
    assert status == 0, said
    assert "goes on after" in said
    assert weights(folder) == weights(folder, "whole") != unbroken[0]
    assert_tidy(folder)
    # Half of what a killed compiler wrote is no more than faulty code to torch. Another seed needs the same kernels.
    for file in (tmp_path / "kernels").rglob("*.so"):
        os.truncate(file, file.stat().st_size // 2)
    other = ("--set", "seed=4")
    status, said = finish(folder, *compiled, *other, environment=kernels, seconds=900)
    assert status == 1
    assert said.splitlines()[-1].startswith("error: compile: true: torch fails on what it compiled before")
    assert f"remove the folder {tmp_path / 'kernels'} and start again" in said.splitlines()[-1]

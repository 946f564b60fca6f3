"""The right to write checkpoints into a folder: one training at a time has it, across machines.

The owner's file `owner-00000007.json` has a number; the highest number owns. Numbers are taken by creating the file,
which only one process can do, and only count up while anybody owns or waits: they are fencing tokens. The owner renews
its file every few seconds, and looks before each checkpoint whether its number still is the highest: one that was
suspended, and taken for dead meanwhile, finds that it is not and stops.

Whether an owner is dead: on its own machine (equal boot ids) the lock that it holds on its file tells at once, since
the kernel drops it with the process. Process ids would not: two pods of one node both have a process 1. From any other
machine its file is watched: unchanged for `LEASE` seconds of the watcher's clock, it is dead. Clocks are not compared.
"""

import fcntl
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from condswin.errors import CheckpointError

#: Seconds without a sign of life after which another machine takes an owner for dead.
LEASE = 20.0
#: Seconds between two signs of life, and between two looks for them.
BEAT = 2.0

_NAME = re.compile(r"owner-(\d{8})\.json")

# A lock outlives its process in a forked one that has the file open; workers that load slices are forked.
_handles: set[int] = set()


def _close_in_child() -> None:
    for handle in _handles:
        os.close(handle)
    _handles.clear()


os.register_at_fork(after_in_child=_close_in_child)


class Machine(NamedTuple):
    """Where a process runs.

    Attributes:
        host: Its name, for messages.
        boot: Differs between machines, and between starts of one.
    """

    host: str
    boot: str


def this_machine() -> Machine:
    """The machine that this process runs on."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux: as if every start were on another machine
        boot = os.urandom(16).hex()
    return Machine(socket.gethostname(), boot)


@contextmanager
def owned(folder: Path, machine: Machine | None = None) -> Iterator[Callable[[], None]]:
    """Owns a folder of checkpoints while the block runs.

    Args:
        folder: The folder; made if it is not there.
        machine: Where this process runs, this machine by default.

    Yields:
        A function that raises CheckpointError if another has taken over; to be called before each write.

    Raises:
        CheckpointError: A training that lives owns the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    owner = _take(folder, machine or this_machine())
    stopped = threading.Event()
    threading.Thread(target=_renew, args=(owner, stopped), daemon=True).start()
    try:
        owner.require()
        yield owner.require
    finally:
        stopped.set()
        owner.release()


def is_owned(folder: Path, machine: Machine | None = None) -> bool:
    """Whether a training that lives owns a folder; may take `LEASE` seconds where another machine did."""
    files = _owners(folder)
    return bool(files) and not _is_dead(files[-1], machine or this_machine())


class _Owner:
    """A file with a number, and the lock on it."""

    def __init__(self, path: Path, machine: Machine) -> None:
        self.path = path
        self._facts = {**machine._asdict(), "process": os.getpid(), "token": os.urandom(8).hex()}
        self._beats = 0
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        _handles.add(self._handle)
        fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.beat()

    def beat(self) -> None:
        self._beats += 1
        os.pwrite(self._handle, (json.dumps({**self._facts, "beats": self._beats}) + "\n").encode(), 0)

    def require(self) -> None:
        files = _owners(self.path.parent)
        if not files or files[-1] != self.path or _facts(self.path).get("token") != self._facts["token"]:
            who = _described(_facts(files[-1])) if files else "another training"
            raise CheckpointError(
                f"{self.path.parent}: {who} has taken over these checkpoints while this process stood still; "
                "this one stops, and leaves them to it"
            )

    def release(self) -> None:
        if _facts(self.path).get("token") == self._facts["token"]:
            self.path.unlink(missing_ok=True)
        _handles.discard(self._handle)
        os.close(self._handle)


def _take(folder: Path, machine: Machine) -> _Owner:
    while True:
        files = _owners(folder)
        if files and not _is_dead(files[-1], machine):
            raise CheckpointError(
                f"{folder}: {_described(_facts(files[-1]))} is writing its checkpoints here; wait for it, or stop it"
            )
        number = _number(files[-1]) + 1 if files else 1
        try:
            owner = _Owner(folder / f"owner-{number:08}.json", machine)
        except FileExistsError:  # another was quicker
            continue
        for path in files:
            path.unlink(missing_ok=True)
        return owner


def _is_dead(path: Path, machine: Machine) -> bool:
    facts = _facts(path)
    if facts.get("boot") == machine.boot:
        if not _is_locked(path):
            time.sleep(BEAT / 10)  # one that has just made its file locks it next
        return not _is_locked(path)
    seen, since = _content(path), time.monotonic()
    while time.monotonic() - since < LEASE:
        time.sleep(BEAT / 2)
        if _content(path) != seen:
            return not path.exists()
    return True


def _is_locked(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _renew(owner: _Owner, stopped: threading.Event) -> None:
    while not stopped.wait(BEAT):
        try:
            owner.beat()
        except OSError:  # a full disk or a server that is away: it may be back with the next one
            continue


def _owners(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("owner-*.json") if _NAME.fullmatch(path.name))


def _number(path: Path) -> int:
    return int(path.name[len("owner-") : -len(".json")])


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _facts(path: Path) -> dict[str, object]:
    try:
        facts = json.loads(_content(path))
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _described(facts: dict[str, object]) -> str:
    return f"process {facts.get('process', '?')} on {facts.get('host', 'another machine')}"

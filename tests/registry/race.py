"""Processes and threads that begin something at the same moment."""

import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from condswin.errors import GateError
from condswin.registry.aliases import move_champion
from tests.registry.toy import NAME

ROOT = Path(__file__).parents[2]
#: Seconds to import everything, and then to finish, on a busy machine.
PATIENCE = 120

PRELUDE = """
import sys, time
from pathlib import Path

_start, _mark, *arguments = sys.argv[1:]


def line_up():
    Path(_mark).touch()
    while not Path(_start).exists():
        time.sleep(0.001)
"""


def race(code: str, rivals: Sequence[Sequence[str]], folder: Path) -> list[subprocess.CompletedProcess[str]]:
    """Runs `code` in a process per rival, with that rival's `arguments`; all pass its `line_up()` together."""
    start = folder / "start"
    marks = [folder / f"ready-{number}" for number in range(len(rivals))]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PRELUDE + code, str(start), str(mark), *rival],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
        )
        for mark, rival in zip(marks, rivals, strict=True)
    ]
    try:
        deadline = time.monotonic() + PATIENCE
        while not all(mark.exists() for mark in marks):
            assert time.monotonic() < deadline, "not all came to the line"
            assert all(process.poll() is None for process in processes), "one ended before the line"
            time.sleep(0.01)
        start.touch()
        outputs = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [
        subprocess.CompletedProcess(process.args, process.returncode, output)
        for process, output in zip(processes, outputs, strict=True)
    ]


class Slow:
    """A client whose requests take up to 0.3 s each, there and back."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            time.sleep(random.uniform(0, 0.15))
            try:
                return getattr(self.client, name)(*arguments)
            finally:
                time.sleep(random.uniform(0, 0.15))

        return call


def promote_at_once(connect: Callable[[], Any], versions: Sequence[str], expected: str) -> list[str]:
    """Moves the champion from `expected` to every version at once, over slow lines; returns those that won."""

    def promoter(version: str) -> bool:
        try:
            move_champion(Slow(connect()), NAME, version, expected=expected, record={"promoted": True})
        except GateError as error:
            assert f"moved from version {expected} to" in str(error), error  # noqa: PT017
            return False
        return True

    with ThreadPoolExecutor(len(versions)) as pool:
        won = list(pool.map(promoter, versions))
    return [version for version, did in zip(versions, won, strict=True) if did]

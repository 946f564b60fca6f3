"""Processes that begin something at the same moment."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

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

"""Progress of work that takes longer than two seconds: a bar on a terminal, a line now and then in a log.

The bar is rich's. The lines are written here: without a terminal rich shows a bar only when all is done, and tqdm
overwrites its own with carriage returns, of which a log makes one endless line.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from condswin.plain import plain

T = TypeVar("T")

#: Seconds between the lines of a log.
LOG_EVERY = 10.0
#: Characters of the bar in such a line.
BAR = 20


_hushed = False


@contextmanager
def hushed(wanted: bool = True) -> Iterator[None]:
    """Shows no progress within the block, if that is wanted; what is said beside it stays."""
    global _hushed
    before, _hushed = _hushed, wanted or _hushed
    try:
        yield
    finally:
        _hushed = before


class Advance(Protocol):
    """Counts one piece of work as done; `note` is shown behind the bar."""

    def __call__(self, note: str = "") -> None:
        """One piece is done."""


@cache
def _console() -> Console:
    """One for all bars: a bar within another one is then drawn below it."""
    return Console(stderr=True)


def duration(seconds: float) -> str:
    """As people say it, in two units at most."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


@contextmanager
def progress(label: str, total: int, *, done: int = 0, at_most: bool = False) -> Iterator[Advance]:
    """Shows progress on standard error while the block runs.

    Args:
        label: Stands before it.
        total: Pieces of work.
        done: Those that were done before: they do not count for how fast it goes.
        at_most: It may end before all is done, and so may the time left.
    """
    label = plain(label)
    if _hushed:
        yield lambda note="": None
        return
    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            *([TextColumn("at most")] if at_most else []),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=_console(), transient=False) as bar:
            task = bar.add_task(label, total=total, completed=done, note="")
            yield lambda note="": bar.update(task, advance=1, **({"note": note} if note else {}))
        return
    started = said = time.monotonic()
    before = done

    def advance(note: str = "") -> None:
        nonlocal done, said
        done += 1
        now = time.monotonic()
        if now - said >= LOG_EVERY or (done == total and now - started > 2):
            said = now
            bar = "#" * (done * BAR // total)
            left = (now - started) / (done - before) * (total - done)
            times = f"after {duration(now - started)}" + (
                f", {'at most ' * at_most}{duration(left)} left" if done < total else ""
            )
            line = f"{label} [{bar:.<{BAR}}] {done}/{total} {times} {note}"
            say(line.rstrip())

    yield advance


def say(line: str) -> None:
    """Writes a line to standard error, beside the progress."""
    print(line, file=sys.stderr, flush=True)


def track(items: Iterable[T], label: str, *, total: int) -> Iterator[T]:
    """Yields the items and shows how many are done."""
    with progress(label, total) as advance:
        for item in items:
            yield item
            advance()

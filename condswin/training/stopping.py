"""Being asked to terminate: a training saves its state first, and says by its status that the work is not done."""

import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, Self

#: Exit status of a process that was asked to stop; an orchestrator then knows that the work is not done.
TERMINATED = 143


class Stopping:
    """Takes note of SIGTERM instead of ending at once; a context manager, after which it is as it was before.

    Args:
        grace: Seconds after which the process ends wherever it is, unless the block was left before. The states that
            are on the disk by then are whole.

    Attributes:
        asked: Whether the process was asked to terminate.
    """

    def __init__(self, grace: float) -> None:
        self.asked = False
        self._before: Any = None
        self._timer = threading.Timer(grace, self._give_up)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._timer.cancel()
        if callable(self._before):  # the command line's, for what comes after the training
            signal.signal(signal.SIGTERM, self._before)

    def take_note(self) -> None:
        """Replaces the handler of SIGTERM; a second signal changes nothing."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)

    def _note(self, _: int, __: FrameType | None) -> None:
        if not self.asked:
            self.asked = True
            self._timer.start()

    def _give_up(self) -> None:
        print(
            f"asked to terminate {self._timer.interval:g} s ago, and the step under way is not done: ends without it",
            file=sys.stderr,
            flush=True,
        )
        os._exit(TERMINATED)

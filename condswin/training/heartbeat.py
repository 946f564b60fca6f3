"""Signs of life between machines: one that loses its power or its network closes no connection, and is waited for."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from torch._C._distributed_c10d import Store

#: Seconds between two signs of life.
INTERVAL = 5.0
#: Seconds without any, after which a process counts as gone.
PATIENCE = 30.0

_ENDED = "ended"


@contextmanager
def heartbeat(store: Store, rank: int, ranks: int) -> Iterator[None]:
    """Ends this process with status 1 if another one gives no sign of life, even while it waits for that one's numbers.

    Rank 0 watches all, and all watch rank 0: whoever ends closes connections, so that those connected with it end too.

    Args:
        store: Where all processes that train together have met.
        rank: The number of this one.
        ranks: How many there are.
    """
    watched = [other for other in (range(ranks) if rank == 0 else [0]) if other != rank]
    heard = dict.fromkeys(watched, time.monotonic())
    done = threading.Event()
    # The store is asked on a thread of its own: it may be on the machine that is gone, and then never answers.
    clone = store.clone()  # type: ignore[attr-defined]  # which torch's stubs lack
    beating = threading.Thread(target=_beat, args=(clone, rank, heard, done), daemon=True)
    beating.start()
    threading.Thread(target=_watch, args=(heard, ranks, done), daemon=True).start()
    try:
        yield
    finally:
        done.set()
        beating.join(INTERVAL)


def _beat(store: Store, rank: int, heard: dict[int, float], done: threading.Event) -> None:
    last: dict[int, bytes] = {}
    beats = 0
    while not done.is_set():
        beats += 1
        try:
            store.set(_key(rank), str(beats))
            for other in list(heard):
                if not store.check([_key(other)]):
                    continue
                said = store.get(_key(other))
                if said == _ENDED.encode():
                    del heard[other]
                elif said != last.get(other):
                    last[other], heard[other] = said, time.monotonic()
        except RuntimeError:
            # torch's for a store that does not answer; those who are not heard of tell.
            pass
        done.wait(INTERVAL)
    with suppress(RuntimeError):
        store.set(_key(rank), _ENDED)


def _watch(heard: dict[int, float], ranks: int, done: threading.Event) -> None:
    while not done.wait(INTERVAL):
        for other, moment in list(heard.items()):
            if (silent := time.monotonic() - moment) > PATIENCE:
                print(
                    f"error: training process {other} of {ranks}, counted from 0, gave no sign of life for "
                    f"{silent:.0f} s; start all again: the training goes on from its last checkpoint",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(1)


def _key(rank: int) -> str:
    return f"condswin/heartbeat/{rank}"

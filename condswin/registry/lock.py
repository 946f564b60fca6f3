"""The right to change versions and aliases of a registered model: one process at a time has it, across machines.

MLflow has no compare-and-swap, and its aliases go to whoever writes last. But every client reads all tags of a
registered model in one request, and a tag whose key nobody else writes is deleted by that key alone. A *lease* is such
a tag; its key names its owner and a number:

- **Taking.** Whoever has set a lease and then reads no other owner's holds the lock. Of two that do this at once, one
  at least reads the other's. The owner whose name sorts first then stays in line, the other takes its lease back.
- **Checking.** The holder reads its own lease before each write. One that gets old is renewed: the next number is set,
  all are read, the number before is deleted. If that was gone already, others had taken over, and the holder gives up.
- **Breaking.** Whoever waits deletes a lease that it has seen unchanged for `LEASE` seconds of its own clock. The key
  carries the number, so a request that arrives late deletes neither what the owner renewed nor what another has taken.

The limit: a write is one request, sent right after the check and never sent again. A process that is stopped for
`LEASE` seconds between the two, or whose request takes that long to arrive, still writes after others have taken over.
"""

import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mlflow import MlflowClient

from condswin.errors import GateError

#: Seconds without a sign of life after which others break a lease. Its owner stops writing after half of them.
LEASE = 15.0
#: Seconds between two looks at others' leases.
POLL = 0.3
#: Seconds to wait for others before giving up.
WAIT_AT_MOST = 300.0

#: Tags of the registered model: `condswin.lease.OWNER.NUMBER`.
PREFIX = "condswin.lease."

_one_request = threading.Lock()


@contextmanager
def promotion_lock(client: MlflowClient, name: str) -> Iterator[Callable[..., Any]]:
    """Holds the right to change versions and aliases of `name`, against every client of the same registry.

    Yields:
        A function that makes one write, `write(client.set_registered_model_alias, ...)`, if the right is still held,
        and returns its answer.

    Raises:
        GateError: Others hold it for `WAIT_AT_MOST` seconds. From `write`: others have taken over, or the registry
            answers too slowly to be sure that they have not; nothing was written.
    """
    lease = _Lease(client, name)
    try:
        lease.take()
        yield lease.write
    finally:
        # Without a server there is no releasing, and others break the lease. The error that matters is the block's, and
        # it is not to wait for minutes.
        with suppress(Exception), _sent_once():
            lease.drop()


class _Lease:
    def __init__(self, client: MlflowClient, name: str) -> None:
        self.client, self.name, self.owner = client, name, uuid.uuid4().hex
        self.number = 0
        self.key: str | None = None
        self.since = 0.0  # when the request that set the key was sent

    def take(self) -> None:
        give_up = time.monotonic() + WAIT_AT_MOST
        seen: dict[str, float] = {}
        while True:
            asked = time.monotonic()
            keys = self._read()
            others = {key for key in keys if _owner(key) != self.owner}
            seen = {key: seen.get(key, time.monotonic()) for key in others}
            if dead := [key for key in others if asked - seen[key] > LEASE]:
                for key in dead:
                    self.client.delete_registered_model_tag(self.name, key)
                    del seen[key]
                continue
            if self.key is not None and self.key not in keys:  # others took this process for dead
                self.key = None
            if not others:
                if self.key is not None:
                    return
                self._set()
                continue
            if self.key is not None:
                if min(map(_owner, others)) < self.owner:
                    self.drop()
                elif asked - self.since > LEASE / 3:
                    with suppress(GateError):
                        self._renew()
            if asked > give_up:
                raise GateError(
                    f"{self.name}: other processes have been changing it for {WAIT_AT_MOST:.0f} s; try again later"
                )
            time.sleep(POLL * random.uniform(0.5, 1))

    def write(self, request: Callable[..., Any], *arguments: Any) -> Any:
        if time.monotonic() - self.since > LEASE / 3:
            self._renew()
        elif self.key not in self._read():
            raise self._lost()
        with _sent_once():
            if time.monotonic() - self.since > LEASE / 2:
                raise GateError(f"{self.name}: the registry takes seconds per request; try again when it is faster")
            return request(*arguments)

    def drop(self) -> None:
        if self.key is not None:
            self.client.delete_registered_model_tag(self.name, self.key)
            self.key = None

    def _read(self) -> set[str]:
        return {key for key in self.client.get_registered_model(self.name).tags if key.startswith(PREFIX)}

    def _set(self) -> None:
        self.number += 1
        self.key, self.since = f"{PREFIX}{self.owner}.{self.number}", time.monotonic()
        text = f"A registration or promotion is going on. If its process died, the next one goes on after {LEASE:g} s."
        self.client.set_registered_model_tag(self.name, self.key, text)

    def _renew(self) -> None:
        before = self.key
        self._set()
        if before not in self._read():
            self.drop()
            raise self._lost()
        self.client.delete_registered_model_tag(self.name, before)

    def _lost(self) -> GateError:
        return GateError(
            f"{self.name}: this process gave no sign of life for {LEASE:g} s and another one took over; run it again"
        )


def _owner(key: str) -> str:
    return key.removeprefix(PREFIX).partition(".")[0]


@contextmanager
def _sent_once() -> Iterator[None]:
    """Keeps MLflow's client from sending a request again, which it does for a minute where a server does not answer."""
    variable = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    with _one_request:
        before = os.environ.get(variable)
        os.environ[variable] = "0"
        try:
            yield
        finally:
            if before is None:
                del os.environ[variable]
            else:
                os.environ[variable] = before

"""Signs of life between processes, on a real store."""

import os
import time

import pytest
from torch.distributed import HashStore

from condswin.training import heartbeat as module
from condswin.training.heartbeat import heartbeat


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Statuses that processes ended with."""
    monkeypatch.setattr(module, "INTERVAL", 0.02)
    monkeypatch.setattr(module, "PATIENCE", 1.0)
    found: list[int] = []
    monkeypatch.setattr(os, "_exit", found.append)
    return found


@pytest.fixture
def store() -> HashStore:
    return HashStore()


def after(seconds: float, ended: list[int]) -> bool:
    """Whether a process ended itself within so many seconds."""
    deadline = time.monotonic() + seconds
    while not ended and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(ended)


def test_those_that_live_or_have_ended_are_not_missed(store: HashStore, ended: list[int]) -> None:
    with heartbeat(store, 0, 3):
        with heartbeat(store, 1, 3), heartbeat(store, 2, 3):
            assert not after(3.2, ended)
        assert not after(3.2, ended)


@pytest.mark.parametrize(("here", "silent"), [(0, 2), (1, 0)])
def test_one_that_is_silent_ends_the_process(
    here: int, silent: int, store: HashStore, ended: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    store.set(module._key(silent), "7")  # its last one
    with heartbeat(store, here, 3):
        if here == 0:
            with heartbeat(store, 1, 3):
                assert after(20, ended)
        else:
            assert after(20, ended)
    assert ended[0] == 1
    assert f"training process {silent} of 3, counted from 0, gave no sign of life" in capsys.readouterr().err


def test_one_that_never_came_is_missed_too(store: HashStore, ended: list[int]) -> None:
    with heartbeat(store, 1, 2):
        assert after(20, ended)


def test_a_store_that_does_not_answer_is_a_sign_too(
    store: HashStore, ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is on the machine that is gone."""

    class Deaf:
        def clone(self) -> "Deaf":
            return self

        def set(self, *_: str) -> None:
            time.sleep(3)
            raise RuntimeError("no answer")

    with heartbeat(Deaf(), 1, 2):  # type: ignore[arg-type]
        assert after(2.5, ended)  # before the store gives up

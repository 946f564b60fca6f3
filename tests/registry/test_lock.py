import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from condswin.errors import GateError
from condswin.registry import lock
from condswin.registry.aliases import CHAMPION, LAST_CHAMPION, PREVIOUS, aliased, move_champion
from condswin.registry.lock import PREFIX, promotion_lock
from condswin.registry.tracking import tracking_uri
from tests.registry.race import PATIENCE, ROOT, promote_at_once
from tests.registry.toy import NAME, World, plain_tags

pytest_plugins = ["tests.registry.fixtures"]

SIX = [str(version) for version in range(2, 8)]
#: Leases of processes that died: first and last in line.
DEAD = (f"{PREFIX}{'0' * 32}.3", f"{PREFIX}{'f' * 32}.1")

STOPPED = """
import os, signal, sys
import condswin.registry
from mlflow import MlflowClient
from condswin.errors import GateError
from condswin.registry import lock
from condswin.registry.aliases import PREVIOUS, move_champion

lock.LEASE = float(sys.argv[2])
real = MlflowClient.set_registered_model_alias


def stop_after_the_first(self, name, alias, version):
    real(self, name, alias, version)
    if alias == PREVIOUS:
        os.kill(os.getpid(), signal.SIGSTOP)


MlflowClient.set_registered_model_alias = stop_after_the_first
try:
    move_champion(MlflowClient(sys.argv[1], registry_uri=sys.argv[1]), "condswin-reconstruction", "2",
                  expected="1", record={})
except GateError as error:
    print(error)
    sys.exit(3)
"""


class Memory:
    """What the lock needs of MlflowClient, with the same guarantee: a request happens at once, between others."""

    def __init__(self) -> None:
        self.one = threading.Lock()
        self.tags: dict[str, str] = {}
        self.aliases = {CHAMPION: "1"}
        self.version_tags: dict[str, dict[str, str]] = {}
        self.crowned: list[str] = []

    def get_registered_model(self, name: str) -> Any:
        with self.one:
            return SimpleNamespace(tags=dict(self.tags))

    def set_registered_model_tag(self, name: str, key: str, value: str) -> None:
        with self.one:
            self.tags[key] = value

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        with self.one:
            self.tags.pop(key, None)

    def get_model_version_by_alias(self, name: str, alias: str) -> Any:
        with self.one:
            if alias not in self.aliases:
                raise MlflowException("no such alias", error_code=RESOURCE_DOES_NOT_EXIST)
            return SimpleNamespace(version=self.aliases[alias])

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        with self.one:
            self.aliases[alias] = version
            if alias == CHAMPION:
                self.crowned.append(version)

    def get_model_version(self, name: str, version: str) -> Any:
        with self.one:
            return SimpleNamespace(tags=dict(self.version_tags.get(version, {})))

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        with self.one:
            self.version_tags.setdefault(version, {})[key] = value


def leases(client: MlflowClient) -> list[str]:
    return [key for key in client.get_registered_model(NAME).tags if key.startswith(PREFIX)]


def test_of_six_promoters_beside_a_dead_one_exactly_one_wins_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LEASE", 8.0)
    monkeypatch.setattr(lock, "_sent_once", nullcontext)  # one request at a time per process: all rounds share this one
    rounds = [Memory() for _ in range(24)]
    for number, registry in enumerate(rounds):
        registry.tags = dict.fromkeys(DEAD[: number % 3], "")
    with ThreadPoolExecutor(len(rounds)) as pool:
        winners = list(pool.map(lambda registry: promote_at_once(lambda: registry, SIX, "1"), rounds))
    assert [len(won) for won in winners] == [1] * len(rounds)
    for registry, won in zip(rounds, winners, strict=True):
        assert registry.crowned == won
        assert registry.aliases == {CHAMPION: won[0], PREVIOUS: "1"}
        assert plain_tags(registry) == {LAST_CHAMPION: won[0]}  # type: ignore[arg-type]


def test_one_of_six_wins_on_a_database(client: MlflowClient, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LEASE", 8.0)
    for _ in range(3):
        client.create_model_version(NAME, source=str(world.folder))
    move_champion(client, NAME, "1", expected=None, record={})
    client.set_registered_model_tag(NAME, DEAD[0], "")
    uri = tracking_uri(world.config)
    (winner,) = promote_at_once(lambda: MlflowClient(uri, registry_uri=uri), SIX, "1")
    assert (aliased(client, NAME, CHAMPION), aliased(client, NAME, PREVIOUS)) == (winner, "1")
    assert plain_tags(client) == {LAST_CHAMPION: winner}


def test_others_wait_until_the_lock_is_released(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client.create_registered_model("condswin-segmentation")
    monkeypatch.setattr(lock, "WAIT_AT_MOST", 0.5)
    with promotion_lock(client, NAME):
        with pytest.raises(GateError, match="other processes have been changing it"), promotion_lock(client, NAME):
            raise AssertionError("entered twice")
        with promotion_lock(client, "condswin-segmentation"):
            pass
        assert len(leases(client)) == 1  # who gave up waiting left nothing
    assert leases(client) == []
    with pytest.raises(ZeroDivisionError), promotion_lock(client, NAME):
        raise ZeroDivisionError
    assert leases(client) == []


def test_a_dead_process_costs_one_lease(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LEASE", 6.0)
    for key in DEAD:
        client.set_registered_model_tag(NAME, key, "")
    started = time.monotonic()
    with promotion_lock(client, NAME) as write:
        assert 6 < time.monotonic() - started < 60
        write(client.set_registered_model_alias, NAME, CHAMPION, "1")
    assert (leases(client), aliased(client, NAME, CHAMPION)) == ([], "1")


def test_a_holder_renews_for_as_long_as_it_takes(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LEASE", 4.0)
    entered = threading.Event()

    def waiter() -> None:
        with promotion_lock(client, NAME):
            entered.set()

    with promotion_lock(client, NAME) as write:
        thread = threading.Thread(target=waiter)
        thread.start()
        for number in range(4):
            time.sleep(1.6)  # 6.4 s together
            write(client.set_registered_model_alias, NAME, PREVIOUS, str(1 + number % 2))
        assert not entered.is_set()
        assert len({key.rpartition(".")[0] for key in leases(client)}) <= 2  # the waiter may stand in line
    thread.join(PATIENCE)
    assert entered.is_set()
    assert leases(client) == []


def test_a_sleeping_holder_writes_nothing_after_others_took_over(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "LEASE", 6.0)
    move_champion(client, NAME, "1", expected=None, record={})
    asleep, awake = threading.Event(), threading.Event()
    real = MlflowClient.set_registered_model_alias

    def sleepy(self: MlflowClient, name: str, alias: str, version: str) -> None:
        real(self, name, alias, version)
        if threading.current_thread().name == "sleeper":
            asleep.set()
            lock._one_request.release()  # which another process would not wait for
            awake.wait(PATIENCE)
            lock._one_request.acquire()

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", sleepy)
    refused: list[str] = []

    def sleeper() -> None:
        try:
            move_champion(client, NAME, "2", expected="1", record={})
        except GateError as error:
            refused.append(str(error))

    thread = threading.Thread(target=sleeper, name="sleeper")
    thread.start()
    assert asleep.wait(PATIENCE)
    move_champion(client, NAME, "3", expected="1", record={})
    awake.set()
    thread.join(PATIENCE)
    assert "gave no sign of life for 6 s and another one took over" in refused[0]
    assert (aliased(client, NAME, CHAMPION), aliased(client, NAME, PREVIOUS)) == ("3", "1")
    assert leases(client) == []


def test_a_stopped_process_writes_nothing_after_others_took_over(
    client: MlflowClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "LEASE", 4.0)
    move_champion(client, NAME, "1", expected=None, record={})
    command = [sys.executable, "-c", STOPPED, tracking_uri(world.config), "4"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
            move_champion(client, NAME, "3", expected="1", record={})
            process.send_signal(signal.SIGCONT)
            output = process.communicate(timeout=PATIENCE)[0]
        finally:
            process.kill()
    assert process.returncode == 3, output
    assert "another one took over" in output
    assert (aliased(client, NAME, CHAMPION), aliased(client, NAME, PREVIOUS)) == ("3", "1")
    assert leases(client) == []


def test_a_slow_registry_is_not_written_to(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LEASE", 0.6)
    real = MlflowClient.get_registered_model

    def slow(self: MlflowClient, name: str) -> Any:
        time.sleep(0.4)
        return real(self, name)

    with promotion_lock(client, NAME) as write:
        monkeypatch.setattr(MlflowClient, "get_registered_model", slow)
        with pytest.raises(GateError, match="takes seconds per request"):
            write(client.set_registered_model_alias, NAME, CHAMPION, "1")
    assert aliased(client, NAME, CHAMPION) is None


def test_a_lease_is_renewed_only_if_nobody_broke_it(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request that breaks a lease arrives while its owner, back from a pause, renews it."""
    monkeypatch.setattr(lock, "LEASE", 0.6)
    real = MlflowClient.set_registered_model_tag

    def broken_meanwhile(self: MlflowClient, name: str, key: str, value: str) -> None:
        (before,) = leases(client)
        real(self, name, key, value)
        self.delete_registered_model_tag(name, before)

    with promotion_lock(client, NAME) as write:
        monkeypatch.setattr(MlflowClient, "set_registered_model_tag", broken_meanwhile)
        time.sleep(0.3)
        with pytest.raises(GateError, match="another one took over"):
            write(client.set_registered_model_alias, NAME, CHAMPION, "1")
    assert (leases(client), aliased(client, NAME, CHAMPION)) == ([], None)


def test_a_lease_that_was_taken_away_is_missed_before_the_next_write(client: MlflowClient) -> None:
    with promotion_lock(client, NAME) as write:
        write(client.set_registered_model_alias, NAME, PREVIOUS, "1")
        client.delete_registered_model_tag(NAME, leases(client)[0])  # by a person, say
        with pytest.raises(GateError, match="another one took over"):
            write(client.set_registered_model_alias, NAME, CHAMPION, "1")
    assert aliased(client, NAME, CHAMPION) is None


def test_a_write_is_sent_once(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's client would send it again a minute later, long after others have taken over."""
    variable = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    monkeypatch.setenv(variable, "7")
    seen: list[str | None] = []
    with promotion_lock(client, NAME) as write:
        write(lambda: seen.append(os.environ.get(variable)))
        monkeypatch.delenv(variable)
        with suppress(ZeroDivisionError):
            write(lambda: 1 / 0)
    assert seen == ["0"]
    assert variable not in os.environ

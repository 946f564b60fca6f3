"""Events and the webhook that is told of them: a real server on loopback."""

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from mlflow import MlflowClient

from condswin import notify
from condswin.errors import ConfigError
from condswin.registry import events as module
from condswin.registry.aliases import (
    CHAMPION,
    FROZEN,
    PROMOTED_AT,
    aliased,
    journal,
    move_champion,
    roll_back,
)
from condswin.registry.aliases import (
    freeze as freeze_aliases,
)
from condswin.registry.events import DELIVERY, EVENT, SIGNATURE, WEBHOOK_KEY, WEBHOOK_URL, deliver, events, told
from condswin.registry.history import history
from condswin.steps.approve import approve, freeze
from condswin.steps.promote import rollback
from tests.registry.toy import NAME, World

pytest_plugins = ["tests.registry.fixtures"]

SECRET = "a secret of 32 letters, or so...."


@dataclass
class Receiver:
    """What arrived, and the answers to give: a status, or `hang`. After the last of them, 204."""

    url: str = ""
    answers: list[int | str] = field(default_factory=list)
    #: The body of an answer goes on until the test is over.
    endless: bool = False
    got: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(event["event"], event.get("version", "")) for event in self.got]


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            expected = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
            assert self.headers[SIGNATURE] == f"sha256={expected}"
            found.keys.append(self.headers[DELIVERY])
            answer = found.answers.pop(0) if found.answers else 204
            if answer == "hang":
                found.over.wait(5)
                return
            if answer == 204:
                found.got.append(json.loads(body))
            self.send_response(int(answer))
            self.send_header("Location", f"{found.url}/elsewhere")
            self.end_headers()
            while found.endless and not found.over.wait(0.05):
                try:
                    self.wfile.write(b".")
                except OSError:
                    return

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv(WEBHOOK_URL, f"{found.url}/hooks/a-secret-path")
    monkeypatch.setenv(WEBHOOK_KEY, SECRET)
    monkeypatch.setattr(module, "PAUSES", (0.01, 0.01))
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    yield found
    found.over.set()
    server.shutdown()
    server.server_close()


def crown(client: MlflowClient, version: str, expected: str | None = None, decided_at: str = "then") -> None:
    with told(client, NAME):
        move_champion(
            client,
            NAME,
            version,
            expected=expected,
            record={"promoted": True, "decided_at": f"{decided_at}-{version}-{expected}"},
        )


def take_back(client: MlflowClient) -> None:
    with told(client, NAME):
        roll_back(client, NAME, lambda _: None)


def test_a_promotion_a_roll_back_and_a_freeze_are_told_of_once_and_signed(
    receiver: Receiver, world: World, quick_smoke: None
) -> None:
    world.promote(world.register(0.5))
    better = world.register(0.9)
    world.promote(better, hold=True)
    assert receiver.told == [("promoted", "1")]
    approve(world.config, "reconstruction", "2", by="Jane", why="read them")
    world.promote(better)  # nothing to do, nothing to tell
    freeze(world.config, "reconstruction", by="Jane", why="audit")
    freeze(world.config, "reconstruction", by="Jane", why="over", lift=True)
    rollback(world.config, "reconstruction")
    assert receiver.told == [("promoted", "1"), ("promoted", "2"), ("frozen", ""), ("lifted", ""), ("rolled back", "1")]
    approved = receiver.got[1]
    assert (approved["by"], approved["why"], approved["previous"]) == ("Jane", "read them", "1")
    assert (approved["name"], approved["uri"]) == (NAME, f"models:/{NAME}/2")
    assert receiver.got[-1]["previous"] == "2"
    assert len(set(receiver.keys)) == 5
    assert [event["key"] for event in receiver.got] == receiver.keys
    assert not {"pending", "delivered_at"} & {key for event in receiver.got for key in event}
    kept = events(world.client, NAME)
    assert [event["event"] for event in kept] == [kind for kind, _ in receiver.told]
    assert all("delivered_at" in event and "pending" not in event for event in kept)
    seen = [(event["event"], event["version"], event["why"]) for event in history(world.client, NAME)]
    assert ("promoted", "2", "after version 1; read them") in seen
    assert ("rolled back", "2", "to version 1") in seen
    assert [event for event, *_ in seen].count("promoted") == 2


@pytest.mark.parametrize(
    ("answers", "requests", "reason"),
    [
        ([500, 503, 500], 3, "the webhook answered 500"),
        (["hang", "hang", "hang"], 3, "no answer in time"),
        ([401], 1, "the webhook answered 401"),
        ([302], 1, "the webhook answered 302"),
    ],
)
def test_a_webhook_that_fails_undoes_nothing_and_gets_it_with_the_next_run(
    answers: list[int | str],
    requests: int,
    reason: str,
    receiver: Receiver,
    client: MlflowClient,
    capsys: pytest.CaptureFixture[str],
) -> None:
    receiver.answers = answers
    crown(client, "1")
    said = capsys.readouterr().err
    assert aliased(client, NAME, CHAMPION) == "1"
    assert said == (
        f"{NAME}: {receiver.url} was not told of 'promoted' ({reason}); it is kept, and the next command that may move "
        "the champion sends it\n"
    )
    assert (len(receiver.keys), receiver.got) == (requests, [])
    crown(client, "2", expected="1")
    assert receiver.told == [("promoted", "1"), ("promoted", "2")]  # in their order
    assert set(receiver.keys) == {event["key"] for event in receiver.got}  # under the same keys
    assert deliver(client, NAME) is None
    assert len(receiver.got) == 2


def test_an_event_that_is_refused_is_noted_and_keeps_no_later_one_waiting(
    receiver: Receiver, client: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.answers = [422]
    crown(client, "1")
    assert "not told of 'promoted' (the webhook answered 422)" in capsys.readouterr().err
    assert [event.get("refused") for event in events(client, NAME)] == ["the webhook answered 422"]
    receiver.answers = [422]
    crown(client, "2", expected="1")
    assert receiver.told == [("promoted", "2")]
    assert deliver(client, NAME) is None  # the receiver was mended
    assert receiver.told == [("promoted", "2"), ("promoted", "1")]
    assert not any({"refused", "pending"} & event.keys() for event in [*receiver.got, *events(client, NAME)])
    # Nothing is sent past an address that has moved, or a server that is away.
    receiver.answers = [302]
    crown(client, "3", expected="2")
    receiver.answers = [302]
    crown(client, "4", expected="3")
    assert len(receiver.got) == 2


@pytest.mark.parametrize("status", [200, 422])
def test_an_answer_that_never_ends_is_not_waited_for(status: int, receiver: Receiver, client: MlflowClient) -> None:
    receiver.endless, receiver.answers = True, [status]
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(crown, client, "1")
        try:
            sent.result(5)
        finally:
            receiver.over.set()
    assert len(receiver.keys) == 1


def test_tags_that_are_no_events_are_passed_over(receiver: Receiver, client: MlflowClient) -> None:
    for key, text in {
        "a": "no JSON",
        "b": "[1]",
        "c": '{"key": "c", "event": "promoted"}',
        "d": '{"key": "d", "event": "promoted", "at": "yesterday", "pending": true}',
        "e": '{"key": "of another tag", "event": "promoted", "at": "2026-01-01T00:00:00+00:00", "pending": true}',
        "f": '{"key": "f", "event": 1, "at": "2026-01-01T00:00:00+00:00"}',
        "g": "[" * 4000,
    }.items():
        client.set_registered_model_tag(NAME, EVENT + key, text)
    crown(client, "1")
    assert receiver.told == [("promoted", "1")]
    assert [event["event"] for event in events(client, NAME)] == ["promoted"]


def test_each_webhook_has_an_address_of_its_own() -> None:
    assert (WEBHOOK_URL, notify.WEBHOOK) == ("CONDSWIN_WEBHOOK_URL", "CONDSWIN_NOTIFY_URL")


def test_one_that_fails_for_a_moment_is_tried_again(receiver: Receiver, client: MlflowClient) -> None:
    receiver.answers = [500, "hang"]
    crown(client, "1")
    assert receiver.told == [("promoted", "1")]
    assert len(set(receiver.keys)) == 1


def test_a_server_that_is_not_there_costs_little_and_names_no_secret(
    receiver: Receiver, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(WEBHOOK_URL, "http://me:hush-1@127.0.0.1:1/hush-2?token=hush-3")
    started = time.monotonic()
    crown(client, "1")
    assert time.monotonic() - started < 5
    said = capsys.readouterr().err
    assert "http://127.0.0.1:1 was not told of 'promoted' (no answer (ConnectionError))" in said
    assert "hush" not in said


def test_a_webhook_without_a_key_is_refused_before_anything_moves(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WEBHOOK_URL, "http://127.0.0.1:1")
    monkeypatch.delenv(WEBHOOK_KEY, raising=False)
    with pytest.raises(ConfigError, match=f"{WEBHOOK_KEY}: missing"):
        crown(client, "1")
    assert CHAMPION not in client.get_registered_model(NAME).aliases
    monkeypatch.setenv(WEBHOOK_URL, "ftp://127.0.0.1")
    with pytest.raises(ConfigError, match=f"{WEBHOOK_URL}: no http"):
        crown(client, "1")


def test_without_a_webhook_events_are_kept_and_never_sent_later(
    client: MlflowClient, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.delenv(WEBHOOK_URL)
        crown(client, "1")
    crown(client, "2", expected="1")
    assert receiver.told == [("promoted", "2")]
    assert [event["event"] for event in events(client, NAME)] == ["promoted", "promoted"]


def test_a_roll_back_that_was_interrupted_is_told_of_once(
    client: MlflowClient, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    crown(client, "1")
    crown(client, "2", expected="1")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", killed)
        patch.setattr(MlflowClient, "delete_registered_model_alias", killed)
        with pytest.raises(KeyboardInterrupt):
            take_back(client)
    assert deliver(client, NAME) is None  # as another command does
    assert len(receiver.told) == 2  # the champion has not moved
    assert "rolled back" not in {event["event"] for event in history(client, NAME)}
    take_back(client)
    assert aliased(client, NAME, CHAMPION) == "1"
    assert receiver.told[2:] == [("rolled back", "1")]


def no_events(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_roll_back_whose_event_is_missing_is_in_the_history(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    crown(client, "1", decided_at="2026-01")
    crown(client, "2", expected="1", decided_at="2026-01")
    with monkeypatch.context() as patch:
        patch.setattr("condswin.registry.aliases.event_tag", no_events)
        with pytest.raises(KeyboardInterrupt):
            take_back(client)
    assert aliased(client, NAME, CHAMPION) == "1"
    for _ in range(2):
        (taken,) = [event for event in history(client, NAME) if event["event"] == "rolled back"]
        assert (taken["version"], taken["why"]) == ("2", "to version 1")
        take_back(client)  # goes back no further, and tells of what it did
    assert aliased(client, NAME, CHAMPION) == "1"
    assert [event["event"] for event in events(client, NAME)] == ["promoted", "promoted", "rolled back"]


@pytest.mark.parametrize("lift", [False, True])
def test_no_freeze_is_told_of_that_did_not_happen(
    lift: bool, receiver: Receiver, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lift:
        freeze_aliases(client, NAME, by="Jane", why="audit")
        deliver(client, NAME)
    told_before = list(receiver.told)
    real = MlflowClient.set_registered_model_tag

    def killed(self: MlflowClient, name: str, key: str, value: str) -> None:
        if key == FROZEN:
            raise KeyboardInterrupt
        real(self, name, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_tag", killed)
        if lift:  # the lease is taken back by another such request
            delete = MlflowClient.delete_registered_model_tag
            refused = lambda self, name, key: no_events() if key == FROZEN else delete(self, name, key)  # noqa: E731
            patch.setattr(MlflowClient, "delete_registered_model_tag", refused)
        with pytest.raises(KeyboardInterrupt):
            freeze_aliases(client, NAME, by="Jane", why="over", lift=lift)
    deliver(client, NAME)
    assert receiver.told == told_before
    freeze_aliases(client, NAME, by="Jane", why="over", lift=lift)
    deliver(client, NAME)
    assert receiver.told == [*told_before, ("lifted" if lift else "frozen", "")]


def test_a_freeze_is_told_of_though_the_clock_of_the_one_before_was_fast(
    receiver: Receiver, client: MlflowClient
) -> None:
    freeze_aliases(client, NAME, by="Jane", why="audit")
    (key,) = (key for key in client.get_registered_model(NAME).tags if key.startswith(EVENT))
    ahead = {**json.loads(client.get_registered_model(NAME).tags[key]), "at": "2999-01-01T00:00:00+00:00"}
    client.set_registered_model_tag(NAME, key, json.dumps(ahead))
    freeze_aliases(client, NAME, by="Jane", why="done", lift=True)
    for _ in range(2):
        freeze_aliases(client, NAME, by="Joe", why="again")
        deliver(client, NAME)
    assert sorted(receiver.told) == [("frozen", ""), ("frozen", ""), ("lifted", "")]


def test_a_champion_from_before_there_were_events_is_not_news(receiver: Receiver, client: MlflowClient) -> None:
    old = {"decided_at": "2026-01-02T03:04:05+00:00"}
    client.set_registered_model_alias(NAME, CHAMPION, "1")
    client.set_model_version_tag(NAME, "1", PROMOTED_AT, "2026-01-02T03:04:06+00:00")
    for _ in range(2):
        with told(client, NAME):
            journal(client, NAME, "1", previous=None, record=old)
    assert receiver.told == []
    (event,) = events(client, NAME)
    assert event["at"] == "2026-01-02T03:04:06+00:00"
    # A second promotion of it is.
    with told(client, NAME):
        again = {"decided_at": "2026-01-01T00:00:00+00:00", "untold": []}  # by a machine whose clock is late
        journal(client, NAME, "1", previous=None, record=again)
    assert receiver.told == [("promoted", "1")]
    assert receiver.got[0]["at"] > "2026-03"


def test_a_promotion_that_was_interrupted_before_its_event_is_told_of(
    receiver: Receiver, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("condswin.registry.aliases.event_tag", no_events)
        with pytest.raises(KeyboardInterrupt):
            crown(client, "1")
    with told(client, NAME):
        journal(client, NAME, "1", previous=None, record={"decided_at": "2026-01-02T03:04:05+00:00"})
    assert receiver.told == [("promoted", "1")]
    assert not [key for key in client.get_model_version(NAME, "1").tags if key.startswith(EVENT)]

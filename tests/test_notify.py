"""Messages to a webhook, against a server on loopback that answers well, badly, late or not at all."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from condswin import kubeflow
from condswin.notify import WEBHOOK, message, post

SECRET = "T0000-B0000-hush"


class Server(ThreadingHTTPServer):
    """Takes posts and answers each with the next of `answers`: a status, or seconds to wait first."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[int | float] = []
        self.taken: list[dict[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/services/{SECRET}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.server.taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        answer = self.server.answers.pop(0) if self.server.answers else 200
        if isinstance(answer, float):
            time.sleep(answer)
            return
        self.send_response(answer)
        if answer == 302:
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_a_message_arrives(server: Server) -> None:
    assert post(server.url, "done") == ""
    assert server.taken == [{"text": "done"}]


@pytest.mark.parametrize(
    ("answers", "tries", "said"),
    [
        ([500, 503], 3, ""),
        ([500, 500, 502], 3, "the webhook answered 502"),
        ([429], 2, ""),
        ([404], 1, "the webhook answered 404"),
        ([302], 1, "the webhook answered 302"),
        ([1.5, 1.5, 1.5], 3, "no answer in time"),
        ([1.5], 2, ""),
    ],
)
def test_a_webhook_in_trouble_is_asked_again_and_never_raises(
    answers: list[int | float], tries: int, said: str, server: Server
) -> None:
    server.answers += answers
    assert post(server.url, "done", timeout=1.0, pauses=(0.0, 0.0)) == said
    assert len(server.taken) == tries


def test_nobody_at_the_address_is_a_reason_without_it() -> None:
    said = post(f"http://127.0.0.1:1/services/{SECRET}", "done", pauses=())
    assert said == "no answer (ConnectionError)"


@pytest.mark.parametrize("url", ["", "file:///etc/passwd", f"//{SECRET}", f"http://[{SECRET}", f"http://a b/{SECRET}"])
def test_what_is_no_address_of_a_webhook_is_said_without_it(url: str) -> None:
    said = post(url, "done", pauses=())
    assert said
    assert SECRET not in said
    assert "passwd" not in said


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("SUCCEEDED", "condswin retraining succeeded: <http://kfp.example/#/runs/details/4711|4711>"),
        ("FAILED", "condswin retraining failed: <http://kfp.example/#/runs/details/4711|4711>"),
        (
            "RUNNING",
            "condswin retraining ended; the backend calls exit-handler-1 RUNNING: "
            "<http://kfp.example/#/runs/details/4711|4711>",
        ),
    ],
)
def test_a_message_says_state_and_link(state: str, said: str) -> None:
    assert message("retraining", state, "exit-handler-1", "4711", "http://kfp.example/") == said


def test_nothing_in_a_message_is_taken_for_slack_s_notation() -> None:
    assert message("<!channel>", "FAILED", "a", "1|2>", "") == "condswin &lt;!channel&gt; failed: 1%7C2&gt;"


def test_the_task_tells_and_prints_no_secret(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(WEBHOOK, server.url)
    monkeypatch.setattr("condswin.notify.PAUSES", (0.0,))
    kubeflow.notify("reconstruction", "FAILED", "exit-handler-1", "4711", "")
    assert server.taken == [{"text": "condswin reconstruction failed: 4711"}]
    server.answers += [404]
    kubeflow.notify("reconstruction", "FAILED", "exit-handler-1", "4711", "")
    monkeypatch.delenv(WEBHOOK)
    kubeflow.notify("reconstruction", "FAILED", "exit-handler-1", "4711", "")
    printed = capsys.readouterr().out
    assert printed.splitlines() == [
        "told",
        "nobody was told: the webhook answered 404",
        f"nobody was told: {WEBHOOK} is no address of a webhook",
    ]
    assert SECRET not in printed

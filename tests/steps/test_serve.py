"""Which server answers, with which parameters, and that it ends with whoever started it: without MLflow."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from condswin.config.profiles import compose
from condswin.config.reading import parse_config
from condswin.errors import GateError
from condswin.steps import serve as module
from condswin.steps.serve import serve

EXACT = "models:/toy/1"
#: Stands in for MLflow's server: answers with the parameters that it was given, until somebody posts.
SCRIPT = """
import os, socket, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
_, package, parameters, number, address = sys.argv
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(Path(parameters).read_bytes())
    def do_POST(self):
        os._exit(7)
    def log_message(self, *_):
        pass
server = HTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
server.socket = socket.socket(fileno=int(number))
server.serve_forever()
"""


@contextmanager
def package(*_: object, **__: object) -> Iterator[Path]:
    yield Path("package")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    script = tmp_path / "stand_in.py"
    script.write_text(SCRIPT)
    monkeypatch.setattr(module, "serve_package", SimpleNamespace(__file__=str(script)))
    monkeypatch.setattr(module, "verified_package", package)
    monkeypatch.setattr(module, "exact_uri", lambda *_: EXACT)
    monkeypatch.setattr(module, "START_WITHIN", 20.0)
    return script


def test_the_server_gets_the_parameters_at_hand_but_no_address_of_a_registry(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["segmentation.predict.minimum_lesion=0", "reconstruction.predict.adapt=7"]
    config = compose(["demo"], [*settings, "tracking.uri=http://127.0.0.1:1"])
    # Nor is a proxy asked for what is on this machine.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    told: list[str] = []

    def tell(model: str, url: str) -> None:
        told.extend([model, url])
        asking = requests.Session()
        asking.trust_env = False
        told.append(asking.get(url, timeout=5).text)
        with suppress(requests.RequestException):
            asking.post(url, timeout=5)

    with pytest.raises(GateError, match=r"models:/toy/1: its server ended \(exit code 7\)"):
        serve(config, EXACT, host="127.0.0.1", port=0, tell=tell)
    model, url, text = told
    assert model == EXACT
    assert int(url.removeprefix("http://127.0.0.1:")) > 0
    given = parse_config(json.loads(text), origin="given")
    for name in config.present:
        ours, theirs = (each.task(name).model_dump(exclude={"gate"}) for each in (config, given))
        assert theirs == ours
    # An older package's code refuses keys that it does not know.
    assert "hush" not in text
    assert not {"overlap", "gate", "tracking"} & set(re.findall(r"\w+", text))


def test_a_port_that_another_server_has_is_refused_before_anything_is_started(stand_in: Path) -> None:
    told: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(GateError, match=rf"--host 127\.0\.0\.1 --port {port}: .*in use.*; --port 0") as caught:
            serve(compose(["demo"]), EXACT, host="127.0.0.1", port=port, tell=lambda *each: told.extend(each))
    assert not told
    assert "\n" not in str(caught.value)
    with pytest.raises(GateError, match=r"--host nowhere\.invalid --port 0: "):
        serve(compose(["demo"]), EXACT, host="nowhere.invalid", port=0)


@pytest.mark.parametrize(("host", "shown"), [("::1", "[::1]"), ("::", "[::1]"), ("127.0.0.1", "127.0.0.1")])
def test_addresses_are_written_as_urls_have_them(host: str, shown: str) -> None:
    assert module._reached_at(host) == shown


def test_an_address_of_ipv6_stands_in_brackets(stand_in: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")

    def tell(_: str, url: str) -> None:
        assert url.startswith("http://[::1]:")
        assert requests.get(url, timeout=60).ok
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        serve(compose(["demo"]), EXACT, host="::1", port=0, tell=tell)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing tells a process of its parent's end")
def test_the_server_of_a_process_that_was_killed_ends(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path(__file__).parents[2]
    program = (
        "from types import SimpleNamespace\n"
        "from condswin.config.profiles import compose\n"
        "from tests.steps import test_serve as test\n"
        f"test.module.serve_package = SimpleNamespace(__file__={str(stand_in)!r})\n"
        "test.module.verified_package = test.package\n"
        "test.module.exact_uri = lambda *_: test.EXACT\n"
        "tell = lambda _, url: print(url, flush=True)\n"
        "test.serve(compose(['demo']), test.EXACT, host='127.0.0.1', port=0, tell=tell)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(here), "TMPDIR": str(stand_in.parent)}
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
    watch = threading.Timer(300, parent.kill)
    watch.start()
    try:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        assert requests.get(url, timeout=60).ok
    finally:
        watch.cancel()
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)

    def answers() -> bool:
        try:
            return requests.get(url, timeout=60).ok
        except requests.ConnectionError:
            return False

    give_up = time.monotonic() + 10
    while (left := answers()) and time.monotonic() < give_up:
        time.sleep(0.05)
    if left:
        with suppress(requests.RequestException):
            requests.post(url, timeout=5)
    assert not left
    # What it had fetched and written goes with the next one.
    (folder,) = stand_in.parent.glob("condswin-serve-*")
    assert (folder / "parameters.json").exists()
    monkeypatch.setattr(tempfile, "tempdir", str(stand_in.parent))

    def tell(*_: str) -> None:
        assert not folder.exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        serve(compose(["demo"]), EXACT, host="127.0.0.1", port=0, tell=tell)
    assert not list(stand_in.parent.glob("condswin-serve-*"))

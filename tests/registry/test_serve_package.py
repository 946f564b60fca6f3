"""Files over HTTP to a network of known quality, behind a real server on loopback."""

import io
import json
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import uvicorn
from fastapi import FastAPI

from condswin.config.profiles import compose
from condswin.registry.serve_package import AT_ONCE, add_files, refuse_browsers
from condswin.tasks.serving import Predicted
from tests.registry.toy import ToyServing, World

pytest_plugins = ["tests.registry.fixtures"]


@pytest.fixture
def address(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A toy that adds 0.5, and is served with parameters that are not the demo's."""
    package = tmp_path / "package"
    (package / "artifacts").mkdir(parents=True)
    world.network(0.5).rename(package / "artifacts/model")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    parameters = tmp_path / "parameters.json"
    parameters.write_text(json.dumps(compose(["demo"], ["reconstruction.predict.adapt=7"]).values()))
    app = FastAPI()
    add_files(app, package, parameters, "models:/toy/1")
    refuse_browsers(app)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/files"
        server.should_exit = True
        thread.join()


def scan() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros((2, 16, 20), np.float32))
    return file.getvalue()


@pytest.mark.parametrize("name", ["scan.npy", "in.npy", "out.npy"])
def test_a_file_is_answered_with_its_prediction(name: str, address: str) -> None:
    answer = requests.post(address, params={"name": name}, data=scan(), timeout=30)
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Condswin-Model"] == "models:/toy/1"
    assert np.load(io.BytesIO(answer.content)).mean() == pytest.approx(0.5, abs=0.02)


def test_it_is_predicted_with_the_parameters_that_were_given(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def tell(self: ToyServing, _: Any, source: Path, folder: Path, __: Any) -> Predicted:
        (folder / source.name).write_text(str(self.config.reconstruction.predict.adapt))  # type: ignore[attr-defined]
        return Predicted(folder / source.name, [])

    monkeypatch.setattr(ToyServing, "predict_raw", tell)
    assert requests.post(address, params={"name": "scan.npy"}, data=scan(), timeout=30).text == "7"


def test_a_name_may_be_that_of_a_folder_beside_it(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(self: ToyServing, _: Any, source: Path, folder: Path, __: Any) -> Predicted:
        (folder / source.name).write_bytes(source.read_bytes())
        return Predicted(folder / source.name, [])

    monkeypatch.setattr(ToyServing, "predict_raw", copy)
    for name in ("out", "in"):
        answer = requests.post(address, params={"name": name}, data=scan(), timeout=30)
        assert (answer.status_code, answer.content) == (200, scan())


def test_no_more_files_than_places_lie_on_the_disk(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    real = ToyServing.predict_raw

    def slow(self: ToyServing, *given: Any) -> Predicted:
        assert go_on.wait(30)
        return real(self, *given)

    monkeypatch.setattr(ToyServing, "predict_raw", slow)

    def lying() -> int:
        return len(list((tmp_path / "temporary").iterdir()))

    with ThreadPoolExecutor(AT_ONCE + 3) as pool:
        asked = [
            pool.submit(requests.post, address, params={"name": f"{number}.npy"}, data=scan(), timeout=60)
            for number in range(AT_ONCE + 3)
        ]
        try:
            give_up = time.monotonic() + 20
            while lying() < AT_ONCE and time.monotonic() < give_up:
                time.sleep(0.02)
            time.sleep(0.3)
            assert lying() == AT_ONCE
        finally:
            go_on.set()
        assert [each.result().status_code for each in asked] == [200] * len(asked)
    assert lying() == 0


def test_a_page_in_a_browser_is_refused(address: str) -> None:
    for origin in ("https://example.org", "null", "http://127.0.0.1:5001"):
        answer = requests.post(
            address, params={"name": "scan.npy"}, data=scan(), headers={"Origin": origin}, timeout=30
        )
        assert (answer.status_code, list(answer.json())) == (403, ["error"])

"""A pipeline that a bad file stops, run by Kubeflow's local runner: once, and people are told."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from kfp import local

from condswin.config.root import Config
from condswin.notify import WEBHOOK
from condswin.steps.demo_data import demo_data
from pipelines.retraining import build

ROOT = Path(__file__).parents[2]


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    taken: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hush", taken
        server.shutdown()
        thread.join()


def test_a_bad_file_stops_a_run_at_once_and_is_named(
    tiny: Config,
    webhook: tuple[str, list[dict[str, Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    url, taken = webhook
    raw = tmp_path / "raw"
    section = tiny.reconstruction.model_copy(update={"source": str(raw)})
    cluster = tiny.cluster.model_copy(
        update={
            "pools": str(tmp_path / "pools.yaml"),
            "notify": tiny.cluster.notify.model_copy(update={"secret": "webhook", "ui": "http://kfp"}),
        }
    )
    config = tiny.model_copy(update={"reconstruction": section, "cluster": cluster})
    demo_data(config, "reconstruction", out=raw)
    broken = next(raw.rglob("*.h5"))
    broken.write_bytes(broken.read_bytes()[:3000])
    (tmp_path / "pools.yaml").write_text("pools: {default: {retry: {count: 2, backoff: 1}}}\n")
    for name, value in {WEBHOOK: url, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "outputs"), raise_on_error=True)
    with pytest.raises(RuntimeError, match="verdict"):
        build(config, ("reconstruction",))()
    (run,) = (tmp_path / "outputs").iterdir()
    assert {path.name for path in run.iterdir()} <= {"resolve", "ingest", "verdict", "notify"}
    logged = "".join(capfd.readouterr())
    assert "StoppedError: ingest reconstruction: " in logged
    assert broken.name in logged
    assert "Retrying" not in logged
    assert "hush" not in logged
    (message,) = taken
    assert message["text"].startswith("condswin reconstruction failed: <http://kfp/#/runs/details/")

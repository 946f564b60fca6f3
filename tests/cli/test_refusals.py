"""What a machine, a file system or a server refuses: one line with the cause and the mend."""

import errno
import os
import socket
from pathlib import Path

import pytest
import torch

from condswin.config.profiles import compose, write_config
from condswin.registry import tracking
from tests.cli.test_manners import condswin


@pytest.fixture
def parameters(workdir: Path) -> Path:
    write_config(compose(["demo", "tiny"]), workdir / "params.yaml", comment="")
    return workdir


@pytest.mark.parametrize(
    ("number", "path", "said"),
    [
        (errno.ENOSPC, "models/a", "models/a: no space left on device; make room, or write elsewhere with --out"),
        (errno.ENOSPC, None, "no space left on device; make room"),
        (errno.EROFS, "models/a", "models/a: read-only file system; write elsewhere with --out"),
        (errno.EACCES, "/root/a\n", "/root/a\\\\n: permission denied; get the permission"),
        (errno.EIO, "models/a", "OSError: [Errno 5] Input/output error: 'models/a'; condswin did not foresee this"),
    ],
)
def test_what_a_file_system_refuses(
    number: int, path: str | None, said: str, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def code(what: str, *, out: Path) -> list[Path]:
        raise OSError(number, os.strerror(number), *([path] if path else []))

    monkeypatch.setattr("condswin.steps.code.code", code)
    status, out, err = condswin("code", "report")
    assert (status, out) == (1, "")
    assert err.startswith(f"error: {said.encode().decode('unicode_escape')}")
    assert err.count("\n") == 1


def test_a_network_that_is_to_run_on_a_gpu_where_there_is_none(
    parameters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    status, _, err = condswin("bench", "swin", "--device", "cuda", "--preset", "thesis-2")
    assert status == 1
    assert err == "error: bench: --device cuda: torch finds no GPU here; take cpu, or see nvidia-smi\n"


def test_a_registry_that_does_not_answer(parameters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "PATIENCE", 0.5)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hush@127.0.0.1:9")
    for words in (["history", "reconstruction"], ["rollback", "segmentation"]):
        status, _, err = condswin(*words, "--json")
        assert status == 1
        assert err.startswith(
            "error: MLflow server http://***@127.0.0.1:9 cannot be reached (ConnectionError); start it"
        )
        assert err.count("\n") == 1


def test_a_port_that_is_taken(parameters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("condswin.steps.serve.exact_uri", lambda model, config: model)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, _, err = condswin("serve", "models:/condswin-reconstruction/1", "--port", port)
    assert status == 1
    assert err.startswith(f"error: --host 127.0.0.1 --port {port}: ")
    assert "in use" in err
    assert err.endswith("--port 0 takes any that is free\n")
    assert err.count("\n") == 1

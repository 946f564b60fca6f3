"""Devices and compilers that are not there are said at once."""

import pytest
import torch

from condswin.devices import compiled, device
from condswin.errors import MachineError


def test_auto_takes_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, kind in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr("torch.cuda.is_available", lambda there=there: there)
        assert device("auto").type == kind
        assert device("cpu").type == "cpu"


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.version.cuda", None)
    with pytest.raises(
        MachineError, match=r"^device: cuda, but torch finds no GPU here: this build of torch is for proc"
    ):
        device("cuda")
    monkeypatch.setattr("torch.version.cuda", "13.0")
    with pytest.raises(MachineError, match=r"no GPU here; set it to auto, or see nvidia-smi$"):
        device("cuda")


def test_a_compiler_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        MachineError, match=r"^compile: true needs a C\+\+ compiler, and no-such-compiler is not on PATH"
    ):
        compiled(torch.nn.Identity().forward)

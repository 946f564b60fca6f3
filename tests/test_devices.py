"""Devices and compilers that are not there are said at once."""

import pytest
import torch

from condswin.devices import compiled, compiling, device
from condswin.errors import BadDataError, MachineError


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


@pytest.mark.parametrize("kind", [RuntimeError, OSError])
def test_what_is_left_of_a_killed_compilation_is_named(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    cache, left = "/cache/kernels", "backend='inductor' raised:\n/cache/kernels/ab/cab.so: file too short"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", cache)
    with pytest.raises(MachineError, match=f"^compile: true: .*; remove the folder {cache} and [^\n]*$"), compiling():
        raise kind(left)
    with pytest.raises(kind, match="no such operator"), compiling():
        raise kind("no such operator")
    for other in (OSError(28, "No space left on device", f"{cache}/last.ckpt"), BadDataError(f"{cache}/a.h5: cut off")):
        with pytest.raises(type(other)), compiling():
            raise other
    with pytest.raises(kind, match="neighbour"), compiling():
        raise kind(f"{cache}-neighbour/ab.so: file too short")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    with pytest.raises(kind, match="file too short"), compiling():
        raise kind(left)

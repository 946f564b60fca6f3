"""Where networks run, and what runs there."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar, cast

import torch

from condswin.errors import CondswinError, MachineError

T = TypeVar("T", bound=Callable[..., object])


def device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device that a parameter names: `auto` is a GPU where there is one.

    Raises:
        MachineError: There is none.
    """
    found = torch.cuda.is_available()
    if wanted == "cuda" and not found:
        built = "" if torch.version.cuda else ": this build of torch is for processors alone"
        raise MachineError(f"device: cuda, but torch finds no GPU here{built}; set it to auto, or see nvidia-smi")
    return torch.device("cuda" if found and wanted != "cpu" else "cpu")


def described(wanted: Literal["auto", "cpu", "cuda"]) -> str:
    """The device that a parameter names, for a record: `cpu`, or a card by its name."""
    place = device(wanted)
    return place.type if place.type == "cpu" else f"{place.type} ({torch.cuda.get_device_name(place)})"


def compiled(run: T) -> T:
    """What `torch.compile` makes of a network or its forward pass; it takes minutes when that is first called.

    Raises:
        MachineError: There is no C++ compiler, which kernels for processors and those for GPUs are built with.
    """
    compiler = os.environ.get("CXX", "g++")  # as torch has it
    if shutil.which(compiler) is None:
        raise MachineError(
            f"compile: true needs a C++ compiler, and {compiler} is not on PATH; install it, or set false"
        )
    return cast(T, torch.compile(run))


@contextmanager
def compiling() -> Iterator[None]:
    """Runs what may be compiled, forward or backward, which torch does when it is first called.

    Raises:
        MachineError: torch fails on a file of its cache. A process that was killed leaves half of one behind, and what
            is compiled against that fails as faulty source code does.
    """
    try:
        yield
    except CondswinError:
        raise
    except Exception as error:
        cache = os.environ.get("TORCHINDUCTOR_CACHE_DIR")  # set by torch once it compiles
        # What the system refuses, as a full disk does, has a number; what cannot be loaded has none.
        refused = isinstance(error, OSError) and error.errno is not None
        if not cache or refused or f"{cache}{os.sep}" not in str(error):
            raise
        raise MachineError(
            f"compile: true: torch fails on what it compiled before, which a killed process may leave half written; "
            f"remove the folder {cache} and start again, or set false"
        ) from error

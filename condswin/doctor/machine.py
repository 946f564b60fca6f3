"""What is to be seen of this machine."""

import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distributions, requires
from pathlib import Path

import condswin
from condswin.config.root import Config
from condswin.doctor.finding import Finding
from condswin.patients import PATIENT_KEY, has_secret

LOCK = "requirements.lock"
#: GB below which a disk, and shared memory where loaders have workers, are called small.
ROOM, SHARED = 20.0, 1.0
SHARED_MEMORY = Path("/dev/shm")


def python() -> Finding:
    """The interpreter."""
    if sys.version_info[:2] == (3, 11):
        return Finding("python", "ok", platform.python_version())
    return Finding("python", "failed", f"{platform.python_version()}, not 3.11", "make PYTHON=/path/to/python3.11")


def packages() -> Iterator[Finding]:
    """What is installed, beside what condswin asks for and what the lock file has, if that is at hand."""
    installed = {_canonical(each.name): each.version.split("+")[0] for each in distributions()}
    try:
        asked = [each for each in requires("condswin") or () if "extra ==" not in each]
    except PackageNotFoundError:
        asked = []
    missing = sorted({_canonical(re.split(r"[\s\[<>=!~;]", each)[0]) for each in asked} - installed.keys())
    mend = f"pip install -r {LOCK}"
    if missing:
        yield Finding("packages", "failed", f"not installed: {', '.join(missing)}", mend)
    # In a checkout, where the command is run, and in the image.
    places = (Path.cwd(), Path(condswin.__file__).parents[1], Path("/opt/condswin"))
    lock = next((each / LOCK for each in places if (each / LOCK).is_file()), None)
    if lock is None:
        yield Finding("packages", "not used", f"no {LOCK} here to compare with")
        return
    pins = dict(line.split("==", 1) for line in lock.read_text().splitlines() if "==" in line)
    locked = {_canonical(name): number for name, number in pins.items()}
    other = [
        f"{name} {installed[name]} (locked: {number})"
        for name, number in sorted(locked.items())
        if installed.get(name, number) != number
    ]
    if other:
        more = f" and {len(other) - 5} more" if len(other) > 5 else ""
        yield Finding("packages", "warning", f"other versions than tested: {', '.join(other[:5])}{more}", mend)
    elif not missing:
        yield Finding("packages", "ok", f"as in {lock.name}")


def patient_key() -> Finding:
    """The secret that patients' identifiers are hashed with; not its value."""
    if has_secret():
        return Finding("patient key", "ok", "set")
    mend = f"set {PATIENT_KEY} to a secret of your own, and keep it: splits depend on it"
    return Finding("patient key", "warning", "not set: whoever guesses an identifier can tell its hash", mend)


def room() -> Iterator[Finding]:
    """Free space where results and temporary files go."""
    for name, place in (("room here", Path.cwd()), ("room for temporary files", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(place).free / 1e9
        if not os.access(place, os.W_OK):
            yield Finding(name, "failed", f"{place} is not writable", "run elsewhere, or set TMPDIR")
        elif free < ROOM:
            yield Finding(name, "warning", f"{free:.1f} GB are free in {place}", "make room, or set TMPDIR")
        else:
            yield Finding(name, "ok", f"{free:.0f} GB in {place}")


def gpu(config: Config) -> Finding:
    """Whether a GPU is there, if one is asked for."""
    import torch

    wanted = [name for name in config.present if config.task(name).train.device == "cuda"]
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        said = f"{torch.cuda.get_device_name()}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free"
        return Finding("gpu", "ok", said)
    if torch.version.cuda is None:
        reason, mend = f"torch {torch.__version__} is built for CPUs", "install torch's CUDA build"
    elif shutil.which("nvidia-smi") is None:
        reason, mend = "no driver of NVIDIA's", "install the driver, or give the container a GPU"
    else:
        reason, mend = "the driver is there, and CUDA does not start", "nvidia-smi; compare its CUDA with torch's"
    if wanted:
        return Finding("gpu", "failed", f"{wanted[0]}.train.device: cuda, but {reason}", f"{mend}, or device: auto")
    return Finding("gpu", "not used", reason)


def shared_memory(config: Config) -> Finding:
    """Whether loaders with workers have room to hand over batches."""
    workers = max(config.task(name).train.workers for name in config.present)
    if not workers or not SHARED_MEMORY.is_dir():
        return Finding("shared memory", "not used", "loaders have no workers" if not workers else "no /dev/shm")
    free = shutil.disk_usage(SHARED_MEMORY).free / 1e9
    if free < SHARED:
        mend = "docker run --shm-size 4g; `shm` of the pool in infra/pools.yaml; or train.workers: 0"
        return Finding("shared memory", "failed", f"{free:.2f} GB for loaders with {workers} workers", mend)
    return Finding("shared memory", "ok", f"{free:.1f} GB for {workers} workers")


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()

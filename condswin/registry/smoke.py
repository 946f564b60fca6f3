"""Whether a registered model works outside the process that made it."""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from condswin.errors import GateError
from condswin.files import read_json
from condswin.networks.saving import ModelSpec

#: Side of the golden batch's images, pixels.
SIZE = 64
#: Outputs of two processes may differ by the order of additions.
RELATIVE, ABSOLUTE = 1e-3, 1e-4
#: Seconds for a clean process to load and run the model.
TIMEOUT = 600

#: What the clean process gets of this one's environment: no credentials, no key, no settings of Python or MLflow.
ENVIRONMENT = (
    *("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH"),
    *("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "MKL_NUM_THREADS"),
)

_SCRIPT = Path(__file__).with_name("clean_load.py")
_SETTINGS = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONDONTWRITEBYTECODE": "1",
}


@dataclass(frozen=True)
class Smoke:
    """What a clean process found.

    Attributes:
        problems: Why the model must not be promoted; empty if it works.
        latency_ms: Median time of the golden batch, milliseconds.
    """

    problems: list[str]
    latency_ms: float


def golden_batch(channels: int) -> np.ndarray:
    """The same two images everywhere: float32 (2, C, SIZE, SIZE), standard normal like normalised inputs."""
    return np.random.default_rng(0).standard_normal((2, channels, SIZE, SIZE), dtype=np.float32)


def clean_environment(home: str) -> dict[str, str]:
    """The environment of a process that runs a package's code, with a home of its own."""
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    return {**environment, **_SETTINGS, "HOME": home}


def smoke(uri: str, package: Path, model: nn.Module, spec: ModelSpec) -> Smoke:
    """Loads a package in a clean process and compares its output for the golden batch with `model`'s.

    The process gets `ENVIRONMENT` and an empty home: the package lies here, so it needs no credentials.

    Args:
        uri: What to call the package in messages.
        package: Folder of `verified_package`.
        model: The same model, loaded here, on the CPU.
        spec: Its description.

    Raises:
        GateError: The clean process cannot load or run it at all.
    """
    batch = golden_batch(spec.in_channels)
    with torch.inference_mode():
        expected = model(torch.from_numpy(batch)).numpy()
    with tempfile.TemporaryDirectory(prefix="condswin-smoke-") as temporary:
        golden, output, report = (Path(temporary) / name for name in ("golden.npy", "output.npy", "report.json"))
        np.save(golden, batch, allow_pickle=False)
        command = [sys.executable, "-P", str(_SCRIPT), str(package), str(golden), str(output), str(report)]
        try:
            ended = subprocess.run(
                command,
                env=clean_environment(temporary),
                cwd=temporary,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise GateError(f"{uri}: a clean process did not load and run it within {TIMEOUT} s") from None
        if ended.returncode != 0:
            last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
            raise GateError(
                f"{uri}: a clean process cannot load and run it (exit code {ended.returncode}): {last[:400]}"
            )
        got = np.load(output, allow_pickle=False)
        seen = read_json(report)
    return Smoke(compare_outputs(got, expected, spec, seen), float(seen["latency_ms"]))


def compare_outputs(got: np.ndarray, expected: np.ndarray, spec: ModelSpec, seen: dict[str, object]) -> list[str]:
    """What is wrong with a clean process's output and report."""
    problems = []
    shape = (2, spec.out_channels, SIZE, SIZE)
    if got.shape != shape:
        problems.append(f"smoke test: output has shape {got.shape}, not {shape}")
    elif not np.isfinite(got).all():
        problems.append(f"smoke test: {np.count_nonzero(~np.isfinite(got))} of {got.size} output values are not finite")
    elif not np.allclose(got, expected, rtol=RELATIVE, atol=ABSOLUTE):
        difference = float(np.abs(got - expected).max())
        problems.append(f"smoke test: output of a clean process differs from this one's by up to {difference:.3g}")
    if seen["unpickled"]:
        problems.append(f"smoke test: loading it unpickles {seen['unpickled']}")
    if not seen["own_code"]:
        problems.append("smoke test: it does not run on the code that was logged with it")
    return problems

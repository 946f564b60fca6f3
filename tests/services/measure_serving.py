"""How long `condswin serve` takes for a request, by MLflow's server and by MLServer, with the versions of a registry.

Usage: python -m tests.services.measure_serving [--mlserver PROGRAM] [--side PIXELS] [--requests N] MODEL [MODEL ...]
"""

import argparse
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import requests
import torch

from condswin.config.profiles import compose
from condswin.networks.saving import ModelSpec
from condswin.registry.package import load_registered

CLIENTS = 4


@contextmanager
def served(model: str, *more: str) -> Iterator[str]:
    script = "from condswin.cli import main; main()"
    command = [sys.executable, "-c", script, "serve", model, "--port", "0", *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def example(spec: ModelSpec, side: int) -> np.ndarray:
    """A slice of random numbers; of undersampled k-space, every fourth column is measured."""
    images = np.random.default_rng(0).standard_normal((1, spec.in_channels, side, side), dtype=np.float32)
    if spec.network.startswith("unrolled"):
        images[:, 2] = np.arange(side) % 4 == 0
    return images


def by_mlflow(address: str, name: str, images: np.ndarray) -> np.ndarray:
    answer = requests.post(f"{address}/invocations", json={"inputs": images.tolist()}, timeout=600)
    return np.asarray(answer.json()["predictions"], np.float32)


def by_mlserver(address: str, name: str, images: np.ndarray) -> np.ndarray:
    given = {"name": "images", "shape": images.shape, "datatype": "FP32", "data": images.ravel().tolist()}
    answer = requests.post(f"{address}/v2/models/{name}/infer", json={"inputs": [given]}, timeout=600)
    (output,) = answer.json()["outputs"]
    return np.reshape(np.asarray(output["data"], np.float32), output["shape"])


def measure(ask: Callable[[], np.ndarray], expected: np.ndarray, count: int) -> str:
    difference = float(np.abs(ask() - expected).max())  # the first one warms up, and is not counted
    times = []
    for _ in range(count):
        started = time.perf_counter()
        ask()
        times.append(1000 * (time.perf_counter() - started))
    started = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda _: ask(), range(count)))
    rate = count / (time.perf_counter() - started)
    low, high = np.percentile(times, [5, 95])
    return f"{statistics.median(times):.0f} ({low:.0f} to {high:.0f}) | {rate:.1f} | {difference:.1g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL", help="models:/NAME@ALIAS or models:/NAME/VERSION")
    parser.add_argument("--mlserver", type=Path, help="program of an MLServer; without it, only MLflow's server")
    parser.add_argument("--side", type=int, default=128, help="pixels")
    parser.add_argument("--requests", type=int, default=30)
    given = parser.parse_args()
    config = compose(["demo"])
    print(f"One slice of {given.side} x {given.side} a request as JSON, {given.requests} requests.\n")
    print(f"| network | server | ms, median (5 to 95 %) | requests/s, {CLIENTS} clients | largest difference |")
    print("|---|---|---|---|---|")
    for uri in given.models:
        model, spec = load_registered(uri, config)
        images = example(spec, given.side)
        with torch.inference_mode():
            expected = model(torch.from_numpy(images)).numpy()
        name = uri.removeprefix("models:/").replace("@", "/").split("/")[0]
        ways = [("MLflow", by_mlflow, ())]
        if given.mlserver:
            ways.append(("MLServer, V2", by_mlserver, ("--mlserver", str(given.mlserver))))
        for title, ask, more in ways:
            with served(uri, *more) as address:
                told = measure(lambda: ask(address, name, images), expected, given.requests)  # noqa: B023
            print(f"| {spec.task} {spec.variant} | {title} | {told} |", flush=True)


if __name__ == "__main__":
    main()

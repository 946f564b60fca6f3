"""Speed and memory of the CT steps on volumes of LiTS's size.

    python -m tests.ct.bench [prepare] [predict] [evaluate]

Each figure is the median of interleaved repetitions, each in a fresh process.
"""

import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch

from condswin.config.profiles import compose
from condswin.config.root import Config
from condswin.ct.predict import predict_case
from condswin.manifest import CaseRecord, FileRecord, Manifest
from condswin.networks.models import create_model
from condswin.steps.prepare import prepare as prepare_step
from tests.whole import Whole

SHAPE = (512, 512, 100)
REPETITIONS = 3
WINDOWS = ((-160.0, 240.0), (-20.0, 200.0))
_AFFINE = np.diag([-0.8, -0.8, 2.5, 1.0])


def write_case(folder: Path, number: int, shape: tuple[int, int, int]) -> None:
    """An ellipsoid of a liver with a hundred tumours in it, in as much noise as a scan has."""
    rng = np.random.default_rng(number)
    axes = np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32) for n in shape], indexing="ij", sparse=True)
    labels = (sum((axis / size) ** 2 for axis, size in zip(axes, (0.5, 0.45, 0.7), strict=True)) < 1).astype(np.uint8)
    for place in rng.choice(np.argwhere(labels[::8, ::8, ::4]) * (8, 8, 4), 100, replace=False):
        size = rng.integers(2, 12)
        x, y, z = place
        labels[max(0, x - size) : x + size, max(0, y - size) : y + size, z : z + 4] *= 2
    np.minimum(labels, 2, out=labels)
    hu = np.where(sum(axis**2 for axis in axes) < 1.4, 20, -1000).astype(np.int16)
    hu[labels == 1], hu[labels == 2] = 110, 60
    hu += rng.normal(0, 15, shape).astype(np.int16)
    for name, array in (("volume", hu), ("segmentation", labels)):
        folder.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, _AFFINE), folder / f"{name}-{number}.nii.gz")


def config(**segmentation: Any) -> Config:
    """The demo's parameters with some of the segmentation section replaced."""
    base = compose(["demo"])
    return base.model_copy(update={"segmentation": base.segmentation.model_copy(update=segmentation)})


def prepare(ingested: Path, out: Path) -> None:
    """prepare-ct of everything in a folder."""
    prepare_step(config(), "segmentation", ingested=ingested, out=out)


def predict(case_file: Path, out: Path, variant: str, window: int) -> None:
    """Segments one prepared volume with fresh weights of the demo's size, on two threads."""
    torch.set_num_threads(2)
    model = create_model(variant, preset="demo", in_channels=2, out_channels=3).eval()
    predict_case(model, case_file, out, windows=WINDOWS, neighbours=0, window=window or None)


def evaluate(targets: Path, predictions: Path) -> None:
    """Scores one volume, reading included."""
    Whole("segmentation", config()).score(targets, predictions)


class Cost(NamedTuple):
    """What work took: seconds on the clock, seconds of all its threads together, peak memory."""

    seconds: float
    cpu: float
    megabytes: float

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s ({self.cpu:.1f} s of CPU), peak {self.megabytes:.0f} MB"


def measured(work: Callable[..., None], arguments: tuple[Any, ...], cores: int) -> Cost:
    """What work takes in this process."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    started, cpu = time.perf_counter(), time.process_time()
    work(*arguments)
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Cost(time.perf_counter() - started, time.process_time() - cpu, megabytes)


def apart(work: Callable[..., None], *arguments: Any, cores: int = 2) -> Cost:
    """The same in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measured, work, arguments, cores).result()


def median(costs: list[Cost]) -> Cost:
    """Each figure's median."""
    return Cost(*(statistics.median(values) for values in zip(*costs, strict=True)))


def ingest(raw: Path, out: Path, cases: int) -> Path:
    """A dataset of as many copies of the same few volumes; their names differ, which is all that prepare-ct sees."""
    records = []
    for number in range(cases):
        files = {}
        for role in ("volume", "segmentation"):
            path = out / "test" / f"{role}-{number}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(raw / f"{role}-{number % 2}.nii.gz", path)
            files[role] = FileRecord.of(out, f"test/{path.name}")
        details = {"shape": list(nib.load(path).shape), "spacing": [1.0, 1.0, 1.0]}
        records.append(CaseRecord(f"volume-{number}", "test", f"patient {number}", files, details))
    Manifest("segmentation", records, {}, []).write(out)
    return out


def bench_prepare(folder: Path) -> None:
    """Cores and memory of prepare-ct."""
    few, many = (ingest(folder / "raw", folder / f"ingested-{count}", count) for count in (2, 8))
    costs: dict[int, list[Cost]] = {1: [], 2: []}
    for repetition in range(REPETITIONS):
        for cores, taken in costs.items():
            taken.append(apart(prepare, few, folder / f"prepared-{cores}-{repetition}", cores=cores))
    one, two = (median(taken) for taken in costs.values())
    print(f"prepare-ct, 2 volumes of {SHAPE}, 1 core: {one}")
    print(f"prepare-ct, 2 volumes of {SHAPE}, 2 cores: {two}; {one.seconds / two.seconds:.2f} times as fast")
    peaks = [apart(prepare, data, folder / f"prepared-{name}") for name, data in (("few", few), ("many", many))]
    print(f"prepare-ct, peak memory: {peaks[0].megabytes:.0f} MB for 2 volumes, {peaks[1].megabytes:.0f} MB for 8")


def bench_predict(folder: Path) -> None:
    """Inference of one volume."""
    prepare(ingest(folder / "raw", folder / "ingested-1", 1), folder / "prepared")
    case_file = folder / "prepared" / "test" / "volume-0.h5"
    for variant in ("swin", "conditional-light"):
        for window in (0, 256):
            taken = apart(predict, case_file, folder / "out.nii.gz", variant, window)
            how = f"windows of {window}" if window else "whole slices"
            print(f"predict {SHAPE} with {variant} (demo preset), {how}: {taken}")


def bench_evaluate(folder: Path) -> None:
    """Scoring of one volume against itself moved by three voxels, with a thousand false voxels all over."""
    for name in ("targets", "predictions"):
        (folder / name).mkdir()
    os.link(folder / "raw" / "segmentation-0.nii.gz", folder / "targets" / "segmentation-0.nii.gz")
    labels = np.roll(np.asarray(nib.load(folder / "targets" / "segmentation-0.nii.gz").dataobj), 3, 0)
    labels[tuple(np.random.default_rng(0).integers(0, SHAPE, (1000, 3)).T)] = 2
    nib.save(nib.Nifti1Image(labels, _AFFINE), folder / "predictions" / "segmentation-0.nii.gz")
    taken = [apart(evaluate, folder / "targets", folder / "predictions") for _ in range(REPETITIONS)]
    print(f"evaluate {SHAPE}: {median(taken)}")


BENCHES = {"prepare": bench_prepare, "predict": bench_predict, "evaluate": bench_evaluate}


def main(names: list[str]) -> None:
    """Runs the named benchmarks, or all."""
    for name in names or BENCHES:
        with tempfile.TemporaryDirectory(prefix="condswin-bench-") as folder:
            for number in range(2):
                write_case(Path(folder, "raw"), number, SHAPE)
            BENCHES[name](Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])

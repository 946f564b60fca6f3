"""Speed and memory of the MRI steps, as ratios to straightforward code, which hold whatever else the machine does.

    python -m tests.mri.bench [--rounds 9]

Each pair is timed in turns and compared by medians. The rivals are what one would write first: correct, per slice,
with numpy, scikit-image's loop, files opened anew for every item.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from condswin.config.profiles import compose
from condswin.errors import BadDataError
from condswin.fourier import ComplexArray
from condswin.manifest import CaseRecord, FileRecord, Manifest
from condswin.mri.config import UndersampleConfig
from condswin.mri.dataset import SliceDataset
from condswin.mri.header import NAMESPACE
from condswin.mri.inputs import normalise
from condswin.mri.masks import draw_mask, name_seed
from condswin.mri.metrics import volume_metrics
from condswin.mri.reading import HEADER, KSPACE
from condswin.mri.undersample import prepare_full, prepare_undersampled, undersample
from condswin.steps.prepare import prepare

T = TypeVar("T")

SETTINGS = UndersampleConfig(mask="random", accelerations=[4], center_fractions=[0.08])
TARGET = "reconstruction_esc"

#: Volumes that are undersampled in one measurement.
VOLUMES = 6


def bench(rounds: int) -> dict[str, float]:
    """Ratios by name: how many times faster than the rival; for `memory`, the peak of 200 volumes over that of 10.

    Args:
        rounds: How often each pair is timed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        knee = _write_volume(folder / "source" / "knee.h5", slices=12, rows=640, columns=368, size=320)
        return {
            "undersample": _undersampling(rounds),
            "undersample files": _undersampling_files(knee, folder, rounds),
            "loader": _loading(knee, folder, rounds),
            "evaluate": _scoring(rounds),
            "memory": _memory(folder),
        }


def _write_volume(path: Path, *, slices: int, rows: int, columns: int, size: int) -> Path:
    kspace = _noise(slices, rows, columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file[KSPACE] = kspace
        file[TARGET] = np.stack([_naive_image(one, size) for one in kspace])
        file[HEADER] = f'<?xml version="1.0"?><ismrmrdHeader xmlns="{NAMESPACE}"/>'.encode()
    return path


def _naive_image(kspace: np.ndarray, size: int) -> np.ndarray:
    image = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace), norm="ortho"))
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return np.abs(image[top : top + size, left : left + size]).astype(np.float32)


def _ratio(rival: Callable[[], Any], ours: Callable[[], Any], rounds: int, *, tolerance: float | None = None) -> float:
    """How many times faster we are; with a tolerance, at equal values.

    Raises:
        RuntimeError: The values are not equal.
    """
    times: dict[Callable[[], Any], list[float]] = {rival: [], ours: []}
    expected, found = rival(), ours()
    if tolerance is not None and not np.allclose(found, expected, rtol=0, atol=tolerance):
        raise RuntimeError(f"what is compared is not the same: {np.abs(np.subtract(found, expected)).max()} apart")
    for _ in range(rounds):
        for action, taken in times.items():
            started = time.perf_counter()
            action()
            taken.append(time.perf_counter() - started)
    return median(times[rival]) / median(times[ours])


def _noise(slices: int, rows: int, columns: int) -> ComplexArray:
    draw = np.random.default_rng(0).standard_normal((slices, rows, columns, 2), dtype=np.float32)
    noise: ComplexArray = draw.view(np.complex64)[..., 0]
    return noise


def _undersampling(rounds: int) -> float:
    """From k-space to masked k-space and image, in memory."""
    kspace = _noise(12, 640, 368)
    mask = draw_mask(SETTINGS, 368, 0).sampled
    # Masked in place, so apart from what the rival reads.
    blocks = np.split(kspace.copy(), len(kspace))

    def rival() -> list[NDArray[np.float32]]:
        masked, images = np.empty_like(kspace), np.empty((len(kspace), 320, 320), np.float32)
        for at, one in enumerate(kspace):
            masked[at] = one * mask
            images[at] = _naive_image(masked[at], 320)
        return np.split(images, len(kspace))

    def ours() -> list[NDArray[np.float32]]:
        return _in_threads(lambda block: undersample(block, mask, (320, 320)), blocks)

    return _ratio(rival, ours, rounds, tolerance=1e-5)


def _undersampling_files(source: Path, folder: Path, rounds: int) -> float:
    """The same from file to file; both check every value read and flush what they wrote to the disk."""

    def rival(out: Path) -> None:
        mask = draw_mask(SETTINGS, 368, name_seed(out.name)).sampled
        with h5py.File(source) as read, h5py.File(out, "w") as write:
            for name in (KSPACE, TARGET):
                if not all(np.isfinite(one).all() for one in read[name]):
                    raise BadDataError(f"{source}: not finite")
            slices, rows, columns = read[KSPACE].shape
            size = read[TARGET].shape[-1]
            kspace = write.create_dataset(KSPACE, (slices, rows, columns), np.complex64)
            image = write.create_dataset("zero_filled", (slices, size, size), np.float32)
            for at in range(slices):
                masked = read[KSPACE][at] * mask
                kspace[at], image[at] = masked, _naive_image(masked, size)
            write[TARGET] = read[TARGET][()]
            write["mask"] = mask
        with out.open("rb") as written:
            os.fsync(written.fileno())

    def outputs(kind: str) -> list[Path]:
        (folder / kind).mkdir(exist_ok=True)
        return [folder / kind / f"{number}.h5" for number in range(VOLUMES)]

    def rivals() -> None:
        for out in outputs("rival"):
            rival(out)

    def ours() -> None:
        _in_threads(lambda out: prepare_undersampled(source, out, SETTINGS), outputs("ours"))

    return _ratio(rivals, ours, rounds)


def _in_threads(action: Callable[[Any], T], items: Sequence[Any]) -> list[T]:
    """As the prepare step does it."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(action, items))


def _loading(source: Path, folder: Path, rounds: int) -> float:
    prepare_full(source, folder / "train" / source.name)
    data = SliceDataset(folder / "train", SETTINGS, training=True)
    path = folder / "train" / source.name

    def rival() -> None:
        for at in range(len(data)):
            with h5py.File(path) as file:
                kspace, target = file[KSPACE][at], file[TARGET][at]
            mask = draw_mask(SETTINGS, kspace.shape[-1], int(torch.randint(2**31, ()))).sampled
            image = _naive_image(kspace * mask, target.shape[-1])
            normalise(torch.from_numpy(image), float(target.max()))

    def ours() -> None:
        for at in range(len(data)):
            data[at]

    return _ratio(rival, ours, rounds)


def _scoring(rounds: int) -> float:
    draw = np.random.default_rng(0)
    target = np.abs(draw.standard_normal((36, 320, 320), dtype=np.float32))
    prediction = target + 0.1 * draw.standard_normal(target.shape, dtype=np.float32)

    def rival() -> list[float]:
        maximum = float(target.max())
        error = np.linalg.norm(target.astype(np.float64) - prediction) ** 2 / np.linalg.norm(target) ** 2
        slices = [structural_similarity(x, y, data_range=maximum) for x, y in zip(target, prediction, strict=True)]
        return [float(error), float(np.mean(slices))]

    def ours() -> list[float]:
        metrics = volume_metrics(target, prediction)
        return [metrics["nmse"], metrics["ssim"]]

    return _ratio(rival, ours, rounds, tolerance=1e-6)


def _memory(folder: Path) -> float:
    """Peak memory of the undersample step, a process of its own, for 200 small volumes and for 10."""
    source = _write_volume(folder / "small.h5", slices=4, rows=128, columns=96, size=64)
    peaks = []
    for volumes in (10, 200):
        ingested = folder / f"{volumes}-volumes"
        (ingested / "test").mkdir(parents=True)
        names = [f"file{number}" for number in range(volumes)]
        for name in names:
            (ingested / "test" / f"{name}.h5").hardlink_to(source)
        files = [{"kspace": FileRecord.of(ingested, f"test/{name}.h5")} for name in names]
        details = {"shape": [4, 128, 96], "target_shape": [4, 64, 64]}
        cases = [CaseRecord(name, "test", name, file, details) for name, file in zip(names, files, strict=True)]
        Manifest("reconstruction", cases, {}, []).write(ingested)
        # Spawned: a forked process begins with its parent's peak.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peaks.append(pool.apply(_peak_of_preparing, (ingested, folder / f"{volumes}-prepared")))
    return peaks[1] / peaks[0]


def _peak_of_preparing(ingested: Path, out: Path) -> int:
    """Prepares and gives this process's highest resident memory, KiB."""
    prepare(compose(["demo"]), "reconstruction", ingested=ingested, out=out)
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


def main() -> None:
    """Prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="how often each pair is timed, in turns")
    for name, ratio in bench(parser.parse_args().rounds).items():
        print(f"{name:18} {ratio:5.2f}x")


if __name__ == "__main__":
    main()

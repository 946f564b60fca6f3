"""Benchmark of the MRI road against straightforward code, in ratios that hold whatever else the machine does.

Each pair is timed in turns and compared by medians. The rivals are what one would write first: correct, per slice,
with numpy, scikit-image's loop, files opened anew for every item.
"""

import resource
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from statistics import median

import h5py
import numpy as np
import torch

from condswin.config import UndersampleConfig
from condswin.errors import BadDataError
from condswin.mri.dataset import SliceDataset, normalise
from condswin.mri.header import NAMESPACE
from condswin.mri.masks import draw_mask, name_seed
from condswin.mri.metrics import volume_metrics
from condswin.mri.reading import HEADER, KSPACE
from condswin.mri.undersample import prepare_full, prepare_undersampled

SETTINGS = UndersampleConfig(mask="random", accelerations=[4], center_fractions=[0.08])
TARGET = "reconstruction_esc"


def bench_mri(rounds: int) -> dict[str, float]:
    """Ratios by name: how many times faster than the rival; for `memory`, the peak of 200 volumes over that of 10.

    Args:
        rounds: How often each pair is timed.

    Raises:
        BadDataError: scikit-image, the rival in scoring, is not installed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        knee = _write_volume(folder / "source" / "knee.h5", slices=12, rows=640, columns=368, size=320)
        return {
            "undersample": _undersampling(knee, folder, rounds),
            "loader": _loading(knee, folder, rounds),
            "evaluate": _scoring(rounds),
            "memory": _memory(folder),
        }


def _write_volume(path: Path, *, slices: int, rows: int, columns: int, size: int) -> Path:
    draw = np.random.default_rng(0)
    kspace = draw.standard_normal((slices, rows, columns, 2), dtype=np.float32).view(np.complex64)[..., 0]
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


def _ratio(rival: Callable[[], object], ours: Callable[[], object], rounds: int) -> float:
    times: dict[Callable[[], object], list[float]] = {rival: [], ours: []}
    for action in (rival, ours):
        action()
    for _ in range(rounds):
        for action, taken in times.items():
            started = time.perf_counter()
            action()
            taken.append(time.perf_counter() - started)
    return median(times[rival]) / median(times[ours])


def _undersampling(source: Path, folder: Path, rounds: int) -> float:
    def rival() -> None:
        mask = draw_mask(SETTINGS, 368, name_seed(source.name)).sampled
        with h5py.File(source) as read, h5py.File(folder / "rival.h5", "w") as write:
            # As our step does, the source is checked to its last value first.
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

    return _ratio(rival, lambda: prepare_undersampled(source, folder / "ours" / source.name, SETTINGS), rounds)


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
    try:
        from skimage.metrics import structural_similarity
    except ImportError:
        raise BadDataError("scikit-image is what scoring is compared with: pip install scikit-image") from None
    draw = np.random.default_rng(0)
    target = np.abs(draw.standard_normal((36, 320, 320), dtype=np.float32))
    prediction = target + 0.1 * draw.standard_normal(target.shape, dtype=np.float32)

    def rival() -> float:
        maximum = float(target.max())
        error = np.linalg.norm(target.astype(np.float64) - prediction) ** 2 / np.linalg.norm(target) ** 2
        return float(error) + float(
            np.mean([structural_similarity(x, y, data_range=maximum) for x, y in zip(target, prediction, strict=True)])
        )

    return _ratio(rival, lambda: volume_metrics(target, prediction), rounds)


def _memory(folder: Path) -> float:
    """Peak of Python's and numpy's allocations while so many small volumes are undersampled one after the other."""
    source = _write_volume(folder / "source" / "small.h5", slices=4, rows=128, columns=96, size=64)

    def peak(volumes: int) -> int:
        tracemalloc.start()
        for number in range(volumes):
            prepare_undersampled(source, folder / "many" / f"{number % 3}.h5", SETTINGS)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(3)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    few, many = peak(10), peak(200)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return max(many / few, after / before)

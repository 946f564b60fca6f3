"""Scans of kinds that training never draws, and what zero-filling, compressed sensing and a network make of them.

    python -m tests.mri.stress --model models/reconstruction/unrolled-swin [--volumes 4] [--seed 7]

Kinds change one thing of the demo's scans, the object, the physics or the mask; the last changes most things at once.
No network is trained on these scans, and none should be chosen by them with the seed that is reported.
"""

import argparse
import math
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from numpy.random import Generator
from skimage import data
from skimage.transform import resize
from torch import nn

from condswin.config.profiles import compose
from condswin.fourier import crop_start, fft2c, ifft2c
from condswin.mri.compressed_sensing import reconstruct_volume
from condswin.mri.config import UndersampleConfig
from condswin.mri.demo.anatomy import Contrast, draw_contrast, paint_anatomy
from condswin.mri.demo.phantom import Canvas, Field
from condswin.mri.metrics import psnr
from condswin.mri.prediction import ReconstructionPrediction
from condswin.mri.reading import KSPACE, METHOD, NETWORK, PREDICTION, ZERO_FILLED, VolumeReader
from condswin.mri.undersample import prepare_undersampled
from condswin.networks.saving import load_model

#: The masks of the profile `demo`.
MASKS = UndersampleConfig(mask="equispaced_fraction", accelerations=[4], center_fractions=[0.08])
SLICES = 4
#: Of the total variation: what `condswin baseline` chooses on the demo's validation cases.
WEIGHT = 0.003

#: Those that scikit-image brings along.
PHOTOGRAPHS = [
    *("astronaut", "brick", "camera", "cat", "cell", "coins"),
    *("grass", "gravel", "horse", "moon", "page", "text"),
]


def anatomy(canvas: Canvas) -> Field:
    """The demo's."""
    paint_anatomy(canvas, draw_contrast(canvas.generator, fat_suppressed=bool(canvas.generator.random() < 0.5)))
    return canvas.image


def other_contrast(canvas: Canvas) -> Field:
    """Anatomy with signals of no sequence of the demo: bright fluid, dark fat, or all tissues inverted."""
    draw = canvas.generator
    values = np.array([draw.uniform(0.02, 0.3), 0.1, 0.2, 0.02, 0.5, draw.uniform(1.5, 3), 0.05, 0.6, 0.45])
    if draw.random() < 0.5:
        values = 1.1 - np.array(draw_contrast(draw, fat_suppressed=False))
    paint_anatomy(canvas, Contrast(*(float(value) for value in np.clip(values, 0.02, None))))
    return canvas.image


def flat_phantom(canvas: Canvas) -> Field:
    """A disc or box of uniform signal with uniform inserts, and nothing else."""
    draw, u, v = canvas.generator, canvas._u, canvas._v[:, None]
    box = draw.random() < 0.3
    radius = draw.uniform(0.3, 0.46)
    image = np.zeros_like(canvas.image)
    image += (np.maximum(np.abs(u), np.abs(v)) if box else np.hypot(u, v)) < radius
    image *= draw.uniform(0.3, 1)
    for _ in range(int(draw.integers(2, 9))):
        x, y = draw.uniform(-0.6, 0.6, 2) * radius
        a, b = draw.uniform(0.03, 0.5, 2) * radius
        angle = draw.uniform(0, math.pi)
        across = (u - x) * math.cos(angle) + (v - y) * math.sin(angle)
        along = (v - y) * math.cos(angle) - (u - x) * math.sin(angle)
        image[:, (across / a) ** 2 + (along / b) ** 2 < 1] = draw.uniform(0, 1)
    return image


def resolution_phantom(canvas: Canvas) -> Field:
    """A disc with bars and holes in rows, down to single pixels."""
    draw, u, v = canvas.generator, canvas._u, canvas._v[:, None]
    image = np.zeros_like(canvas.image)
    image += np.hypot(u, v) < 0.45
    for place in range(6):
        x, y = 0.26 * math.cos(place * math.pi / 3), 0.26 * math.sin(place * math.pi / 3)
        near = np.maximum(np.abs(u - x), np.abs(v - y)) < 0.09
        period = draw.uniform(2, 9) / canvas.size
        across, along = np.sin(2 * np.pi * u / period) > 0, np.sin(2 * np.pi * v / period) > 0
        image[:, near & ((along if place % 3 else across) if place % 2 else across & along)] = draw.uniform(0, 0.3)
    return image


def photograph(canvas: Canvas) -> Field:
    """A photograph in the middle of nothing."""
    draw = canvas.generator
    picture = np.asarray(getattr(data, str(draw.choice(PHOTOGRAPHS)))(), np.float32)
    picture = picture.mean(axis=-1) if picture.ndim == 3 else picture
    side = int(0.85 * canvas.size)
    picture = resize(picture[: min(picture.shape), : min(picture.shape)], (side, side), anti_aliasing=True)
    top, left = (canvas.image.shape[1] - side) // 2, (canvas.image.shape[2] - side) // 2
    canvas.image[:, top : top + side, left : left + side] = (picture - picture.min()) / np.ptp(picture)
    return canvas.image


def demo_phase(canvas: Canvas) -> Field:
    """Smooth with a rougher part, as the demo's."""
    draw = canvas.generator
    return draw.uniform(0.3, 1.0) * canvas.texture(5.0, coherence=0.5) + draw.uniform(0.02, 0.12) * canvas.texture(3.0)


def rough_phase(canvas: Canvas) -> Field:
    """Ten times as rough as the demo's."""
    draw = canvas.generator
    return draw.uniform(0.3, 1.0) * canvas.texture(5.0, coherence=0.5) + draw.uniform(0.2, 1.2) * canvas.texture(3.0)


def strong_phase(canvas: Canvas) -> Field:
    """Several turns of smooth phase, and an echo that is some columns off the middle of k-space."""
    draw = canvas.generator
    ramp = 2 * np.pi * draw.uniform(-2.5, 2.5) * canvas._u
    return draw.uniform(2, 5) * canvas.texture(5.0, coherence=0.5) + ramp.astype(np.float32)


def opposed_phase(canvas: Canvas) -> Field:
    """Jumps by half a turn from tissue to tissue, as of fat and water in gradient echoes, or inversion recovery."""
    level = canvas.texture(3.0)
    edges = np.quantile(canvas.image[canvas.image > 0.03 * canvas.image.max()], canvas.generator.uniform(0.3, 0.7))
    return 0.5 * level + np.pi * (canvas.image > edges)


def even_coil(canvas: Canvas) -> Field:
    """The demo's: smooth, falling off along the readout."""
    draw = canvas.generator
    fall = np.exp(-0.5 * ((canvas.v - draw.uniform(-0.1, 0.1)) / draw.uniform(0.5, 0.75)) ** 2)
    return fall * np.exp(draw.uniform(0.1, 0.35) * canvas.texture(5.0, coherence=0.3))


def surface_coil(canvas: Canvas) -> Field:
    """At one side: ten to thirty times as bright there as at the other."""
    draw = canvas.generator
    angle = draw.uniform(0, 2 * np.pi)
    return np.exp(draw.uniform(2.3, 3.4) * (canvas.u * np.cos(angle) + canvas.v * np.sin(angle)))


@dataclass(frozen=True)
class Kind:
    """How scans of a kind are made.

    Attributes:
        paint: Draws the object, (slices, rows, columns), on an empty canvas.
        phase: Of the image, radians.
        coil: Its sensitivity.
        snr: Range of the ratio of bright tissue to the noise's deviation.
        edge: Range of what is left of the signal at the edge of k-space.
        size: Rows and columns of the target.
        oversampled: K-space has more rows and columns than the target, as scanners' has.
        missing: Range of the share of columns that were not measured on one side.
        masks: Of the undersampling.
    """

    paint: Callable[[Canvas], Field] = anatomy
    phase: Callable[[Canvas], Field] = demo_phase
    coil: Callable[[Canvas], Field] = even_coil
    snr: tuple[float, float] = (60, 250)
    edge: tuple[float, float] = (0.002, 0.03)
    size: int = 96
    oversampled: bool = True
    missing: tuple[float, float] = (0, 0)
    masks: UndersampleConfig = field(default=MASKS)


def _masks(kind: str, acceleration: int, center: float, offset: int | None = None) -> UndersampleConfig:
    return UndersampleConfig.model_validate(
        {"mask": kind, "accelerations": [acceleration], "center_fractions": [center], "offset": offset}
    )


KINDS = {
    "as in training": Kind(),
    "flat phantom": Kind(paint=flat_phantom),
    "resolution phantom": Kind(paint=resolution_phantom),
    "photograph": Kind(paint=photograph),
    "other contrast": Kind(paint=other_contrast),
    "noise": Kind(snr=(6, 20)),
    "rough phase": Kind(phase=rough_phase),
    "strong phase": Kind(phase=strong_phase),
    "opposed phase": Kind(phase=opposed_phase),
    "surface coil": Kind(coil=surface_coil, snr=(20, 60)),
    "low resolution": Kind(size=48, edge=(0.2, 0.5)),
    "sharp": Kind(edge=(0.3, 1.0)),
    "odd size, no margin": Kind(size=81, oversampled=False),
    "partial Fourier": Kind(missing=(0.15, 0.3)),
    "3x": Kind(masks=_masks("equispaced_fraction", 3, 0.1)),
    "6x, narrow centre": Kind(masks=_masks("equispaced_fraction", 6, 0.06)),
    "first line": Kind(masks=_masks("equispaced", 4, 0.08, 0)),
    "random lines": Kind(masks=_masks("random", 4, 0.08)),
    "as a scanner's": Kind(phase=rough_phase, coil=surface_coil, snr=(15, 40), edge=(0.1, 0.5), missing=(0.0, 0.2)),
}


def write_scan(path: Path, kind: Kind, draw: Generator) -> None:
    """Writes a fully sampled scan in fastMRI's layout."""
    size = kind.size
    rows = 2 * size if kind.oversampled else size
    width = int(draw.integers(int(1.12 * size), int(1.45 * size))) if kind.oversampled else size
    canvas = Canvas(draw, SLICES, (rows, width), size)
    image = kind.paint(canvas)
    canvas.image = image
    bright = float(np.quantile(image, 0.995))
    image = image * kind.coil(canvas) * np.exp(1j * kind.phase(canvas))
    kspace = fft2c(image.astype(np.complex64))
    falling = [np.linspace(-1, 1, length, dtype=np.float32) ** 2 for length in (rows, width)]
    kspace *= np.float32(draw.uniform(*kind.edge)) ** (falling[0][:, None] + falling[1])
    noise = draw.standard_normal((*kspace.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    kspace += noise * np.float32(bright / math.sqrt(2) / draw.uniform(*kind.snr))
    missing = int(draw.uniform(*kind.missing) * width)
    if missing:
        kspace[..., slice(missing) if draw.random() < 0.5 else slice(width - missing, width)] = 0
    top, left = crop_start(rows, size), crop_start(width, size)
    target = np.abs(ifft2c(kspace)[..., top : top + size, left : left + size]).astype(np.float32)
    with h5py.File(path, "w") as file:
        file[KSPACE] = kspace
        file["reconstruction_esc"] = target
        file.attrs["max"] = float(target.max())


class Result(NamedTuple):
    """PSNR (dB) of a volume by method, and which of them the network was set aside for, if it was."""

    zero_filled: float
    sensed: float
    network: float
    delivered: float
    method: str


def reconstruct(network: nn.Module, kind: Kind, seed: tuple[int, ...], scratch: Path) -> Result:
    """Makes a scan of a kind and reconstructs it by all methods, as `undersample`, `baseline` and `evaluate` do."""
    source, prepared = scratch / "source.h5", scratch / f"scan{'-'.join(map(str, seed))}.h5"
    write_scan(source, kind, np.random.default_rng(seed))
    prepare_undersampled(source, prepared, kind.masks)
    with VolumeReader(prepared) as reader:
        target, zero_filled = reader.read("reconstruction_esc"), reader.read(ZERO_FILLED)

    def predicted(fallback: str) -> tuple[float, str]:
        config = compose(["demo"], [f"reconstruction.predict.fallback={fallback}"])
        ReconstructionPrediction(config).predict(network, prepared, scratch / "out.h5")
        with VolumeReader(scratch / "out.h5") as reader:
            return psnr(target, reader.read(PREDICTION)), str(reader.attribute(METHOD))

    delivered, method = predicted("held-out")
    alone = delivered if method == NETWORK else predicted("none")[0]
    sensed = psnr(target, reconstruct_volume(prepared, WEIGHT))
    return Result(psnr(target, zero_filled), sensed, alone, delivered, method)


def line(name: str, results: list[Result]) -> str:
    """A row of the table."""
    zero, sensed, alone, delivered = np.array([result[:4] for result in results]).T
    aside = sum(result.method != NETWORK for result in results)
    cells = [name, f"{len(results)}", f"{zero.mean():.2f}", f"{(sensed - zero).mean():+.2f}"]
    for found in (alone, delivered):
        below = f"{(found < zero).sum()}, {(found < sensed).sum()}"
        cells += [f"{(found - zero).mean():+.2f} ± {(found - zero).std():.2f}", below, f"{(found - sensed).min():+.2f}"]
    return f"| {' | '.join([*cells, str(aside)])} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a trained unrolled network")
    parser.add_argument("--volumes", type=int, default=4, help="of each kind")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    arguments = parser.parse_args()
    network, _ = load_model(arguments.model)
    columns = (
        "kind, volumes, zero-filled, compressed sensing, network, below, worst, with fallback, below, worst, replaced"
    )
    print(f"| {columns.replace(', ', ' | ')} |\n|---|{'---:|' * 10}")
    rest: list[Result] = []
    for name in arguments.kinds:
        with tempfile.TemporaryDirectory() as scratch:
            seeds = [(arguments.seed, zlib.crc32(name.encode()), number) for number in range(arguments.volumes)]
            results = [reconstruct(network, KINDS[name], seed, Path(scratch)) for seed in seeds]
        print(line(name, results), flush=True)
        rest += results if name != "as in training" else []
    print(line("all but the first", rest))


if __name__ == "__main__":
    main()

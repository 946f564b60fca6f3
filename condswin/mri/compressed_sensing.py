"""Compressed sensing: total-variation reconstruction, the reference method that a network has to beat.

Minimises `|M F x - y|^2 / 2 + weight * TV(x)` over complex images x, with the isotropic total variation; the model is
that of Lustig et al. (2007, "Sparse MRI"). Undersampling acts on columns alone, so the readout is transformed and
cropped once and every step needs one-dimensional transforms only.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from condswin.errors import BadFileError
from condswin.files import atomic_file
from condswin.fourier import ComplexArray, FloatArray, crop_start, ifftc, readout_hybrid
from condswin.mri.metrics import psnr
from condswin.mri.prepared import read_mask, read_zero_filled
from condswin.mri.reading import KSPACE, MASK, PREDICTION, VolumeReader
from condswin.networks.total_variation import minimise

#: Weights of the total variation to choose from, relative to the largest zero-filled magnitude of a volume.
WEIGHTS = (0.0003, 0.001, 0.003, 0.01, 0.03)

#: Steps of the algorithm; more change the scores in the third decimal only.
STEPS = 60

#: Slices of a volume that a weight is judged by.
TUNING_SLICES = 3


def total_variation(
    kspace: ComplexArray, size: tuple[int, int], sampled: NDArray[np.bool_], weight: float, *, scale: float
) -> FloatArray:
    """Magnitude images of undersampled k-space.

    Args:
        kspace: (slices, H, W), complex64; only sampled columns are looked at.
        size: Rows and columns of the images, centre-cropped.
        sampled: (W,), the measured columns.
        weight: Of the total variation, for images whose largest magnitude is about one.
        scale: Largest zero-filled magnitude of the volume; k-space is divided by it.

    Returns:
        (slices, *size), float32, in the units of the input.
    """
    rows, columns = size
    left = crop_start(kspace.shape[-1], columns)

    def magnitude(one: ComplexArray) -> FloatArray:
        image = solve(one / np.float32(scale), rows, sampled, weight)
        return np.abs(image[:, left : left + columns]) * np.float32(scale)

    return np.stack([magnitude(one) for one in kspace])


def reconstruct_volume(path: Path, weight: float) -> FloatArray:
    """Total-variation images (slices, H, W) of a prepared, undersampled file with a target or zero-filled image.

    Args:
        path: The file.
        weight: As in `total_variation`.

    Raises:
        BadFileError: The file is unusable or not undersampled.
    """
    with VolumeReader(path) as reader:
        measured = _read(reader)
    return measured.reconstruct(weight)


def tune(paths: Sequence[Path], weights: Sequence[float] = WEIGHTS) -> dict[float, float]:
    """Mean PSNR (dB) by weight over the middle slices of prepared files with targets: validation files, not test ones.

    Raises:
        BadFileError: A file is unusable.
    """
    scores: dict[float, list[float]] = {weight: [] for weight in weights}
    for path in paths:
        with VolumeReader(path) as reader:
            name = reader.target_name()
            if name is None:
                raise BadFileError(path, "has no target image to tune with")
            first = max(reader.shape(name)[0] - TUNING_SLICES, 0) // 2
            target = reader.read(name, first, first + TUNING_SLICES)
            measured = _read(reader, first, first + TUNING_SLICES)
        for weight in weights:
            scores[weight].append(psnr(target, measured.reconstruct(weight)))
    return {weight: float(np.mean(values)) for weight, values in scores.items()}


class _Measured(NamedTuple):
    """Slices of a prepared file; see `total_variation`."""

    kspace: ComplexArray
    size: tuple[int, int]
    sampled: NDArray[np.bool_]
    scale: float

    def reconstruct(self, weight: float) -> FloatArray:
        return total_variation(self.kspace, self.size, self.sampled, weight, scale=self.scale)


def _read(reader: VolumeReader, start: int = 0, stop: int | None = None) -> _Measured:
    zero_filled = read_zero_filled(reader)
    if zero_filled is None or MASK not in reader:
        raise BadFileError(reader.path, "has no mask or no target: it was not made by `condswin undersample`")
    _, rows, columns = zero_filled.shape
    scale = float(zero_filled.max()) or 1.0
    return _Measured(reader.read(KSPACE, start, stop), (rows, columns), read_mask(reader), scale)


def solve(kspace: ComplexArray, rows: int, sampled: NDArray[np.bool_], weight: float) -> ComplexArray:
    """The minimiser (rows, W), complex, for one slice of k-space (H, W): all columns, rows cropped to the middle."""
    measured = np.zeros((rows, kspace.shape[-1]), np.complex64)
    measured[:, sampled] = readout_hybrid(kspace[:, sampled], rows)
    columns = torch.from_numpy(np.fft.ifftshift(sampled)).to(torch.float32)
    image: ComplexArray = minimise(torch.from_numpy(ifftc(measured))[None], columns[None, None], weight, steps=STEPS)[
        0
    ].numpy()
    return image


def write_reconstruction(file: Path, out: Path, weight: float) -> None:
    """Writes a prepared file's reconstruction as predictions of networks are written, atomically."""
    images = reconstruct_volume(file, weight)
    with atomic_file(out) as temporary, h5py.File(temporary, "w") as written:
        written[PREDICTION] = images

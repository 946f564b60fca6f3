"""What networks take of a scan, and the magnitudes of what they give."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from condswin.fourier import (
    crop_start,
    hybrid_image,
    magnitude_image,
    readout_hybrid,
)
from condswin.mri.coils import Multicoil, open_volume
from condswin.mri.config import UndersampleConfig
from condswin.mri.masks import draw_mask, name_seed
from condswin.mri.prepared import image_size, read_extent, read_mask
from condswin.mri.reading import KSPACE, MASK, ZERO_FILLED, VolumeReader, checked_blocks, kspace_shape
from condswin.mri.volumes import around

#: Network inputs are clamped to this many standard deviations, as in fastMRI.
CLAMP = 6.0

# Standard deviations below this share of the volume's maximum belong to empty slices, which would be blown up by them.
_STD_FLOOR = 1e-4


class Normalised(NamedTuple):
    """Network inputs and what undoes their scaling: `output * std + mean`.

    Attributes:
        image: (..., H, W), zero mean and unit standard deviation per slice, clamped.
        mean: (...), per slice, of the zero-filled magnitude.
        std: (...), per slice.
    """

    image: Tensor
    mean: Tensor
    std: Tensor


def normalise(zero_filled: Tensor, maximum: Tensor | float) -> Normalised:
    """Z-scores zero-filled magnitudes (..., H, W) slice by slice.

    Args:
        zero_filled: Magnitudes in any units; the result does not depend on them.
        maximum: Largest value of the volume, or of each slice's (...), which sets the floor of the deviation of empty
            slices.
    """
    std, mean = torch.std_mean(zero_filled, dim=(-2, -1), correction=0)
    floor = _STD_FLOOR * torch.as_tensor(maximum, dtype=torch.float64, device=std.device)
    std = torch.maximum(std, torch.where(floor > 0, floor, 1.0).to(std.dtype))
    image = ((zero_filled - mean[..., None, None]) / std[..., None, None]).clamp(-CLAMP, CLAMP)
    return Normalised(image, mean, std)


def zero_filled_volume(path: Path, undersample: UndersampleConfig, multicoil: Multicoil = "refuse") -> Tensor:
    """Zero-filled magnitudes (slices, H, W) of a prepared file, float32.

    Read if the file has them; else computed, of the size of the target or, without one, of the header's reconstructed
    matrix. A fully sampled file is masked first, seeded by its name.

    Raises:
        BadFileError: The file is unusable.
    """
    with open_volume(path, multicoil) as reader:
        if ZERO_FILLED in reader:
            return torch.from_numpy(reader.read(ZERO_FILLED))
        sampled, size = _sampled(reader, undersample), image_size(reader)
        blocks = [magnitude_image(block, size, sampled) for _, block in checked_blocks(reader, KSPACE)]
    return torch.from_numpy(np.concatenate(blocks))


class ComplexInputs(NamedTuple):
    """What an unrolled network sees of a volume, and what undoes its scaling: `|output| * std`, cropped to `columns`.

    Attributes:
        image: (slices, 3, rows, W): real and imaginary part of the zero-filled image, uncropped along columns and
            divided by `std`; the mask of sampled columns; and, as `UnrolledNetwork` takes them, neighbours.
        std: (slices,), of the cropped zero-filled magnitude.
        columns: Columns of the target.
    """

    image: Tensor
    std: Tensor
    columns: int


def complex_inputs(
    hybrid: Tensor, sampled: Tensor, columns: int, maximum: Tensor | None, beside: Sequence[Tensor] = ()
) -> ComplexInputs:
    """Inputs of an unrolled network from masked hybrid space.

    Args:
        hybrid: (slices, rows, W) of `readout_hybrid`, zero in columns that were not sampled.
        sampled: (W,) or (slices, 1, W) booleans.
        columns: Columns of the target.
        maximum: (slices,), largest value of each slice's volume; of these zero-filled images if None.
        beside: Neighbours of each slice, as `hybrid`; they are scaled as the slice is.
    """
    image = hybrid_image(hybrid)
    magnitude = image[..., crop_start(image.shape[-1], columns) :][..., :columns].abs()
    std = normalise(magnitude, magnitude.max() if maximum is None else maximum).std
    scaled = image / std[..., None, None]
    mask = sampled.to(torch.float32).expand(scaled.shape)
    others = [hybrid_image(each) / std[..., None, None] for each in beside]
    parts = [part for other in others for part in (other.real, other.imag)]
    return ComplexInputs(torch.stack([scaled.real, scaled.imag, mask, *parts], dim=-3), std, columns)


def complex_volume(
    path: Path, undersample: UndersampleConfig, multicoil: Multicoil = "refuse", neighbours: int = 0
) -> ComplexInputs:
    """Inputs of an unrolled network for all slices of a file; masks and sizes as in `zero_filled_volume`.

    Its mask leaves out columns that the scan did not go over. `neighbours` are the network's.

    Raises:
        BadFileError: The file is unusable.
    """
    with open_volume(path, multicoil) as reader:
        sampled, (rows, columns) = _sampled(reader, undersample), image_size(reader)
        sampled = read_extent(reader, sampled if MASK in reader else None).within(sampled)
        hybrid = np.concatenate([readout_hybrid(block, rows) for _, block in checked_blocks(reader, KSPACE)])
    masked = torch.from_numpy(hybrid * sampled)
    beside = [masked[places] for places in around(len(masked), neighbours)]
    return complex_inputs(masked, torch.from_numpy(sampled), columns, None, beside)


def _sampled(reader: VolumeReader, undersample: UndersampleConfig) -> NDArray[np.bool_]:
    if MASK in reader:
        return read_mask(reader)
    return draw_mask(undersample, kspace_shape(reader)[-1], name_seed(reader.path.name)).sampled


def magnitude(output: Tensor, columns: int) -> Tensor:
    """Magnitudes (B, 1, H, columns), float32, of a network's output: itself, or of complex images (B, 2, H, W)."""
    output = output.float()
    if output.shape[1] == 1:
        return output
    magnitude: Tensor = torch.linalg.vector_norm(output, dim=1, keepdim=True)
    return magnitude.narrow(-1, crop_start(magnitude.shape[-1], columns), columns)

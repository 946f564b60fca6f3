"""Random changes of training slices, drawn from torch's generator so that one seed repeats a training run."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

#: HU outside the body, below every window.
AIR = -1024.0

_FLIP = 0.1  # probability per axis; patients lie the same way round in the canonical frame, so mostly not
_AFFINE = 0.7  # probability
_ROTATION = math.radians(15)
_SCALE = 0.2
_SHIFT = 0.05  # of the slice's size
_PLACE = 0.25  # of half a slice: tables stand at any height, and patients lie beside the middle of the view
_INTENSITY = 0.4  # probability of each kind below
_CONTRAST = 0.25  # of the distance from _MIDDLE
_MIDDLE = 60.0  # HU between soft tissues
_BRIGHTNESS = 25.0  # HU
_SHADING = 15.0  # HU, over distances of a third of a slice
_NOISE = 20.0  # HU, standard deviation
_BLUR = 1.0  # pixels, standard deviation


def augment(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Flips, rotates, scales, shifts, re-tints, shades, blurs and roughens a slice.

    The kinds are nnU-Net's (Isensee et al. 2021, supplementary note 4), and shading, as beam hardening and scatter
    leave it. Written on torch instead of MONAI's dictionary transforms: those took 21 ms for a 128x128 slice where
    this takes 1 ms (both on one busy core), and draw from NumPy states of their own, which torch's seed does not reach.

    Args:
        image: (C, H, W) in HU; all channels change alike.
        label: (H, W), integer.

    Returns:
        Both, changed in the same way; air and background come in where the slice is moved.
    """
    for axis in (-1, -2):
        if _chance(_FLIP):
            image, label = image.flip(axis), label.flip(axis)
    if _chance(_AFFINE):
        image, label = _move(image, label)
    if _chance(_INTENSITY):
        image = (image - _MIDDLE) * (1 + _between(_CONTRAST)) + _MIDDLE
    if _chance(_INTENSITY):
        image = image + _between(_BRIGHTNESS)
    if _chance(_INTENSITY):
        image = image + _shading(image)
    if _chance(_INTENSITY):
        image = _blurred(image, _BLUR * float(torch.rand(())))
    if _chance(_INTENSITY):
        image = image + torch.randn_like(image) * (torch.rand(()) * _NOISE)
    return image, label


def misplace(position: Tensor) -> Tensor:
    """Moves what says where pixels are (2, H, W), so that it is believed as far as scanners' views allow."""
    return position + torch.tensor([_between(_PLACE), _between(_PLACE)])[:, None, None]


def _shading(image: Tensor) -> Tensor:
    coarse = torch.randn(1, 1, 3, 3) * (torch.rand(()) * _SHADING)
    return F.interpolate(coarse, size=image.shape[-2:], mode="bicubic", align_corners=True)[0]


def _blurred(image: Tensor, deviation: float) -> Tensor:
    steps = torch.arange(-2.0, 3.0)
    kernel = torch.exp(-(steps**2) / (2 * max(deviation, 1e-3) ** 2))
    kernel = kernel / kernel.sum()
    padded = F.pad(image[:, None], (2, 2, 2, 2), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, 5)), kernel.view(1, 1, 5, 1))[:, 0]


def _move(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    height, width = label.shape
    angle, scale = _between(_ROTATION), 1 + _between(_SCALE)
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    # grid_sample's coordinates run from -1 to 1 on both axes: the aspect keeps a rotation of non-square slices rigid.
    aspect = height / width
    matrix = torch.tensor([[cos, -sin * aspect, _between(2 * _SHIFT)], [sin / aspect, cos, _between(2 * _SHIFT)]])
    grid = F.affine_grid(matrix[None], [1, 1, height, width], align_corners=False)
    # Padding is zero, and zero must mean air.
    image = F.grid_sample(image[None] - AIR, grid, mode="bilinear", align_corners=False)[0] + AIR
    moved = F.grid_sample(label[None, None].float(), grid, mode="nearest", align_corners=False)[0, 0]
    return image, moved.to(label.dtype)


def _chance(probability: float) -> bool:
    return bool(torch.rand(()) < probability)


def _between(limit: float) -> float:
    return float(torch.rand(())) * 2 * limit - limit

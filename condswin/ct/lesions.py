"""Synthetic lesions, drawn into the livers of training slices.

Hu et al. 2023 (CVPR, "Label-Free Liver Tumor Segmentation") train on such lesions alone, and find that the softness of
their edges matters most. Here a lesion is an ellipsoid with a wavy outline, darker or brighter than the liver, whose
texture shows through. All draws come from torch's global generator.
"""

import math

import torch
from torch import Tensor

_MOST = 3  # lesions in a slice
_RADIUS = (3.0, 20.0)  # mm, drawn by its logarithm
_SMALLEST = 1.5  # pixels: what is finer than the grid could be drawn but not labelled
_STRETCH = (0.7, 1.3)  # of the radius along each axis
_WAVES = {2: 0.12, 3: 0.08, 5: 0.05}  # largest amplitudes of the outline's waves by their number, of the radius
_EDGE = (0.4, 2.5)  # mm over which the edge falls from 73 to 27 %
_DARK = 0.8  # probability
_CONTRAST = (15.0, 60.0)  # HU


def draw_lesions(image: Tensor, labels: Tensor, spacing: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    """Draws one to three lesions where the middle slice is liver without tumour.

    Args:
        image: (C, H, W) in HU: a slice between its neighbours.
        labels: (C, H, W), integer, of these slices.
        spacing: Of slices, rows and columns, mm.

    Returns:
        Both, changed in all slices that a lesion reaches; as they are where the middle slice shows no liver.
    """
    places = (labels[len(labels) // 2] == 1).nonzero()
    if not len(places):
        return image, labels
    share = torch.zeros(labels.shape)
    for _ in range(int(torch.randint(1, _MOST + 1, ()))):
        centre = places[int(torch.randint(len(places), ()))]
        share = torch.maximum(share, _lesion(labels.shape, centre, spacing))
    # One contrast for all, as metastases of one tumour have: lesions that meet do not cancel.
    contrast = _between(_CONTRAST) * (-1 if torch.rand(()) < _DARK else 1)
    # They end sharply where the liver does.
    share = share * (labels > 0)
    return image + contrast * share, torch.where((share > 0.5) & (labels == 1), 2, labels)


def _lesion(shape: torch.Size, centre: Tensor, spacing: tuple[float, float, float]) -> Tensor:
    """How much of each voxel (C, H, W) is lesion, 0 to 1, of one with its centre near a pixel of the middle slice."""
    smallest = max(_RADIUS[0], _SMALLEST * max(spacing[1:]))
    radius = math.exp(_between((math.log(smallest), math.log(max(_RADIUS[1], smallest)))))
    axes = [radius * _between(_STRETCH) for _ in range(3)]
    # The middle slice cuts it anywhere but near its poles.
    above = _between((-0.5, 0.5)) * axes[0]
    starts = (shape[0] // 2 + above / spacing[0], float(centre[0]), float(centre[1]))
    slices, rows, columns = (
        (torch.arange(count) - start) * step for count, start, step in zip(shape, starts, spacing, strict=True)
    )
    turn = _between((0.0, math.pi))
    x = columns[None, :] * math.cos(turn) + rows[:, None] * math.sin(turn)
    y = rows[:, None] * math.cos(turn) - columns[None, :] * math.sin(turn)
    angle = torch.atan2(y, x)
    outline = 1.0 + sum(
        _between((-most, most)) * torch.cos(number * angle + _between((0.0, 2 * math.pi)))
        for number, most in _WAVES.items()
    )
    plane = ((x / axes[2]) ** 2 + (y / axes[1]) ** 2) / outline**2
    distance = (plane + ((slices / axes[0]) ** 2)[:, None, None]).sqrt()
    return torch.sigmoid((1 - distance) * (radius / _between(_EDGE)))


def _between(limits: tuple[float, float]) -> float:
    low, high = limits
    return low + float(torch.rand(())) * (high - low)

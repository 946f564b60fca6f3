"""Random changes of complex images before they are undersampled: drawn slice by slice, computed a batch at a time.

After Fabian et al. 2021 (arXiv:2106.14947, MRAugment): what is changed is the image of fully sampled k-space, which
then is measured anew, so that k-space, mask and target belong together; and little is changed early in a training.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from condswin.fourier import center_crop, fftc, ifftc
from condswin.mri.config import AugmentMriConfig
from condswin.tasks.slices import PROGRESS, Batch

#: Largest standard deviation of the uneven phase that training adds, radians.
PHASE = 3.0

# How fast the probability rises: to 92 % of its last value in the middle of a training.
_RISE = 5.0


def draw_move(*, movable: bool) -> Batch:
    """What `move` is to do with a slice: `mirrored_columns`; `chances` of its three kinds; `amounts` of what they take.

    Args:
        movable: Whether the slice is fully sampled; what was undersampled with one mask is left as it is.
    """
    columns, chances, amounts = torch.rand(()) < 0.5, torch.rand(3), 2 * torch.rand(4) - 1
    return {"mirrored_columns": columns & movable, "chances": chances if movable else torch.ones(3), "amounts": amounts}


def move(batch: Batch, slices: list[Tensor], target: Tensor, settings: AugmentMriConfig) -> tuple[list[Tensor], Tensor]:
    """Mirrors the columns of images, turns, scales and shifts them.

    Args:
        batch: With what `draw_move` drew, and the training's `PROGRESS`; without that, it counts as at its end.
        slices: Hybrid space (B, rows, W) of a slice and its neighbours, which move alike.
        target: (B, rows, columns), magnitudes; of a slice that moves, the magnitude of the moved image.
        settings: How often and how much.

    Returns:
        Both, changed.
    """
    progress = batch.get(PROGRESS, torch.ones_like(batch["chances"][:, 0]))
    probability = settings.probability * (1 - (-_RISE * progress).exp()) / (1 - math.exp(-_RISE))
    kinds = batch["chances"] < probability[:, None]
    moved, mirrored = kinds.any(1), batch["mirrored_columns"]
    changed = moved | mirrored
    if not bool(changed.any()):
        return slices, target
    grid = _grid(kinds & moved[:, None], batch["amounts"], slices[0].shape, settings)
    images = [where(mirrored, image.flip(-1), image) for image in map(ifftc, slices)]
    images = [where(moved, _looked_up(image, grid), image) for image in images]
    # The middle of an even number of columns does not mirror into itself: the target is cut from the image again.
    seen = center_crop(images[0], (target.shape[-2], target.shape[-1])).abs()
    again = [where(changed, fftc(image), before) for image, before in zip(images, slices, strict=True)]
    return again, where(changed, seen, target)


def uneven_phase(coarse: Tensor, shape: torch.Size) -> Tensor:
    """Complex numbers (B, H, W) of magnitude 1 whose phase (B, 6, 6) has a few waves, up to some `PHASE` radians.

    Scanners and sequences differ in their phase; a network that has seen one kind only takes others for aliases.
    """
    phase = F.interpolate(coarse[:, None], size=tuple(shape), mode="bicubic", align_corners=True)[:, 0]
    return torch.polar(torch.ones_like(phase), phase)


def _grid(kinds: Tensor, amounts: Tensor, shape: torch.Size, settings: AugmentMriConfig) -> Tensor:
    """Where (B, H, W, 2) pixels come from, by kinds (B, 3) and amounts (B, 4) between -1 and 1."""
    height, width = shape[-2:]
    turn, scale, shift = (kinds[:, kind] for kind in range(3))
    angle = math.radians(settings.rotation) * amounts[:, 0] * turn
    size = 1 + settings.scale * amounts[:, 1] * scale
    down, right = (2 * settings.shift * amounts[:, at] * shift for at in (2, 3))
    cos, sin = angle.cos() * size, angle.sin() * size
    # Coordinates run from -1 to 1 on both axes: the aspect keeps a rotation of slices that are not square rigid.
    aspect = height / width
    rows = [torch.stack([cos, -sin * aspect, right], 1), torch.stack([sin / aspect, cos, down], 1)]
    return F.affine_grid(torch.stack(rows, 1), [len(kinds), 1, height, width], align_corners=False)


def _looked_up(image: Tensor, grid: Tensor) -> Tensor:
    parts = torch.stack([image.real, image.imag], 1)
    # Bilinear weights would blur noise away. Beyond its border an image goes on as in a mirror, not in the dark.
    moved = F.grid_sample(parts, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return torch.complex(moved[:, 0], moved[:, 1])


def where(flags: Tensor, there: Tensor, elsewhere: Tensor) -> Tensor:
    """Images (B, H, W), one or the other by flags (B,)."""
    return torch.where(flags[:, None, None], there, elsewhere)

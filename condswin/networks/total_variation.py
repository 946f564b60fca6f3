"""Total variation: reconstruction from undersampled columns without any training.

Minimises half the squared distance to the measured samples plus a weight times the isotropic total variation of the
complex image, by the primal-dual method of Chambolle and Pock (2011, "A First-Order Primal-Dual Algorithm for Convex
Problems with Applications to Imaging", algorithm 1).

Axes: B batch, H rows (readout), W columns (phase encoding).
"""

import torch
from torch import Tensor

# Step sizes of image and dual: their product times the squared norm of the gradient (at most 8) may not exceed one.
# The dual is bounded by the weight, a hundredth of the image, so the image's steps must be the longer ones.
_IMAGE_STEP = 10.0
_DUAL_STEP = 1 / (8 * _IMAGE_STEP)

# Weight of half the squared imaginary part, where a phase is given. Ten times as much is a little better where the
# phase is as smooth as it is taken to be, and worse than nothing where it is not.
_IMAGINARY = 0.005

# Keeps the weight of an empty image, 0, from being divided by 0.
_TINY = torch.finfo(torch.float32).tiny


def minimise(
    zero_filled: Tensor, sampled: Tensor, weight: Tensor | float, *, steps: int, phase: Tensor | None = None
) -> Tensor:
    """Images with few edges that agree with what was measured.

    Args:
        zero_filled: (B, H, W), complex, the image of what was measured.
        sampled: (B, 1, W), 1 where measured and 0 elsewhere, frequency zero first.
        weight: Of the total variation, in units of the image; a number, or (B, 1, 1).
        steps: Of the algorithm.
        phase: (B, H, W), complex numbers of magnitude 1, without which images are nearly real: what then is imaginary
            has a weight of its own (Bydder and Robson 2005, "Partial Fourier Partially Parallel Imaging"). None if
            nothing is known.

    Returns:
        (B, H, W), complex.
    """
    pull = sampled * (_IMAGE_STEP / (1 + _IMAGE_STEP))
    image = ahead = zero_filled if phase is None else zero_filled * phase.conj()
    row, column = 0 * image[:, :1], 0 * image[:, :, :1]
    down = right = 0 * image
    limit = torch.as_tensor(weight, dtype=image.real.dtype, device=image.device)
    for _ in range(steps):
        down = down + _DUAL_STEP * ahead.diff(dim=-2, append=ahead[:, -1:])
        right = right + _DUAL_STEP * ahead.diff(dim=-1, append=ahead[:, :, -1:])
        # Projection onto balls of radius `weight`: the proximal map of the total variation's dual.
        norm = (down.real.square() + down.imag.square() + right.real.square() + right.imag.square()).sqrt()
        share = limit / torch.maximum(limit, norm).clamp_min(_TINY)
        down, right = share * down, share * right
        # The duals' last row and last column are zero, so this is the negative adjoint of the differences.
        divergence = down.diff(dim=-2, prepend=row) + right.diff(dim=-1, prepend=column)
        moved = image + _IMAGE_STEP * divergence
        if phase is not None:
            moved = torch.complex(moved.real, moved.imag / (1 + _IMAGE_STEP * _IMAGINARY)) * phase
        # Proximal map of the data term: measured columns are pulled towards their measurement.
        moved = moved + torch.fft.ifft(pull * torch.fft.fft(zero_filled - moved))
        if phase is not None:
            moved = moved * phase.conj()
        ahead, image = 2 * moved - image, moved
    return image if phase is None else image * phase

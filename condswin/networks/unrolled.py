"""Unrolled reconstruction: a network of ours as the regulariser, data consistency between its applications.

Axes: B batch, H rows (readout), W columns (phase encoding). Only columns are undersampled, so everything here happens
along columns: rows may be transformed and cropped beforehand (hybrid space), which loses nothing and saves half.

Source: Schlemper et al. 2018 (arXiv:1704.02422, cascades with data consistency), Sriram et al. 2020 (arXiv:2004.06688,
the soft, trained form).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from condswin.fourier import fftc, ifftc

#: Real and imaginary part of the zero-filled image, and the mask of sampled columns.
INPUT_CHANNELS = 3
#: Real and imaginary part.
OUTPUT_CHANNELS = 2


class DataConsistency(nn.Module):
    """Draws the sampled frequencies of an image to what was measured.

    Soft: each moves by a trained share between 0 and 1 of its distance. Hard: all the way, so that the measured samples
    are preserved exactly.

    Args:
        hard: Use the hard form, which has no parameter.
    """

    def __init__(self, *, hard: bool = False) -> None:
        super().__init__()
        # A share of sigmoid(2) = 0.88: measurements are trusted more than any network at its start.
        self.logit = None if hard else nn.Parameter(torch.tensor(2.0))

    def forward(self, image: Tensor, measured: Tensor, sampled: Tensor) -> Tensor:
        """Corrects complex images.

        Args:
            image: (B, H, W), complex.
            measured: (B, H, W), complex, the measured samples in hybrid space, zero where there are none.
            sampled: (B, 1 or H, W), 1 where measured and 0 elsewhere.

        Returns:
            (B, H, W), complex.
        """
        share = sampled if self.logit is None else sampled * self.logit.sigmoid()
        frequency = fftc(image)
        return ifftc(frequency + share * (measured - frequency))


class UnrolledNetwork(nn.Module):
    """Cascades of `x <- DC(x + R(x))`, R being an image-to-image network on real and imaginary parts.

    Maps (B, 3, H, W), real and imaginary part of the zero-filled image and the mask of sampled columns (0 or 1, the
    same in every row), to (B, 2, H, W), the reconstructed complex image. The mask is a channel so that the network
    takes one tensor as every other does; the measured samples are the zero-filled image's frequencies.

    Args:
        make_regulariser: Makes a network from (B, 2, H, W) to (B, 2, H, W).
        cascades: How often regulariser and data consistency are applied.
        shared: Use one regulariser, with one set of weights, in all cascades.
        hard: Replace the measured samples in each data consistency instead of drawing near them.
    """

    def __init__(
        self, make_regulariser: Callable[[], nn.Module], *, cascades: int, shared: bool = False, hard: bool = False
    ) -> None:
        super().__init__()
        self.in_channels = INPUT_CHANNELS
        self.cascades = cascades
        self.regularisers = nn.ModuleList(make_regulariser() for _ in range(1 if shared else cascades))
        self.consistencies = nn.ModuleList(DataConsistency(hard=hard) for _ in range(cascades))

    def forward(self, image: Tensor) -> Tensor:
        """Reconstructs; see the class.

        Raises:
            ValueError: The image has another number of axes or channels.
        """
        if image.ndim != 4 or image.shape[1] != INPUT_CHANNELS:
            raise ValueError(
                f"image has shape {tuple(image.shape)}; give (batch, {INPUT_CHANNELS}, height, width): real and "
                "imaginary part of the zero-filled image, and the mask of sampled columns"
            )
        x = image[:, :OUTPUT_CHANNELS]
        # Frequencies span several orders of magnitude: fp32 inside autocast.
        with torch.autocast(image.device.type, enabled=False):
            sampled = image[:, OUTPUT_CHANNELS].float()
            measured = sampled * fftc(_complex(x.float()))
        for cascade, consistency in enumerate(self.consistencies):
            correction = self.regularisers[cascade % len(self.regularisers)](x)
            with torch.autocast(image.device.type, enabled=False):
                corrected = consistency(_complex(x.float() + correction.float()), measured, sampled)
                x = torch.stack([corrected.real, corrected.imag], dim=1)
        return x


def _complex(parts: Tensor) -> Tensor:
    """(B, 2, H, W) to complex (B, H, W)."""
    return torch.complex(parts[:, 0], parts[:, 1])

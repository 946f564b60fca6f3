"""Unrolled reconstruction: a network of ours as the regulariser, data consistency between its applications.

Axes: B batch, H rows (readout), W columns (phase encoding). Only columns are undersampled, so everything here happens
along columns: rows may be transformed and cropped beforehand (hybrid space), which loses nothing and saves half.

Transforms here shift nothing: moving an image is a phase in k-space, and what lies between a transform and its inverse
weights frequencies one by one. Masks are therefore in the order of `torch.fft`, frequency zero first.

Source: Schlemper et al. 2018 (arXiv:1704.02422, cascades with data consistency), Sriram et al. 2020 (arXiv:2004.06688,
the soft, trained form),
Noll et al. 1991 ("Homodyne Detection in Magnetic Resonance Imaging", the phase of the low frequencies).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from condswin.networks import total_variation
from condswin.networks.presets import INPUT_CHANNELS, OUTPUT_CHANNELS

#: What a conditioned regulariser is told, each between 0 and 1: which cascade; the share of columns that are sampled,
#: one over the acceleration; the share that is sampled without a gap in the middle.
CONDITIONS = 3


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

    def forward(self, image: Tensor, zero_filled: Tensor, sampled: Tensor) -> Tensor:
        """Corrects complex images.

        Args:
            image: (B, H, W), complex.
            zero_filled: (B, H, W), complex, the image of what was measured.
            sampled: (B, 1, W), 1 where measured and 0 elsewhere, frequency zero first.

        Returns:
            (B, H, W), complex.
        """
        share = sampled if self.logit is None else sampled * self.logit.sigmoid()
        corrected: Tensor = image + torch.fft.ifft(share * torch.fft.fft(zero_filled - image))
        return corrected


def smooth_phase(zero_filled: Tensor, sampled: Tensor) -> Tensor:
    """The phase of the low frequencies, which masks sample without gaps: of coil, field and echo, not of anatomy.

    Args:
        zero_filled: (B, H, W), complex.
        sampled: (B, 1, W), 1 where measured and 0 elsewhere, frequency zero first.

    Returns:
        (B, H, W), complex numbers of magnitude 1.
    """
    frequency, gap = _gap(sampled)
    # Hann's window: an edge in k-space would make waves in the phase.
    window = 0.5 + 0.5 * (torch.pi * (frequency / gap).clamp_max(1)).cos()
    low = torch.fft.ifft(window * torch.fft.fft(zero_filled))
    return torch.polar(torch.ones_like(low.real), low.angle())


def _gap(sampled: Tensor) -> tuple[Tensor, Tensor]:
    """Frequencies (W,) of the columns, and the lowest one (B, 1, 1) that was not sampled, at least 1."""
    width = sampled.shape[-1]
    column = torch.arange(width, device=sampled.device)
    frequency = torch.minimum(column, width - column)
    return frequency, torch.where(sampled > 0, width, frequency).amin(-1, keepdim=True).clamp_min(1)


class UnrolledNetwork(nn.Module):
    """Cascades of `x <- DC(x + R(x))`, R being an image-to-image network on real and imaginary parts.

    Maps (B, 3, H, W), real and imaginary part of the zero-filled image and the mask of sampled columns (0 or 1, the
    same in every row), to (B, 2, H, W), the reconstructed complex image. The mask is a channel so that the network
    takes one tensor as every other does; the measured samples are the zero-filled image's frequencies.

    With neighbours, the zero-filled images of the slices before and after, undersampled alike, follow the mask in pairs
    of real and imaginary part, first slice first. Regularisers see them in every cascade; the slice alone is made
    consistent.

    Args:
        make_regulariser: Makes a network from (B, 2 + 4 * neighbours, H, W) to (B, 2, H, W); a conditioned one also
            takes (B, CONDITIONS).
        cascades: How often regulariser and data consistency are applied.
        neighbours: Slices on either side.
        conditioned: Tell regularisers the `CONDITIONS`.
        shared: Use one regulariser, with one set of weights, in all cascades.
        hard: Replace the measured samples in each data consistency instead of drawing near them.
        demodulated: Show regularisers images without their smooth phase. What is left is nearly real, so aliases,
            which are not, can be told from anatomy.
        variation_steps: Steps of total variation that the first cascade starts from; 0 to start from the zero-filled
            image.
        variation_weight: Of the total variation, relative to the largest zero-filled magnitude of an image.
    """

    def __init__(
        self,
        make_regulariser: Callable[[], nn.Module],
        *,
        cascades: int,
        neighbours: int = 0,
        conditioned: bool = False,
        shared: bool = False,
        hard: bool = False,
        demodulated: bool = True,
        variation_steps: int = 30,
        variation_weight: float = 0.003,
    ) -> None:
        super().__init__()
        self.in_channels = INPUT_CHANNELS + 2 * OUTPUT_CHANNELS * neighbours
        self.neighbours = neighbours
        self.cascades = cascades
        self.conditioned = conditioned
        self.demodulated = demodulated
        self.variation_steps = variation_steps
        self.variation_weight = variation_weight
        self.regularisers = nn.ModuleList(make_regulariser() for _ in range(1 if shared else cascades))
        self.consistencies = nn.ModuleList(DataConsistency(hard=hard) for _ in range(cascades))

    def forward(self, image: Tensor) -> Tensor:
        """Reconstructs; see the class.

        Raises:
            ValueError: The image has another number of axes or channels.
        """
        if image.ndim != 4 or image.shape[1] != self.in_channels:
            beside = f"; and the same parts of {self.neighbours} slices on either side" if self.neighbours else ""
            raise ValueError(
                f"image has shape {tuple(image.shape)}; give (batch, {self.in_channels}, height, width): real and "
                f"imaginary part of the zero-filled image, and the mask of sampled columns{beside}"
            )
        # Frequencies span several orders of magnitude: fp32 inside autocast.
        with torch.autocast(image.device.type, enabled=False):
            zero_filled = torch.complex(image[:, 0].float(), image[:, 1].float())
            sampled = torch.fft.ifftshift(image[:, OUTPUT_CHANNELS, :1].float(), dim=-1)
            phase = smooth_phase(zero_filled, sampled) if self.demodulated else None
            x = self._start(zero_filled, sampled, phase)
            others = self._beside(image[:, INPUT_CHANNELS:].float(), sampled)
        for cascade, consistency in enumerate(self.consistencies):
            shown = _parts(x if phase is None else x * phase.conj())
            seen = shown if others is None else torch.cat([shown, others], dim=1)
            known = [self._known(cascade, sampled)] if self.conditioned else []
            parts = self.regularisers[cascade % len(self.regularisers)](seen, *known)
            with torch.autocast(image.device.type, enabled=False):
                correction = torch.complex(parts[:, 0].float(), parts[:, 1].float())
                x = x + (correction if phase is None else correction * phase)
                x = consistency(x, zero_filled, sampled)
        return _parts(x)

    def _beside(self, parts: Tensor, sampled: Tensor) -> Tensor | None:
        """Neighbours (B, 4 * neighbours, H, W) as the regulariser sees them, each without its own smooth phase."""
        if not self.neighbours or not self.demodulated:
            return parts if self.neighbours else None
        slices = [torch.complex(pair[:, 0], pair[:, 1]) for pair in torch.split(parts, OUTPUT_CHANNELS, dim=1)]
        return torch.cat([_parts(each * smooth_phase(each, sampled).conj()) for each in slices], dim=1)

    def _known(self, cascade: int, sampled: Tensor) -> Tensor:
        """See `CONDITIONS`."""
        _, gap = _gap(sampled)
        share = sampled.mean((1, 2))
        # Without a gap there is no lowest frequency that is missing: the middle is everything.
        middle = ((2 * gap[:, 0, 0] - 1) / sampled.shape[-1]).clamp_max(1)
        return torch.stack([torch.full_like(share, cascade / self.cascades), share, middle], dim=1)

    def _start(self, zero_filled: Tensor, sampled: Tensor, phase: Tensor | None) -> Tensor:
        if not self.variation_steps:
            return zero_filled
        weight = self.variation_weight * zero_filled.abs().amax((1, 2), keepdim=True)
        return total_variation.minimise(zero_filled, sampled, weight, steps=self.variation_steps, phase=phase)


def _parts(image: Tensor) -> Tensor:
    """Complex (B, H, W) to (B, 2, H, W)."""
    return torch.stack([image.real, image.imag], dim=1)

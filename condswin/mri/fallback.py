"""Whether to believe a network about a scan: judged, without a target, by measured lines that it is not shown.

Some measured lines are withheld, every method reconstructs from the others, and what it says of the withheld ones is
compared with what was measured. Their noise enters all methods' errors alike, so differences are fair. Where
compressed sensing or the zero-filled image foretells them far better than the network, it makes the reconstruction.
(Withheld lines train networks in Yaman et al. 2020, arXiv:1912.07669; here they only judge.)

Axes: S slices, H rows (readout), W columns (phase encoding).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from condswin.mri.extent import center
from condswin.mri.inputs import ComplexInputs
from condswin.mri.reading import NETWORK
from condswin.networks.total_variation import minimise
from condswin.networks.unrolled import smooth_phase

#: From (B, 3 or more, H, W), what unrolled networks take, to (B, 2, H, W), what they give.
Method = Callable[[Tensor], Tensor]

#: A network is set aside where another method's error is below this share of its own. Withheld lines leave larger gaps
#: than networks were trained with, which costs them more than it costs the others:
#: `docs/explanation/mri.md` has what was measured.
MARGIN = 0.8

#: One line in so many is withheld from a slice; the next slice withholds others.
SHARE = 4

#: Slices that pass a method at once.
BATCH = 8

# Total variation as `condswin baseline` computes it, with the weight that it chooses for most data.
_STEPS, _WEIGHT = 60, 0.003


class Judgement(NamedTuple):
    """What withheld lines say.

    Attributes:
        method: The one to reconstruct with, `NETWORK` or a key of `classics`.
        errors: By method: norm of the error in withheld lines, relative to that of what was measured there. Empty if
            there are too few lines to withhold any.
    """

    method: str
    errors: dict[str, float]


def classics() -> dict[str, Method]:
    """Methods that were never trained; what they give agrees with all measured samples."""
    return {
        "compressed sensing with known phase": partial(_variation, with_phase=True),
        "compressed sensing": partial(_variation, with_phase=False),
        "zero-filled": lambda image: image[:, :2],
    }


@torch.inference_mode()
def judge(network: nn.Module, inputs: ComplexInputs, device: torch.device) -> Judgement:
    """Chooses who reconstructs a volume.

    Costs a pass of each method over the volume (more for volumes of fewer than `SHARE` slices, which withhold lines in
    turns).

    Args:
        network: Unrolled, in evaluation mode, on `device`.
        inputs: The volume.
        device: Where to compute.
    """
    methods: dict[str, Method] = {NETWORK: network, **classics()}
    errors, measured = dict.fromkeys(methods, 0.0), 0.0
    for turn in range(-(-SHARE // len(inputs.image))):
        withheld = withheld_lines(inputs.image, turn)
        if not bool(withheld.any()):
            return Judgement(NETWORK, {})
        batches = (torch.split(tensor, BATCH) for tensor in (inputs.image, inputs.std, withheld))
        for image, std, hidden in zip(*batches, strict=True):
            image, hidden = image.to(device), hidden.to(device)
            weight = std.to(device)[:, None, None].square() * hidden[:, None]
            truth = frequencies(image)
            shown = without(image, hidden)
            measured += float((weight * truth.abs().square()).sum())
            for name, method in methods.items():
                errors[name] += float((weight * (frequencies(method(shown)) - truth).abs().square()).sum())
    best = min((name for name in methods if name != NETWORK), key=lambda name: errors[name])
    # A network that diverges has no error, and is not hidden behind another method.
    lost = errors[best] < MARGIN * errors[NETWORK] and math.isfinite(errors[NETWORK])
    relative = {name: math.sqrt(error / measured) if measured else 0.0 for name, error in errors.items()}
    return Judgement(best if lost else NETWORK, relative)


def withheld_lines(image: Tensor, turn: int) -> Tensor:
    """The lines (S, W) to withhold, frequency zero first: of every `SHARE` outside the centre one, drawn, each slice
    another.
    """
    sampled = image[0, 2, 0] > 0
    middle = center(sampled.numpy())
    lines = torch.nonzero(sampled)[:, 0]
    lines = lines[(lines < middle.first) | (lines >= middle.last)]
    draw = torch.Generator().manual_seed(0)
    groups = [torch.randperm(SHARE, generator=draw) for _ in range(-(-len(lines) // SHARE))]
    slot = torch.cat(groups)[: len(lines)] if groups else lines
    withheld = torch.zeros(len(image), image.shape[-1], dtype=torch.bool)
    for slice_ in range(len(image)):
        withheld[slice_, lines[slot == (slice_ + turn) % SHARE]] = True
    shifted: Tensor = torch.fft.ifftshift(withheld, dim=-1)
    return shifted


def without(image: Tensor, withheld: Tensor) -> Tensor:
    """A network's input (B, 3 or more, H, W) of a scan without these lines (B, W), frequency zero first."""
    # Neighbours lack these lines too: one mask for all is what networks were trained with.
    parts = [image[:, :2], *torch.split(image[:, 3:], 2, dim=1)]
    left = [torch.fft.ifft(frequencies(part) * ~withheld[:, None]) for part in parts if part.shape[1]]
    first, *others = ([part.real, part.imag] for part in left)
    mask = image[:, 2] * ~torch.fft.fftshift(withheld, dim=-1)[:, None]
    return torch.stack([*first, mask, *(part for pair in others for part in pair)], dim=1)


def frequencies(parts: Tensor) -> Tensor:
    """(B, 2 or more, H, W), real and imaginary part first, to hybrid space (B, H, W), frequency zero first."""
    frequencies: Tensor = torch.fft.fft(torch.complex(parts[:, 0].float(), parts[:, 1].float()))
    return frequencies


def _variation(image: Tensor, *, with_phase: bool) -> Tensor:
    zero_filled = torch.complex(image[:, 0], image[:, 1])
    sampled = torch.fft.ifftshift(image[:, 2, :1], dim=-1)
    weight = _WEIGHT * zero_filled.abs().amax((1, 2), keepdim=True)
    phase = smooth_phase(zero_filled, sampled) if with_phase else None
    solved = minimise(zero_filled, sampled, weight, steps=_STEPS, phase=phase)
    solved = solved + torch.fft.ifft(sampled * torch.fft.fft(zero_filled - solved))
    return torch.stack([solved.real, solved.imag], dim=1)

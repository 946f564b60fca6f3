"""A network trained a little further on the very scan that it reconstructs, without a target.

Some measured lines are withheld for good and only tell when to stop; of the others each step shows a part to the
network, which must foretell the rest (Yaman et al. 2022, arXiv:2102.07737, zero-shot self-supervision, from a trained
network). Nothing is drawn that differs from run to run.
"""

import copy
import math
from itertools import cycle
from typing import NamedTuple

import torch
from torch import Tensor, nn

from condswin.fourier import fftc
from condswin.mri.fallback import BATCH, frequencies, withheld_lines, without
from condswin.mri.inputs import ComplexInputs
from condswin.mri.self_supervision import line_loss, outer_lines, withhold

#: Share of the lines outside the centre that a step withholds of those that are left to it.
_SHARE = 0.4
#: Of Adam.
_RATE = 1e-4
#: Steps between two looks at the lines that are withheld for good, and looks without gain that end it.
_EVERY, _PATIENCE = 5, 2


class Adaptation(NamedTuple):
    """A network and what adapting it brought.

    Attributes:
        network: A copy with the weights that did best; the network itself if none did better than its own.
        steps: After which these weights were found, 0 if they are the network's own.
        before: Norm of the error in withheld lines, relative to that of what was measured there, of the network.
        after: The same of what is given.
    """

    network: nn.Module
    steps: int
    before: float
    after: float


def adapt(network: nn.Module, inputs: ComplexInputs, device: torch.device, *, steps: int) -> Adaptation:
    """Trains a copy of a network on the measured lines of a volume.

    Args:
        network: Unrolled, in evaluation mode, on `device`; it stays as it is.
        inputs: The volume.
        device: Where to compute.
        steps: At most so many.
    """
    withheld = withheld_lines(inputs.image, 0)
    left = without(inputs.image, withheld)
    if not bool(withheld.any()) or not outer_lines(left[0, 2, 0].numpy() > 0).size:
        return Adaptation(network, 0, 0.0, 0.0)
    adapted = copy.deepcopy(network)
    best = before = _error(adapted, inputs, left, withheld, device)
    found, weights, idle = 0, copy.deepcopy(adapted.state_dict()), 0
    optimizer = torch.optim.Adam(adapted.parameters(), lr=_RATE)
    draw = torch.Generator().manual_seed(0)
    batches = torch.split(left, BATCH)
    every = max(_EVERY, len(batches))
    for step, shown in zip(range(1, steps + 1), cycle(batches), strict=False):
        optimizer.zero_grad()
        _loss(adapted, shown, draw, device).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(adapted.parameters(), 0.5)
        optimizer.step()
        if step % every and step < steps:
            continue
        error = _error(adapted, inputs, left, withheld, device)
        if error < best:
            best, found, weights, idle = error, step, copy.deepcopy(adapted.state_dict()), 0
        elif (idle := idle + 1) == _PATIENCE:
            break
    adapted.load_state_dict(weights)
    return Adaptation(adapted if found else network, found, before, best)


def _loss(network: nn.Module, image: Tensor, draw: torch.Generator, device: torch.device) -> Tensor:
    held = torch.stack([withhold(mask.numpy() > 0, _SHARE, draw) for mask in image[:, 2, 0]])
    measured = fftc(torch.complex(image[:, 0], image[:, 1])) * held[:, None]
    shown = without(image, torch.fft.ifftshift(held, dim=-1))
    batch = {"measured": measured.to(device), "held": held[:, None].to(device)}
    return line_loss(network(shown.to(device)).float(), batch)


@torch.inference_mode()
def _error(network: nn.Module, inputs: ComplexInputs, shown: Tensor, withheld: Tensor, device: torch.device) -> float:
    """Norm of the error in withheld lines (S, W), frequency zero first, relative to that of their measurement."""
    wrong = measured = 0.0
    parts = (torch.split(tensor, BATCH) for tensor in (inputs.image, inputs.std, shown, withheld))
    for image, std, seen, hidden in zip(*parts, strict=True):
        weight = std[:, None, None].square() * hidden[:, None]
        truth = frequencies(image)
        measured += float((weight * truth.abs().square()).sum())
        wrong += float((weight * (frequencies(network(seen.to(device)).cpu()) - truth).abs().square()).sum())
    return math.sqrt(wrong / measured) if measured else 0.0

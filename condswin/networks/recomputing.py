"""Less memory in training: what parts of a network computed is forgotten, and computed again in the backward pass."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from condswin.networks.blocks import SwinBlock
from condswin.networks.rivals import AnySize
from condswin.networks.unrolled import UnrolledNetwork


def recompute_activations(network: nn.Module) -> None:
    """Lets a network, in training, keep no more than what goes into its parts (Chen et al. 2016, arXiv:1604.06174).

    Gradients are the same bits, dropout's draws among them, for one more forward pass of these parts. Forward hooks
    inside them are called again in the backward pass.

    Args:
        network: One of ours, changed in place; weights and their names stay.
    """
    for part in _parts(network):
        # On the module itself: a module around it would rename its weights.
        part.forward = partial(_run, part)


def _parts(network: nn.Module) -> Iterable[nn.Module]:
    if isinstance(network, UnrolledNetwork):
        return network.regularisers
    if isinstance(network, AnySize):
        return network.network.children()
    return [part for part in network.modules() if isinstance(part, SwinBlock)]


def _run(part: nn.Module, *inputs: Any) -> Any:
    forward = partial(type(part).forward, part)
    if part.training and torch.is_grad_enabled():
        return checkpoint(forward, *inputs, use_reentrant=False)
    return forward(*inputs)

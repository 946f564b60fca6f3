"""Bounded gates, random choices and gated sublayers: what routing is made of, and what it is measured against.

Axes: n patches to choose from, k chosen, d channels; any leading axes.
"""

import torch
from torch import Tensor, nn

from condswin.networks.routers import Router
from condswin.networks.windows import MASKED


class BoundedRouter(Router):
    """Gates of `2 sigmoid(x r + b)`: each of its own, between 0 and 2, so that no patch takes from another.

    A rescaled softmax gives all of its sum to few patches once scores differ by more than a few units.

    Args:
        dim: Channels d.
        k: As for `Router`.
    """

    def __init__(self, dim: int, *, k: int | float) -> None:
        super().__init__(dim, k=k)
        self.bias = nn.Parameter(torch.zeros(()))

    def score(self, raw: Tensor, k: int) -> Tensor:
        """See `Router.score`."""
        return 2 * (raw + self.bias.float()).sigmoid()

    def choose(self, raw: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See `Router.choose`."""
        indices = raw.topk(k, dim=-1).indices
        return self.score(raw, k).gather(-1, indices), indices


class RandomRouter(Router):
    """Chooses at random, with all weights 1: what a trained router has to beat.

    In training every pass draws again; afterwards the choice depends on n alone, so predictions can be repeated.

    Args:
        dim: Unused; there is no vector.
        k: As for `Router`.
    """

    def __init__(self, dim: int, *, k: int | float) -> None:
        super().__init__(dim, k=k)
        del self.vector

    def _raw(self, x: Tensor, real: Tensor | None) -> Tensor:
        shape = x.shape[:-1]
        if self.training:
            raw = torch.rand(shape, device=x.device)
        else:
            raw = torch.rand(shape[-1], generator=torch.Generator().manual_seed(shape[-1])).to(x.device).expand(shape)
        return raw if real is None else raw.masked_fill(~real, MASKED)

    def weigh(self, x: Tensor, *, real: Tensor | None = None) -> Tensor:
        """Scores (..., n): 1, and 0 for padding. Draws nothing."""
        scores = x.new_ones(x.shape[:-1], dtype=torch.float32)
        return scores if real is None else scores * real

    def score(self, raw: Tensor, k: int) -> Tensor:
        """See `Router.score`."""
        return torch.ones_like(raw)

    def choose(self, raw: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See `Router.choose`."""
        chosen, indices = raw.topk(k, dim=-1)
        return torch.ones_like(chosen), indices


class Gated(nn.Module):
    """A sublayer whose result is weighted patch by patch: `2 sigmoid(x r + b) Sublayer(x)`.

    Args:
        sublayer: From (..., d), and whatever else it takes, to (..., d).
        dim: Channels d.
    """

    def __init__(self, sublayer: nn.Module, dim: int) -> None:
        super().__init__()
        self.sublayer = sublayer
        self.gate = nn.Linear(dim, 1)
        # The scale of a router's vector: gates differ from the first step on.
        nn.init.normal_(self.gate.weight, std=dim**-0.5)
        nn.init.zeros_(self.gate.bias)

    def forward(self, x: Tensor, *others: object) -> Tensor:
        """Transforms patches."""
        result: Tensor = 2 * self.gate(x).sigmoid() * self.sublayer(x, *others)
        return result

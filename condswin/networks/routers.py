"""Routers: trainable scores that pick the few patches which get the heavy branch.

Axes: n patches to choose from, k chosen, d channels; any leading axes.
"""

import math
from abc import ABC, abstractmethod
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from condswin.networks.windows import MASKED


class Routing(NamedTuple):
    """What a router decided.

    Attributes:
        indices: (..., k) the chosen patches, highest score first.
        gates: (..., k) weights of the chosen patches, about 1 on average, differentiable.
    """

    indices: Tensor
    gates: Tensor


def count(k: int | float, n: int) -> int:
    """How many of n patches `k` means: a count if an integer, else a fraction of n; at least 1, at most n."""
    return max(1, min(n, k if isinstance(k, int) else round(k * n)))


def rows(indices: Tensor, n: int) -> Tensor:
    """Where patches lie among those of all groups: (..., k) indices into n patches each, to flat ones."""
    groups = math.prod(indices.shape[:-1])
    return (indices.reshape(groups, -1) + multiples(n, groups, indices.device)).flatten()


def multiples(step: int, number: int, device: torch.device) -> Tensor:
    """0, step, 2 step and so on, (number, 1): where groups of so many patches begin. Made once, except to compilers."""
    if torch.compiler.is_compiling():
        return torch.arange(0, step * number, step, device=device)[:, None]
    return _multiples(step, number, device)


@lru_cache(maxsize=256)
def _multiples(step: int, number: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.arange(0, step * number, step, device=device)[:, None]


class Router(nn.Module, ABC):
    """Scores patches by their product with one trained vector.

    The vector starts at the scale d^-1/2 that keeps the raw scores of normalised patches near unit variance: with
    unit-variance entries instead, a softmax over the scores is all but one-hot and never moves.

    Args:
        dim: Channels d.
        k: How many patches to choose; an integer counts, a float is a fraction of n.
    """

    def __init__(self, dim: int, *, k: int | float) -> None:
        super().__init__()
        self.k = k
        self.vector = nn.Parameter(torch.randn(dim) * dim**-0.5)

    def forward(self, x: Tensor, *, real: Tensor | None = None) -> Routing:
        """Routes patches.

        Args:
            x: (..., n, d) patches.
            real: (..., n) booleans, broadcastable; patches where it is False (padding) weigh 0.
        """
        raw = self._raw(x, real)
        gates, indices = self.choose(raw, count(self.k, raw.shape[-1]))
        # A window may hold fewer real patches than k, and gates sum to k all the same.
        return Routing(indices, gates if real is None else gates * real.expand_as(raw).gather(-1, indices))

    def weigh(self, x: Tensor, *, real: Tensor | None = None) -> Tensor:
        """Scores (..., n) of all patches, non-negative and differentiable; arguments as for `forward`."""
        raw = self._raw(x, real)
        scores = self.score(raw, count(self.k, raw.shape[-1]))
        return scores if real is None else scores * real

    def _raw(self, x: Tensor, real: Tensor | None) -> Tensor:
        # Small differences between large scores decide, so this stays in fp32 inside autocast.
        with torch.autocast(x.device.type, enabled=False):
            raw = x.float() @ self.vector.float()
        return raw if real is None else raw.masked_fill(~real, MASKED)

    @abstractmethod
    def score(self, raw: Tensor, k: int) -> Tensor:
        """Scores (..., n) from raw scores (..., n)."""

    @abstractmethod
    def choose(self, raw: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Gates (..., k) and indices (..., k), highest raw score first, from raw scores (..., n)."""


class LightRouter(Router):
    """Softmax router: no hyperparameter but k.

    A softmax over n patches gives scores near 1/n, which would silence the heavy branch. Scores are therefore scaled
    to a mean of 1 over all patches, and gates to a mean of 1 over the chosen ones; equal raw scores give exactly 1.

    Args:
        dim: Channels d.
        k: As for `Router`.
        rescaled: Off, scores and gates are the plain softmax.
    """

    def __init__(self, dim: int, *, k: int | float, rescaled: bool = True) -> None:
        super().__init__(dim, k=k)
        self.rescaled = rescaled

    def score(self, raw: Tensor, k: int) -> Tensor:
        """See `Router.score`."""
        scores = raw.softmax(-1)
        return scores * raw.shape[-1] if self.rescaled else scores

    def choose(self, raw: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See `Router.choose`."""
        chosen, indices = raw.topk(k, dim=-1)
        # A single gate normalised over itself is the constant 1 and its router would never learn.
        gates = k * chosen.softmax(-1) if self.rescaled and k > 1 else self.score(raw, k).gather(-1, indices)
        return gates, indices


class IterativeRouter(Router):
    """Soft top-k by coordinate descent (Wright 2015; CoDA, arXiv:2304.04947; CoLT5, arXiv:2303.09752).

    Scores lie in [0, 1] and, at convergence, sum to k. Where a patch is clearly chosen its score is exactly 1 and the
    exact gradient 0, so the router would stop learning just where it decides. Beside their own, gates and scores
    therefore carry, straight through, a fraction of the gradient of a softmax over the raw scores.

    Args:
        dim: Channels d.
        k: As for `Router`.
        iterations: Coordinate descent steps; None for as many as converge, whatever the size of the image.
        epsilon: Final temperature; smaller is closer to a hard top-k.
        epsilon_init: First temperature. At convergence nothing depends on it.
        epsilon_decay: Factor per step from `epsilon_init` down to `epsilon`; likewise.
        straight_through: The fraction. A whole one drowns the exact gradient where there is one
            (docs/explanation/ablation.md).
    """

    def __init__(
        self,
        dim: int,
        *,
        k: int | float,
        iterations: int | None = 20,
        epsilon: float = 0.1,
        epsilon_init: float = 4.0,
        epsilon_decay: float = 0.7,
        straight_through: float = 0.1,
    ) -> None:
        super().__init__(dim, k=k)
        self.iterations = iterations
        self.epsilon = epsilon
        self.epsilon_init = epsilon_init
        self.epsilon_decay = epsilon_decay
        self.straight_through = straight_through

    def score(self, raw: Tensor, k: int) -> Tensor:
        """See `Router.score`."""
        return self._score(raw, raw.topk(k, dim=-1).indices)

    def choose(self, raw: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See `Router.choose`."""
        # The order is that of the raw scores, which breaks ties among scores of exactly 1.
        indices = raw.topk(k, dim=-1).indices
        return self._score(raw, indices).gather(-1, indices), indices

    def _score(self, raw: Tensor, chosen: Tensor) -> Tensor:
        k = chosen.shape[-1]
        if k >= raw.shape[-1]:
            scores = torch.ones_like(raw)  # every patch is chosen
        elif self.iterations is None:
            scores = soft_top_k(raw, chosen, epsilon=self.epsilon)
        else:
            scores = coordinate_descent(
                raw,
                k,
                iterations=self.iterations,
                epsilon=self.epsilon,
                epsilon_init=self.epsilon_init,
                epsilon_decay=self.epsilon_decay,
            )
        if self.straight_through and self.training:
            smooth = self.straight_through * k * raw.softmax(-1)
            scores = scores + (smooth - smooth.detach())
        return scores


def coordinate_descent(
    raw: Tensor, k: int, *, iterations: int, epsilon: float, epsilon_init: float, epsilon_decay: float
) -> Tensor:
    """Goes so many steps towards `soft_top_k`, by coordinate descent on its dual.

    As published, a step is `a = epsilon * (log k - logsumexp((raw + b) / epsilon))`, `b = -relu(raw + a)`, the first
    one from `b = -raw`, and scores are `exp((raw + a + b) / epsilon)`. As `raw + b = min(raw + a, 0) - a`, the same
    step raises `a` by `epsilon * log(k / sum of the scores)`, in half as many operations.

    Args:
        raw: (..., n) raw scores.
        k: What the scores are to sum to, below n.
        iterations: Steps.
        epsilon: Final temperature.
        epsilon_init: First temperature.
        epsilon_decay: Factor per step.

    Returns:
        (..., n) scores in [0, 1]. They sum to less than k where the steps are too few to converge.
    """
    temperature = epsilon_init
    a = raw.new_full((*raw.shape[:-1], 1), temperature * math.log(k / raw.shape[-1]))
    for _ in range(iterations - 1):
        temperature = max(temperature * epsilon_decay, epsilon)
        scores = ((raw + a).clamp(max=0) / temperature).exp()
        total = scores.sum(-1, keepdim=True).clamp(min=torch.finfo(raw.dtype).tiny)  # all of them may underflow
        a = a.sub((total / k).log(), alpha=temperature)
    return ((raw + a).clamp(max=0) / temperature).exp()


def soft_top_k(raw: Tensor, chosen: Tensor, *, epsilon: float) -> Tensor:
    """Maximises <x, raw> + epsilon * entropy(x) over 0 <= x <= 1, sum(x) = k: where coordinate descent converges to.

    The solution is `min(factor * exp(raw / epsilon), 1)`. Were it known which patches are saturated at 1, the factor
    would follow from the sum that is left to the others. Only the best can be saturated, and fewer than k of them; and
    saturating the next one raises the factor exactly where that patch exceeds 1. So the solution's is the highest of k.

    Args:
        raw: (..., n) raw scores.
        chosen: (..., k) indices of the k highest, highest first; k is below n.
        epsilon: Temperature.

    Returns:
        (..., n) scores in [0, 1] that sum to k.
    """
    lowest_first = chosen.flip(-1)
    # Relative to the lowest chosen, which is never saturated; what is as far above as the clamp is, however large.
    lowest = raw.detach().gather(-1, lowest_first[..., :1])
    weights = ((raw - lowest) / epsilon).clamp(max=60).exp()
    others = weights.scatter(-1, chosen, 0).sum(-1, keepdim=True)
    # Of the others and of the lowest 1, 2, ... k chosen, none of which is saturated.
    free = others + weights.gather(-1, lowest_first).cumsum(-1)
    left = multiples(1, chosen.shape[-1], raw.device)[:, 0] + 1
    return (weights * (left / free).amax(-1, keepdim=True)).clamp(max=1)

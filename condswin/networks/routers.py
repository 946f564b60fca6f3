"""Routers: trainable scores that pick the few patches which get the heavy branch.

Axes: n patches to choose from, k chosen, d channels; any leading axes.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from condswin.networks.windows import MASKED


class Routing(NamedTuple):
    """What a router decided.

    Attributes:
        scores: (..., n) non-negative weights of all patches, differentiable.
        indices: (..., k) the chosen patches, highest score first.
        gates: (..., k) weights of the chosen patches, about 1 on average, differentiable.
    """

    scores: Tensor
    indices: Tensor
    gates: Tensor


def count(k: int | float, n: int) -> int:
    """How many of n patches `k` means: a count if an integer, else a fraction of n; at least 1, at most n."""
    return max(1, min(n, k if isinstance(k, int) else round(k * n)))


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
            real: (..., n) booleans, broadcastable; patches where it is False (padding) score 0.
        """
        # Small differences between large scores decide, so this stays in fp32 inside autocast.
        with torch.autocast(x.device.type, enabled=False):
            raw = x.float() @ self.vector.float()
            if real is not None:
                raw = raw.masked_fill(~real, MASKED)
            scores, gates, indices = self.select(raw, count(self.k, raw.shape[-1]))
            if real is not None:
                # A window may hold fewer real patches than k, and scores sum to k all the same.
                scores = scores * real
                gates = gates * real.expand_as(raw).gather(-1, indices)
        return Routing(scores, indices, gates)

    @abstractmethod
    def select(self, raw: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (..., n), gates (..., k) and indices (..., k) from raw scores (..., n)."""


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

    def select(self, raw: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """See `Router.select`."""
        scores = raw.softmax(-1)
        if self.rescaled:
            scores = scores * raw.shape[-1]
        chosen, indices = raw.topk(k, dim=-1)
        # A single gate normalised over itself is the constant 1 and its router would never learn.
        gates = k * chosen.softmax(-1) if self.rescaled and k > 1 else scores.gather(-1, indices)
        return scores, gates, indices


class IterativeRouter(Router):
    """Soft top-k by coordinate descent (Wright 2015; CoDA, arXiv:2304.04947; CoLT5, arXiv:2303.09752).

    Scores lie in [0, 1] and sum to about k. Where a patch is clearly chosen its score is exactly 1 and the exact
    gradient 0, so the router would stop learning just where it decides. Beside their own, gates and scores therefore
    carry, straight through, a fraction of the gradient of a softmax over the raw scores.

    Args:
        dim: Channels d.
        k: As for `Router`.
        iterations: Coordinate descent steps.
        epsilon: Final temperature; smaller is closer to a hard top-k.
        epsilon_init: First temperature.
        epsilon_decay: Factor per step from `epsilon_init` down to `epsilon`.
        straight_through: The fraction. A whole one drowns the exact gradient where there is one (docs/ablation.md).
    """

    def __init__(
        self,
        dim: int,
        *,
        k: int | float,
        iterations: int = 20,
        epsilon: float = 0.1,
        epsilon_init: float = 4.0,
        epsilon_decay: float = 0.7,
        straight_through: float = 0.1,
    ) -> None:
        super().__init__(dim, k=k)
        if iterations < 1 or not 0 < epsilon <= epsilon_init or not 0 < epsilon_decay <= 1:
            raise ValueError(
                f"iterations={iterations}, epsilon={epsilon}, epsilon_init={epsilon_init}, "
                f"epsilon_decay={epsilon_decay}: "
                "needs iterations >= 1, 0 < epsilon <= epsilon_init and 0 < epsilon_decay <= 1"
            )
        self.iterations = iterations
        self.epsilon = epsilon
        self.epsilon_init = epsilon_init
        self.epsilon_decay = epsilon_decay
        self.straight_through = straight_through

    def select(self, raw: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """See `Router.select`."""
        scores, indices = soft_top_k(
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
        return scores, scores.gather(-1, indices), indices


def soft_top_k(
    raw: Tensor, k: int, *, iterations: int, epsilon: float, epsilon_init: float, epsilon_decay: float
) -> tuple[Tensor, Tensor]:
    """Maximises <x, raw> + epsilon * entropy(x) over 0 <= x <= 1, sum(x) = k, by coordinate descent on the dual.

    The published step, `a = epsilon * (log k - logsumexp((raw + b) / epsilon))` with `b = -relu(raw + a)`, closes the
    gap to the sum by a factor of m / k only, where m patches are saturated at 1: too slow when nearly all chosen are.
    Here the saturated patches are taken out of the equation (they hold m of the sum, whatever `a` is) and `a` is solved
    for the others. The fixed point is the same. A step from any m < k leads to an `a` that is not above it, and from
    there on `a` only rises, by a saturated patch at a time or more, so that it is reached in a few steps.

    Args:
        raw: (..., n) scores.
        k: Target sum.
        iterations: Steps.
        epsilon: Final temperature.
        epsilon_init: First temperature.
        epsilon_decay: Factor per step.

    Returns:
        (..., n) weights in [0, 1], and the indices (..., k) of the k highest. Their order is that of the scores, which
        breaks ties among weights of exactly 1.
    """
    if k >= raw.shape[-1]:
        # Every patch is chosen: the optimum is the corner x = 1.
        return torch.ones_like(raw), raw.topk(k, dim=-1).indices
    temperatures = [epsilon_init]
    while len(temperatures) < iterations and temperatures[-1] > epsilon:
        temperatures.append(max(temperatures[-1] * epsilon_decay, epsilon))
    temperature, left = temperatures[-1], iterations - 1 - len(temperatures)
    scaled = raw / temperature
    with torch.no_grad():
        # Only the k best can be saturated, so a step needs no more than how many of them are free; one always is, or
        # there would be nothing to solve for, and `free` is how many more.
        best, indices = raw.topk(k, dim=-1)
        rising, others = best.flip(-1) / temperature, scaled.scatter(-1, indices, -torch.inf)
        if left >= k:
            # Enough steps at the last temperature to reach its fixed point from anywhere. Saturating the next patch
            # raises `a` exactly where that patch is above -a, so the fixed point is the highest `a` there is.
            a, free = _solutions(rising, others).max(-1, keepdim=True)
        else:
            a, free = _descend(rising, others, [temperature / other for other in temperatures], left)
    if raw.requires_grad:
        # Given which patches are saturated, the last step is the solution in closed form, so its gradient is the exact
        # one (of the fixed point) and the steps before need none: a training step is a third faster for it.
        at_one = torch.zeros_like(raw, dtype=torch.bool)
        at_one = at_one.scatter(-1, indices, torch.arange(k, device=raw.device) < k - 1 - free)
        a = (free + 1).log() - scaled.masked_fill(at_one, -torch.inf).logsumexp(-1, keepdim=True)
    # Added unscaled: about where scores reach 1, the sum is exact then.
    return ((raw + temperature * a).clamp(max=0) / temperature).exp(), indices


def _solutions(rising: Tensor, others: Tensor) -> Tensor:
    """The `a` (..., k) of which exp(score + a) sums to what is left for them, where 1, 2, ... k of the best are free.

    Args:
        rising: (..., k) the best scores, lowest first, in units of the temperature.
        others: (..., n) the other scores.
    """
    total = torch.cat([others.logsumexp(-1, keepdim=True), rising], dim=-1).logcumsumexp(-1)[..., 1:]
    return torch.arange(1, rising.shape[-1] + 1, device=rising.device).log() - total


def _descend(rising: Tensor, others: Tensor, factors: list[float], left: int) -> tuple[Tensor, Tensor]:
    """Takes every step of the descent.

    Args:
        rising: As for `_solutions`.
        others: As for `_solutions`.
        factors: Of the scores, for the temperature of each step but the last ones.
        left: Steps left after these, at the temperature of the last.

    Returns:
        `a` and `free`, (..., 1) each.
    """
    # A step leads from one number of free patches to another that depends on it and the temperature alone: `following`,
    # tabulated for all of them at once.
    factor = rising.new_tensor(factors)[:, None]  # (T, 1)
    a = _solutions(rising[..., None, :] * factor, others[..., None, :] * factor)
    following = torch.searchsorted(rising[..., 1:].contiguous(), (-a / factor).flatten(-2), right=True).view_as(a)
    free = torch.full_like(following[..., 0, :1], rising.shape[-1] - 1)
    for step in range(len(factors) + min(left, 0)):
        free = following[..., step, :].gather(-1, free)
    # The steps left are all the same: as many at once as the binary digits of their number.
    repeated = following[..., -1, :]
    while left > 0:
        if left % 2:
            free = repeated.gather(-1, free)
        repeated, left = repeated.gather(-1, repeated), left // 2
    return a[..., -1, :].gather(-1, free), free

"""What routers decide while a network computes, put back in place on the image.

Axes: B batch, H height and W width in patches, M windows, N patches of a window, n patches to choose from.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from condswin.networks.blocks import SwinBlock
from condswin.networks.routers import Router, Routing
from condswin.networks.windows import unpartition, window_plan

#: What a router is for, by its place in a block.
QUERY, KEY_VALUE, FEED_FORWARD = "query", "key_value", "feed_forward"
_KINDS = {
    "attention.query_router": QUERY,
    "attention.key_value_router": KEY_VALUE,
    "feed_forward.router": FEED_FORWARD,
}


class Decision(NamedTuple):
    """What a router decided on a batch of images.

    Attributes:
        block: The block's name in the network, `encoder.0.1` say; blocks of one stage differ in the last number.
        kind: `query`, `key_value` or `feed_forward`.
        scores: (B, H, W) scores that the router gives.
        chosen: (B, H, W) booleans; None for queries, all of which get the heavy branch, weighted by their scores.
        entropy: Mean over images and windows of the scores' entropy, scores being scaled to a sum of 1, divided by its
            largest value log n: 1 where all patches are alike, 0 where one has everything.
    """

    block: str
    kind: str
    scores: Tensor
    chosen: Tensor | None
    entropy: float


@contextmanager
def watched(network: nn.Module) -> Iterator[list[Decision]]:
    """Collects what routers decide while the block runs, in the order in which they do.

    The network computes what it does otherwise. It must not be compiled.

    Args:
        network: Any; one without routers gives nothing.
    """
    decisions: list[Decision] = []
    handles = []
    for name, block in network.named_modules():
        if isinstance(block, SwinBlock):
            note, observers = _observers(name, block, decisions)
            handles.append(block.register_forward_pre_hook(note))
            for module, hook in observers:
                if isinstance(module, Router):
                    handles.append(module.register_forward_hook(hook, with_kwargs=True))
                else:
                    handles.append(module.register_forward_pre_hook(hook))
    try:
        yield decisions
    finally:
        for handle in handles:
            handle.remove()


def has_routers(network: nn.Module) -> bool:
    """Whether there is anything to watch: routers of blocks, not those of tiles."""
    blocks = [module for module in network.modules() if isinstance(module, SwinBlock)]
    return any(_find(block, path) is not None for block in blocks for path in _KINDS)


def _observers(
    name: str, block: SwinBlock, decisions: list[Decision]
) -> tuple[Callable[..., None], list[tuple[nn.Module, Callable[..., None]]]]:
    """A hook that notes the size of a block's feature map, and one for each of its routers."""
    height = width = 0

    def note(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        nonlocal height, width
        height, width = arguments[0].shape[1:3]

    def placed(kind: str, values: Tensor) -> Tensor:
        if kind == FEED_FORWARD:
            return values.view(-1, height, width).cpu()
        plan = window_plan(height, width, block.window, block.shift, values.device)
        return unpartition(values[..., None], plan)[..., 0].cpu()

    def decided(kind: str, scores: Tensor, indices: Tensor | None, real: Tensor | None) -> None:
        scores, chosen = scores.detach(), None
        if indices is not None:
            chosen = placed(kind, torch.zeros_like(scores, dtype=torch.bool).scatter(-1, indices, True))
        decisions.append(Decision(name, kind, placed(kind, scores), chosen, _entropy(scores, real)))

    def observer(kind: str) -> Callable[..., None]:
        def observe(router: nn.Module, given: tuple[Tensor], options: dict[str, Any], routing: Routing) -> None:
            decided(kind, cast(Router, router).weigh(*given, **options), routing.indices, options.get("real"))

        return observe

    found = {kind: router for path, kind in _KINDS.items() if (router := _find(block, path)) is not None}
    observers: list[tuple[nn.Module, Callable[..., None]]] = [
        (router, observer(kind)) for kind, router in found.items() if kind != QUERY
    ]
    if (query := found.get(QUERY)) is not None:
        # Asked for scores alone, which no hook sees; they are computed once more.
        def observe_queries(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            windows, plan = arguments
            decided(QUERY, query.weigh(windows, real=plan.real), None, plan.real)

        observers.append((block.attention, observe_queries))
    return note, observers


def _find(block: nn.Module, path: str) -> Router | None:
    try:
        router = block.get_submodule(path)
    except AttributeError:
        return None
    return router if isinstance(router, Router) else None


def _entropy(scores: Tensor, real: Tensor | None) -> float:
    """See `Decision.entropy`; windows with one patch have nothing to choose and are left out."""
    number = scores.new_full(scores.shape[:-1], scores.shape[-1]) if real is None else real.sum(-1).expand(
        scores.shape[:-1]
    )  # fmt: skip
    shares = scores / scores.sum(-1, keepdim=True)
    entropy = torch.special.entr(shares).sum(-1) / number.log()
    return float(entropy[number > 1].mean())

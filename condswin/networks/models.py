"""The making of the networks that `presets.py` names: ours differ only in how (and whether) they route."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

from torch import nn

from condswin.networks import rivals
from condswin.networks.attention import ConditionalWindowAttention, window_attention
from condswin.networks.blocks import ConditionalFeedForward, FeedForward, SwinBlock
from condswin.networks.gates import BoundedRouter, Gated, RandomRouter
from condswin.networks.presets import (
    FOLD,
    INPUT_CHANNELS,
    OUTPUT_CHANNELS,
    UNROLLED,
    Settings,
    is_unrolled,
    settings_of,
)
from condswin.networks.routers import IterativeRouter, LightRouter, Router
from condswin.networks.tiles import WidePixels
from condswin.networks.unet import SwinUNet
from condswin.networks.unrolled import CONDITIONS, UnrolledNetwork


def _swin_block(settings: Settings, dim: int, heads: int, shifted: bool) -> SwinBlock:
    wide = settings.feed_forward
    return SwinBlock(
        dim,
        window=settings.window,
        shifted=shifted,
        attention=window_attention(
            dim,
            heads=heads,
            window=settings.window,
            attended=settings.attended_windows,
            dropout=settings.dropout,
        ),
        feed_forward=FeedForward(
            dim, hidden=wide if isinstance(wide, int) else round(wide * dim), dropout=settings.dropout
        ),
    )


def _gated_block(settings: Settings, dim: int, heads: int, shifted: bool) -> SwinBlock:
    block = _swin_block(settings, dim, heads, shifted)
    for name in ("attention", "feed_forward"):
        setattr(block, name, Gated(getattr(block, name), dim))
    return block


def _wide_pixels(settings: Settings, in_channels: int, out_channels: int) -> WidePixels:
    light = settings.stem_channels
    router = (RandomRouter if settings.random else BoundedRouter)(light, k=settings.wide_tiles)
    tile = settings.tile * settings.patch // FOLD
    return WidePixels(in_channels, light, settings.wide_channels, out_channels, tile=tile, router=router)


def _conditional_block(
    make_router: Callable[[Settings, int, int | float], Router], settings: Settings, dim: int, heads: int, shifted: bool
) -> SwinBlock:
    block = SwinBlock(
        dim,
        window=settings.window,
        shifted=shifted,
        attention=ConditionalWindowAttention(
            dim,
            heads=heads,
            window=settings.window,
            attended=settings.attended_windows,
            light_channels=round(settings.light_attention * dim),
            query_router=make_router(settings, dim, settings.queries),
            key_value_router=make_router(settings, dim, settings.key_values),
            dropout=settings.dropout,
        ),
        feed_forward=ConditionalFeedForward(
            dim, router=make_router(settings, dim, settings.heavy_patches), dropout=settings.dropout
        ),
    )
    if settings.bounded:
        for sublayer in (block.attention, block.feed_forward):
            sublayer.light = Gated(cast(nn.Module, sublayer.light), dim)
    return block


def _light_router(settings: Settings, dim: int, k: int | float) -> Router:
    if settings.random:
        return RandomRouter(dim, k=k)
    return BoundedRouter(dim, k=k) if settings.bounded else LightRouter(dim, k=k, rescaled=settings.rescaled)


def _iterative_router(settings: Settings, dim: int, k: int | float) -> Router:
    if settings.random:
        return RandomRouter(dim, k=k)
    return IterativeRouter(
        dim,
        k=k,
        iterations=settings.iterations,
        epsilon=settings.epsilon,
        epsilon_init=settings.epsilon_init,
        epsilon_decay=settings.epsilon_decay,
        straight_through=settings.straight_through,
    )


_BLOCKS: dict[str, Callable[[Settings, int, int, bool], SwinBlock]] = {
    "swin": _swin_block,
    "swin-gated": _gated_block,
    "conditional-iterative": partial(_conditional_block, _iterative_router),
    "conditional-light": partial(_conditional_block, _light_router),
}


def _swin_unet(
    variant: str, settings: Settings, in_channels: int, out_channels: int, *, conditions: int = 0
) -> nn.Module:
    return SwinUNet(
        in_channels=in_channels,
        out_channels=out_channels,
        embedding=settings.embedding,
        patch=settings.patch,
        heads=settings.heads,
        make_block=partial(_BLOCKS[variant], settings),
        stem_channels=settings.stem_channels,
        wide=_wide_pixels(settings, in_channels, out_channels) if settings.wide_channels else None,
        residual=settings.residual,
        conditions=conditions,
        deep_supervision=settings.deep_supervision,
    )


_REGULARISERS: dict[str, Callable[..., nn.Module]] = {
    **{name: partial(_swin_unet, name) for name in _BLOCKS},
    "unet": rivals.unet,
    "swin-unetr": rivals.swin_unetr,
}


def _unrolled_network(network: str, settings: Any, in_channels: int, out_channels: int) -> nn.Module:
    pairs, rest = divmod(in_channels - INPUT_CHANNELS, 2 * OUTPUT_CHANNELS)
    if pairs < 0 or rest or out_channels != OUTPUT_CHANNELS:
        raise ValueError(
            f"{network} with in_channels={in_channels}, out_channels={out_channels}: it takes {INPUT_CHANNELS} "
            f"(complex image and mask), and {2 * OUTPUT_CHANNELS} for each pair of neighbouring slices, and gives "
            f"{OUTPUT_CHANNELS}, so it reconstructs and does nothing else"
        )
    regulariser = _REGULARISERS[network.removeprefix(UNROLLED)]
    # The unrolling adds the input itself.
    plain = replace(settings, residual=False)
    known = {"conditions": CONDITIONS} if settings.conditioned else {}
    return UnrolledNetwork(
        partial(regulariser, plain, in_channels - 1, OUTPUT_CHANNELS, **known),
        cascades=settings.cascades,
        neighbours=pairs,
        conditioned=settings.conditioned,
        shared=settings.shared_weights,
        hard=settings.hard_consistency,
        demodulated=settings.demodulated,
        variation_steps=settings.variation_steps,
        variation_weight=settings.variation_weight,
    )


def create_model(
    network: str, *, preset: str | None = None, in_channels: int = 1, out_channels: int = 1, **overrides: Any
) -> nn.Module:
    """Makes a network with fresh weights.

    Args:
        network: One of `list_variants()`.
        preset: A size, one of its presets; None for the defaults of its settings.
        in_channels: Channels of the input image; 3 for unrolled networks, and 4 more for each pair of neighbours.
        out_channels: Channels of the output image; 2 for unrolled networks.
        **overrides: Settings that differ from the preset; see `settings_of`.

    Returns:
        A module from (B, in_channels, H, W) to (B, out_channels, H, W), H and W of at least 8.

    Raises:
        ValueError: A name is unknown or a setting impossible; the message says which and what there is.
    """
    settings = settings_of(network, preset=preset, **overrides)
    for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
        if value < 1:
            raise ValueError(f"{name}={value}: must be at least 1")
    build = partial(_unrolled_network, network) if is_unrolled(network) else _REGULARISERS[network]
    return build(settings, in_channels, out_channels)

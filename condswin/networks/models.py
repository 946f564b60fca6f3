"""The networks by name: variants differ only in how (and whether) they route, presets only in size."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from torch import nn

from condswin.networks.attention import ConditionalWindowAttention, WindowAttention
from condswin.networks.blocks import ConditionalFeedForward, FeedForward, SwinBlock
from condswin.networks.routers import IterativeRouter, LightRouter, Router
from condswin.networks.unet import FOLD, SwinUNet
from condswin.networks.unrolled import INPUT_CHANNELS, OUTPUT_CHANNELS, UnrolledNetwork

#: `unrolled-<variant>` is an unrolled network with that variant as its regulariser.
UNROLLED = "unrolled-"


@dataclass(frozen=True)
class Settings:
    """Everything about a network but its channels in and out.

    Attributes:
        embedding: Channels of the first stage.
        patch: Patch side, pixels.
        window: Window side, patches.
        heads: Heads per stage, the bottleneck's last.
        feed_forward: Hidden channels of the plain variant's feed-forward: an integer for all stages alike (the
            thesis's), a float as a multiple of the stage's channels.
        key_values: Routed key/value patches per window; an integer counts, a float is a fraction of the window.
        queries: The iterative query router's target sum per window, likewise.
        heavy_patches: Patches of an image that get the heavy feed-forward; an integer counts, a float is a fraction.
        iterations: Iterative router: coordinate descent steps.
        epsilon: Iterative router: final temperature.
        epsilon_init: Iterative router: first temperature.
        epsilon_decay: Iterative router: factor per step.
        straight_through: Iterative router: pass gradient where scores saturate.
        stem_channels: As for `SwinUNet`.
        residual: As for `SwinUNet`.
        dropout: Probability in attention and feed-forward outputs.
        cascades: Unrolled networks: as for `UnrolledNetwork`.
        shared_weights: Unrolled networks: as for `UnrolledNetwork`.
        hard_consistency: Unrolled networks: as for `UnrolledNetwork`.
    """

    embedding: int = 128
    patch: int = 4
    window: int = 8
    heads: tuple[int, ...] = (4, 8)
    feed_forward: int | float = 256
    key_values: int | float = 7
    queries: int | float = 7
    heavy_patches: int | float = 7
    iterations: int = 20
    epsilon: float = 0.1
    epsilon_init: float = 4.0
    epsilon_decay: float = 0.7
    straight_through: bool = True
    stem_channels: int = 0
    residual: bool = False
    dropout: float = 0.0
    cascades: int = 4
    shared_weights: bool = False
    hard_consistency: bool = False


#: Settings that only unrolled networks have.
_UNROLLED_SETTINGS = {"cascades", "shared_weights", "hard_consistency"}

PRESETS: dict[str, Settings] = {
    # The thesis's networks: one and two "basic layers" (slides, "Training configurations").
    "thesis-1": Settings(dropout=0.2),
    "thesis-2": Settings(dropout=0.2, heads=(4, 8, 16)),
    # Small enough to learn something in a minute on two cores.
    "demo": Settings(
        embedding=32,
        heads=(2, 4),
        feed_forward=2.0,
        key_values=16,
        queries=16,
        heavy_patches=0.25,
        iterations=10,
        epsilon_decay=0.5,
        stem_channels=32,
        residual=True,
    ),
}


def _swin_block(settings: Settings, dim: int, heads: int, shift: int) -> SwinBlock:
    wide = settings.feed_forward
    return SwinBlock(
        dim,
        window=settings.window,
        shift=shift,
        attention=WindowAttention(dim, heads=heads, window=settings.window, dropout=settings.dropout),
        feed_forward=FeedForward(
            dim, hidden=wide if isinstance(wide, int) else round(wide * dim), dropout=settings.dropout
        ),
    )


def _conditional_block(
    make_router: Callable[[Settings, int, int | float], Router], settings: Settings, dim: int, heads: int, shift: int
) -> SwinBlock:
    return SwinBlock(
        dim,
        window=settings.window,
        shift=shift,
        attention=ConditionalWindowAttention(
            dim,
            heads=heads,
            window=settings.window,
            query_router=make_router(settings, dim, settings.queries),
            key_value_router=make_router(settings, dim, settings.key_values),
            dropout=settings.dropout,
        ),
        feed_forward=ConditionalFeedForward(
            dim, router=make_router(settings, dim, settings.heavy_patches), dropout=settings.dropout
        ),
    )


def _light_router(_: Settings, dim: int, k: int | float) -> Router:
    return LightRouter(dim, k=k)


def _iterative_router(settings: Settings, dim: int, k: int | float) -> Router:
    return IterativeRouter(
        dim,
        k=k,
        iterations=settings.iterations,
        epsilon=settings.epsilon,
        epsilon_init=settings.epsilon_init,
        epsilon_decay=settings.epsilon_decay,
        straight_through=settings.straight_through,
    )


_BLOCKS: dict[str, Callable[[Settings, int, int, int], SwinBlock]] = {
    "swin": _swin_block,
    "conditional-iterative": lambda *stage: _conditional_block(_iterative_router, *stage),
    "conditional-light": lambda *stage: _conditional_block(_light_router, *stage),
}


def list_variants() -> list[str]:
    """Names that `create_model` takes."""
    return [*_BLOCKS, *(f"{UNROLLED}{variant}" for variant in _BLOCKS)]


def is_unrolled(variant: str) -> bool:
    """Whether a variant takes and gives complex images; see `UnrolledNetwork`."""
    return variant.startswith(UNROLLED)


def create_model(
    variant: str, *, preset: str | None = None, in_channels: int = 1, out_channels: int = 1, **overrides: Any
) -> nn.Module:
    """Makes a network with fresh weights.

    Args:
        variant: One of `list_variants()`.
        preset: One of `PRESETS`; None for the defaults of `Settings`.
        in_channels: Channels of the input image; 3 for unrolled networks.
        out_channels: Channels of the output image; 2 for unrolled networks.
        **overrides: Fields of `Settings` that differ from the preset.

    Returns:
        A module from (B, in_channels, H, W) to (B, out_channels, H, W), H and W of at least 8.

    Raises:
        ValueError: A name is unknown or a setting impossible; the message says which and what there is.
    """
    if variant not in list_variants():
        raise ValueError(f"no variant {variant!r}; there are: {', '.join(list_variants())}")
    settings = _settings(preset, overrides)
    for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
        if value < 1:
            raise ValueError(f"{name}={value}: must be at least 1")
    if not is_unrolled(variant):
        if misplaced := sorted(_UNROLLED_SETTINGS & set(overrides)):
            raise ValueError(f"{', '.join(misplaced)}: a setting of unrolled networks; {variant!r} is not one")
        return _swin_unet(variant, settings, in_channels, out_channels)
    if (in_channels, out_channels) != (INPUT_CHANNELS, OUTPUT_CHANNELS):
        raise ValueError(
            f"{variant!r} with in_channels={in_channels}, out_channels={out_channels}: it takes {INPUT_CHANNELS} "
            f"(complex image and mask) and gives {OUTPUT_CHANNELS}, so it reconstructs and does nothing else"
        )
    return UnrolledNetwork(
        lambda: _swin_unet(variant.removeprefix(UNROLLED), settings, OUTPUT_CHANNELS, OUTPUT_CHANNELS),
        cascades=settings.cascades,
        shared=settings.shared_weights,
        hard=settings.hard_consistency,
    )


def _swin_unet(variant: str, settings: Settings, in_channels: int, out_channels: int) -> SwinUNet:
    return SwinUNet(
        in_channels=in_channels,
        out_channels=out_channels,
        embedding=settings.embedding,
        patch=settings.patch,
        window=settings.window,
        heads=settings.heads,
        make_block=lambda dim, heads, shift: _BLOCKS[variant](settings, dim, heads, shift),
        stem_channels=settings.stem_channels,
        residual=settings.residual,
    )


def _settings(preset: str | None, overrides: dict[str, Any]) -> Settings:
    if preset is not None and preset not in PRESETS:
        raise ValueError(f"no preset {preset!r}; there are: {', '.join(PRESETS)}")
    known = {field.name for field in fields(Settings)}
    if unknown := sorted(set(overrides) - known):
        raise ValueError(f"no network setting {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
    base = Settings() if preset is None else PRESETS[preset]
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in overrides.items()
    }
    settings = replace(base, **given)
    for name, value in asdict(settings).items():
        if name in ("embedding", "patch", "window", "iterations", "cascades") and value < 1:
            raise ValueError(f"{name}={value}: must be at least 1")
        if name in ("key_values", "queries", "heavy_patches", "feed_forward") and value <= 0:
            raise ValueError(f"{name}={value}: must be positive")
    if len(settings.heads) < 2:
        raise ValueError(f"heads={settings.heads}: give one number per stage and one for the bottleneck")
    if settings.stem_channels and settings.patch % FOLD:
        raise ValueError(f"patch={settings.patch}: must be even where stem_channels is not 0")
    for stage, heads in enumerate(settings.heads):
        channels = settings.embedding * 2**stage
        if heads < 2 or heads % 2 or channels % heads:
            raise ValueError(
                f"heads[{stage}]={heads}: must be even (the light branch takes half) and divide {channels}, "
                "the stage's channels"
            )
    return settings

"""The networks by name: variants differ only in how (and whether) they route, presets only in size.

`_VARIANTS` holds every name that `create_model` takes. An entry knows the fields, the presets and the making of its
network, so a new kind of network is an entry (or several, made in a loop) and touches nothing else.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, make_dataclass, replace
from functools import partial
from typing import Any, Literal

from torch import nn

from condswin.networks import rivals
from condswin.networks.attention import ConditionalWindowAttention, WindowAttention
from condswin.networks.blocks import ConditionalFeedForward, FeedForward, SwinBlock
from condswin.networks.routers import IterativeRouter, LightRouter, Router
from condswin.networks.unet import FOLD, SwinUNet
from condswin.networks.unrolled import INPUT_CHANNELS, OUTPUT_CHANNELS, UnrolledNetwork

#: `unrolled-<name>` is an unrolled network with that network as its regulariser.
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
        iterations: Iterative router: coordinate descent steps; None for as many as converge at any image size.
        epsilon: Iterative router: final temperature.
        epsilon_init: Iterative router: first temperature.
        epsilon_decay: Iterative router: factor per step.
        straight_through: Iterative router: fraction of a softmax's gradient that is passed even where scores saturate.
        rescaled: Light router: scale scores and gates to a mean of 1; off, the plain softmax, for ablations.
        stem_channels: As for `SwinUNet`.
        residual: As for `SwinUNet`.
        dropout: Probability in attention and feed-forward outputs.
    """

    embedding: int = 128
    patch: int = 4
    window: int = 8
    heads: tuple[int, ...] = (4, 8)
    feed_forward: int | float = 256
    key_values: int | float = 7
    queries: int | float = 7
    heavy_patches: int | float = 7
    iterations: int | None = 20
    epsilon: float = 0.1
    epsilon_init: float = 4.0
    epsilon_decay: float = 0.7
    straight_through: float = 0.1
    rescaled: bool = True
    stem_channels: int = 0
    residual: bool = False
    dropout: float = 0.0


# Small enough to learn something in a minute on two cores.
_DEMO = Settings(
    embedding=32,
    heads=(2, 4),
    feed_forward=2.0,
    key_values=16,
    queries=16,
    heavy_patches=0.25,
    iterations=None,
    stem_channels=32,
    residual=True,
)

PRESETS: dict[str, Settings] = {
    # The thesis's networks: one and two "basic layers" (slides, "Training configurations").
    "thesis-1": Settings(dropout=0.2),
    "thesis-2": Settings(dropout=0.2, heads=(4, 8, 16)),
    "demo": _DEMO,
    # Where to begin with real data, whose images are larger: docs/ablation.md ("Size") says why this and no wider.
    "base": replace(_DEMO, heads=(2, 4, 8)),
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


def _light_router(settings: Settings, dim: int, k: int | float) -> Router:
    return LightRouter(dim, k=k, rescaled=settings.rescaled)


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
    "conditional-iterative": partial(_conditional_block, _iterative_router),
    "conditional-light": partial(_conditional_block, _light_router),
}


def _swin_unet(variant: str, settings: Settings, in_channels: int, out_channels: int) -> nn.Module:
    _check(settings)
    return SwinUNet(
        in_channels=in_channels,
        out_channels=out_channels,
        embedding=settings.embedding,
        patch=settings.patch,
        window=settings.window,
        heads=settings.heads,
        make_block=partial(_BLOCKS[variant], settings),
        stem_channels=settings.stem_channels,
        residual=settings.residual,
    )


def _check(settings: Settings) -> None:
    for name, value in asdict(settings).items():
        if name in ("embedding", "patch", "window") and value < 1:
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


#: `variant`: the networks that this project is about. `rival`: those of others to compare with. `unrolled`: all of
#: them as regularisers of unrolled networks.
Group = Literal["variant", "rival", "unrolled"]


@dataclass(frozen=True)
class _Entry:
    """One name of `create_model`.

    Attributes:
        group: See `Group`.
        presets: Instances of one frozen dataclass, whose fields are the settings there are.
        build: (settings, in_channels, out_channels) -> network; refuses impossible settings with a ValueError.
    """

    group: Group
    presets: Mapping[str, Any]
    build: Callable[[Any, int, int], nn.Module]


_IMAGE_TO_IMAGE: dict[str, _Entry] = {
    **{name: _Entry("variant", PRESETS, partial(_swin_unet, name)) for name in _BLOCKS},
    "unet": _Entry("rival", rivals.UNET_PRESETS, rivals.unet),
    "swin-unetr": _Entry("rival", rivals.SWIN_UNETR_PRESETS, rivals.swin_unetr),
}


def _unrolled(name: str) -> _Entry:
    """The entry of `unrolled-<name>`: the settings of `name`, and those of the unrolling beside them."""
    regulariser = _IMAGE_TO_IMAGE[name]
    kind = type(next(iter(regulariser.presets.values())))
    unrolled = make_dataclass(
        f"Unrolled{kind.__name__}",
        [("cascades", int, 4), ("shared_weights", bool, False), ("hard_consistency", bool, False)],
        bases=(kind,),
        frozen=True,
    )
    presets = {preset: unrolled(**asdict(settings)) for preset, settings in regulariser.presets.items()}

    def build(settings: Any, in_channels: int, out_channels: int) -> nn.Module:
        if (in_channels, out_channels) != (INPUT_CHANNELS, OUTPUT_CHANNELS):
            raise ValueError(
                f"{UNROLLED}{name} with in_channels={in_channels}, out_channels={out_channels}: it takes "
                f"{INPUT_CHANNELS} (complex image and mask) and gives {OUTPUT_CHANNELS}, so it reconstructs and does "
                "nothing else"
            )
        if settings.cascades < 1:
            raise ValueError(f"cascades={settings.cascades}: must be at least 1")
        if hasattr(settings, "residual"):
            settings = replace(settings, residual=False)  # the unrolling adds the input itself
        return UnrolledNetwork(
            partial(regulariser.build, settings, OUTPUT_CHANNELS, OUTPUT_CHANNELS),
            cascades=settings.cascades,
            shared=settings.shared_weights,
            hard=settings.hard_consistency,
        )

    return _Entry("unrolled", presets, build)


_VARIANTS: dict[str, _Entry] = {
    **_IMAGE_TO_IMAGE,
    **{f"{UNROLLED}{name}": _unrolled(name) for name in _IMAGE_TO_IMAGE},
}


def list_variants(group: Group | None = None) -> list[str]:
    """Names that `create_model` and the parameters take; those of one group only, if given."""
    return [name for name, entry in _VARIANTS.items() if group in (None, entry.group)]


def is_unrolled(variant: str) -> bool:
    """Whether a variant takes and gives complex images; see `UnrolledNetwork`."""
    return variant.startswith(UNROLLED)


def create_model(
    variant: str, *, preset: str | None = None, in_channels: int = 1, out_channels: int = 1, **overrides: Any
) -> nn.Module:
    """Makes a network with fresh weights.

    Args:
        variant: One of `list_variants()`.
        preset: A size, one of `PRESETS`; None for the defaults of the variant's settings.
        in_channels: Channels of the input image; 3 for unrolled networks.
        out_channels: Channels of the output image; 2 for unrolled networks.
        **overrides: Settings that differ from the preset: fields of `Settings`, or of a rival's settings;
            unrolled networks also have `cascades`, `shared_weights` and `hard_consistency` (see `UnrolledNetwork`).

    Returns:
        A module from (B, in_channels, H, W) to (B, out_channels, H, W), H and W of at least 8.

    Raises:
        ValueError: A name is unknown or a setting impossible; the message says which and what there is.
    """
    if variant not in _VARIANTS:
        raise ValueError(f"no variant {variant!r}; there are: {', '.join(_VARIANTS)}")
    entry = _VARIANTS[variant]
    if preset is not None and preset not in entry.presets:
        raise ValueError(f"{variant} has no preset {preset!r}; there are: {', '.join(entry.presets)}")
    kind = type(next(iter(entry.presets.values())))
    known = {field.name for field in fields(kind)}
    if unknown := sorted(set(overrides) - known):
        raise ValueError(f"{variant} has no setting {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
    for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
        if value < 1:
            raise ValueError(f"{name}={value}: must be at least 1")
    base = kind() if preset is None else entry.presets[preset]
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in overrides.items()
    }
    return entry.build(replace(base, **given), in_channels, out_channels)

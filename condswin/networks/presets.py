"""What networks there are, in which sizes, with which settings: everything about them that is known without PyTorch.

`NETWORKS` holds every name that `create_model` and the parameters take. A new kind of network is its settings, presets
and limits here, and its making in `models.py`.
"""

import types
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, make_dataclass, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from condswin.suggest import unknown

#: `unrolled-<name>` is an unrolled network with that network as its regulariser.
UNROLLED = "unrolled-"
#: Of unrolled networks: real and imaginary part of the zero-filled image, and the mask of sampled columns; the parts.
#: Neighbouring slices follow, in real and imaginary part.
INPUT_CHANNELS, OUTPUT_CHANNELS = 3, 2
#: Side of the square of pixels that the stem folds into channels.
FOLD = 2


@dataclass(frozen=True)
class Settings:
    """Everything about a network but its channels in and out.

    Attributes:
        embedding: Channels of the first stage.
        patch: Patch side, pixels.
        window: Window side, patches; or its rows and columns, of which columns go along phase encoding.
        attended_windows: Windows whose patches a window attends to in plain and light attention: itself, and those that
            it has most in common with; 1 for window attention.
        heads: Heads per stage, the bottleneck's last.
        feed_forward: Hidden channels of the plain variant's feed-forward: an integer for all stages alike (the
            thesis's), a float as a multiple of the stage's channels.
        light_attention: Channels in the heads of the light attention, as a multiple of the stage's; 0.5 makes a light
            head as wide as a heavy one, and halves the products.
        key_values: Routed key/value patches per window; an integer counts, a float is a fraction of the window.
        queries: The iterative query router's target sum per window, likewise.
        heavy_patches: Patches of an image that get the heavy feed-forward; an integer counts, a float is a fraction.
        iterations: Iterative router: coordinate descent steps; null for as many as converge at any image size.
        epsilon: Iterative router: final temperature.
        epsilon_init: Iterative router: first temperature.
        epsilon_decay: Iterative router: factor per step.
        straight_through: Iterative router: fraction of a softmax's gradient that is passed even where scores saturate.
        rescaled: Light router: scale scores and gates to a mean of 1; off, the plain softmax, for ablations.
        bounded: Light router: gates of twice a sigmoid, each of its own, and such gates on the light branches too.
        random: Choose at random, with weights of 1, instead of by a router: what routing is measured against.
        stem_channels: Channels of a stem of convolutions whose features are joined again before the output; 0 for none,
            as in the thesis.
        wide_channels: Channels of further convolutions beside the stem's and the output's, which only routed tiles of
            an image get; 0 for none.
        wide_tiles: Tiles of an image that get them; an integer counts, a float is a fraction.
        tile: Side of such a tile, patches.
        residual: Add the input to the output where both have the same channels.
        deep_supervision: Answer at each scale of the decoder in training, for a loss of its own; a segmentation's.
        dropout: Probability in attention and feed-forward outputs.
    """

    embedding: int = 128
    patch: int = 4
    window: int | tuple[int, int] = 8
    attended_windows: int = 1
    heads: tuple[int, ...] = (4, 8)
    feed_forward: int | float = 256
    light_attention: float = 1.0
    key_values: int | float = 7
    queries: int | float = 7
    heavy_patches: int | float = 7
    iterations: int | None = 20
    epsilon: float = 0.1
    epsilon_init: float = 4.0
    epsilon_decay: float = 0.7
    straight_through: float = 0.1
    rescaled: bool = True
    bounded: bool = False
    random: bool = False
    stem_channels: int = 0
    wide_channels: int = 0
    wide_tiles: int | float = 0.375
    tile: int = 4
    residual: bool = False
    deep_supervision: bool = False
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
    # Where to begin with real data, whose images are larger. Why no wider: docs/explanation/ablation.md, "Size".
    "base": replace(_DEMO, heads=(2, 4, 8)),
}


@dataclass(frozen=True)
class UNetSettings:
    """Settings of `unet`.

    Attributes:
        embedding: Channels of the first of five stages; later ones have 1, 2, 4 and 8 times as many.
        residual: Add the input to the output, where channels allow.
        dropout: Probability after each convolution.
    """

    embedding: int = 32
    residual: bool = False
    dropout: float = 0.0


@dataclass(frozen=True)
class SwinUNETRSettings:
    """Settings of `swin-unetr`.

    Attributes:
        embedding: Channels of the first stage; a multiple of 12.
        heads: Heads of the four stages.
        depths: Blocks of the four stages.
        window: Window side, patches of 2 pixels.
        residual: Add the input to the output, where channels allow.
        dropout: Probability in attention and feed-forward outputs.
    """

    embedding: int = 24
    heads: tuple[int, ...] = (3, 6, 12, 24)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    window: int = 7
    residual: bool = False
    dropout: float = 0.0


# About as many parameters as `swin` has at the preset of the same name. SwinUNETR has none as small as `demo` or
# `base`.
UNET_PRESETS = {
    "thesis-1": UNetSettings(dropout=0.2),
    "thesis-2": UNetSettings(dropout=0.2, embedding=58),
    "demo": UNetSettings(embedding=9, residual=True),
    "base": UNetSettings(embedding=17, residual=True),
}
SWIN_UNETR_PRESETS = {
    "thesis-1": SwinUNETRSettings(dropout=0.2, embedding=12),
    "thesis-2": SwinUNETRSettings(dropout=0.2),
    "demo": SwinUNETRSettings(embedding=12, depths=(1, 1, 1, 1), residual=True),
    "base": SwinUNETRSettings(embedding=12, residual=True),
}


_POSITIVE = ("key_values", "queries", "heavy_patches", "feed_forward", "light_attention", "wide_tiles")


def _check_ours(settings: Settings) -> None:
    for name, value in asdict(settings).items():
        smallest = min(value) if isinstance(value, tuple) and value else value
        if name in ("embedding", "patch", "window", "attended_windows", "tile") and smallest < 1:
            raise ValueError(f"{name}={value}: must be at least 1")
        if name in _POSITIVE and value <= 0:
            raise ValueError(f"{name}={value}: must be positive")
        if name in ("stem_channels", "wide_channels", "straight_through") and value < 0:
            raise ValueError(f"{name}={value}: must not be negative")
    if settings.iterations is not None and settings.iterations < 1:
        raise ValueError(f"iterations={settings.iterations}: must be at least 1, or null, to converge")
    if not 0 < settings.epsilon <= settings.epsilon_init or not 0 < settings.epsilon_decay <= 1:
        raise ValueError(
            f"epsilon={settings.epsilon}, epsilon_init={settings.epsilon_init}, "
            f"epsilon_decay={settings.epsilon_decay}: needs 0 < epsilon <= epsilon_init and 0 < epsilon_decay <= 1"
        )
    if len(settings.heads) < 2:
        raise ValueError(f"heads={settings.heads}: give one number per stage and one for the bottleneck")
    if settings.stem_channels and settings.patch % FOLD:
        raise ValueError(f"patch={settings.patch}: must be even where stem_channels is not 0")
    if settings.wide_channels and not settings.stem_channels:
        raise ValueError(f"wide_channels={settings.wide_channels}: needs stem_channels above 0")
    for stage, heads in enumerate(settings.heads):
        channels = settings.embedding * 2**stage
        if heads < 2 or heads % 2 or channels % heads:
            raise ValueError(
                f"heads[{stage}]={heads}: must be even (the light branch takes half) and divide {channels}, "
                "the stage's channels"
            )
        if settings.light_attention * channels % (heads // 2):
            raise ValueError(
                f"light_attention={settings.light_attention}: {settings.light_attention * channels:g} channels of "
                f"stage {stage} must be shared out to {heads // 2} heads"
            )


def _check_unet(settings: UNetSettings) -> None:
    if settings.embedding < 1:
        raise ValueError(f"embedding={settings.embedding}: must be at least 1")


def _check_swin_unetr(settings: SwinUNETRSettings) -> None:
    if settings.embedding < 12 or settings.embedding % 12:
        raise ValueError(f"embedding={settings.embedding}: must be a multiple of 12")
    for name, values in (("heads", settings.heads), ("depths", settings.depths)):
        if len(values) != 4 or min(values) < 1:
            raise ValueError(f"{name}={values}: give four numbers of at least 1, one per stage")
    for stage, heads in enumerate(settings.heads):
        if settings.embedding * 2**stage % heads:
            raise ValueError(
                f"heads[{stage}]={heads}: must divide {settings.embedding * 2**stage}, the stage's channels"
            )
    if settings.window < 2:
        raise ValueError(f"window={settings.window}: must be at least 2")


#: `variant`: the networks that this project is about. `rival`: those of others to compare with. `unrolled`: all of
#: them as regularisers of unrolled networks.
Group = Literal["variant", "rival", "unrolled"]


@dataclass(frozen=True)
class Network:
    """One name of `create_model`.

    Attributes:
        group: See `Group`.
        presets: Instances of one frozen dataclass, whose fields are the settings there are.
        check: Refuses impossible settings with a ValueError.
        says: What it is, in sentences.
    """

    group: Group
    presets: Mapping[str, Any]
    check: Callable[[Any], None]
    says: str

    @property
    def settings(self) -> type:
        """The dataclass of its settings."""
        return type(next(iter(self.presets.values())))


_ROUTED = "A Swin U-Net with a light branch for all patches, and a heavy branch for those that {} picks."
_IMAGE_TO_IMAGE: dict[str, Network] = {
    **{
        name: Network("variant", PRESETS, _check_ours, says)
        for name, says in {
            "swin": "A plain Swin U-Net: all patches take the same path.",
            "swin-gated": "A Swin U-Net that weights the results of each patch; all take the same path.",
            "conditional-iterative": _ROUTED.format("an iterative router (soft top-k)"),
            "conditional-light": _ROUTED.format("a light router (softmax)"),
        }.items()
    },
    "unet": Network("rival", UNET_PRESETS, _check_unet, "MONAI's convolutional U-Net."),
    "swin-unetr": Network("rival", SWIN_UNETR_PRESETS, _check_swin_unetr, "MONAI's SwinUNETR."),
}


@dataclass(frozen=True)
class Unrolling:
    """What an unrolled network has beside the settings of its regulariser.

    Attributes:
        cascades: How often regulariser and data consistency are applied.
        shared_weights: One regulariser, with one set of weights, in all cascades.
        hard_consistency: Replace the measured samples in each data consistency instead of drawing near them.
        demodulated: Show the regulariser images without the phase of their low frequencies.
        conditioned: Tell the regulariser which cascade it is in, and the shares of columns that are sampled, and are
            sampled without a gap: they scale and shift its features. For `swin` and its like alone.
        variation_steps: Steps of total variation that the first cascade starts from; 0 to start from the zero-filled
            image.
        variation_weight: Of the total variation, relative to the largest zero-filled magnitude of an image.
    """

    cascades: int = 4
    shared_weights: bool = False
    hard_consistency: bool = False
    demodulated: bool = True
    conditioned: bool = False
    variation_steps: int = 30
    variation_weight: float = 0.003


def _unrolled(regulariser: Network) -> Network:
    """The settings of the regulariser, and those of the unrolling beside them."""
    settings = make_dataclass(
        f"Unrolled{regulariser.settings.__name__}", [], bases=(Unrolling, regulariser.settings), frozen=True
    )

    def check(values: Any) -> None:
        if values.cascades < 1:
            raise ValueError(f"cascades={values.cascades}: must be at least 1")
        if values.variation_steps < 0:
            raise ValueError(f"variation_steps={values.variation_steps}: must not be negative")
        if not values.variation_weight > 0:
            raise ValueError(f"variation_weight={values.variation_weight}: must be positive")
        if values.conditioned and regulariser.group == "rival":
            raise ValueError("conditioned=True: networks of others have no features to scale; take unrolled-swin")
        if getattr(values, "deep_supervision", False):
            raise ValueError("deep_supervision=True: a regulariser's answer has no target at any scale; leave it off")
        regulariser.check(values)

    presets = {name: settings(**asdict(preset)) for name, preset in regulariser.presets.items()}
    says = "Unrolled: from total variation on, a network and a return to the measured k-space take turns. The network: "
    return Network("unrolled", presets, check, says + regulariser.says)


NETWORKS: dict[str, Network] = {
    **_IMAGE_TO_IMAGE,
    **{f"{UNROLLED}{name}": _unrolled(network) for name, network in _IMAGE_TO_IMAGE.items()},
}


def list_variants(group: Group | None = None) -> list[str]:
    """Names that `create_model` and the parameters take; those of one group only, if given."""
    return [name for name, network in NETWORKS.items() if group in (None, network.group)]


def is_unrolled(network: str) -> bool:
    """Whether a network takes and gives complex images; see `UnrolledNetwork`."""
    return network.startswith(UNROLLED)


def settings_of(network: str, *, preset: str | None = None, **overrides: Any) -> Any:
    """The settings of a network: those of a preset, and what differs from it.

    Args:
        network: A key of `NETWORKS`.
        preset: One of its presets; None for the defaults of its settings.
        **overrides: Fields of its settings; lists do for tuples.

    Raises:
        ValueError: A name is unknown, a value is of another type, or they are impossible together.
    """
    if network not in NETWORKS:
        raise ValueError(unknown("network", network, NETWORKS))
    entry = NETWORKS[network]
    if preset is not None and preset not in entry.presets:
        raise ValueError(f"{network} has {unknown('preset', preset, entry.presets)}")
    known = get_type_hints(entry.settings)
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in overrides.items()}
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"{network} has {unknown('setting', name, sorted(known))}")
        if not _fits(value, known[name]):
            raise ValueError(f"{name}={value!r}: must be {_words(known[name])}")
    settings = replace(entry.settings() if preset is None else entry.presets[preset], **given)
    if not 0 <= settings.dropout < 1:
        raise ValueError(f"dropout={settings.dropout}: must be at least 0 and below 1")
    entry.check(settings)
    return settings


def _fits(value: object, kind: Any) -> bool:
    if isinstance(kind, types.UnionType):
        return any(_fits(value, part) for part in get_args(kind))
    if get_origin(kind) is tuple:
        part, *others = get_args(kind)
        if not isinstance(value, tuple) or not (Ellipsis in others or len(value) == 1 + len(others)):
            return False
        return all(_fits(each, part) for each in value)
    if kind is float:
        return type(value) in (int, float)
    return type(value) is kind


def _words(kind: Any) -> str:
    if isinstance(kind, types.UnionType):
        return " or ".join(_words(part) for part in get_args(kind))
    if get_origin(kind) is tuple:
        return "a list of integers" if get_args(kind)[-1] is Ellipsis else "a list of two integers"
    return {int: "an integer", float: "a number", bool: "true or false", types.NoneType: "null"}[kind]

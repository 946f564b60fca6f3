"""The Swin U-Net and its conditional variants as one writes them down first: the numerical reference of ours.

Unfused softmax attention, einops rearranges, the bias gathered per sample. Modules have the names of ours, so that
weights are exchanged by state dict. `python -m tests.networks.bench_reference` says how much slower it is.

Axes: b batch, m windows, n patches of a window, k routed ones, h heads, d channels of a head.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from condswin.networks.presets import PRESETS, Settings
from condswin.networks.routers import count

FAR = -1e4


def position_index(window: int, rows: int, columns: int) -> Tensor:
    places = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), -1).reshape(-1, 2)
    offset = places[:, None] - places[None, :] + window - 1
    return offset[..., 0] * (2 * window - 1) + offset[..., 1]


def regions(height: int, width: int, sizes: tuple[int, int], shifts: tuple[int, int]) -> Tensor:
    """(m, n) labels after padding and shift: padding -1, else which side of each seam."""
    padded = height + -height % sizes[0], width + -width % sizes[1]
    rows = (torch.arange(padded[0]) >= padded[0] - shifts[0]).long()
    columns = (torch.arange(padded[1]) >= padded[1] - shifts[1]).long()
    labels = 2 * rows[:, None] + columns[None, :]
    real = torch.zeros(padded, dtype=torch.bool)
    real[:height, :width] = True
    labels[~real.roll((-shifts[0], -shifts[1]), (0, 1))] = -1
    return rearrange(labels, "(y r) (x c) -> (y x) (r c)", r=sizes[0], c=sizes[1])


class Bias(nn.Module):
    def __init__(self, window: int, heads: int) -> None:
        super().__init__()
        self.window = window
        self.table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))


def published(
    raw: Tensor, k: int, iterations: int, epsilon: float, epsilon_init: float, epsilon_decay: float
) -> Tensor:
    """Soft top-k by coordinate descent as in CoLT5 and CoDA (arXiv:2303.09752, 2304.04947)."""
    b, temperature = -raw, epsilon_init
    for step in range(iterations):
        if step > 0:
            temperature = max(temperature * epsilon_decay, epsilon)
        a = temperature * (math.log(k) - ((raw + b) / temperature).logsumexp(-1, keepdim=True))
        b = -(raw + a).relu()
    return ((raw + a + b) / temperature).exp()


def converged(raw: Tensor, k: int, epsilon: float) -> Tensor:
    """What it converges to: the saturated patches hold 1 each, the others the rest; found one after the other."""
    at_one = torch.zeros_like(raw, dtype=torch.bool)
    best = torch.zeros_like(at_one).scatter(-1, raw.topk(k - 1, dim=-1).indices, torch.ones_like(at_one))
    while True:
        others = raw.masked_fill(at_one, -torch.inf) / epsilon
        left = k - at_one.sum(-1, keepdim=True)
        a = epsilon * (left.log() - others.logsumexp(-1, keepdim=True))
        before, at_one = at_one, best & (raw + a > 0)
        if torch.equal(before, at_one):
            return ((raw + a).clamp(max=0) / epsilon).exp()


class Router(nn.Module):
    def __init__(self, dim: int, k: int | float, settings: Settings, *, iterative: bool) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.zeros(dim))
        self.k, self.settings, self.iterative = k, settings, iterative

    def forward(self, x: Tensor, real: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        raw = x @ self.vector
        if real is not None:
            raw = raw.masked_fill(~real, FAR)
        k = count(self.k, raw.shape[-1])
        chosen, indices = raw.topk(k, dim=-1)
        if self.iterative:
            s = self.settings
            if k == raw.shape[-1]:
                scores = torch.ones_like(raw)
            elif s.iterations is None:
                scores = converged(raw, k, s.epsilon)
            else:
                scores = published(raw, k, s.iterations, s.epsilon, s.epsilon_init, s.epsilon_decay)
            if self.training and s.straight_through:
                smooth = s.straight_through * k * raw.softmax(-1)
                scores = scores + (smooth - smooth.detach())
            gates = scores.gather(-1, indices)
        else:
            scores = raw.shape[-1] * raw.softmax(-1)
            gates = k * chosen.softmax(-1) if k > 1 else scores.gather(-1, indices)
        if real is not None:
            scores = scores * real
            gates = gates * real.expand_as(raw).gather(-1, indices)
        return scores, indices, gates


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.bias = Bias(window, heads)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.projection = nn.Linear(dim, dim)

    def forward(self, windows: Tensor, index: Tensor, hidden: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(windows), "b m n (three h d) -> three b m h n d", three=3, h=self.heads)
        scores = torch.einsum("bmhid,bmhjd->bmhij", q, k) * q.shape[-1] ** -0.5
        per_sample = repeat(index, "i j -> b m i j", b=windows.shape[0], m=windows.shape[1])
        scores = scores + rearrange(self.bias.table[per_sample], "b m i j h -> b m h i j")
        scores = scores + rearrange(hidden * FAR, "m i j -> m 1 i j")
        out = torch.einsum("bmhij,bmhjd->bmhid", scores.softmax(-1), v)
        return self.projection(rearrange(out, "b m h n d -> b m n (h d)"))


class RoutedAttention(nn.Module):
    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.bias = Bias(window, heads)
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)

    def forward(self, windows: Tensor, indices: Tensor, gates: Tensor, index: Tensor, hidden: Tensor) -> Tensor:
        batch, windows_count, n, channels = windows.shape
        keys = repeat(indices, "b m k -> b m k c", c=channels)
        routed = windows.gather(2, keys) * gates[..., None]
        q = rearrange(self.query(windows), "b m n (h d) -> b m h n d", h=self.heads)
        k, v = rearrange(self.key_value(routed), "b m k (two h d) -> two b m h k d", two=2, h=self.heads)
        scores = torch.einsum("bmhid,bmhjd->bmhij", q, k) * q.shape[-1] ** -0.5
        per_query = repeat(indices, "b m k -> b m n k", n=n)
        offsets = repeat(index, "i j -> b m i j", b=batch, m=windows_count).gather(3, per_query)
        scores = scores + rearrange(self.bias.table[offsets], "b m i k h -> b m h i k")
        far = repeat(hidden, "m i j -> b m i j", b=batch).gather(3, per_query)
        scores = scores + rearrange(far * FAR, "b m i k -> b m 1 i k")
        out = rearrange(torch.einsum("bmhij,bmhjd->bmhid", scores.softmax(-1), v), "b m h n d -> b m n (h d)")
        return out * ~far.all(-1, keepdim=True)


class ConditionalAttention(nn.Module):
    def __init__(self, dim: int, heads: int, settings: Settings, *, iterative: bool) -> None:
        super().__init__()
        self.light = Attention(dim, heads // 2, settings.window)
        self.heavy = RoutedAttention(dim, heads, settings.window)
        self.query_router = Router(dim, settings.queries, settings, iterative=iterative)
        self.key_value_router = Router(dim, settings.key_values, settings, iterative=iterative)

    def forward(self, windows: Tensor, index: Tensor, hidden: Tensor, real: Tensor | None) -> Tensor:
        scores, _, _ = self.query_router(windows, real)
        _, indices, gates = self.key_value_router(windows, real)
        return self.light(windows, index, hidden) + scores[..., None] * self.heavy(
            windows, indices, gates, index, hidden
        )


def feed_forward(dim: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, dim))


class ConditionalFeedForward(nn.Module):
    def __init__(self, dim: int, settings: Settings, *, iterative: bool) -> None:
        super().__init__()
        self.light = feed_forward(dim, dim)
        self.heavy = feed_forward(dim, 4 * dim)
        self.router = Router(dim, settings.heavy_patches, settings, iterative=iterative)

    def forward(self, x: Tensor) -> Tensor:
        patches = rearrange(x, "b y x c -> b (y x) c")
        _, indices, gates = self.router(patches)
        where = repeat(indices, "b k -> b k c", c=x.shape[-1])
        heavy = torch.zeros_like(patches).scatter(1, where, gates[..., None] * self.heavy(patches.gather(1, where)))
        return (self.light(patches) + heavy).reshape(x.shape)


class Gated(nn.Module):
    def __init__(self, sublayer: nn.Module, dim: int) -> None:
        super().__init__()
        self.sublayer, self.gate = sublayer, nn.Linear(dim, 1)

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        return 2 / (1 + torch.exp(-self.gate(x))) * self.sublayer(x, *others)


class Block(nn.Module):
    def __init__(self, variant: str, settings: Settings, dim: int, heads: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = settings.window, shift
        self.norm_attention, self.norm_feed_forward = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention: nn.Module
        self.feed_forward: nn.Module
        if variant in ("swin", "swin-gated"):
            wide = settings.feed_forward
            self.attention = Attention(dim, heads, settings.window)
            self.feed_forward = feed_forward(dim, wide if isinstance(wide, int) else round(wide * dim))
            if variant == "swin-gated":
                self.attention, self.feed_forward = Gated(self.attention, dim), Gated(self.feed_forward, dim)
        else:
            iterative = variant == "conditional-iterative"
            self.attention = ConditionalAttention(dim, heads, settings, iterative=iterative)
            self.feed_forward = ConditionalFeedForward(dim, settings, iterative=iterative)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        sizes = min(self.window, height), min(self.window, width)
        shifts = self.shift if height > self.window else 0, self.shift if width > self.window else 0
        padding = -height % sizes[0], -width % sizes[1]
        labels = regions(height, width, sizes, shifts)
        hidden = labels[:, :, None] != labels[:, None, :]
        index = position_index(self.window, *sizes)
        y = F.pad(self.norm_attention(x), (0, 0, 0, padding[1], 0, padding[0])).roll((-shifts[0], -shifts[1]), (1, 2))
        windows = rearrange(y, "b (y r) (x c) d -> b (y x) (r c) d", r=sizes[0], c=sizes[1])
        if isinstance(self.attention, ConditionalAttention):
            windows = self.attention(windows, index, hidden, None if bool((labels >= 0).all()) else labels >= 0)
        else:
            windows = self.attention(windows, index, hidden)
        y = rearrange(
            windows, "b (y x) (r c) d -> b (y r) (x c) d", y=(height + padding[0]) // sizes[0], r=sizes[0]
        ).roll(shifts, (1, 2))[:, :height, :width]
        x = x + y
        return x + self.feed_forward(self.norm_feed_forward(x))


class Embedding(nn.Module):
    def __init__(self, channels: int, dim: int, patch: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, dim, patch, patch)
        self.norm = nn.LayerNorm(dim)

    def forward(self, image: Tensor) -> Tensor:
        return self.norm(rearrange(self.convolution(image), "b c y x -> b y x c"))


class Merging(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        return self.reduction(self.norm(rearrange(x, "b (y r) (x c) d -> b y x (r c d)", r=2, c=2)))


class Expanding(nn.Module):
    def __init__(self, dim: int, out: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.expansion = nn.Linear(dim, factor**2 * out, bias=False)
        self.norm = nn.LayerNorm(out)

    def forward(self, x: Tensor) -> Tensor:
        factor = self.factor
        return self.norm(rearrange(self.expansion(x), "b y x (r c d) -> b (y r) (x c) d", r=factor, c=factor))


class Decoder(nn.Module):
    def __init__(self, dim: int, blocks: nn.Sequential) -> None:
        super().__init__()
        self.expanding = Expanding(2 * dim, dim, 2)
        self.join = nn.Linear(2 * dim, dim)
        self.blocks = blocks

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.expanding(x)[:, : skip.shape[1], : skip.shape[2]]
        return self.blocks(self.join(torch.cat([x, skip], -1)))


class Stem(nn.Module):
    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * in_channels, channels, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GELU(),
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


class PlainNetwork(nn.Module):
    """`create_model(variant, preset=...)` without dropout, written plainly."""

    def __init__(self, variant: str, preset: str, *, channels: int = 1, **overrides: Any) -> None:
        super().__init__()
        settings = Settings(**{**vars(PRESETS[preset]), **overrides})
        heads, stages = settings.heads, len(settings.heads) - 1
        dims = [settings.embedding * 2**stage for stage in range(stages + 1)]

        def blocks(stage: int) -> nn.Sequential:
            shifts = 0, settings.window // 2
            return nn.Sequential(*(Block(variant, settings, dims[stage], heads[stage], shift) for shift in shifts))

        stem = settings.stem_channels
        self.patch, self.residual = settings.patch, settings.residual
        self.stem = Stem(channels, stem) if stem else None
        patch = settings.patch // 2 if stem else settings.patch
        self.embedding = Embedding(stem or channels, dims[0], patch)
        self.encoder = nn.ModuleList(blocks(stage) for stage in range(stages))
        self.merging = nn.ModuleList(Merging(dims[stage]) for stage in range(stages))
        self.bottleneck = blocks(stages)
        self.bottleneck_norm = nn.LayerNorm(dims[-1])
        self.decoder = nn.ModuleList(Decoder(dims[stage], blocks(stage)) for stage in reversed(range(stages)))
        self.output_norm = nn.LayerNorm(dims[0])
        self.output_expanding = Expanding(dims[0], stem or dims[0], patch)
        self.projection: nn.Module
        if stem:
            self.projection = nn.Sequential(
                nn.Conv2d(2 * stem, stem, 3, padding=1),
                nn.GELU(),
                nn.Conv2d(stem, 4 * channels, 3, padding=1),
                nn.PixelShuffle(2),
            )
        else:
            self.projection = nn.Conv2d(dims[0], channels, 1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        pixels = F.pad(image, (0, -width % self.patch, 0, -height % self.patch))
        stem = pixels if self.stem is None else self.stem(pixels)
        x = self.embedding(stem)
        skips = []
        for blocks, merging in zip(self.encoder, self.merging, strict=True):
            x = blocks(x)
            skips.append(x)
            x = merging(x)
        x = self.bottleneck_norm(self.bottleneck(x))
        for decoder, skip in zip(self.decoder, reversed(skips), strict=True):
            x = decoder(x, skip)
        x = rearrange(self.output_expanding(self.output_norm(x)), "b y x c -> b c y x")
        if self.stem is not None:
            x = torch.cat([x, stem], 1)
        output = self.projection(x)[..., :height, :width]
        return image + output if self.residual else output

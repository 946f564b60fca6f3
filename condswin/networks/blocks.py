"""Feed-forward sublayers and the (conditional) Swin block.

Axes: B batch, H height, W width, C channels, k routed patches of an image.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from condswin.networks.attention import ConditionalWindowAttention, WindowAttention
from condswin.networks.routers import Router, rows
from condswin.networks.windows import Sides, pair, partition, unpartition, window_plan


class FeedForward(nn.Sequential):
    """Linear, GELU, dropout, linear, dropout on the last axis.

    Args:
        dim: Channels C.
        hidden: Channels in between.
        dropout: Probability.
    """

    def __init__(self, dim: int, *, hidden: int, dropout: float = 0.0) -> None:
        super().__init__(
            nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim), nn.Dropout(dropout)
        )


class ConditionalFeedForward(nn.Module):
    """`CondFF(X_i, s~_i) = LightFF(X_i) + s~_i HeavyFF(X_i)`: hidden C for all patches, 4C for the routed ones.

    Args:
        dim: Channels C.
        router: Picks the patches of an image that get the heavy branch.
        dropout: Probability.
    """

    def __init__(self, dim: int, *, router: Router, dropout: float = 0.0) -> None:
        super().__init__()
        self.light = FeedForward(dim, hidden=dim, dropout=dropout)
        self.heavy = FeedForward(dim, hidden=4 * dim, dropout=dropout)
        self.router = router

    def forward(self, x: Tensor) -> Tensor:
        """Transforms (B, H, W, C)."""
        routing = self.router(x.flatten(1, 2))
        patches = x.flatten(0, 2)  # (B*H*W, C)
        chosen = rows(routing.indices, x.shape[1] * x.shape[2])
        heavy = self.heavy(patches.index_select(0, chosen))
        gated = routing.gates.reshape(-1, 1).to(heavy.dtype) * heavy
        # No gradient needs the sum's parts.
        light: Tensor = self.light(patches)
        return light.index_add_(0, chosen, gated).view_as(x)


class SwinBlock(nn.Module):
    """Pre-norm attention in windows and feed-forward, each with a residual connection.

    Args:
        dim: Channels C.
        window: Largest window's rows and columns; one number for a square.
        shifted: Displace the windows by half of each side.
        attention: Attention over windows (B, M, N, C).
        feed_forward: Feed-forward over (B, H, W, C).
    """

    def __init__(
        self,
        dim: int,
        *,
        window: Sides,
        shifted: bool,
        attention: WindowAttention | ConditionalWindowAttention,
        feed_forward: FeedForward | ConditionalFeedForward,
    ) -> None:
        super().__init__()
        self.window = pair(window)
        self.shift = (self.window[0] // 2, self.window[1] // 2) if shifted else (0, 0)
        self.norm_attention = nn.LayerNorm(dim)
        self.attention = attention
        self.norm_feed_forward = nn.LayerNorm(dim)
        self.feed_forward = feed_forward

    def forward(self, x: Tensor) -> Tensor:
        """Transforms (B, H, W, C)."""
        plan = window_plan(x.shape[1], x.shape[2], self.window, self.shift, x.device)
        windows = partition(self.norm_attention(x), plan)
        x = x + unpartition(self.attention(windows, plan), plan)
        result: Tensor = x + self.feed_forward(self.norm_feed_forward(x))
        return result


#: Makes the block of one stage: (channels, heads, whether windows are shifted) -> block.
BlockFactory = Callable[[int, int, bool], SwinBlock]


def two_blocks(make_block: BlockFactory, dim: int, heads: int) -> nn.Sequential:
    """A stage: regular windows, then shifted ones."""
    return nn.Sequential(make_block(dim, heads, False), make_block(dim, heads, True))


def parameter_count(module: nn.Module) -> int:
    """Trainable numbers in a module."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def fold_patches(x: Tensor, factor: int) -> Tensor:
    """Moves channels to space: (B, H, W, factor*factor*C) to (B, factor*H, factor*W, C)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, factor, factor, channels // factor**2)
    return x.transpose(2, 3).reshape(batch, height * factor, width * factor, -1)


def unfold_patches(x: Tensor) -> Tensor:
    """Moves 2x2 neighbourhoods to channels: (B, H, W, C), sides made even with zeros, to (B, H/2, W/2, 4C)."""
    height, width = x.shape[1:3]
    if height % 2 or width % 2:
        x = torch.nn.functional.pad(x, (0, 0, 0, width % 2, 0, height % 2))
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return x.transpose(2, 3).reshape(batch, height // 2, width // 2, 4 * channels)

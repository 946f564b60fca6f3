"""Window attention, light for all patches and heavy for the routed ones (slides, "Conditional W-MSA").

Axes: B batch, M windows, N patches of a window, k routed ones, C channels, h heads, d channels of a head.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from condswin.networks.routers import Router
from condswin.networks.windows import MASKED, WindowPlan, relative_position_index


class RelativePositionBias(nn.Module):
    """A trained number per head and offset between query and key.

    Args:
        window: Largest window side; smaller windows use the offsets that they have.
        heads: Heads h.
    """

    def __init__(self, window: int, heads: int) -> None:
        super().__init__()
        self.window = window
        self.table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, plan: WindowPlan) -> Tensor:
        """Bias (h, N, N) of queries (rows) and keys (columns) of one window."""
        index = relative_position_index(self.window, *plan.window, self.table.device)
        return rearrange(self.table[index], "query key h -> h query key")


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Scaled dot product attention with a trained bias.

    Args:
        query: (B, h, N, d).
        key: (B, h, k, d).
        value: (B, h, k, d).
        bias: (B or 1, h, N, k), added to the scaled products.

    Returns:
        (B, h, N, d).
    """
    bias = bias.to(query.dtype)
    if query.device.type == "cpu" and torch.is_grad_enabled() and bias.requires_grad:
        # PyTorch's function has no fused path here that gives the bias a gradient, and its other path takes 1.3 times
        # as long as these products do.
        scores = query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)
        attended: Tensor = scores.add_(bias).softmax(-1) @ value
        return attended
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


class WindowAttention(nn.Module):
    """Multi-head self-attention inside each window (W-MSA; SW-MSA if the plan is shifted).

    Args:
        dim: Channels C.
        heads: Heads h; divides `dim`.
        window: Largest window side.
        dropout: Probability on the projected output.
    """

    def __init__(self, dim: int, *, heads: int, window: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.bias = RelativePositionBias(window, heads)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.projection = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, windows: Tensor, plan: WindowPlan) -> Tensor:
        """Attends within windows (B, M, N, C)."""
        batch, count, _, _ = windows.shape
        bias = self.bias(plan)  # (h, N, N)
        qkv = rearrange(self.qkv(windows), "b m n (three h d) -> three b m h n d", three=3, h=self.heads)
        # Scaled dot product attention has its fast path for four axes only. Without a mask the windows join the batch
        # and the bias broadcasts; with one they join the heads, so that the mask is made once and not per image.
        if plan.mask is None:
            q, k, v = rearrange(qkv, "three b m h n d -> three (b m) h n d").unbind()
            attended = attend(q, k, v, bias[None])
            attended = rearrange(attended, "(b m) h n d -> b m n (h d)", b=batch)
        else:
            q, k, v = rearrange(qkv, "three b m h n d -> three b (m h) n d").unbind()
            attended = attend(q, k, v, rearrange(plan.mask[:, None] + bias, "m h query key -> 1 (m h) query key"))
            attended = rearrange(attended, "b (m h) n d -> b m n (h d)", m=count)
        output: Tensor = self.dropout(self.projection(attended))
        return output


class RoutedWindowAttention(nn.Module):
    """Every query of a window attends to the window's routed patches only (HeavyW-MSA).

    Args:
        dim: Channels C.
        heads: Heads h; divides `dim`.
        window: Largest window side.
    """

    def __init__(self, dim: int, *, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.bias = RelativePositionBias(window, heads)
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)

    def forward(self, windows: Tensor, indices: Tensor, gates: Tensor, plan: WindowPlan) -> Tensor:
        """Attends from windows (B, M, N, C) to the patches at `indices` (B, M, k) weighted by `gates` (B, M, k).

        Queries that may see none of the routed patches, all being of other regions, get 0.
        """
        batch, count, _, channels = windows.shape
        routed = windows.gather(2, indices[..., None].expand(-1, -1, -1, channels)) * gates[..., None].to(windows.dtype)
        q = rearrange(self.query(windows), "b m n (h d) -> b (m h) n d", h=self.heads)
        k, v = rearrange(self.key_value(routed), "b m k (two h d) -> two b (m h) k d", two=2, h=self.heads).unbind()
        by_key = rearrange(self.bias(plan), "h query key -> key (h query)")
        mask = rearrange(F.embedding(indices, by_key), "b m k (h query) -> b (m h) query k", h=self.heads)
        visible = None
        if plan.region is not None:
            region_of_key = plan.region.expand(batch, -1, -1).gather(2, indices)
            hidden = plan.region[None, :, :, None] != region_of_key[:, :, None, :]  # (B, M, N, k)
            mask = mask + rearrange(hidden * MASKED, "b m query k -> b m 1 query k").expand(
                -1, -1, self.heads, -1, -1
            ).reshape(mask.shape)
            visible = ~hidden.all(-1, keepdim=True)  # (B, M, N, 1)
        attended = attend(q, k, v, mask)
        attended = rearrange(attended, "b (m h) n d -> b m n (h d)", m=count)
        return attended if visible is None else attended * visible


class ConditionalWindowAttention(nn.Module):
    """Light attention of all patches plus gated heavy attention to the routed ones.

    `CondW-MSA(X_i, s_i^q, s~^kv) = LightW-MSA(X_i, X) + s_i^q HeavyW-MSA(X_i, s~^kv X)`

    Args:
        dim: Channels C.
        heads: Heads of the heavy branch; the light one has half as many.
        window: Largest window side.
        query_router: Scores every patch as a query of its window.
        key_value_router: Picks the patches of a window that are attended to.
        dropout: Probability on each branch's output.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        window: int,
        query_router: Router,
        key_value_router: Router,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.light = WindowAttention(dim, heads=heads // 2, window=window, dropout=dropout)
        self.heavy = RoutedWindowAttention(dim, heads=heads, window=window)
        self.query_router = query_router
        self.key_value_router = key_value_router
        self.dropout = nn.Dropout(dropout)

    def forward(self, windows: Tensor, plan: WindowPlan) -> Tensor:
        """Attends within windows (B, M, N, C)."""
        queries = self.query_router(windows, real=plan.real)
        keys = self.key_value_router(windows, real=plan.real)
        heavy = self.heavy(windows, keys.indices, keys.gates, plan)
        light: Tensor = self.light(windows, plan)
        gated: Tensor = queries.scores[..., None].to(heavy.dtype) * self.dropout(heavy)
        return light + gated

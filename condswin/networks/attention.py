"""Window attention: a light branch for all patches, a heavy one for the routed (slides, "Conditional W-MSA").

Axes: B batch, M windows, m attended ones, N patches of a window, k routed ones, C channels, h heads, d channels of a
head.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from condswin.networks.routers import Router, multiples, rows
from condswin.networks.windows import MASKED, Sides, WindowPlan, pair, relative_position_index

#: Numbers of attention scores that fit the cache beside their queries, keys and values.
CACHED = 1 << 18


class RelativePositionBias(nn.Module):
    """A trained number per head and offset between query and key.

    Args:
        window: Largest window's rows and columns, one number for a square; smaller windows use the offsets that they
            have.
        heads: Heads h.
    """

    def __init__(self, window: Sides, heads: int) -> None:
        super().__init__()
        self.window = pair(window)
        rows, columns = self.window
        self.table = nn.Parameter(torch.empty((2 * rows - 1) * (2 * columns - 1), heads))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, plan: WindowPlan) -> Tensor:
        """Bias (h, N, N) of queries (rows) and keys (columns) of one window."""
        index = relative_position_index(self.window, *plan.window, self.table.device)
        return torch.unflatten(self.table.t().index_select(1, index.flatten()), 1, index.shape)


def attend(qkv: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
    """Multi-head self-attention inside windows: softmax(q k^T / sqrt(d) + bias + mask) v.

    Args:
        qkv: (B, M, N, 3C), queries, keys and values, each of them heads first.
        bias: (h, N, N) of queries and keys.
        mask: (M, N, N), or None.

    Returns:
        (B, M, N, C).
    """
    bias = bias.to(qkv.dtype)
    if qkv.device.type == "cpu" and bias.requires_grad and not torch.compiler.is_compiling():
        # PyTorch's function has no fused path here that gives the bias a gradient; its other path keeps all scores.
        attended: Tensor = _Attend.apply(qkv, bias, mask)  # type: ignore[no-untyped-call]
        return attended
    batch, count = qkv.shape[:2]
    q, k, v = rearrange(qkv, "b m n (three h d) -> three (b m) h n d", three=3, h=bias.shape[0]).unbind()
    # Windows join the batch, since four axes take the fast path; copies of the mask cost less than those of q, k and v.
    added = bias[None] if mask is None else (mask[:, None] + bias).expand(batch, -1, -1, -1, -1).flatten(0, 1)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=added)
    if torch.compiler.is_exporting():
        out = out.contiguous()  # an exported program may lay it out in another way than the function does here
    return rearrange(out, "(b m) h n d -> b m n (h d)", m=count)


class _Attend(torch.autograd.Function):
    """`attend` for training on CPUs: a few windows at a time, whose scores never leave the cache.

    The backward pass computes the scores again from queries and keys (the idea of FlashAttention, arXiv:2205.14135), so
    that nothing but `qkv` is kept: the products in here are few beside those of the linear layers around.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        ctx.save_for_backward(qkv, bias, mask)
        out = qkv.new_empty(*qkv.shape[:3], qkv.shape[3] // 3)
        for part in _parts(qkv, bias):
            q, k, v = _split(qkv[:, part], bias)
            attended = _scores(q, k, bias, None if mask is None else mask[part]) @ v
            out[:, part] = rearrange(attended, "(b m h) n d -> b m n (h d)", b=len(qkv), h=len(bias))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        qkv, bias, mask = ctx.saved_tensors
        grad_qkv, grad_bias = torch.empty_like(qkv), torch.zeros_like(bias, dtype=torch.float32)
        for part in _parts(qkv, bias):
            q, k, v = _split(qkv[:, part], bias)
            attention = _scores(q, k, bias, None if mask is None else mask[part])
            grad_out = rearrange(grad[:, part], "b m n (h d) -> (b m h) n d", h=len(bias))
            grad_attention = grad_out @ v.transpose(1, 2)
            grad_scores = torch._softmax_backward_data(grad_attention, attention, -1, attention.dtype)
            grad_bias += rearrange(grad_scores, "(bm h) q k -> bm h q k", h=len(bias)).sum(0, dtype=torch.float32)
            grads = torch.stack(
                [grad_scores @ k, grad_scores.transpose(1, 2) @ q, attention.transpose(1, 2) @ grad_out]
            )
            grads[0] *= k.shape[-1] ** -0.5
            grad_qkv[:, part] = rearrange(grads, "three (b m h) n d -> b m n (three h d)", b=len(qkv), h=len(bias))
        return grad_qkv, grad_bias.to(bias.dtype), None


def _parts(qkv: Tensor, bias: Tensor) -> Iterator[slice]:
    """Runs of windows of all images whose scores fit the cache."""
    batch, windows = qkv.shape[:2]
    step = max(1, CACHED // (batch * bias.numel()))
    return (slice(start, start + step) for start in range(0, windows, step))


def _split(qkv: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scaled queries, keys and values (B*M*h, N, d) from (B, M, N, 3C)."""
    q, k, v = rearrange(qkv, "b m n (three h d) -> three (b m h) n d", three=3, h=len(bias)).unbind()
    return q * q.shape[-1] ** -0.5, k, v


def _scores(q: Tensor, k: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax of all scores (B*M*h, N, N)."""
    scores = torch.unflatten(torch.bmm(q, k.transpose(1, 2)), 0, (-1, len(bias))).add_(bias)  # (B*M, h, N, N)
    if mask is not None:
        torch.unflatten(scores, 0, (-1, len(mask))).add_(mask[:, None])
    return scores.softmax(-1).flatten(0, 1)


class WindowAttention(nn.Module):
    """Multi-head self-attention inside each window (W-MSA; SW-MSA if the plan is shifted).

    Args:
        dim: Channels C.
        heads: Heads h; divides `dim`.
        window: Largest window's rows and columns; one number for a square.
        inner: Channels of all heads together, which `heads` divides; None for C.
        dropout: Probability on the projected output.
    """

    def __init__(self, dim: int, *, heads: int, window: Sides, inner: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.inner = dim if inner is None else inner
        self.bias = RelativePositionBias(window, heads)
        self.qkv = nn.Linear(dim, 3 * self.inner)
        self.projection = nn.Linear(self.inner, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, windows: Tensor, plan: WindowPlan) -> Tensor:
        """Attends within windows (B, M, N, C)."""
        output: Tensor = self.dropout(self.projection(attend(self.qkv(windows), self.bias(plan), plan.mask)))
        return output


class BiLevelAttention(WindowAttention):
    """Attention of every window to itself and to the windows that it has most in common with.

    The mean of a window's queries times the mean of each window's keys, over real patches, says how much they have in
    common. The patches of the chosen windows are gathered once, for all queries and heads. The own window is always
    among them, and counts as in `WindowAttention`, by relative positions and mask; so a single one is window attention.

    Other windows are chosen by what they show and may lie anywhere, so the table, which holds offsets within a window,
    has no row for them: every head has one trained number for all their patches, beside the table's for near ones. What
    a shifted window's mask keeps apart is apart in the own window only, where it would pass for neighbours; of others
    only padding is hidden.

    Choosing has no gradient; queries and keys learn by the attention that they make.

    Source: Zhu et al. 2023 (arXiv:2303.08810, section 3.2); bias and own window are ours, its convolution of values is
    left out.

    Args:
        dim: Channels C.
        heads: Heads h; divides `dim`.
        window: Largest window's rows and columns; one number for a square.
        attended: Windows m that a window attends to, itself among them; all where there are fewer.
        inner: As for `WindowAttention`.
        dropout: Probability on the projected output.
    """

    def __init__(
        self, dim: int, *, heads: int, window: Sides, attended: int, inner: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__(dim, heads=heads, window=window, inner=inner, dropout=dropout)
        self.attended = attended
        self.far = nn.Parameter(torch.zeros(heads))

    def forward(self, windows: Tensor, plan: WindowPlan) -> Tensor:
        """Attends from windows (B, M, N, C) to the chosen ones."""
        count, heads = windows.shape[1], len(self.far)
        qkv = self.qkv(windows)
        chosen = self.choose(qkv, plan)
        q = rearrange(qkv[..., : self.inner], "b m n (h d) -> (b m) h n d", h=heads)
        gathered = qkv[..., self.inner :].flatten(0, 1).index_select(0, rows(chosen.flatten(1), count))
        k, v = rearrange(
            gathered, "(bm m) n (two h d) -> two bm h (m n) d", m=chosen.shape[-1], two=2, h=heads
        ).unbind()
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=self._bias(chosen, plan).to(q.dtype))
        if torch.compiler.is_exporting():
            out = out.contiguous()  # as in `attend`
        attended = rearrange(out, "(b m) h n d -> b m n (h d)", m=count)
        output: Tensor = self.dropout(self.projection(attended))
        return output

    def choose(self, qkv: Tensor, plan: WindowPlan) -> Tensor:
        """The windows (B, M, m) that each window attends to, itself first.

        Args:
            qkv: (B, M, N, 3C).
            plan: Of the windows.
        """
        with torch.autocast(qkv.device.type, enabled=False):
            patches = qkv.detach()[..., : 2 * qkv.shape[-1] // 3].float()
            if plan.real is None:
                means = patches.mean(2)
            else:
                means = (patches * plan.real[..., None]).sum(2) / plan.real.sum(1)[:, None]
            query, key = means.chunk(2, dim=-1)
            affinity = query @ key.transpose(1, 2)
        count = qkv.shape[1]
        own = torch.eye(count, dtype=torch.bool, device=qkv.device)
        return affinity.masked_fill(own, torch.inf).topk(min(self.attended, count)).indices

    def _bias(self, chosen: Tensor, plan: WindowPlan) -> Tensor:
        """What is added to scores: (B*M, h, N, m*N), or (1, h, N, m*N) where all windows have the same."""
        batch, count, attended = chosen.shape
        own, far = self.bias(plan), self.far[:, None, None]
        heads, size, _ = own.shape
        if plan.mask is None:
            batch = count = 1
        else:
            own = own + plan.mask[:, None]
        if plan.real is not None:
            hidden = torch.where(plan.real, 0.0, MASKED)
            others = hidden.index_select(0, chosen[..., 1:].flatten())
            far = far + others.view(batch, count, 1, 1, -1)
        own = own.expand(batch, count, heads, size, size)
        far = far.expand(batch, count, heads, size, (attended - 1) * size)
        return torch.cat([own, far], dim=-1).flatten(0, 1)


def window_attention(
    dim: int, *, heads: int, window: Sides, attended: int = 1, inner: int | None = None, dropout: float = 0.0
) -> WindowAttention:
    """Attention of windows to themselves, or to so many windows, themselves among them."""
    if attended == 1:
        return WindowAttention(dim, heads=heads, window=window, inner=inner, dropout=dropout)
    return BiLevelAttention(dim, heads=heads, window=window, attended=attended, inner=inner, dropout=dropout)


class RoutedWindowAttention(nn.Module):
    """Every query of a window attends to the window's routed patches only (HeavyW-MSA), and is weighted by its score.

    Queries are many and keys few, so the products `q k = (W x + b) k` are taken as `x (W^T k) + b k`: keys are brought
    to the patches' space, and no query is ever made. Heads stay apart there as separate keys.

    Args:
        dim: Channels C.
        heads: Heads h; divides `dim`.
        window: Largest window's rows and columns; one number for a square.
    """

    def __init__(self, dim: int, *, heads: int, window: Sides) -> None:
        super().__init__()
        self.heads = heads
        self.bias = RelativePositionBias(window, heads)
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)

    def forward(self, windows: Tensor, scores: Tensor, indices: Tensor, gates: Tensor, plan: WindowPlan) -> Tensor:
        """Attends to the patches at `indices` (B, M, k) weighted by `gates` (B, M, k).

        Queries that may see none of the routed patches, all being of other regions, get 0.

        Args:
            windows: (B, M, N, C).
            scores: (B, M, N) weight of every query's result.
            indices: (B, M, k).
            gates: (B, M, k).
            plan: Of the windows.

        Returns:
            (B, M, N, C).
        """
        batch, count, size, channels = windows.shape
        heads, routed, scale = self.heads, indices.shape[-1], (channels // self.heads) ** -0.5
        patches = windows.reshape(batch * count, size, channels)
        chosen = rows(indices, size)
        gated = patches.flatten(0, 1).index_select(0, chosen) * gates.reshape(-1, 1).to(windows.dtype)
        by_head = self.key_value(gated).view(batch * count, routed, 2, heads, -1).permute(2, 3, 0, 1, 4)
        key, value = by_head.flatten(2, 3).unbind()  # (h, B*M*k, d)
        projected = torch.bmm(key, self.query.weight.view(heads, -1, channels)).view(heads, -1, routed, channels)
        own = torch.bmm(key, scale * self.query.bias.view(heads, -1, 1)).view(heads, -1, routed, 1)
        by_key = self.bias(plan).transpose(1, 2).flatten(0, 1)
        of_heads = indices.reshape(-1, 1, routed) + multiples(size, heads, indices.device)
        added = F.embedding(of_heads, by_key) + own.transpose(0, 1)  # (B*M, h, k, N)
        if plan.mask is not None:
            # The mask is symmetric: its rows are the chosen keys' columns.
            hidden = plan.mask.flatten(0, 1).index_select(0, chosen % (count * size)).view(-1, 1, routed, size)
            added = added + hidden
            scores = scores * (hidden.amax(2) == 0).view_as(scores)
        logits = torch.baddbmm(
            added.flatten(1, 2).to(projected.dtype),
            projected.transpose(0, 1).flatten(1, 2),
            patches.transpose(1, 2),
            alpha=scale,
        )
        attention = logits.view(-1, heads, routed, size).softmax(2) * scores.reshape(-1, 1, 1, size)
        weights = attention.view(-1, routed, size).transpose(1, 2).to(value.dtype)
        attended = torch.bmm(weights, by_head[1].transpose(0, 1).flatten(0, 1))
        return attended.view(batch, count, heads, size, -1).transpose(2, 3).flatten(3)


class ConditionalWindowAttention(nn.Module):
    """A light branch of attention among all patches plus a gated heavy one of attention to the routed patches.

    `CondW-MSA(X_i, s_i^q, s~^kv) = LightW-MSA(X_i, X) + s_i^q HeavyW-MSA(X_i, s~^kv X)`

    Args:
        dim: Channels C.
        heads: Heads of the heavy branch; the light branch has half as many.
        window: Largest window's rows and columns; one number for a square.
        query_router: Scores every patch as a query of its window.
        key_value_router: Picks the patches of a window that are attended to.
        attended: Windows that the light branch attends to; see `window_attention`.
        light_channels: Channels of all heads of the light branch together; None for C.
        dropout: Probability on each branch's output.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        window: Sides,
        query_router: Router,
        key_value_router: Router,
        attended: int = 1,
        light_channels: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.light = window_attention(
            dim, heads=heads // 2, window=window, attended=attended, inner=light_channels, dropout=dropout
        )
        self.heavy = RoutedWindowAttention(dim, heads=heads, window=window)
        self.query_router = query_router
        self.key_value_router = key_value_router
        self.dropout = nn.Dropout(dropout)

    def forward(self, windows: Tensor, plan: WindowPlan) -> Tensor:
        """Attends within windows (B, M, N, C)."""
        scores = self.query_router.weigh(windows, real=plan.real)
        keys = self.key_value_router(windows, real=plan.real)
        heavy = self.dropout(self.heavy(windows, scores, keys.indices, keys.gates, plan))
        # No gradient needs the sum's parts.
        light: Tensor = self.light(windows, plan)
        return light.add_(heavy)

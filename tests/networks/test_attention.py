"""Attention and conditional blocks against loops over windows written from the definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from condswin.networks.attention import ConditionalWindowAttention, RoutedWindowAttention, WindowAttention
from condswin.networks.blocks import ConditionalFeedForward, FeedForward
from condswin.networks.routers import IterativeRouter, LightRouter, Router
from condswin.networks.windows import partition, unpartition, window_plan

CPU = torch.device("cpu")
DIM = 8


def windows_of(height: int, width: int, window: int, shift: int) -> list[list[tuple[int, int]]]:
    """Places of the patches of each displaced window, cut off at the edges of the map."""
    size = min(window, height), min(window, width)
    offset = shift if height > window else 0, shift if width > window else 0
    homes: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row in range(height):
        for column in range(width):
            home = ((row - offset[0]) // size[0], (column - offset[1]) // size[1])
            homes.setdefault(home, []).append((row, column))
    return list(homes.values())


def bias_of(table: Tensor, window: int, query: tuple[int, int], key: tuple[int, int]) -> Tensor:
    row, column = query[0] - key[0] + window - 1, query[1] - key[1] + window - 1
    return table[row * (2 * window - 1) + column]


def naive(attention: WindowAttention, x: Tensor, window: int, shift: int) -> Tensor:
    """The light branch, one query and one head at a time; `x` is (H, W, C)."""
    out = torch.zeros_like(x)
    count = attention.bias.table.shape[1]
    size = DIM // count
    for places in windows_of(*x.shape[:2], window, shift):
        qkv = torch.stack([attention.qkv(x[place]) for place in places]).unflatten(-1, (3, count, size))
        for number, query in enumerate(places):
            heads = []
            for head in range(count):
                logits = torch.stack(
                    [
                        qkv[number, 0, head] @ qkv[other, 1, head] * size**-0.5
                        + bias_of(attention.bias.table, window, query, key)[head]
                        for other, key in enumerate(places)
                    ]
                )
                heads.append(logits.softmax(0) @ qkv[:, 2, head])
            out[query] = attention.projection(torch.cat(heads))
    return out


def strengthen(module: nn.Module) -> None:
    """Weights large enough that a wrong bias, mask or key shows."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.7)


@settings(deadline=None, max_examples=25)
@given(height=st.integers(1, 9), width=st.integers(1, 9), window=st.integers(2, 4), shifted=st.booleans())
def test_attention_equals_a_loop_over_displaced_windows(height: int, width: int, window: int, shifted: bool) -> None:
    torch.manual_seed(height * 100 + width)
    attention = WindowAttention(DIM, heads=2, window=window).eval()
    strengthen(attention)
    x = torch.randn(2, height, width, DIM)
    shift = window // 2 if shifted else 0
    plan = window_plan(height, width, window, shift, CPU)
    with torch.no_grad():
        fast = unpartition(attention(partition(x, plan), plan), plan)
        slow = torch.stack([naive(attention, image, window, shift) for image in x])
    torch.testing.assert_close(fast, slow, atol=1e-4, rtol=1e-4)


def naive_heavy(heavy: RoutedWindowAttention, x: Tensor, raw: Tensor, k: int, window: int, shift: int) -> Tensor:
    """Heavy attention from the definition: keys are the k best of a (cyclic) window that the query may see.

    Routing looks at the window that is computed, seam and all, so on the seam fewer than k keys are visible.
    """
    height, width = x.shape[:2]
    plan = window_plan(height, width, window, shift, CPU)
    out = torch.zeros_like(x)
    size = DIM // heavy.heads
    group = {
        place: number for number, places in enumerate(windows_of(height, width, window, shift)) for place in places
    }
    rows = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), -1)[None] + 1
    for patches in partition(rows, plan)[0]:
        places = [(int(r) - 1, int(c) - 1) for r, c in patches if r > 0]
        slots = [(i // plan.window[1], i % plan.window[1]) for i, (r, _) in enumerate(patches) if r > 0]
        scores = torch.stack([raw[place] for place in places])
        chosen = scores.topk(min(k, len(places))).indices.tolist()
        gates = scores[chosen].softmax(0) * min(k, plan.window[0] * plan.window[1])
        keyed = [
            (places[j], slots[j], heavy.key_value(x[places[j]] * gate)) for j, gate in zip(chosen, gates, strict=True)
        ]
        for place, slot in zip(places, slots, strict=True):
            seen = [(kslot, kv) for kplace, kslot, kv in keyed if group[kplace] == group[place]]
            if not seen:
                continue
            q = heavy.query(x[place]).unflatten(0, (heavy.heads, size))
            heads = []
            for head in range(heavy.heads):
                logits = torch.stack(
                    [
                        q[head] @ kv[:DIM].unflatten(0, (heavy.heads, size))[head] * size**-0.5
                        + bias_of(heavy.bias.table, window, slot, kslot)[head]
                        for kslot, kv in seen
                    ]
                )
                values = torch.stack([kv[DIM:].unflatten(0, (heavy.heads, size))[head] for _, kv in seen])
                heads.append(logits.softmax(0) @ values)
            out[place] = torch.cat(heads)
    return out


@settings(deadline=None, max_examples=25)
@given(height=st.integers(2, 9), width=st.integers(2, 9), window=st.integers(2, 4), shifted=st.booleans())
def test_heavy_attention_equals_a_loop_over_routed_keys(height: int, width: int, window: int, shifted: bool) -> None:
    torch.manual_seed(height * 100 + width)
    heavy = RoutedWindowAttention(DIM, heads=2, window=window).eval()
    router = LightRouter(DIM, k=2)
    strengthen(heavy)
    x = torch.randn(1, height, width, DIM)
    shift = window // 2 if shifted else 0
    plan = window_plan(height, width, window, shift, CPU)
    with torch.no_grad():
        windows = partition(x, plan)
        routing = router(windows, real=plan.real)
        scores = torch.ones(windows.shape[:3])
        fast = unpartition(heavy(windows, scores, routing.indices, routing.gates, plan), plan)[0]
        slow = naive_heavy(heavy, x[0], x[0] @ router.vector, 2, window, shift)
    torch.testing.assert_close(fast, slow, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [LightRouter, IterativeRouter])
@pytest.mark.parametrize("shift", [0, 2])
def test_all_keys_with_unit_scores_is_light_plus_dense_heavy(kind: type[Router], shift: int) -> None:
    """`k >= n` and scores of 1: the conditional sublayer is the sum of two plain ones."""
    torch.manual_seed(0)
    attention = ConditionalWindowAttention(
        DIM, heads=4, window=4, query_router=kind(DIM, k=16), key_value_router=kind(DIM, k=99)
    ).eval()
    strengthen(attention)
    with torch.no_grad():
        attention.query_router.vector.zero_()  # equal raw scores are scores of 1
        attention.key_value_router.vector.zero_()
        dense = WindowAttention(DIM, heads=4, window=4)
        dense.qkv.weight.copy_(torch.cat([attention.heavy.query.weight, attention.heavy.key_value.weight]))
        dense.qkv.bias.copy_(torch.cat([attention.heavy.query.bias, attention.heavy.key_value.bias]))
        dense.projection.weight.copy_(torch.eye(DIM))
        dense.projection.bias.zero_()
        dense.bias.table.copy_(attention.heavy.bias.table)
        x = torch.randn(2, 12, 8, DIM)
        plan = window_plan(12, 8, 4, shift, CPU)
        windows = partition(x, plan)
        torch.testing.assert_close(
            attention(windows, plan), attention.light(windows, plan) + dense(windows, plan), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("kind", [LightRouter, IterativeRouter])
def test_feed_forward_of_all_patches_with_unit_scores_is_light_plus_heavy(kind: type[Router]) -> None:
    torch.manual_seed(0)
    layer = ConditionalFeedForward(DIM, router=kind(DIM, k=10**6)).eval()
    with torch.no_grad():
        layer.router.vector.zero_()
        x = torch.randn(2, 5, 7, DIM)
        torch.testing.assert_close(layer(x), layer.light(x) + layer.heavy(x), atol=1e-5, rtol=1e-5)


def test_feed_forward_leaves_unrouted_patches_to_the_light_branch() -> None:
    torch.manual_seed(0)
    layer = ConditionalFeedForward(DIM, router=LightRouter(DIM, k=3)).eval()
    x = torch.randn(1, 6, 6, DIM)
    with torch.no_grad():
        difference = (layer(x) - layer.light(x)).flatten(1, 2).abs().amax(-1)[0]
        routing = layer.router(x.flatten(1, 2))
        touched = set(difference.nonzero().flatten().tolist())
        assert touched == set(routing.indices[0].tolist())
        heavy = layer.heavy(x.flatten(1, 2)[0, routing.indices[0, 0]]) * routing.gates[0, 0]
        place = routing.indices[0, 0]
        torch.testing.assert_close((layer(x) - layer.light(x)).flatten(1, 2)[0, place], heavy, atol=1e-5, rtol=1e-4)


def test_plain_feed_forward_is_two_linear_layers() -> None:
    layer = FeedForward(DIM, hidden=12)
    assert [tuple(parameter.shape) for parameter in layer.parameters()] == [(12, 8), (12,), (8, 12), (8,)]

"""Attention and conditional blocks against loops over windows written from the definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from condswin.networks.attention import (
    BiLevelAttention,
    ConditionalWindowAttention,
    RoutedWindowAttention,
    WindowAttention,
)
from condswin.networks.blocks import ConditionalFeedForward, FeedForward
from condswin.networks.routers import IterativeRouter, LightRouter, Router
from condswin.networks.windows import Sides, pair, partition, unpartition, window_plan

CPU = torch.device("cpu")
DIM = 8
window_sides = st.integers(2, 4) | st.tuples(st.integers(1, 3), st.integers(1, 6))


def windows_of(height: int, width: int, window: Sides, shift: Sides) -> list[list[tuple[int, int]]]:
    """Places of the patches of each displaced window, cut off at the edges of the map."""
    (rows, columns), (down, across) = pair(window), pair(shift)
    size = min(rows, height), min(columns, width)
    offset = down if height > rows else 0, across if width > columns else 0
    homes: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row in range(height):
        for column in range(width):
            home = ((row - offset[0]) // size[0], (column - offset[1]) // size[1])
            homes.setdefault(home, []).append((row, column))
    return list(homes.values())


def half(window: Sides) -> tuple[int, int]:
    rows, columns = pair(window)
    return rows // 2, columns // 2


def bias_of(table: Tensor, window: Sides, query: tuple[int, int], key: tuple[int, int]) -> Tensor:
    rows, columns = pair(window)
    row, column = query[0] - key[0] + rows - 1, query[1] - key[1] + columns - 1
    return table[row * (2 * columns - 1) + column]


def naive(attention: WindowAttention, x: Tensor, window: Sides, shift: Sides) -> Tensor:
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
@given(height=st.integers(1, 9), width=st.integers(1, 9), window=window_sides, shifted=st.booleans())
def test_attention_equals_a_loop_over_displaced_windows(height: int, width: int, window: Sides, shifted: bool) -> None:
    torch.manual_seed(height * 100 + width)
    attention = WindowAttention(DIM, heads=2, window=window).eval()
    strengthen(attention)
    x = torch.randn(2, height, width, DIM)
    shift = half(window) if shifted else 0
    plan = window_plan(height, width, window, shift, CPU)
    with torch.no_grad():
        fast = unpartition(attention(partition(x, plan), plan), plan)
        slow = torch.stack([naive(attention, image, window, shift) for image in x])
    torch.testing.assert_close(fast, slow, atol=1e-4, rtol=1e-4)


def naive_bilevel(attention: BiLevelAttention, x: Tensor, window: Sides, shift: Sides) -> Tensor:
    """From the definition, one query and one head at a time; `x` is (H, W, C).

    Windows are the cyclic ones that are computed. Of the own window a query sees its own part, by relative positions;
    of the chosen ones everything.
    """
    height, width = x.shape[:2]
    plan = window_plan(height, width, window, shift, CPU)
    heads, size = len(attention.far), DIM // len(attention.far)
    group = {
        place: number for number, places in enumerate(windows_of(height, width, window, shift)) for place in places
    }
    rows = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), -1)[None] + 1
    homes = [[(int(r) - 1, int(c) - 1) for r, c in patches if r > 0] for patches in partition(rows, plan)[0]]
    qkv = attention.qkv(x).unflatten(-1, (3, heads, size))
    query, key = (torch.stack([x_of.flatten(2)[tuple(zip(*home, strict=True))].mean(0) for home in homes])
                  for x_of in (qkv[:, :, 0], qkv[:, :, 1]))  # fmt: skip
    out = torch.empty(height, width, DIM)
    for number, home in enumerate(homes):
        others = [int(other) for other in (key @ query[number]).argsort(descending=True) if other != number]
        far = [place for other in others[: attention.attended - 1] for place in homes[other]]
        for place in home:
            near = [other for other in home if group[other] == group[place]]
            added = [bias_of(attention.bias.table, window, place, other) for other in near] + [attention.far] * len(far)
            keys = torch.stack([qkv[other] for other in near + far])
            logits = torch.einsum("hd,khd->kh", qkv[place][0], keys[:, 1]) * size**-0.5 + torch.stack(added)
            out[place] = attention.projection(torch.einsum("kh,khd->hd", logits.softmax(0), keys[:, 2]).flatten())
    return out


@settings(deadline=None, max_examples=30)
@given(
    height=st.integers(1, 9), width=st.integers(1, 9), window=window_sides, shifted=st.booleans(),
    attended=st.sampled_from([1, 2, 3, 99]),
)  # fmt: skip
def test_bilevel_attention_equals_a_loop_over_chosen_windows(
    height: int, width: int, window: Sides, shifted: bool, attended: int
) -> None:
    torch.manual_seed(height * 100 + width)
    attention = BiLevelAttention(DIM, heads=2, window=window, attended=attended).eval()
    strengthen(attention)
    x = torch.randn(2, height, width, DIM)
    shift = half(window) if shifted else 0
    plan = window_plan(height, width, window, shift, CPU)
    with torch.no_grad():
        fast = unpartition(attention(partition(x, plan), plan), plan)
        slow = torch.stack([naive_bilevel(attention, image, window, shift) for image in x])
    torch.testing.assert_close(fast, slow, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(8, 12), (7, 10), (3, 9)])
@pytest.mark.parametrize("shift", [0, 2])
def test_one_attended_window_is_window_attention(size: tuple[int, int], shift: int) -> None:
    torch.manual_seed(0)
    plain = WindowAttention(DIM, heads=2, window=4)
    bilevel = BiLevelAttention(DIM, heads=2, window=4, attended=1)
    strengthen(plain)
    bilevel.load_state_dict({**plain.state_dict(), "far": torch.tensor([3.0, -2.0])})
    plan = window_plan(*size, 4, shift, CPU)
    windows = partition(torch.randn(2, *size, DIM), plan)
    torch.testing.assert_close(bilevel(windows, plan), plain(windows, plan), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(8, 12), (7, 10)])
def test_all_windows_attended_is_attention_among_all_patches(size: tuple[int, int]) -> None:
    """Where no bias tells near ones from others."""
    torch.manual_seed(0)
    attention = BiLevelAttention(DIM, heads=2, window=4, attended=99)
    strengthen(attention)
    with torch.no_grad():
        attention.bias.table.fill_(0.5)
        attention.far.fill_(0.5)
    x = torch.randn(2, *size, DIM)
    plan = window_plan(*size, 4, 0, CPU)
    q, k, v = attention.qkv(x).flatten(1, 2).unflatten(-1, (3, 2, DIM // 2)).permute(2, 0, 3, 1, 4)
    dense = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    fast = unpartition(attention(partition(x, plan), plan), plan)
    torch.testing.assert_close(fast.flatten(1, 2), attention.projection(dense), atol=1e-5, rtol=1e-5)


def test_windows_attend_to_what_looks_alike_however_far() -> None:
    """Two windows with a pattern of their own among others that have none, at opposite corners."""
    attention = BiLevelAttention(DIM, heads=2, window=4, attended=2)
    with torch.no_grad():
        attention.qkv.weight.copy_(torch.eye(DIM).repeat(3, 1))
        attention.qkv.bias.zero_()
    x = 0.1 * torch.ones(1, 16, 16, DIM)
    x[:, :4, :4, 0] = x[:, 12:, 12:, 0] = 3
    plan = window_plan(16, 16, 4, 0, CPU)
    chosen = attention.choose(attention.qkv(partition(x, plan)), plan)[0]
    assert chosen[:, 0].tolist() == list(range(16))
    assert (chosen[0, 1], chosen[15, 1]) == (15, 0)


def test_gradients_of_bilevel_attention_are_the_loops() -> None:
    """Which has none for the choice: queries and keys learn as those of attention do."""
    torch.manual_seed(0)
    attention = BiLevelAttention(DIM, heads=2, window=(2, 4), attended=2)
    strengthen(attention)
    x, weight = torch.randn(5, 10, DIM), torch.randn(5, 10, DIM)
    plan = window_plan(5, 10, (2, 4), (1, 2), CPU)
    fast = unpartition(attention(partition(x[None], plan), plan), plan)[0]
    slow = naive_bilevel(attention, x, (2, 4), (1, 2))
    grads = [torch.autograd.grad((out * weight).sum(), list(attention.parameters())) for out in (fast, slow)]
    for mine, expected in zip(*grads, strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(mine, expected, atol=1e-4, rtol=1e-4)


def naive_heavy(heavy: RoutedWindowAttention, x: Tensor, raw: Tensor, k: int, window: Sides, shift: Sides) -> Tensor:
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
@given(height=st.integers(2, 9), width=st.integers(2, 9), window=window_sides, shifted=st.booleans())
def test_heavy_attention_equals_a_loop_over_routed_keys(height: int, width: int, window: Sides, shifted: bool) -> None:
    torch.manual_seed(height * 100 + width)
    heavy = RoutedWindowAttention(DIM, heads=2, window=window).eval()
    router = LightRouter(DIM, k=2)
    strengthen(heavy)
    x = torch.randn(1, height, width, DIM)
    shift = half(window) if shifted else 0
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

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from condswin.networks.routers import IterativeRouter, LightRouter, coordinate_descent, count, rows, soft_top_k
from tests.networks.reference import published

EPSILON = 0.1


def bisection(raw: Tensor, k: int, epsilon: float) -> Tensor:
    """min(1, exp((raw + a) / epsilon)) with `a` such that the sum is k: the optimum by its optimality conditions."""
    raw = raw.double()
    low, high = raw.new_tensor(-1e4), raw.new_tensor(1e4)
    for _ in range(200):
        a = (low + high) / 2
        total = ((raw + a) / epsilon).clamp(max=0).exp().sum()
        low, high = (a, high) if total < k else (low, a)
    return ((raw + low) / epsilon).clamp(max=0).exp()


@settings(deadline=None, max_examples=60)
@given(
    n=st.sampled_from([16, 64, 256, 1024, 4096]),
    share=st.floats(0.02, 0.9),
    scale=st.floats(0.1, 10),
    seed=st.integers(0, 1000),
)
def test_soft_top_k_sums_to_k_and_is_the_optimum(n: int, share: float, scale: float, seed: int) -> None:
    raw = torch.randn(n, generator=torch.Generator().manual_seed(seed)) * scale
    k = count(share, n)
    x = soft_top_k(raw, raw.topk(k).indices, epsilon=EPSILON)
    assert x.sum().item() == pytest.approx(k, rel=1e-4)
    torch.testing.assert_close(x.double(), bisection(raw, k, EPSILON), atol=1e-4, rtol=0)


@pytest.mark.parametrize("scale", [0.1, 1, 30])
def test_soft_top_k_has_the_gradient_of_its_values(scale: float) -> None:
    raw = scale * torch.randn(3, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    chosen = raw.topk(5).indices
    assert torch.autograd.gradcheck(lambda x: soft_top_k(x, chosen, epsilon=EPSILON), raw.requires_grad_())


def test_soft_top_k_shares_what_is_left_among_equals() -> None:
    """Patches of an image's background are all alike, and the k-th best may be one of them."""
    raw = torch.tensor([900.0, 2.0, 2.0, 2.0, -900.0])
    torch.testing.assert_close(
        soft_top_k(raw, raw.topk(3).indices, epsilon=EPSILON), torch.tensor([1, 2 / 3, 2 / 3, 2 / 3, 0])
    )


@pytest.mark.parametrize("masked", [False, True])
def test_gates_of_the_iterative_router_are_the_chosen_scores(masked: bool) -> None:
    x, real = torch.randn(2, 64, 16), torch.arange(64) < 40 if masked else None
    for iterations in (None, 20):
        router = IterativeRouter(16, k=7, iterations=iterations)
        routing = router(x, real=real)
        assert torch.equal(routing.gates, router.weigh(x, real=real).gather(-1, routing.indices))


def test_rows_find_chosen_patches_among_those_of_all_groups() -> None:
    x = torch.randn(2, 3, 16, 4)
    indices = torch.randn(2, 3, 16).topk(5).indices
    expected = x.gather(2, indices[..., None].expand(-1, -1, -1, 4))
    assert torch.equal(x.flatten(0, 2)[rows(indices, 16)].view_as(expected), expected)


@pytest.mark.parametrize("router", [LightRouter(32, k=7), IterativeRouter(32, k=7)])
def test_the_highest_scores_are_chosen(router: LightRouter | IterativeRouter) -> None:
    x = torch.randn(3, 5, 64, 32)
    routing = router(x)
    raw = x @ router.vector
    scores = router.weigh(x)
    assert scores.shape == (3, 5, 64)
    assert routing.indices.shape == routing.gates.shape == (3, 5, 7)
    assert torch.equal(routing.indices, raw.topk(7).indices)
    assert (routing.gates > 0).all()
    assert (scores >= 0).all()
    assert torch.equal(scores.gather(-1, routing.indices), scores.sort(descending=True).values[..., :7])


@pytest.mark.parametrize("kind", [LightRouter, IterativeRouter])
def test_gates_are_about_one_on_average(kind: type[LightRouter] | type[IterativeRouter]) -> None:
    """A softmax score near 1/n would make the heavy branch vanish."""
    torch.manual_seed(0)
    routing = kind(64, k=256)(torch.nn.functional.layer_norm(torch.randn(2, 4096, 64), (64,)))
    assert routing.gates.mean().item() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("k", [1, 7, 64])
@pytest.mark.parametrize("kind", [LightRouter, IterativeRouter])
def test_the_vector_learns_for_every_k(kind: type[LightRouter] | type[IterativeRouter], k: int) -> None:
    torch.manual_seed(0)
    router = kind(16, k=k).train()
    routing = router(torch.randn(2, 64, 16))
    (routing.gates * torch.randn_like(routing.gates)).sum().backward()
    assert router.vector.grad is not None
    assert router.vector.grad.abs().max() > 1e-6


def test_raw_scores_start_at_unit_scale() -> None:
    """A vector drawn with unit variance makes a softmax over 4096 patches one-hot (the notebook's initial values)."""
    torch.manual_seed(0)
    x = torch.nn.functional.layer_norm(torch.randn(1, 4096, 256), (256,))
    raw = x @ LightRouter(256, k=7).vector
    assert raw.std().item() == pytest.approx(1, abs=0.25)
    assert raw.softmax(-1).max() < 0.05


@pytest.mark.parametrize("kind", [LightRouter, IterativeRouter])
def test_padding_is_never_chosen_for_its_worth(kind: type[LightRouter] | type[IterativeRouter]) -> None:
    real = torch.zeros(1, 64, dtype=torch.bool)
    real[:, :5] = True
    x, router = torch.randn(2, 64, 16), kind(16, k=7)
    routing = router(x, real=real)
    assert torch.equal((routing.gates > 0).sum(-1), torch.tensor([5, 5]))
    assert (router.weigh(x, real=real)[:, 5:] == 0).all()


@pytest.mark.parametrize("kind", [LightRouter, IterativeRouter])
def test_scores_stay_in_single_precision_under_autocast(kind: type[LightRouter] | type[IterativeRouter]) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        router, x = kind(16, k=7), torch.randn(2, 64, 16).bfloat16()
        assert router(x).gates.dtype == router.weigh(x).dtype == torch.float32


def test_counts_and_fractions() -> None:
    assert [count(7, 64), count(7, 4), count(0.25, 64), count(0.001, 64), count(1.0, 64)] == [7, 4, 16, 1, 64]


@pytest.mark.parametrize("iterations", [1, 2, 6, 20])
@pytest.mark.parametrize(("n", "k"), [(16, 1), (64, 7), (64, 40), (300, 2)])
@pytest.mark.parametrize("scale", [0.3, 3, 30])
def test_steps_are_the_published_ones(scale: float, n: int, k: int, iterations: int) -> None:
    raw = scale * torch.randn(5, n, generator=torch.Generator().manual_seed(n + k))
    settings = {"iterations": iterations, "epsilon": EPSILON, "epsilon_init": 4.0, "epsilon_decay": 0.7}
    expected = published(raw.double(), k, **settings)
    torch.testing.assert_close(coordinate_descent(raw, k, **settings).double(), expected, atol=1e-4, rtol=1e-3)


def test_steps_converge_to_the_optimum() -> None:
    raw = torch.randn(5, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = coordinate_descent(raw, 7, iterations=300, epsilon=EPSILON, epsilon_init=4.0, epsilon_decay=0.7)
    torch.testing.assert_close(found, soft_top_k(raw, raw.topk(7).indices, epsilon=EPSILON))


def test_steps_go_on_where_all_scores_underflow() -> None:
    raw = torch.linspace(-500, -400, 50)
    settings = {"iterations": 20, "epsilon": EPSILON, "epsilon_init": 4.0, "epsilon_decay": 0.7}
    expected = published(raw.double(), 3, **settings)
    torch.testing.assert_close(coordinate_descent(raw, 3, **settings).double(), expected, atol=0.1, rtol=0)


def test_light_router_scores_average_one_over_all_patches():
    """A plain softmax's scores of 1 / n would silence the branch that they weigh."""
    x = torch.randn(3, 50, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(LightRouter(8, k=5).weigh(x).mean(-1), torch.ones(3))

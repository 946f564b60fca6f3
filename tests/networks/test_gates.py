import pytest
import torch

from condswin.networks.attention import ConditionalWindowAttention
from condswin.networks.blocks import ConditionalFeedForward, SwinBlock, parameter_count
from condswin.networks.gates import BoundedRouter, Gated, RandomRouter
from condswin.networks.models import create_model

SMALL = {"embedding": 16, "heads": [2, 4], "window": 4}


def test_bounded_gates_are_each_of_their_own_and_the_highest_are_chosen() -> None:
    torch.manual_seed(0)
    router = BoundedRouter(8, k=3)
    with torch.no_grad():
        router.vector.mul_(20)
        router.bias.fill_(0.5)
    x = torch.randn(2, 10, 8)
    routing, scores = router(x), router.weigh(x)
    raw = x @ router.vector
    torch.testing.assert_close(scores, 2 / (1 + torch.exp(-raw - 0.5)))
    assert torch.equal(routing.indices, raw.topk(3).indices)
    torch.testing.assert_close(routing.gates, scores.gather(-1, routing.indices))
    # Another patch changes no gate but its own, which a softmax's would.
    other = x.clone()
    other[:, 0] += 1
    torch.testing.assert_close(router.weigh(other)[:, 1:], scores[:, 1:])


def test_random_choices_differ_in_training_and_repeat_afterwards() -> None:
    torch.manual_seed(0)
    router, x = RandomRouter(8, k=0.25), torch.zeros(3, 64, 8)
    first, second = router.train()(x), router(x)
    assert not torch.equal(first.indices, second.indices)
    assert not torch.equal(first.indices[0], first.indices[1])
    first, second = router.eval()(x), router(x)
    assert torch.equal(first.indices, second.indices)
    assert first.indices.shape == (3, 16)
    assert all(len(set(row.tolist())) == 16 for row in first.indices)
    assert torch.equal(first.gates, torch.ones(3, 16))
    assert not list(router.parameters())


def test_random_choices_leave_padding_out() -> None:
    torch.manual_seed(0)
    real = torch.arange(16) < 5
    for router in (RandomRouter(8, k=5).train(), RandomRouter(8, k=5).eval()):
        x = torch.zeros(2, 16, 8)
        routing = router(x, real=real)
        assert routing.indices.sort().values.tolist() == 2 * [[0, 1, 2, 3, 4]]
        assert torch.equal(router.weigh(x, real=real), real.expand(2, 16).float())


def test_gated_sublayers_start_near_the_plain_network_and_cost_a_vector_each() -> None:
    plain, gated = (create_model(name, **SMALL) for name in ("swin", "swin-gated"))
    # Four blocks of 16 channels, two of 32; a vector and a bias for each of their two sublayers.
    assert parameter_count(gated) - parameter_count(plain) == 4 * 2 * 17 + 2 * 2 * 33
    sublayer = Gated(torch.nn.Identity(), 4)
    with torch.no_grad():
        sublayer.gate.weight.copy_(torch.tensor([[1.0, 0, 0, 0]]))
    x = torch.tensor([[0.0, 1, 2, 3], [50, 1, 2, 3], [-50, 1, 2, 3]])
    torch.testing.assert_close(sublayer(x), torch.tensor([[1.0], [2], [0]]) * x)


@pytest.mark.parametrize("variant", ["conditional-light", "conditional-iterative"])
def test_random_networks_have_no_router_to_train(variant: str) -> None:
    network = create_model(variant, **SMALL, random=True)
    assert not [name for name, _ in network.named_parameters() if "router" in name]
    network.train()(torch.randn(1, 1, 40, 36)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_bounded_networks_gate_both_branches() -> None:
    torch.manual_seed(0)
    network = create_model("conditional-light", **SMALL, bounded=True)
    blocks = [block for block in network.modules() if isinstance(block, SwinBlock)]
    for block in blocks:
        assert isinstance(block.attention, ConditionalWindowAttention)
        assert isinstance(block.feed_forward, ConditionalFeedForward)
        assert isinstance(block.attention.light, Gated)
        assert isinstance(block.feed_forward.light, Gated)
        assert isinstance(block.attention.query_router, BoundedRouter)
    network(torch.randn(1, 1, 40, 36)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in network.parameters())

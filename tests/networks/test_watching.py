"""What routers decide is seen where it is decided, and seeing changes nothing."""

from typing import Any

import pytest
import torch

from condswin.networks.attention import ConditionalWindowAttention
from condswin.networks.models import create_model
from condswin.networks.watching import Decision, _entropy, has_routers, watched
from condswin.networks.windows import partition, window_plan
from condswin.training.shown import load

SMALL = {"preset": "demo", "embedding": 16, "heads": [2, 2]}


@pytest.fixture
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return create_model("conditional-light", **SMALL, key_values=3).eval()


def test_watching_changes_nothing_and_leaves_nothing_behind(network: torch.nn.Module) -> None:
    image = torch.randn(2, 1, 52, 44)
    with torch.no_grad():
        before = network(image)
        with watched(network) as decisions:
            assert torch.equal(network(image), before)
        network(image)
    assert [(each.block, each.kind) for each in decisions[:3]] == [
        ("encoder.0.0", "query"),
        ("encoder.0.0", "key_value"),
        ("encoder.0.0", "feed_forward"),
    ]
    assert len(decisions) == 6 * 3
    assert {tuple(each.scores.shape) for each in decisions} == {(2, 13, 11), (2, 7, 6)}
    assert not [module for module in network.modules() if module._forward_hooks or module._forward_pre_hooks]


@pytest.mark.parametrize(
    ("overrides", "shift"),
    [({}, (4, 4)), ({"window": (3, 6)}, (1, 3)), ({"window": (3, 6), "attended_windows": 3}, (1, 3))],
)
def test_choices_are_put_where_they_are_in_the_image(overrides: dict[str, Any], shift: tuple[int, int]) -> None:
    """Of windows, shifted and padded ones too, by the coordinates that go the way of the patches."""
    torch.manual_seed(0)
    network = create_model("conditional-light", **SMALL, key_values=3, **overrides).eval()
    window = overrides.get("window", 8)
    routings = []
    for module in network.modules():
        if isinstance(module, ConditionalWindowAttention):
            module.key_value_router.register_forward_hook(
                lambda router, given, options, routing: routings.append((routing, router.weigh(*given, **options))),
                with_kwargs=True,
            )
    with torch.no_grad(), watched(network) as decisions:
        network(torch.randn(1, 1, 52, 44))
    found = [each for each in decisions if each.kind == "key_value"]
    for decision, (routing, scores), displaced in zip(found, routings, [0, shift] * 3, strict=True):
        assert decision.chosen is not None
        height, width = decision.chosen.shape[1:]
        number = torch.arange(1, height * width + 1).view(1, height, width, 1)
        windows = partition(number, window_plan(height, width, window, displaced, number.device))[..., 0]
        places = windows.gather(-1, routing.indices)
        wanted = places[places > 0].unique()  # 0 is padding
        assert torch.equal((decision.chosen.flatten().nonzero()[:, 0] + 1).sort().values, wanted)
        assert torch.equal(decision.scores[0].flatten()[windows[windows > 0] - 1], scores[windows > 0])


@pytest.mark.parametrize("shared", [False, True])
def test_cascades_of_unrolled_networks_are_told_apart_by_their_order(shared: bool) -> None:
    network = create_model("unrolled-conditional-iterative", **SMALL, in_channels=3, out_channels=2, cascades=2,
                           shared_weights=shared).eval()  # fmt: skip
    with torch.no_grad(), watched(network) as decisions:
        network(torch.randn(1, 3, 16, 24))
    assert len(decisions) == 2 * 6 * 3
    assert len({each.block for each in decisions}) == (6 if shared else 12)
    assert decisions[0].block == "regularisers.0.encoder.0.0"


@pytest.mark.parametrize("overrides", [{}, {"wide_channels": 8}])
def test_networks_without_routers_in_their_blocks_show_nothing(overrides: dict[str, int]) -> None:
    network = create_model("swin", **SMALL, **overrides).eval()
    assert not has_routers(network)
    with torch.no_grad(), watched(network) as decisions:
        network(torch.randn(1, 1, 16, 16))
    assert decisions == []


def test_entropy_is_1_where_all_are_alike_and_0_where_one_has_everything() -> None:
    assert _entropy(torch.full((2, 3, 8), 0.3), None) == pytest.approx(1)
    assert _entropy(torch.eye(8)[:3] * 8, None) == pytest.approx(0)
    half = torch.tensor([[1.0, 1, 0, 0], [1, 0, 0, 0]])
    assert _entropy(half[:1], None) == pytest.approx(0.5)
    # Of what is padding nothing counts, nor a window with one patch.
    real = torch.tensor([[True, True, False, False], [True, False, False, False]])
    assert _entropy(half, real) == pytest.approx(1)


def test_load_is_the_share_of_places_that_could_be_covered() -> None:
    def decision(*chosen: int, size: tuple[int, int] = (2, 4)) -> Decision:
        places = torch.zeros(size, dtype=torch.bool)
        places.view(-1)[list(chosen)] = True
        return Decision("b", "key_value", places.float()[None], places[None], 1.0)

    assert load([decision(0, 1), decision(0, 1)]) == 0.5
    assert load([decision(0, 1), decision(2, 3)]) == 1
    assert load([decision(0, 1), decision(1, 2)]) == 0.75
    assert load([decision(0, 1, 2, 3, 4), decision(3, 4, 5, 6, 7)]) == 1  # no more than all
    # Another size has places of its own.
    assert load([decision(0, 1), decision(0, 1), decision(0, size=(3, 3))]) == 0.6

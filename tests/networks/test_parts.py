import pytest
import torch

from condswin.networks.models import create_model
from tests.networks.parts import PARTS, VARIANTS, measure


def test_parts_make_up_the_whole_and_plain_networks_have_no_heavy_ones() -> None:
    networks = {name: create_model(name, preset="demo", embedding=8, heads=(2, 2)) for name in VARIANTS}
    costs = measure(networks, torch.randn(1, 1, 32, 32), rounds=1)
    for cost in costs.values():
        assert sum(cost[part] for part in PARTS) == pytest.approx(cost["whole"])
    plain, light, iterative = costs.values()
    assert {part for part in PARTS if plain[part] == 0} == {"heavy attention", "heavy feed-forward", "routers"}
    assert all(part > 0 for cost in (light, iterative) for part in cost.values())

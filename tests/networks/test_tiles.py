from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from condswin.networks.costs import count_flops
from condswin.networks.gates import BoundedRouter
from condswin.networks.models import create_model
from condswin.networks.saving import ModelSpec, save_model
from condswin.networks.tiles import TileConvolutions, WidePixels
from condswin.steps.export import export_model

SMALL: dict[str, Any] = {"embedding": 16, "heads": [2, 2], "window": 4, "stem_channels": 8, "wide_channels": 12}
TILE = 4


def wide_pixels(k: int | float) -> WidePixels:
    """With gates that differ from tile to tile."""
    torch.manual_seed(0)
    router = BoundedRouter(5, k=k)
    with torch.no_grad():
        router.vector.mul_(5)
    return WidePixels(2, 5, 6, 3, tile=TILE, router=router)


def everywhere(layers: TileConvolutions, x: Tensor) -> Tensor:
    """The convolutions as PyTorch does them, on the whole map."""
    for number, convolution in enumerate(layers.convolutions):
        x = F.conv2d(F.gelu(x) if number else x, convolution.weight, convolution.bias, padding=1)
    return x


def spread(wide: WidePixels, light: Tensor) -> Tensor:
    """Gates (B, 1, H, W) of all pixels, 0 outside the routed tiles."""
    height, width = light.shape[2:]
    pooled = F.avg_pool2d(light, TILE, ceil_mode=True)
    routing = wide.router(pooled.flatten(2).transpose(1, 2))
    gates = torch.zeros_like(pooled[:, 0].flatten(1)).scatter(1, routing.indices, routing.gates).view_as(pooled[:, :1])
    return gates.repeat_interleave(TILE, 2).repeat_interleave(TILE, 3)[:, :, :height, :width]


@pytest.mark.parametrize("size", [(16, 12), (10, 13), (4, 4), (3, 17)])
def test_all_tiles_together_are_the_convolutions_of_the_whole_map(size: tuple[int, int]) -> None:
    wide = wide_pixels(1.0)
    x, light = torch.randn(2, 8, *size), torch.randn(2, 5, *size)
    gates = spread(wide, light)
    assert gates.min() > 0
    assert len(gates.unique()) >= 2
    torch.testing.assert_close(wide.stem(x, wide.route(light)), everywhere(wide.stem, x) * gates)


def test_routed_tiles_see_each_other_and_nothing_else_is_computed() -> None:
    wide = wide_pixels(3)
    x, light = torch.randn(2, 8, 16, 12), torch.randn(2, 5, 16, 12)
    gates = spread(wide, light)
    inside = gates > 0
    assert inside.sum(dim=(1, 2, 3)).tolist() == 2 * [3 * TILE**2]
    first, second = wide.stem.convolutions
    between = F.gelu(F.conv2d(x, first.weight, first.bias, padding=1)) * inside
    expected = F.conv2d(between, second.weight, second.bias, padding=1) * gates
    torch.testing.assert_close(wide.stem(x, wide.route(light)), expected)


@pytest.mark.parametrize("size", [(8, 8), (33, 50)])
@pytest.mark.parametrize("variant", ["swin", "conditional-light"])
def test_networks_with_tiles_take_any_size_and_all_of_them_learns(variant: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = create_model(variant, preset="demo", **SMALL, in_channels=2, out_channels=3).train()
    images = torch.randn(2, 2, *size)
    output = network(images)
    assert output.shape == (2, 3, *size)
    output.square().sum().backward()
    wide = {name: value.grad for name, value in network.named_parameters() if name.startswith("wide")}
    assert len(wide) == 10
    assert all(grad is not None and grad.abs().max() > 0 for grad in wide.values())
    with torch.no_grad():
        alone = torch.cat([network.eval()(image[None]) for image in images])
        torch.testing.assert_close(network(images), alone, atol=1e-5, rtol=1e-5)


def test_routers_inside_unrolled_networks_learn() -> None:
    torch.manual_seed(0)
    network = create_model("unrolled-swin", preset="demo", in_channels=3, out_channels=2, cascades=2, **SMALL)
    image = torch.randn(2, 3, 48, 64)
    image[:, 2] = 1.0 * (torch.arange(64) % 3 == 0)
    network(image).square().sum().backward()
    routers = [module.router for module in network.modules() if isinstance(module, WidePixels)]
    assert len(routers) == 2
    assert all(router.vector.grad.abs().max() > 0 and router.bias.grad.abs() > 0 for router in routers)


def test_operations_are_those_of_the_routed_tiles() -> None:
    image = torch.zeros(2, 1, 64, 48)
    light = count_flops(create_model("swin", preset="demo", **{**SMALL, "wide_channels": 0}), image)
    flops = count_flops(create_model("swin", preset="demo", **SMALL, wide_tiles=5), image)
    # Two images, five tiles of 8 x 8 folded pixels; two convolutions of the stem, two of the head.
    channels = 4 * 12 + 12 * 12 + (2 * 8 + 12) * 12 + 12 * 4
    assert flops.heavy == 2 * 2 * 5 * 64 * 9 * channels
    assert flops.router == 2 * 2 * 12 * 8
    # The embedding, of 2 x 2 folded pixels, takes the wide features too.
    assert flops.rest - light.rest == 2 * 2 * 16 * 12 * 12 * 4 * 16
    assert flops.light == light.light


def test_random_tiles_have_no_router_to_train() -> None:
    network = create_model("swin", preset="demo", **SMALL, random=True)
    assert not [name for name, _ in network.named_parameters() if "router" in name]


def test_networks_with_tiles_are_exported(tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = ModelSpec("reconstruction", "tiles", "swin", "demo", 1, 1, SMALL)
    save_model(tmp_path / "model", spec.build(), spec)
    assert export_model(tmp_path / "model", tmp_path / "model.pt2", kind="pt2", size=36) < 1e-4
    program = torch.export.load(tmp_path / "model.pt2").module()
    assert [program(torch.zeros(batch, 1, 36, 36)).shape[0] for batch in (1, 5)] == [1, 5]

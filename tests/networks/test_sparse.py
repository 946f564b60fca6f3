"""Networks whose windows are no squares or attend to other windows, held to what every network promises."""

from pathlib import Path
from typing import Any

import pytest
import torch

from condswin.networks.attention import BiLevelAttention
from condswin.networks.blocks import SwinBlock
from condswin.networks.costs import count_flops
from condswin.networks.models import create_model
from condswin.networks.presets import list_variants
from condswin.networks.saving import ModelSpec, load_model, save_model
from condswin.steps.export import export_model

SMALL: dict[str, Any] = {"embedding": 16, "heads": [2, 4]}
WIDE = {"window": [2, 6]}
BILEVEL = {"window": 4, "attended_windows": 3}
BOTH = {"window": [2, 6], "attended_windows": 3}


@pytest.fixture(params=[WIDE, BILEVEL, BOTH], ids=["wide", "bilevel", "both"])
def sparse(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {**SMALL, **request.param}


@pytest.mark.parametrize("variant", list_variants("variant"))
@pytest.mark.parametrize("size", [(8, 8), (33, 50)])
def test_any_size_is_answered_images_do_not_touch_and_all_of_it_learns(
    variant: str, size: tuple[int, int], sparse: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    network = create_model(variant, **sparse, in_channels=2, out_channels=3).train()
    images = torch.randn(3, 2, *size)
    output = network(images)
    assert output.shape == (3, 3, *size)
    (output * torch.randn_like(output)).sum().backward()
    grads = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
    if size != (8, 8):  # which is a single window
        assert all(grad.abs().max() > 0 for grad in grads.values() if grad is not None)
    with torch.inference_mode():
        alone = torch.cat([network.eval()(image[None]) for image in images])
        torch.testing.assert_close(network(images), alone, atol=1e-5, rtol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            assert network(images).isfinite().all()


def test_blocks_take_the_settings_and_shift_by_half_of_each_side() -> None:
    network = create_model("conditional-light", **SMALL, window=[3, 24], attended_windows=5)
    blocks = [block for block in network.modules() if isinstance(block, SwinBlock)]
    assert [(block.window, block.shift) for block in blocks] == 3 * [((3, 24), (0, 0)), ((3, 24), (1, 12))]
    bilevel = [module for module in network.modules() if isinstance(module, BiLevelAttention)]
    assert [module.attended for module in bilevel] == 6 * [5]
    tables = {tuple(value.shape) for name, value in network.named_parameters() if name.endswith("table")}
    assert tables == {(5 * 47, 1), (5 * 47, 2), (5 * 47, 4)}


@pytest.mark.parametrize("variant", list_variants("variant"))
def test_a_square_given_as_two_sides_is_the_square(variant: str) -> None:
    torch.manual_seed(0)
    square, two_sides = create_model(variant, **SMALL, window=4), create_model(variant, **SMALL, window=[4, 4])
    two_sides.load_state_dict(square.state_dict())
    image = torch.randn(1, 1, 40, 52)
    with torch.inference_mode():
        assert torch.equal(square.eval()(image), two_sides.eval()(image))


def test_regularisers_of_unrolled_networks_take_the_settings(sparse: dict[str, Any]) -> None:
    network = create_model("unrolled-conditional-light", **sparse, in_channels=3, out_channels=2, cascades=2)
    image = torch.randn(2, 3, 48, 64)
    image[:, 2] = 1.0 * (torch.arange(64) % 3 == 0)
    network(image).square().sum().backward()
    grads = [parameter.grad for name, parameter in network.named_parameters() if "attention" in name]
    assert all(grad is not None and grad.abs().max() > 0 for grad in grads)


def test_networks_are_saved_exported_and_built_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = ModelSpec("reconstruction", "sparse", "swin", "demo", 1, 1, {"embedding": 8, "heads": [2, 2], **BOTH})
    network = spec.build().eval()
    save_model(tmp_path / "model", network, spec)
    loaded, read = load_model(tmp_path / "model")
    assert read == spec
    with torch.inference_mode():
        assert torch.equal(loaded(torch.ones(1, 1, 36, 36)), network(torch.ones(1, 1, 36, 36)))
    # Which compares, at another batch, what the file computes. ONNX is made of what a .pt2 holds.
    assert export_model(tmp_path / "model", tmp_path / "model.onnx", kind="onnx", size=36) < 1e-4


def test_networks_compile_to_one_graph() -> None:
    torch.manual_seed(0)
    network, image = create_model("swin", **SMALL, **BOTH).eval(), torch.randn(2, 1, 40, 36)
    with torch.no_grad():
        compiled = torch.compile(network, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(image), network(image), atol=1e-5, rtol=1e-5)


def test_operations_are_those_of_the_attended_windows() -> None:
    """thesis-1 at 64x64: 16x16 patches of 128 channels in 4 windows, a bottleneck of 8x8 of 256 channels in one."""
    image = torch.zeros(2, 1, 64, 64)
    plain = count_flops(create_model("swin", preset="thesis-1"), image)
    sparse = count_flops(create_model("swin", preset="thesis-1", attended_windows=3), image)
    # Of four blocks: queries and keys, attention and values for two more windows; descriptors of 4 windows.
    further = 2 * 2 * 256 * (2 * 64) * 128
    choosing = 2 * 4 * 4 * 128
    # Of two blocks: the descriptor of one window.
    alone = 2 * 256
    assert sparse.light - plain.light == 2 * (4 * (further + choosing) + 2 * alone)
    assert (sparse.heavy, sparse.router, sparse.rest) == (plain.heavy, plain.router, plain.rest)
    conditional = {
        name: count_flops(create_model("conditional-light", preset="thesis-1", **overrides), image)
        for name, overrides in {"plain": {}, "sparse": {"attended_windows": 3}}.items()
    }
    assert conditional["sparse"].light - conditional["plain"].light == sparse.light - plain.light
    assert conditional["sparse"].heavy == conditional["plain"].heavy

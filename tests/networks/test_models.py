"""Every network of the registry, held to the same promises."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from condswin.errors import BadFileError
from condswin.networks.attention import ConditionalWindowAttention
from condswin.networks.blocks import ConditionalFeedForward, SwinBlock, parameter_count
from condswin.networks.models import create_model
from condswin.networks.presets import PRESETS, list_variants
from condswin.networks.routers import IterativeRouter
from condswin.networks.saving import ModelSpec, load_model, save_model

SMALL: dict[str, Any] = {"embedding": 16, "heads": [2, 4], "window": 4}
SMALL_RIVALS: dict[str, dict[str, Any]] = {
    "unet": {"embedding": 4},
    "swin-unetr": {"embedding": 12, "depths": [1, 1, 1, 1]},
}


@pytest.fixture(params=list_variants("variant"))
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=list_variants("variant") + list_variants("rival"))
def any_variant(request: pytest.FixtureRequest) -> str:
    return request.param


def small(variant: str, **arguments: Any) -> nn.Module:
    return create_model(variant, **SMALL_RIVALS.get(variant, SMALL), **arguments)


@pytest.mark.parametrize(
    ("preset", "swin", "conditional"), [("thesis-1", 1_890_976, 3_936_944), ("thesis-2", 6_507_984, 16_310_008)]
)
def test_thesis_presets_have_the_published_parameter_counts(preset: str, swin: int, conditional: int) -> None:
    counts = {"swin": swin, "conditional-iterative": conditional, "conditional-light": conditional}
    assert counts == {variant: parameter_count(create_model(variant, preset=preset)) for variant in counts}


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_parameter_learns_from_the_first_step(any_variant: str, preset: str) -> None:
    torch.manual_seed(0)
    model = create_model(any_variant, preset=preset, dropout=0.0).train()
    image = torch.randn(2, 1, 64, 64)
    (model(image) * torch.randn(2, 1, 64, 64)).sum().backward()
    dead = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.abs().max() > 0
    ]
    assert dead == []


@pytest.mark.parametrize("iterations", [20, None])
@pytest.mark.parametrize("variant", ["conditional-iterative", "conditional-light"])
def test_routers_still_learn_after_training_made_them_decided(variant: str, iterations: int | None) -> None:
    """Scores of 1 inside the soft top-k have next to no gradient of their own (the notebook's dead routers)."""
    torch.manual_seed(0)
    model = create_model(variant, **SMALL, iterations=iterations).train()
    routers = {name: value for name, value in model.named_parameters() if name.endswith("router.vector")}
    assert routers
    with torch.no_grad():
        for vector in routers.values():
            vector.mul_(30)
    (model(torch.randn(2, 1, 64, 64)) * torch.randn(2, 1, 64, 64)).sum().backward()
    # The exact gradient alone leaves 1.5e-4 to the least of them, and nothing where the search takes 20 steps.
    assert all(vector.grad is not None and vector.grad.abs().max() > 3e-4 for vector in routers.values())


@pytest.mark.parametrize("size", [(8, 8), (8, 64), (33, 50), (72, 40), (9, 129)])
def test_any_size_is_answered_in_kind(any_variant: str, size: tuple[int, int]) -> None:
    model = small(any_variant, in_channels=2, out_channels=3).eval()
    output = model(torch.randn(2, 2, *size))
    assert output.shape == (2, 3, *size)
    assert output.isfinite().all()


def test_images_of_a_batch_do_not_touch(any_variant: str) -> None:
    torch.manual_seed(0)
    model = small(any_variant).eval()
    images = torch.randn(3, 1, 40, 56)
    with torch.inference_mode():
        together = model(images)
        alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_evaluation_is_deterministic_and_has_no_dropout(any_variant: str) -> None:
    model = create_model(any_variant, preset="thesis-1").eval()
    image = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model(image), model(image))


def test_a_plan_made_in_inference_mode_serves_training(any_variant: str) -> None:
    model = small(any_variant)
    image = torch.randn(1, 1, 44, 76)
    with torch.inference_mode():
        model.eval()(image)
    model.train()(image).square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_state_dict_serves_every_size(any_variant: str) -> None:
    torch.manual_seed(0)
    first, second = (small(any_variant).eval() for _ in range(2))
    with torch.inference_mode():
        first(torch.randn(1, 1, 40, 40))
        second.load_state_dict(first.state_dict())
        image = torch.randn(1, 1, 24, 88)
        torch.testing.assert_close(first(image), second(image))
    if any_variant in list_variants("variant"):
        assert set(first.state_dict()) == {name for name, _ in first.named_parameters()}


def test_bfloat16_autocast_is_finite_and_near(any_variant: str) -> None:
    torch.manual_seed(0)
    model = small(any_variant).eval()
    image = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        exact = model(image)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(image)
    assert rough.isfinite().all()
    assert (rough - exact).abs().mean() < 0.1 * exact.abs().mean() + 0.01


@pytest.mark.parametrize("preset", ["thesis-1", "thesis-2"])
@pytest.mark.parametrize("rival", list_variants("rival"))
def test_rivals_have_about_the_parameters_of_swin(rival: str, preset: str) -> None:
    count = parameter_count(create_model(rival, preset=preset))
    assert count == pytest.approx(parameter_count(create_model("swin", preset=preset)), rel=0.2)


def test_every_name_has_every_preset(any_variant: str) -> None:
    for preset in PRESETS:
        assert isinstance(create_model(any_variant, preset=preset), nn.Module)


def test_saved_networks_are_built_again(any_variant: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    overrides = SMALL_RIVALS.get(any_variant, SMALL)
    spec = ModelSpec("reconstruction", "label", any_variant, "demo", 1, 2, overrides)
    saved = spec.build().eval()
    save_model(tmp_path, saved, spec)
    loaded, read = load_model(tmp_path)
    assert read == spec
    image = torch.randn(1, 1, 40, 24)
    with torch.inference_mode():
        assert torch.equal(loaded(image), saved(image))


def test_descriptions_from_when_labels_were_networks_are_read(tmp_path: Path) -> None:
    spec = ModelSpec("reconstruction", "swin", "swin", "demo", 1, 1, SMALL)
    save_model(tmp_path, spec.build(), spec)
    values = json.loads((tmp_path / "model.json").read_text())
    assert values.pop("format") == 2
    del values["network"]
    (tmp_path / "model.json").write_text(json.dumps({"format": 1, **values}))
    assert load_model(tmp_path)[1] == spec
    (tmp_path / "model.json").write_text(json.dumps({"format": 3, **values}))
    with pytest.raises(BadFileError, match="newer condswin"):
        load_model(tmp_path)


def test_variants_differ_in_their_blocks_only() -> None:
    def frame(variant: str) -> dict[str, torch.Size]:
        model = create_model(variant, **SMALL)
        inside = {
            f"{name}.{inner}"
            for name, block in model.named_modules()
            if isinstance(block, SwinBlock)
            for inner, _ in block.named_parameters()
        }
        return {name: value.shape for name, value in model.named_parameters() if name not in inside}

    assert all(frame(variant) == frame("swin") for variant in list_variants("variant"))


def test_residual_adds_the_input_where_channels_allow() -> None:
    torch.manual_seed(0)
    model = create_model("swin", **SMALL, residual=True).eval()
    torch.manual_seed(0)
    plain = create_model("swin", **SMALL, residual=False).eval()
    image = torch.randn(1, 1, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(model(image), plain(image) + image)
    assert create_model("swin", **SMALL, residual=True, out_channels=3)(image).shape == (1, 3, 32, 32)


@pytest.mark.parametrize("attended", [1, 2])
def test_half_the_channels_halve_the_weights_of_light_attention(attended: int) -> None:
    whole, half = (
        create_model("conditional-light", preset="demo", attended_windows=attended, light_attention=share)
        for share in (1.0, 0.5)
    )
    assert half(torch.randn(1, 1, 40, 48)).shape == (1, 1, 40, 48)
    layers = [module for module in half.modules() if isinstance(module, ConditionalWindowAttention)]
    assert {(layer.light.qkv.out_features, len(layer.light.bias.table.t())) for layer in layers} == {(48, 1), (96, 2)}
    # Queries, keys and values lose half of their 3C (C + 1) numbers, the projection half of its C * C.
    lost = sum((3 * dim * (dim + 1) + dim * dim) // 2 for dim in (32, 32, 64, 64, 32, 32))
    assert parameter_count(whole) - parameter_count(half) == lost


def test_heavy_feed_forward_counts_patches_or_takes_a_fraction() -> None:
    def chosen(**overrides: object) -> int:
        model = create_model("conditional-light", **SMALL, **overrides)
        layer = next(module for module in model.modules() if isinstance(module, ConditionalFeedForward))
        return layer.router(torch.randn(1, 256, 16)).indices.shape[-1]

    assert chosen(heavy_patches=7) == 7
    assert chosen(heavy_patches=0.25) == 64


def test_settings_reach_the_iterative_router() -> None:
    model = create_model("conditional-iterative", **SMALL, iterations=3, epsilon=0.5, straight_through=0.5)
    router = next(module for module in model.modules() if isinstance(module, IterativeRouter))
    assert (router.iterations, router.epsilon, router.straight_through) == (3, 0.5, 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network": "swim"}, "no network 'swim'; did you mean 'swin'.*there are: swin"),
        ({"network": "swin", "preset": "huge"}, "swin has no preset 'huge'; there are: thesis-1"),
        ({"network": "swin", "windows": 8}, "swin has no setting 'windows'; did you mean 'window'.*dropout"),
        ({"network": "swin", "in_channels": 0}, "in_channels=0"),
        ({"network": "swin", "heads": [3, 6]}, r"heads\[0\]=3: must be even"),
        ({"network": "swin", "heads": [4]}, "heads="),
        ({"network": "swin", "heads": "44"}, "heads='44': must be a list of integers"),
        ({"network": "swin", "embedding": 32.0}, r"embedding=32\.0: must be an integer"),
        ({"network": "swin", "residual": 1}, "residual=1: must be true or false"),
        ({"network": "swin", "window": None}, "window=None: must be an integer"),
        ({"network": "swin", "dropout": 1}, "dropout=1: must be at least 0 and below 1"),
        ({"network": "swin", "window": 0}, "window=0"),
        ({"network": "swin", "window": [8, 0]}, r"window=\(8, 0\): must be at least 1"),
        ({"network": "swin", "window": [8]}, r"window=\(8,\): must be an integer or a list of two integers"),
        ({"network": "swin", "window": [3, 2.5]}, r"window=\(3, 2\.5\): must be an integer or a list of two integers"),
        ({"network": "swin", "attended_windows": 0}, "attended_windows=0: must be at least 1"),
        ({"network": "swin", "attended_windows": 0.5}, r"attended_windows=0\.5: must be an integer"),
        ({"network": "swin-unetr", "window": [3, 24]}, r"window=\(3, 24\): must be an integer"),
        ({"network": "conditional-light", "key_values": 0}, "key_values=0"),
        ({"network": "conditional-light", "light_attention": 0.0}, r"light_attention=0\.0: must be positive"),
        (
            {"network": "conditional-light", "preset": "demo", "light_attention": 0.3},
            r"light_attention=0\.3: 9\.6 channels of stage 0 must be shared out to 1 heads",
        ),
        ({"network": "swin", "wide_channels": 8}, "wide_channels=8: needs stem_channels"),
        ({"network": "swin", "wide_channels": -1}, "wide_channels=-1: must not be negative"),
        ({"network": "swin", "wide_tiles": 0.0}, r"wide_tiles=0\.0: must be positive"),
        ({"network": "swin", "tile": 0}, "tile=0: must be at least 1"),
        ({"network": "conditional-iterative", "epsilon": -1.0}, r"epsilon=-1\.0"),
        ({"network": "conditional-iterative", "iterations": 0}, "iterations=0.*or null, to converge"),
        (
            {"network": "unet", "key_values": 7},
            "unet has no setting 'key_values'; there are: dropout, embedding, residual",
        ),
        ({"network": "unet", "embedding": 0}, "embedding=0"),
        ({"network": "swin-unetr", "patch": 4}, "swin-unetr has no setting 'patch'"),
        ({"network": "swin-unetr", "embedding": 32}, "embedding=32: must be a multiple of 12"),
        ({"network": "swin-unetr", "heads": [3, 6]}, "heads=.*four numbers"),
        ({"network": "swin-unetr", "heads": [5, 6, 12, 24]}, r"heads\[0\]=5: must divide 24"),
        ({"network": "swin-unetr", "window": 1}, "window=1"),
    ],
)
def test_impossible_requests_are_refused_by_name(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 1, 7, 32), "height is 7"),
        ((1, 1, 32, 4), "width is 4"),
        ((1, 2, 32, 32), "2 channels; this network takes 1"),
        ((1, 32, 32), "3 axes"),
    ],
)
def test_impossible_images_are_refused_by_dimension(any_variant: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(any_variant)(torch.zeros(shape))


@pytest.mark.parametrize("variant", ["conditional-iterative", "conditional-light"])
@pytest.mark.parametrize("preset", ["demo", "base"])
def test_heavy_patches_grow_with_the_image(variant, preset):
    """The notebook's heavy feed-forward saw 7 patches of the whole image, 0.2 % of them: hardly a branch."""
    network = create_model(variant, preset=preset, embedding=16, heads=(2, 2), stem_channels=4).eval()
    routed: list[tuple[int, int]] = []
    for module in network.modules():
        if isinstance(module, ConditionalFeedForward):
            module.router.register_forward_hook(
                lambda _, inputs, routing: routed.append((inputs[0].shape[1], routing.indices.shape[-1]))
            )
    for size in (32, 64):
        network(torch.zeros(1, 1, size, size))
    assert {patches for patches, _ in routed} == {16, 64, 256}
    assert all(chosen == patches // 4 for patches, chosen in routed)


def test_compiles_to_one_graph_that_makes_no_tables(variant: str) -> None:
    model = create_model(variant, **SMALL).eval()
    image = torch.randn(2, 1, 40, 36)
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    with torch.no_grad():
        assert torch.allclose(torch.compile(model, backend=backend, fullgraph=True)(image), model(image), atol=1e-6)
    assert len(graphs) == 1
    made = [node for node in graphs[0].graph.nodes if "arange" in str(node.target)]
    assert not [node for node in made if "windows.py" in node.stack_trace]


def test_a_forward_pass_leaves_the_compiler_alone() -> None:
    code = (
        "import sys, torch, condswin.networks.models as networks\n"
        "model = networks.create_model('conditional-iterative', preset='demo').eval()\n"
        "with torch.inference_mode(): model(torch.zeros(1, 1, 32, 32))\n"
        "print('torch._dynamo' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "False"


@pytest.mark.parametrize("preset", PRESETS)
def test_unet_has_about_the_parameters_of_swin(preset: str) -> None:
    wanted = parameter_count(create_model("swin", preset=preset))
    assert parameter_count(create_model("unet", preset=preset)) == pytest.approx(wanted, rel=0.05)

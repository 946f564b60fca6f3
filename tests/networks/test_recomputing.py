import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from condswin.networks.costs import peak_memory
from condswin.networks.models import create_model
from condswin.networks.presets import is_unrolled, list_variants
from condswin.networks.recomputing import recompute_activations

CPU = torch.device("cpu")


def small(name: str) -> nn.Module:
    """With dropout, which draws in each pass."""
    settings = {} if name.endswith("unet") else {"heads": [2, 2]}
    if name.endswith("swin-unetr"):
        settings = {"heads": [3, 3, 3, 3]}
    channels = {"in_channels": 3, "out_channels": 2} if is_unrolled(name) else {}
    torch.manual_seed(0)
    return create_model(name, preset="demo", dropout=0.3, **channels, **settings).train()


def image(name: str, side: int = 32) -> Tensor:
    torch.manual_seed(1)
    if not is_unrolled(name):
        return torch.randn(2, 1, side, side)
    return torch.cat([torch.randn(2, 2, side, side), (torch.rand(side) < 0.5).float().expand(2, 1, side, side)], 1)


def step(network: nn.Module, shown: Tensor, precision: torch.dtype = torch.float32) -> None:
    torch.manual_seed(2)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        output = network(shown)
    output.float().square().mean().backward()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", list_variants())
def test_gradients_are_the_same_bits(name: str, precision: torch.dtype) -> None:
    plain = small(name)
    saving = copy.deepcopy(plain)
    recompute_activations(saving)
    assert list(saving.state_dict()) == list(plain.state_dict())
    shown, rng = image(name), []
    for network in (plain, saving):
        step(network, shown, precision)
        rng.append(torch.get_rng_state())
    assert torch.equal(*rng)
    for (parameter, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert (one.grad is None) is (other.grad is None), parameter
        assert one.grad is None or torch.equal(one.grad, other.grad), parameter


@pytest.mark.parametrize("name", ["swin", "conditional-iterative", "unet", "unrolled-conditional-light"])
def test_less_is_alive_at_the_peak(name: str) -> None:
    plain = small(name)
    saving = copy.deepcopy(plain)
    recompute_activations(saving)
    whole, less = (peak_memory(partial(step, network, image(name, 48)), CPU) for network in (plain, saving))
    assert less < 0.75 * whole


def test_copies_compute_with_their_own_weights_and_nothing_is_computed_twice_without_gradients() -> None:
    network = small("swin")
    recompute_activations(network)
    calls = []
    copied = copy.deepcopy(network)
    for part in copied.modules():
        if type(part).__name__ == "WindowAttention":
            part.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        network.encoder[0][0].attention.qkv.weight.zero_()
        assert not torch.equal(network.eval()(image("swin")), copied.eval()(image("swin")))
    once = len(calls)
    copied(image("swin")).sum().backward()
    assert len(calls) == 2 * once
    step(copied.train(), image("swin"))
    assert len(calls) == 4 * once

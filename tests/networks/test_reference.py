"""Our networks against the plain implementation with equal weights, forward and backward."""

import pytest
import torch
from torch import nn

from condswin.networks.models import create_model
from condswin.networks.presets import list_variants
from tests.networks.reference import PlainNetwork


def pair(variant: str, preset: str) -> tuple[nn.Module, nn.Module]:
    """Ours and the plain one with the same weights, none of them at a value that hides a mistake."""
    torch.manual_seed(0)
    ours = create_model(variant, preset=preset, dropout=0.0)
    with torch.no_grad():
        for name, value in ours.named_parameters():
            if name.endswith("table"):
                value.normal_()
            elif value.ndim == 1 and not name.endswith("vector"):
                value.add_(0.2 * torch.randn_like(value))
    plain = PlainNetwork(variant, preset)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


# Whole windows, padded ones, and a map smaller than a window.
SIZES = [("demo", (64, 64)), ("demo", (72, 100)), ("demo", (44, 13)), ("thesis-1", (72, 100)), ("thesis-2", (72, 44))]


@pytest.mark.parametrize(("preset", "size"), SIZES)
@pytest.mark.parametrize("variant", list_variants("variant"))
def test_outputs_and_gradients_are_the_plain_networks(variant: str, preset: str, size: tuple[int, int]) -> None:
    ours, plain = pair(variant, preset)
    image, weight = torch.randn(2, 1, *size), torch.randn(2, 1, *size)
    mine, theirs = ours.train()(image), plain.train()(image)
    torch.testing.assert_close(mine, theirs, atol=1e-5 * theirs.abs().max().item(), rtol=1e-5)
    (mine * weight).sum().backward()
    (theirs * weight).sum().backward()
    expected = {name: parameter.grad for name, parameter in plain.named_parameters()}
    for name, parameter in ours.named_parameters():
        grad = expected[name]
        torch.testing.assert_close(parameter.grad, grad, atol=1e-4 * grad.abs().max().item(), rtol=1e-4)
    with torch.inference_mode():
        mine, theirs = ours.eval()(image), plain.eval()(image)
    torch.testing.assert_close(mine, theirs, atol=1e-5 * theirs.abs().max().item(), rtol=1e-5)

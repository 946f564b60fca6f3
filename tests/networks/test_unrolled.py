from typing import Any

import pytest
import torch
from torch import Tensor

from condswin.fourier import fftc, ifftc
from condswin.networks.models import create_model
from condswin.networks.total_variation import minimise
from condswin.networks.unrolled import DataConsistency, UnrolledNetwork, smooth_phase

SMALL = {"preset": "demo", "embedding": 16, "heads": [2, 2], "stem_channels": 8, "in_channels": 3, "out_channels": 2}
VARIANTS = ["unrolled-swin", "unrolled-conditional-iterative", "unrolled-conditional-light"]


def undersampled(width: int = 33, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Network input of random images, their measured samples and the mask."""
    generator = torch.Generator().manual_seed(width)
    parts = torch.randn(batch, 2, 24, width, generator=generator)
    sampled = (torch.rand(batch, 1, width, generator=generator) < 0.4).float().expand(-1, 24, -1)
    measured = sampled * fftc(torch.complex(parts[:, 0], parts[:, 1]))
    image = ifftc(measured)
    return torch.stack([image.real, image.imag, sampled], 1), measured, sampled


def frequencies(output: Tensor) -> Tensor:
    return fftc(torch.complex(output[:, 0], output[:, 1]))


@pytest.mark.parametrize("width", [32, 33])
@pytest.mark.parametrize("variant", VARIANTS)
def test_hard_consistency_preserves_what_was_measured(variant: str, width: int) -> None:
    image, measured, sampled = undersampled(width)
    network = create_model(variant, cascades=2, hard_consistency=True, **SMALL).eval()
    with torch.no_grad():
        output = network(image)
    torch.testing.assert_close(sampled * frequencies(output), measured, atol=1e-5, rtol=1e-5)
    # And it is no mere copy of its input: what was not measured is filled in.
    assert float(((1 - sampled) * frequencies(output)).abs().mean()) > 1e-3


def test_soft_consistency_goes_a_trained_share_of_the_way() -> None:
    image, measured, sampled = undersampled()
    zero_filled, order = ifftc(measured), torch.fft.ifftshift(image[:, 2, :1], dim=-1)
    image = torch.randn(2, 24, 33, dtype=torch.complex64)
    layer = DataConsistency()
    for logit, share in ((-40.0, 0.0), (0.0, 0.5), (40.0, 1.0)):
        with torch.no_grad():
            layer.logit.fill_(logit)
        before, after = fftc(image), fftc(layer(image, zero_filled, order))
        expected = torch.where(sampled > 0, before + share * (measured - before), before)
        torch.testing.assert_close(after, expected, atol=1e-5, rtol=1e-4)


def test_a_fully_sampled_image_comes_back() -> None:
    image, _, _ = undersampled()
    image[:, 2] = 1
    network = create_model("unrolled-conditional-light", hard_consistency=True, **SMALL).eval()
    with torch.no_grad():
        torch.testing.assert_close(network(image), image[:, :2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_learns_from_the_first_step(variant: str) -> None:
    torch.manual_seed(0)
    network = create_model(variant, cascades=2, **SMALL).train()
    image, _, _ = undersampled()
    network(image).square().mean().backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not float(p.grad.abs().sum()) > 0]
    assert silent == []
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters())


def test_shared_weights_are_one_regulariser() -> None:
    def count(**settings: object) -> int:
        network = create_model("unrolled-swin", **SMALL, **settings)
        return sum(parameter.numel() for parameter in network.parameters())

    one, four, shared = count(cascades=1), count(cascades=4), count(cascades=4, shared_weights=True)
    assert four == 4 * one
    assert shared == one + 3  # and three more shares of data consistency
    assert count(cascades=4, hard_consistency=True) == four - 4


@pytest.mark.parametrize("variant", ["unrolled-unet", "unrolled-swin-unetr"])
def test_rivals_are_regularisers_too(variant: str) -> None:
    image, measured, sampled = undersampled()
    network = create_model(variant, in_channels=3, out_channels=2, cascades=2, hard_consistency=True).eval()
    with torch.no_grad():
        torch.testing.assert_close(sampled * frequencies(network(image)), measured, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("start", [{}, {"demodulated": False}, {"variation_steps": 0}])
@pytest.mark.parametrize("preset", ["demo", "thesis-1"])
def test_regularisers_learn_a_correction_of_their_input(preset: str, start: dict[str, Any]) -> None:
    """Regularisers that answer nothing leave what the first one is shown: total variation's image, or zero-filled."""
    settings = {**SMALL, "preset": preset, "stem_channels": 0, "hard_consistency": True, **start}
    network = create_model("unrolled-swin", **settings).eval()
    image, _, _ = undersampled()
    zero_filled, sampled = torch.complex(image[:, 0], image[:, 1]), torch.fft.ifftshift(image[:, 2, :1], dim=-1)
    expected = zero_filled
    if "variation_steps" not in start:
        weight = 0.003 * zero_filled.abs().amax((1, 2), keepdim=True)
        phase = None if start else smooth_phase(zero_filled, sampled)
        expected = DataConsistency(hard=True)(
            minimise(zero_filled, sampled, weight, steps=30, phase=phase), zero_filled, sampled
        )
    with torch.no_grad():
        for regulariser in network.regularisers:
            regulariser.projection.weight.zero_()
        torch.testing.assert_close(network(image), torch.stack([expected.real, expected.imag], 1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("width", [40, 41])
def test_the_phase_of_the_low_frequencies_is_taken_up_to_the_first_gap(width: int) -> None:
    """Of an image with three waves of phase, the two that lie before the gap are found, whatever lies behind it."""
    column = torch.arange(width) * (2 * torch.pi / width)
    smooth = torch.polar(torch.ones(width), 0.2 * column.cos())
    far = 0.2 * torch.polar(torch.ones(width), 12 * column)
    image = (smooth + far).expand(1, 6, -1)
    sampled = torch.ones(1, 1, width)
    sampled[..., 9] = 0
    found = smooth_phase(image, sampled)
    torch.testing.assert_close(found.abs(), torch.ones(1, 6, width))
    torch.testing.assert_close(found.angle()[0, 0], 0.2 * column.cos(), atol=0.02, rtol=0)
    # Without a gap, the far wave is a part of the phase.
    assert float((smooth_phase(image, torch.ones(1, 1, width)).angle()[0, 0] - 0.2 * column.cos()).abs().max()) > 0.1


def test_without_its_middle_a_mask_tells_no_phase() -> None:
    sampled = torch.ones(1, 1, 32)
    sampled[..., 0] = 0
    found = smooth_phase(torch.randn(1, 4, 32, dtype=torch.complex64) - 0.3, sampled)
    assert bool(found.isfinite().all())
    empty = smooth_phase(torch.zeros(1, 4, 32, dtype=torch.complex64), sampled)
    torch.testing.assert_close(empty, torch.ones(1, 4, 32, dtype=torch.complex64))


@pytest.mark.parametrize("hard", [True, False])
def test_turning_the_phase_of_a_scan_turns_the_reconstruction(hard: bool) -> None:
    image, _, _ = undersampled()
    image[:, 2, :, 14:19] = 1
    turned, angle = image.clone(), torch.polar(torch.ones(()), torch.tensor(2.1))
    other = torch.complex(image[:, 0], image[:, 1]) * angle
    turned[:, 0], turned[:, 1] = other.real, other.imag
    network = create_model("unrolled-swin", cascades=2, hard_consistency=hard, **SMALL).eval()
    with torch.no_grad():
        before, after = network(image), network(turned)
        expected = torch.complex(before[:, 0], before[:, 1]) * angle
        torch.testing.assert_close(torch.complex(after[:, 0], after[:, 1]), expected, atol=1e-4, rtol=1e-4)
        plain = create_model("unrolled-swin", cascades=2, demodulated=False, **SMALL).eval()
        assert float((plain(turned) - plain(image)).norm()) > 0.1


def test_an_empty_slice_stays_finite() -> None:
    image, _, _ = undersampled()
    image[0, :2] = 0
    network = create_model("unrolled-swin", cascades=1, **SMALL).eval()
    with torch.no_grad():
        assert bool(network(image).isfinite().all())


def test_autocast_keeps_frequencies_in_full_precision() -> None:
    image, measured, sampled = undersampled()
    network = create_model("unrolled-conditional-light", hard_consistency=True, **SMALL).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(image)
    assert output.dtype == torch.float32
    torch.testing.assert_close(sampled * frequencies(output), measured, atol=1e-5, rtol=1e-5)


def test_refuses_what_it_cannot_use() -> None:
    network = create_model("unrolled-swin", **SMALL)
    assert isinstance(network, UnrolledNetwork)
    with pytest.raises(ValueError, match=r"shape \(1, 1, 32, 32\).*real and imaginary"):
        network(torch.zeros(1, 1, 32, 32))
    with pytest.raises(ValueError, match=r"takes 3 .* gives 2"):
        create_model("unrolled-swin", preset="demo", in_channels=1, out_channels=3)
    with pytest.raises(ValueError, match="cascades=0"):
        create_model("unrolled-swin", cascades=0, **SMALL)
    with pytest.raises(ValueError, match="variation_steps=-1: must not be negative"):
        create_model("unrolled-swin", variation_steps=-1, **SMALL)
    with pytest.raises(ValueError, match=r"variation_weight=0\.0: must be positive"):
        create_model("unrolled-swin", variation_weight=0.0, **SMALL)
    with pytest.raises(ValueError, match="swin has no setting 'cascades'"):
        create_model("swin", preset="demo", cascades=2)

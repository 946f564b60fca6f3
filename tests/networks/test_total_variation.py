import torch
from torch import Tensor

from condswin.networks.total_variation import minimise


def scan(width: int = 48) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rectangles with a smooth phase: that phase, magnitudes, the zero-filled image and the mask (in torch's order)."""
    magnitude = torch.zeros(2, 32, width)
    magnitude[:, 6:26, 8:40] = 1
    magnitude[:, 12:18, 14:22] = 0.4
    magnitude[1] *= 50
    column = torch.arange(width) * (2 * torch.pi / width)
    phase = torch.polar(torch.ones(width), 0.8 * column.sin() + 0.5).expand(2, 32, -1)
    sampled = torch.zeros(1, 1, width)
    sampled[..., 1::3] = 1
    sampled[..., :4] = sampled[..., -4:] = 1
    zero_filled = torch.fft.ifft(sampled * torch.fft.fft(magnitude * phase))
    return phase, magnitude, zero_filled, sampled


def errors(image: Tensor, magnitude: Tensor) -> Tensor:
    """Of every slice, relative."""
    return (image.abs() - magnitude).flatten(1).norm(dim=1) / magnitude.flatten(1).norm(dim=1)


def test_knowing_the_phase_is_worth_more_than_total_variation_alone() -> None:
    phase, magnitude, zero_filled, sampled = scan()
    weight = 0.003 * zero_filled.abs().amax((1, 2), keepdim=True)
    blind = minimise(zero_filled, sampled, weight, steps=60)
    knowing = minimise(zero_filled, sampled, weight, steps=60, phase=phase)
    assert bool((errors(blind, magnitude) < 0.7 * errors(zero_filled, magnitude)).all())
    assert bool((errors(knowing, magnitude) < 0.7 * errors(blind, magnitude)).all())
    torch.testing.assert_close((knowing * phase.conj()).imag.abs().mean() / magnitude.mean(), torch.tensor(0.0),
                               atol=0.02, rtol=0)  # fmt: skip


def test_every_image_has_its_own_weight_and_units_do_not_matter() -> None:
    phase, _, zero_filled, sampled = scan()
    weight = 0.01 * zero_filled.abs().amax((1, 2), keepdim=True)
    both = minimise(zero_filled, sampled, weight, steps=20, phase=phase)
    torch.testing.assert_close(50 * both[0], both[1], atol=1e-3, rtol=1e-3)
    alone = minimise(zero_filled[:1], sampled, float(weight[0]), steps=20, phase=phase[:1])
    torch.testing.assert_close(both[:1], alone, atol=1e-6, rtol=1e-5)


def test_an_empty_image_stays_empty() -> None:
    empty = torch.zeros(1, 8, 9, dtype=torch.complex64)
    found = minimise(empty, torch.ones(1, 1, 9), torch.zeros(1, 1, 1), steps=2)
    torch.testing.assert_close(found, empty)

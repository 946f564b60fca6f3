"""What a network sees beside an image: its mask in numbers, the cascade, neighbouring slices; and answers at scales."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from condswin.networks.blocks import parameter_count
from condswin.networks.models import create_model
from condswin.networks.unet import SwinUNet
from condswin.networks.unrolled import CONDITIONS, UnrolledNetwork, smooth_phase
from tests.networks.test_unrolled import SMALL, frequencies, undersampled

VARIANTS = ["unrolled-swin", "unrolled-conditional-light"]


def made(variant: str = "unrolled-swin", **settings: Any) -> UnrolledNetwork:
    torch.manual_seed(3)
    network = create_model(variant, **{**SMALL, "cascades": 2, **settings})
    assert isinstance(network, UnrolledNetwork)
    return network.eval()


def with_neighbours(width: int = 33, seed: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs of a network with one neighbour on either side; measured samples and mask of the slice."""
    image, measured, sampled = undersampled(width)
    others, _, _ = undersampled(width, batch=4)
    noise = torch.randn(4, 2, *image.shape[-2:], generator=torch.Generator().manual_seed(seed))
    turned = frequencies(others[:, :2] + noise) * sampled[:1]
    before, after = torch.fft.fftshift(torch.fft.ifft(torch.fft.ifftshift(turned, dim=-1)), dim=-1).split(2)
    return (
        torch.cat([image, *(part[:, None] for x in (before, after) for part in (x.real, x.imag))], 1),
        measured,
        sampled,
    )


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("shared", [True, False])
def test_a_conditioned_network_starts_as_one_without(variant: str, shared: bool) -> None:
    image, _, _ = undersampled()
    plain, conditioned = (made(variant, shared_weights=shared, conditioned=flag) for flag in (False, True))
    assert parameter_count(conditioned) > parameter_count(plain)
    with torch.no_grad():
        torch.testing.assert_close(conditioned(image), plain(image), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_of_a_conditioned_network_learns_from_the_first_step(variant: str) -> None:
    network = made(variant, conditioned=True, shared_weights=True, in_channels=7).train()
    network(with_neighbours()[0]).square().mean().backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not float(p.grad.abs().sum()) > 0]
    assert silent == []


def told(network: UnrolledNetwork, image: Tensor) -> list[Tensor]:
    """What each cascade's regulariser is told."""
    found: list[Tensor] = []
    handles = [each.register_forward_pre_hook(lambda _, given: found.append(given[1])) for each in network.regularisers]
    with torch.no_grad():
        network(image)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize(
    ("width", "lines", "middle"),
    [
        (32, [0, 4, 8, 12, 15, 16, 17, 20, 24], 3),
        (33, [0, 8, 14, 15, 16, 17, 18], 5),
        (32, range(32), 32),
        (32, [3], 1),
    ],
)
def test_regularisers_are_told_cascade_acceleration_and_middle(width: int, lines: Any, middle: int) -> None:
    image = torch.randn(2, 3, 16, width)
    image[:, 2] = 0
    image[:, 2, :, list(lines)] = 1
    cascades = told(made(conditioned=True, cascades=4, shared_weights=True), image)
    assert len(cascades) == 4
    for cascade, known in enumerate(cascades):
        assert known.shape == (2, CONDITIONS)
        for row in known:
            assert row.tolist() == pytest.approx([cascade / 4, len(list(lines)) / width, middle / width])


def test_what_is_told_changes_the_image_once_it_is_learned() -> None:
    network = made(conditioned=True, shared_weights=True)
    regulariser = network.regularisers[0]
    assert isinstance(regulariser, SwinUNet)
    with torch.no_grad():
        for parameter in regulariser.modulations.parameters():
            parameter.normal_(std=0.3)
        image = torch.randn(1, 2, 24, 32)
        answers = [regulariser(image, torch.tensor([[0.0, share, 0.08]])) for share in (0.25, 0.25, 0.125)]
    assert torch.equal(answers[0], answers[1])
    assert float((answers[0] - answers[2]).norm() / answers[0].norm()) > 0.01


@pytest.mark.parametrize("rival", ["unrolled-unet", "unrolled-swin-unetr"])
def test_networks_of_others_are_not_conditioned(rival: str) -> None:
    with pytest.raises(ValueError, match="conditioned=True: networks of others"):
        create_model(rival, preset="demo", conditioned=True, in_channels=3, out_channels=2)


@pytest.mark.parametrize("width", [32, 33])
@pytest.mark.parametrize("variant", [*VARIANTS, "unrolled-unet"])
def test_neighbours_are_seen_and_the_slice_alone_is_made_consistent(variant: str, width: int) -> None:
    settings = SMALL if variant != "unrolled-unet" else {"out_channels": 2, "embedding": 4}
    torch.manual_seed(0)
    network = create_model(variant, **{**settings, "in_channels": 7}, cascades=2, hard_consistency=True).eval()
    image, measured, sampled = with_neighbours(width)
    other, _, _ = with_neighbours(width, seed=6)
    assert torch.equal(image[:, :3], other[:, :3])
    with torch.no_grad():
        first, second = network(image), network(other)
    for output in (first, second):
        assert output.shape == (2, 2, 24, width)
        torch.testing.assert_close(sampled * frequencies(output), measured, atol=1e-4, rtol=1e-4)
    assert float((first - second).norm() / first.norm()) > 1e-4


def test_neighbours_are_shown_without_their_own_phase() -> None:
    image, _, _ = with_neighbours()
    shown: list[Tensor] = []
    network = made(in_channels=7, cascades=1)
    network.regularisers[0].register_forward_pre_hook(lambda _, given: shown.append(given[0]))
    sampled = torch.fft.ifftshift(image[:, 2, :1], dim=-1)
    with torch.no_grad():
        network(image)
    for place in (3, 5):
        neighbour = torch.complex(image[:, place], image[:, place + 1])
        expected = neighbour * smooth_phase(neighbour, sampled).conj()
        torch.testing.assert_close(shown[0][:, place - 1], expected.real)
        torch.testing.assert_close(shown[0][:, place], expected.imag)


@pytest.mark.parametrize("channels", [2, 4, 5, 6, 8, 9])
def test_neighbours_come_in_pairs(channels: int) -> None:
    with pytest.raises(ValueError, match=f"in_channels={channels}, .* and 4 for each pair of neighbouring slices"):
        create_model("unrolled-swin", preset="demo", in_channels=channels, out_channels=2)
    network = create_model("unrolled-swin", **{**SMALL, "in_channels": 11})
    with pytest.raises(ValueError, match=r"give \(batch, 11, .* 2 slices on either side"):
        network(torch.zeros(1, 7, 32, 32))


DEEP = {"preset": "base", "embedding": 16, "heads": [2, 2, 4], "out_channels": 3, "deep_supervision": True}


@pytest.mark.parametrize("stem", [0, 8])
@pytest.mark.parametrize("size", [(32, 48), (33, 50), (72, 40), (9, 129)])
def test_deep_supervision_answers_at_each_scale_in_training_alone(size: tuple[int, int], stem: int) -> None:
    torch.manual_seed(0)
    network = create_model("conditional-light", **DEEP, stem_channels=stem)
    torch.manual_seed(0)
    plain = create_model("conditional-light", **{**DEEP, "deep_supervision": False}, stem_channels=stem)
    image = torch.randn(2, 1, *size)
    answers = network.train()(image)
    assert answers.shape == (2, 3 * (1 + 2), *size)
    # The first is the network's own, and what is served.
    torch.testing.assert_close(answers[:, :3], plain.train()(image))
    with torch.no_grad():
        assert torch.equal(network.eval()(image), plain.eval()(image))
    answers.square().sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in network.parameters())


def test_coarse_answers_lie_where_the_image_is() -> None:
    """Patches of 4 and 8 pixels, of which the coarse ones do not divide the image."""
    network = create_model("swin", **DEEP, stem_channels=8).train()
    assert isinstance(network, SwinUNet)
    marked = torch.zeros(1, 1, 44, 44)

    class Corner(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            answer = torch.zeros(*features.shape[:3], 3)
            answer[:, -1, -1] = 1
            return answer

    network.heads = nn.ModuleList(Corner() for _ in network.heads)
    fine, coarse = network(marked)[0, 3::3].detach()
    # 44 pixels are 11 patches, merged to 6, the last of which reaches beyond.
    for answer in (fine, coarse):
        assert float(answer[42:, 42:].min()) > 0.6
        assert float(answer[:36, :36].max()) == 0
        assert float(answer[38, 38]) < 0.2


def test_a_regulariser_has_no_target_at_any_scale() -> None:
    with pytest.raises(ValueError, match="deep_supervision=True: a regulariser"):
        create_model("unrolled-swin", **SMALL, deep_supervision=True)
    with pytest.raises(ValueError, match="unet has no setting 'deep_supervision'"):
        create_model("unet", preset="demo", deep_supervision=True)

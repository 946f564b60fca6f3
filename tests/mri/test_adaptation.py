"""A network trained further on the scan that it reconstructs: what it sees, when it stops, that it gets no worse."""

import copy
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from condswin.config.profiles import compose
from condswin.mri import adaptation
from condswin.mri.adaptation import adapt
from condswin.mri.fallback import frequencies, withheld_lines, without
from condswin.mri.inputs import ComplexInputs, complex_volume
from condswin.mri.prediction import ReconstructionPrediction
from condswin.mri.undersample import prepare_undersampled
from condswin.networks.models import create_model
from condswin.networks.saving import ModelSpec, load_model, save_model
from condswin.steps.predict import Result, predict
from tests.mri.adapted import HEAD, adapted, line
from tests.mri.stress import MASKS, Kind, flat_phantom, write_scan

CPU = torch.device("cpu")
SMALL = {"embedding": 16, "heads": [2, 2], "stem_channels": 8, "cascades": 1, "variation_steps": 2, "dropout": 0.2}
SEEN: list[Tensor] = []


class Spy(nn.Module):
    """A network that notes what it is shown while it is trained."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            SEEN.append(image)
        return self.network(image)


def unrolled() -> nn.Module:
    torch.manual_seed(0)
    return create_model("unrolled-swin", preset="demo", in_channels=3, out_channels=2, **SMALL).eval()


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    write_scan(tmp_path / "source.h5", Kind(paint=flat_phantom, size=48, oversampled=False), np.random.default_rng(2))
    prepare_undersampled(tmp_path / "source.h5", tmp_path / "test" / "scan.h5", MASKS)
    return tmp_path / "test" / "scan.h5"


@pytest.fixture
def inputs(scan: Path) -> ComplexInputs:
    return complex_volume(scan, MASKS)


def weights(network: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def error(network: nn.Module, inputs: ComplexInputs) -> float:
    withheld = withheld_lines(inputs.image, 0)
    truth = frequencies(inputs.image) * inputs.std[:, None, None]
    with torch.no_grad():
        found = frequencies(network(without(inputs.image, withheld))) * inputs.std[:, None, None]
    there = withheld[:, None].expand_as(truth)
    return float(torch.linalg.vector_norm((found - truth)[there]) / torch.linalg.vector_norm(truth[there]))


def test_withheld_lines_get_better_and_the_network_stays_as_it_is(inputs: ComplexInputs) -> None:
    network = unrolled()
    before = weights(network)
    found = adapt(network, inputs, CPU, steps=10)
    assert torch.equal(weights(network), before)
    assert not network.training
    assert found.network is not network
    assert found.steps in (5, 10)
    assert found.after < found.before
    assert found.before == pytest.approx(error(network, inputs), rel=1e-4)
    assert found.after == pytest.approx(error(found.network, inputs), rel=1e-4)
    torch.manual_seed(9)  # nothing is drawn from here
    again = adapt(network, inputs, CPU, steps=10)
    assert torch.equal(weights(again.network), weights(found.network))
    assert again[1:] == found[1:]


def test_what_does_no_better_is_not_used(inputs: ComplexInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptation, "_RATE", 10.0)
    network = Spy(unrolled())
    SEEN.clear()
    found = adapt(network, inputs, CPU, steps=40)
    assert found.network is network
    assert (found.steps, found.after) == (0, found.before)
    # Two looks without gain end it.
    assert len(SEEN) == 10


@pytest.mark.parametrize("steps", [1, 7])
def test_no_more_steps_than_asked_for(steps: int, inputs: ComplexInputs) -> None:
    SEEN.clear()
    found = adapt(Spy(unrolled()), inputs, CPU, steps=steps)
    assert len(SEEN) == steps >= found.steps


def test_lines_that_tell_when_to_stop_are_never_shown_nor_learnt_from(inputs: ComplexInputs) -> None:
    SEEN.clear()
    network = Spy(unrolled())
    adapt(network, inputs, CPU, steps=5)
    withheld = torch.fft.fftshift(withheld_lines(inputs.image, 0), dim=-1)
    for image in SEEN:
        shown = image[:, 2, 0] > 0
        assert not (shown & withheld).any()
        # And what is learnt from are other measured lines, a share of those that are left.
        learnt = (inputs.image[:, 2, 0] > 0) & ~withheld & ~shown
        assert (learnt.sum(1) > 0).all()
    louder = frequencies(inputs.image) * (1 + torch.fft.ifftshift(withheld, dim=-1)[:, None].float())
    changed = torch.fft.ifft(louder)
    image = torch.stack([changed.real, changed.imag, inputs.image[:, 2]], 1)
    first, second = copy.deepcopy(SEEN), SEEN
    second.clear()
    adapt(network, inputs._replace(image=image), CPU, steps=5)
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_without_lines_to_withhold_nothing_is_learnt(inputs: ComplexInputs) -> None:
    image = inputs.image.clone()
    image[:, 2] = 0
    image[:, 2, :, 20:30] = 1
    network = unrolled()
    assert adapt(network, inputs._replace(image=image), CPU, steps=5) == (network, 0, 0.0, 0.0)


@pytest.mark.parametrize("steps", [0, 5])
def test_predict_says_what_it_brought(steps: int, scan: Path, tmp_path: Path) -> None:
    spec = ModelSpec("reconstruction", "mine", "unrolled-swin", "demo", 3, 2, SMALL)
    save_model(tmp_path / "model", unrolled(), spec)
    content = (tmp_path / "model" / "model.safetensors").read_bytes()
    config = compose(["demo"], [f"reconstruction.predict.adapt={steps}", "reconstruction.predict.fallback=none"])
    assert ReconstructionPrediction(config).parameters()["adapt"] == steps
    told: list[Result] = []
    predict(config, [scan], model=str(tmp_path / "model"), out=tmp_path / "out", tell=lambda one, _: told.append(one))
    said = [warning for warning in told[0].warnings if "adapted" in warning]
    network, _ = load_model(tmp_path / "model")
    expected = adapt(network, complex_volume(scan, MASKS), CPU, steps=steps)
    with h5py.File(tmp_path / "out" / "scan.h5") as file:
        if not steps:
            assert not said
            assert "adapted" not in file.attrs
            return
        record = json.loads(file.attrs["adapted"])
    assert record == {"steps": 5, "before": expected.before, "after": expected.after}
    assert said == [
        f"adapted to this scan in 5 steps: relative error of withheld lines of k-space {expected.before:.3f} before, "
        f"{expected.after:.3f} after"
    ]
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == content
    # Ablations compare networks as they are.
    assert ReconstructionPrediction(config).alone().parameters() == {"fallback": "none", "adapt": 0}


def test_a_network_that_is_set_aside_is_not_adapted(scan: Path, tmp_path: Path) -> None:
    network = unrolled()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter))
    ReconstructionPrediction(compose(["demo"], ["reconstruction.predict.adapt=5"])).predict(
        network, scan, tmp_path / "out.h5"
    )
    with h5py.File(tmp_path / "out.h5") as file:
        assert file.attrs["method"] != "network"
        assert "adapted" not in file.attrs


def test_the_weights_that_did_best_are_given(inputs: ComplexInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    def looked(*errors: float) -> Tensor:
        found = iter(errors)
        monkeypatch.setattr(adaptation, "_error", lambda *_: next(found))
        best = adapt(unrolled(), inputs, CPU, steps=40)
        assert (best.steps, best.before, best.after) == (5, 1.0, 0.5)
        return weights(best.network)

    assert torch.equal(looked(1.0, 0.5, 0.7, 0.6), looked(1.0, 0.5, 0.5, 0.5))
    monkeypatch.undo()
    five = adapt(unrolled(), inputs, CPU, steps=5)
    assert torch.equal(looked(1.0, 0.5, 0.7, 0.8), weights(five.network))


def test_the_table_has_what_was_measured(scan: Path, tmp_path: Path) -> None:
    result = adapted(unrolled(), scan, tmp_path, 5)
    assert result.steps == 5
    assert result.lines_after < result.lines_before
    assert result.before != result.after
    cells = [cell.strip() for cell in line("flat", [result, result._replace(after=result.after - 1)]).split("|")[1:-1]]
    assert len(cells) == HEAD.count("|") + 1
    assert cells[:2] == ["flat", "2"]
    assert cells[4] == f"{result.after - 1 - result.before:+.2f}"

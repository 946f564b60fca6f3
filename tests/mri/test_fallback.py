"""Networks that are better and worse than compressed sensing, and what withheld lines make of them."""

import json
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from condswin.config.profiles import compose
from condswin.errors import BadDataError
from condswin.fourier import readout_hybrid
from condswin.mri.extent import center
from condswin.mri.fallback import MARGIN, SHARE, classics, judge
from condswin.mri.inputs import ComplexInputs, complex_inputs, complex_volume
from condswin.mri.judging import ReconstructionJudging
from condswin.mri.metrics import psnr
from condswin.mri.prediction import ReconstructionPrediction
from condswin.mri.reading import NETWORK
from condswin.mri.undersample import prepare_undersampled
from condswin.networks.models import create_model
from condswin.networks.saving import ModelSpec, save_model
from condswin.steps.predict import Result, predict
from tests.mri.stress import KINDS, MASKS, Kind, anatomy, flat_phantom, line, reconstruct, write_scan

CPU = torch.device("cpu")
SMALL = {"preset": "demo", "embedding": 16, "heads": [2, 2], "stem_channels": 8, "cascades": 1}
ODD = Kind(paint=flat_phantom, size=71, oversampled=False)
SHAPES = {
    "even": Kind(paint=flat_phantom, size=48, oversampled=False),
    "odd": ODD,
    "padded": Kind(paint=flat_phantom, size=40),
    "partial Fourier": Kind(paint=flat_phantom, size=48, missing=(0.2, 0.25)),
}


class Known(nn.Module):
    """Stands for a network: the truth, and a multiple of the error of a method that was never trained."""

    def __init__(self, truth: Tensor, share: float, method: str) -> None:
        super().__init__()
        self.truth, self.share, self.method = truth, share, classics()[method]
        self.at = 0

    def forward(self, image: Tensor) -> Tensor:
        truth = self.truth[self.at : self.at + len(image)]
        self.at = (self.at + len(image)) % len(self.truth)
        return truth + self.share * (self.method(image) - truth)


class Spy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Tensor] = []

    def forward(self, image: Tensor) -> Tensor:
        self.shown.append(image)
        return image[:, :2]


def unrolled(*, broken: bool) -> nn.Module:
    """An untrained network starts from total variation and changes it little; a broken one adds what it likes."""
    torch.manual_seed(0)
    network = create_model("unrolled-swin", in_channels=3, out_channels=2, hard_consistency=True, **SMALL).eval()
    if broken:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(torch.randn_like(parameter))
    return network


def prepared(folder: Path, kind: Kind, seed: int = 1) -> Path:
    write_scan(folder / "source.h5", kind, np.random.default_rng(seed))
    prepare_undersampled(folder / "source.h5", folder / "test" / "scan.h5", kind.masks)
    return folder / "test" / "scan.h5"


def volume(folder: Path, kind: Kind) -> tuple[ComplexInputs, Tensor]:
    """Inputs, and the fully sampled images in their units."""
    inputs = complex_volume(prepared(folder, kind), MASKS)
    with h5py.File(folder / "source.h5") as file:
        hybrid, rows = file["kspace"][()], inputs.image.shape[-2]
    everything = torch.ones(hybrid.shape[-1], dtype=torch.bool)
    full = complex_inputs(torch.from_numpy(readout_hybrid(hybrid, rows)), everything, inputs.columns, None)
    return inputs, full.image[:, :2] * (full.std / inputs.std)[:, None, None, None]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_better_one_reconstructs(shape: str, tmp_path: Path) -> None:
    inputs, truth = volume(tmp_path, SHAPES[shape])
    best = min((errors := judge(Spy(), inputs, CPU).errors), key=lambda name: errors[name])
    assert best.startswith("compressed sensing")
    assert errors["zero-filled"] == errors[NETWORK] > errors[best] > 0
    assert judge(Known(truth, 0.0, best), inputs, CPU).errors[NETWORK] < 1e-5
    for ratio, judged in ((0.97 * MARGIN, best), (1.03 * MARGIN, NETWORK), (4.0, NETWORK)):
        found = judge(Known(truth, ratio**-0.5, best), inputs, CPU)
        assert found.method == judged, ratio
        assert found.errors[best] / found.errors[NETWORK] == pytest.approx(ratio**0.5, rel=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("slices", "neighbours"), [(1, 0), (3, 0), (4, 0), (3, 2)])
def test_methods_never_see_what_was_withheld(shape: str, slices: int, neighbours: int, tmp_path: Path) -> None:
    image, std, columns = complex_volume(prepared(tmp_path, SHAPES[shape]), MASKS, neighbours=neighbours)
    spy = Spy()
    judge(spy, ComplexInputs(image[:slices], std[:slices], columns), CPU)
    shown = torch.cat(spy.shown)
    assert len(shown) == slices * -(-SHARE // slices)
    measured, left = image[0, 2, 0] > 0, shown[:, 2, 0] > 0
    assert shown.shape[1] == 3 + 4 * neighbours
    for at in (0, *range(3, shown.shape[1], 2)):  # the slice and its neighbours
        frequencies = torch.fft.fftshift(torch.fft.fft(torch.complex(shown[:, at], shown[:, at + 1])), dim=-1)
        there = frequencies.abs().amax(1) > 1e-4 * frequencies.abs().max()
        assert bool(there.any())
        assert not (there & ~left).any()
    assert not (left & ~measured).any()
    # Each line outside the centre is withheld from one slice or another, and none of the centre.
    middle = center(measured.numpy())
    outer = measured.clone()
    outer[middle.first : middle.last] = False
    assert torch.equal((measured & ~left).any(0), outer)
    hidden = (measured & ~left).sum(1)
    assert int(hidden.max()) <= -(-int(outer.sum()) // SHARE)
    # The same again: nothing is drawn anew.
    again = Spy()
    judge(again, ComplexInputs(image[:slices], std[:slices], columns), CPU)
    assert torch.equal(torch.cat(again.shown), shown)


def test_values_of_withheld_lines_only_judge(tmp_path: Path) -> None:
    image, std, columns = complex_volume(prepared(tmp_path, ODD), MASKS)
    first, other = Spy(), Spy()
    before = judge(first, ComplexInputs(image[:1], std[:1], columns), CPU)
    hidden = (image[0, 2, 0] > 0) & ~(first.shown[0][0, 2, 0] > 0)
    kspace = torch.fft.fft(torch.complex(image[:1, 0], image[:1, 1])) * (1 + torch.fft.ifftshift(hidden).float())
    louder = torch.fft.ifft(kspace)
    changed = torch.stack([louder.real, louder.imag, image[:1, 2]], 1)
    after = judge(other, ComplexInputs(changed, std[:1], columns), CPU)
    torch.testing.assert_close(other.shown[0], first.shown[0], atol=1e-5, rtol=1e-5)
    assert after.errors != before.errors


@pytest.mark.parametrize("name", classics())
@pytest.mark.parametrize("width", [32, 33])
def test_whoever_reconstructs_keeps_what_was_measured(name: str, width: int) -> None:
    draw = torch.Generator().manual_seed(width)
    sampled = (torch.rand(width, generator=draw) < 0.5).float()
    image = torch.fft.ifft(
        torch.randn(2, 20, width, dtype=torch.complex64, generator=draw) * torch.fft.ifftshift(sampled)
    )
    inputs = torch.stack([image.real, image.imag, sampled.expand(2, 20, width)], 1)
    output = classics()[name](inputs)
    difference = torch.fft.fft(torch.complex(output[:, 0], output[:, 1]) - image) * torch.fft.ifftshift(sampled)
    assert float(difference.abs().max()) < 1e-4


def test_without_lines_to_withhold_the_network_is_believed(tmp_path: Path) -> None:
    image, std, columns = complex_volume(prepared(tmp_path, ODD), MASKS)
    image[:, 2] = 0
    image[:, 2, :, 20:50] = 1
    found = judge(unrolled(broken=True), ComplexInputs(image, std, columns), CPU)
    assert found == (NETWORK, {})


def config(fallback: str = "held-out") -> Any:
    return compose(["demo"], [f"reconstruction.predict.fallback={fallback}"])


def test_evaluation_scores_what_is_delivered(tmp_path: Path) -> None:
    case = prepared(tmp_path, Kind(size=48))
    rows = {}
    for name, broken, fallback in (("sound", False, "held-out"), ("broken", True, "held-out"), ("alone", True, "none")):
        part = ReconstructionPrediction(config(fallback))
        assert part.parameters() == {"fallback": fallback, "adapt": 0}
        part.predict(unrolled(broken=broken), case, tmp_path / name / "scan.h5")
        rows[name] = ReconstructionJudging(config()).score(tmp_path / "test", tmp_path / name)[0]
    assert rows["sound"]["fallback"] == 0
    assert rows["broken"]["fallback"] == 1
    assert "fallback" not in rows["alone"]
    assert float(rows["alone"]["psnr"]) < float(rows["alone"]["zero_filled_psnr"]) - 3
    assert float(rows["broken"]["psnr"]) > float(rows["broken"]["zero_filled_psnr"]) + 0.5
    # Ablations compare networks, whatever would be delivered.
    ReconstructionPrediction(config()).alone().predict(unrolled(broken=True), case, tmp_path / "compared" / "scan.h5")
    (compared,) = ReconstructionJudging(config()).score(tmp_path / "test", tmp_path / "compared")
    assert compared == rows["alone"]
    with h5py.File(tmp_path / "broken" / "scan.h5") as file, h5py.File(tmp_path / "alone" / "scan.h5") as alone:
        assert file.attrs["method"].startswith("compressed sensing")
        errors = json.loads(file.attrs["held_out_errors"])
        assert errors[file.attrs["method"]] < errors["network"]
        assert "method" not in alone.attrs


def test_units_and_order_of_slices_change_no_verdict(tmp_path: Path) -> None:
    case = prepared(tmp_path, ODD)
    before = judge(unrolled(broken=False), complex_volume(case, MASKS), CPU)
    with h5py.File(case, "r+") as file:
        file["kspace"][...] = 1e-6 * file["kspace"][()]
        del file["zero_filled"]
    after = judge(unrolled(broken=False), complex_volume(case, MASKS), CPU)
    assert after.method == before.method
    assert after.errors == pytest.approx(before.errors, rel=1e-3)


def test_a_network_that_diverged_is_not_hidden(tmp_path: Path) -> None:
    network = unrolled(broken=False)
    with torch.no_grad():
        next(network.parameters()).fill_(math.nan)
    with pytest.raises(BadDataError, match="NaN or infinite"):
        ReconstructionPrediction(config()).predict(network, prepared(tmp_path, ODD), tmp_path / "out.h5")


@pytest.mark.parametrize("broken", [True, False])
def test_predict_says_who_reconstructed(broken: bool, tmp_path: Path) -> None:
    spec = ModelSpec(
        "reconstruction", "mine", "unrolled-swin", "demo", 3, 2, {**SMALL, "preset": "demo", "hard_consistency": True}
    )
    overrides = {name: value for name, value in spec.overrides.items() if name != "preset"}
    spec = ModelSpec("reconstruction", "mine", "unrolled-swin", "demo", 3, 2, overrides)
    save_model(tmp_path / "model", unrolled(broken=broken), spec)
    case = prepared(tmp_path, Kind(paint=anatomy, size=48))
    told: list[Result] = []
    predict(config(), [case], model=str(tmp_path / "model"), out=tmp_path / "out", tell=lambda one, _: told.append(one))
    said = [warning for warning in told[0].record("m")["warnings"] if "not by the network" in warning]
    with h5py.File(tmp_path / "out" / "scan.h5") as file:
        assert (file.attrs["method"] == NETWORK) is not broken
        assert file.attrs["weights_sha256"]
    assert len(said) == broken
    if broken:
        assert said[0].startswith("all 4 slices by compressed sensing")


@pytest.mark.parametrize("name", KINDS)
def test_stress_has_sound_scans_of_every_kind(name: str, tmp_path: Path) -> None:
    case = prepared(tmp_path, KINDS[name])
    with h5py.File(case) as file:
        target, zero_filled = file["reconstruction_esc"][()], file["zero_filled"][()]
    assert np.isfinite(target).all()
    assert target.shape == (4, KINDS[name].size, KINDS[name].size)
    assert 12 < psnr(target, zero_filled) < 45


def test_stress_counts_who_is_below_whom(tmp_path: Path) -> None:
    results = [reconstruct(unrolled(broken=True), ODD, (3, number), tmp_path) for number in range(2)]
    assert all(result.network < result.zero_filled < result.delivered for result in results)
    row = [cell.strip() for cell in line("flat", results).strip("| ").split("|")]
    assert (row[0], row[1], row[5], row[10]) == ("flat", "2", "2, 2", "2")
    assert row[8].startswith("0, ")

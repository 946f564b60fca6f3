import json
import time
from pathlib import Path

import pytest
import torch
from rich.table import Table

from condswin.config.profiles import write_config
from condswin.config.root import Config
from condswin.errors import ConfigError
from condswin.mri.dataset import SliceDataset
from condswin.networks.costs import count_flops
from condswin.networks.models import create_model
from condswin.reporting.text import print_wide
from condswin.steps.bench_training import bench_training
from condswin.tasks.learning import Learning
from condswin.tasks.loading import load
from condswin.tasks.slices import Batch
from condswin.training.feeding import Card, feeding
from tests.cli.calling import condswin
from tests.training.conftest import prepared as prepared  # a fixture

TASK = "reconstruction"


def show(table: Table) -> None:
    print_wide([table])


def test_a_slow_loader_is_told_from_a_slow_network(
    tiny: Config, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = SliceDataset.raw

    def slow(self: SliceDataset, index: int) -> Batch:
        time.sleep(0.1)
        return original(self, index)

    monkeypatch.setattr(SliceDataset, "raw", slow)
    out = tmp_path / "bench.json"
    measured, fed = bench_training({"": tiny}, TASK, ["swin"], prepared=prepared, batches=3, out=out, show=show)
    phases = measured["swin"]
    assert fed == {}
    assert phases.slices == 2
    assert 0.2 <= phases.wait < 0.2 + 0.5
    assert min(phases.forward, phases.backward, phases.optimiser) > 0
    assert phases.seconds == pytest.approx(sum(phases[:5]))
    written = json.loads(out.read_text())
    assert written["phases"]["swin"]["wait"] == phases.wait
    assert written["phases"]["swin"]["processes"] == 1
    assert f"{phases.slices / phases.seconds:.1f}" in capsys.readouterr().out


def test_only_variants_of_the_parameters_are_measured(tiny: Config, prepared: Path) -> None:
    with pytest.raises(ConfigError, match="swim"):
        bench_training({"": tiny}, TASK, ["swim"], prepared=prepared, batches=1, out=None)


def test_settings_are_compared_with_the_first(
    tiny: Config, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Less memory where activations are computed again."""

    def changed(**settings: object) -> Config:
        train = tiny.reconstruction.train.model_copy(update=settings)
        return tiny.model_copy(update={TASK: tiny.reconstruction.model_copy(update={"train": train})})

    configs = {
        "usual": tiny,
        "again": changed(activation_checkpointing=True, transforms="device"),
    }
    out = tmp_path / "bench.json"
    measured, _ = bench_training(configs, TASK, ["swin"], prepared=prepared, batches=3, out=out, show=show)
    assert list(measured) == ["swin, usual", "swin, again"]
    usual, again = measured.values()
    assert again.memory < 0.8 * usual.memory
    written = json.loads(out.read_text())["phases"]
    assert written["swin, again"]["train"]["activation_checkpointing"] is True
    ratios = capsys.readouterr().out.partition("multiples of each variant's first")[2]
    assert f"{again.memory / usual.memory:.2f}" in ratios
    assert f"{again.rate / usual.rate:.2f}" in ratios


def test_what_a_card_takes_follows_from_its_peak(
    tiny: Config, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    write_config(tiny, tmp_path / "params.yaml", comment="")
    command = ["bench", "swin", "--train", TASK, "--prepared", str(prepared), "--rounds", "1", "--out", "bench.json"]
    shown = condswin(*command, "--card-tflops", "2", "--utilisation", "0.25", cwd=tmp_path)
    fed = json.loads((tmp_path / "bench.json").read_text())["feeding"]["swin"]
    variant = tiny.reconstruction.variant("swin")
    network = create_model("swin", preset=variant.preset, **variant.overrides)
    size = load(Learning, TASK, tiny).dataset(prepared, "train", "swin", training=True).sizes[0]
    assert fed["flops"] == count_flops(network, torch.zeros(1, 1, *size)).total
    assert fed["taken"] == pytest.approx(0.5e12 / (3 * fed["flops"]))
    assert {transforms: list(given) for transforms, given in fed["given"].items()} == {
        "loader": ["0", "1"],
        "device": ["0", "1"],
    }
    assert "2 TFLOP/s, used at 25%" in shown
    assert f"{fed['taken'] / fed['given']['device']['1']:.1f}" in shown
    answer = json.loads(condswin(*command, "--card-tflops", "1", "--utilisation", "0.3", "--json", cwd=tmp_path))[
        "swin"
    ]
    assert answer["feeding"]["taken"] == pytest.approx(0.6 * fed["taken"])
    assert answer["feeding"]["given"].keys() == fed["given"].keys()
    assert answer["slices"] == 2


def test_activations_computed_again_are_a_fourth_pass(tiny: Config, prepared: Path) -> None:
    slices = load(Learning, TASK, tiny).dataset(prepared, "train", "swin", training=True)
    network = torch.nn.Conv2d(1, 1, 3)
    three, four = (
        feeding(
            network,
            slices,
            tiny.reconstruction.train.model_copy(update={"activation_checkpointing": again}),
            Card(1.0, 1.0),
            batches=1,
        )
        for again in (False, True)
    )
    assert (three.passes, four.passes) == (3, 4)
    assert four.taken == pytest.approx(0.75 * three.taken)

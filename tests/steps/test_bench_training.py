import json
import time
from pathlib import Path

import pytest

from condswin.config.root import Config
from condswin.errors import ConfigError
from condswin.mri.dataset import SliceDataset
from condswin.steps.bench_training import bench_training
from condswin.tasks.slices import Batch
from tests.training.conftest import prepared as prepared  # a fixture

TASK = "reconstruction"


def test_a_slow_loader_is_told_from_a_slow_network(
    tiny: Config, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = SliceDataset.__getitem__

    def slow(self: SliceDataset, index: int) -> Batch:
        time.sleep(0.1)
        return original(self, index)

    monkeypatch.setattr(SliceDataset, "__getitem__", slow)
    out = tmp_path / "bench.json"
    phases = bench_training(tiny, TASK, ["swin"], prepared=prepared, batches=3, out=out)["swin"]
    assert phases.slices == 2
    assert 0.2 <= phases.wait < 0.2 + 0.5
    assert min(phases.forward, phases.backward, phases.optimiser) > 0
    assert phases.seconds == pytest.approx(sum(phases[:5]))
    written = json.loads(out.read_text())
    assert written["phases"]["swin"]["wait"] == phases.wait
    assert written["processes"] == 1
    assert f"{phases.slices / phases.seconds:.1f}" in capsys.readouterr().out


def test_only_variants_of_the_parameters_are_measured(tiny: Config, prepared: Path) -> None:
    with pytest.raises(ConfigError, match="swim"):
        bench_training(tiny, TASK, ["swim"], prepared=prepared, batches=1, out=None)

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from condswin.errors import BadFileError, ConfigError
from condswin.networks.presets import list_variants
from condswin.networks.saving import ModelSpec, save_model
from condswin.steps import export
from condswin.steps.export import export_model

SMALL = {"embedding": 8, "heads": [2, 2], "window": 4}


def saved(folder: Path, variant: str) -> Path:
    torch.manual_seed(0)
    spec = ModelSpec("reconstruction", variant, variant, "demo", 1, 1, SMALL)
    save_model(folder, spec.build(), spec)
    return folder


@pytest.mark.parametrize("variant", list_variants("variant"))
def test_programs_compute_what_networks_do_at_any_batch(variant: str, tmp_path: Path) -> None:
    out = tmp_path / "model.pt2"
    assert export_model(saved(tmp_path / "model", variant), out, kind="pt2", size=20) < 1e-4
    program = torch.export.load(out).module()
    assert [program(torch.zeros(batch, 1, 20, 20)).shape[0] for batch in (1, 5)] == [1, 5]


@pytest.mark.parametrize("variant", ["conditional-light", "conditional-iterative"])
def test_onnx_computes_what_the_network_does_at_any_batch(variant: str, tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    assert export_model(saved(tmp_path / "model", variant), out, kind="onnx", size=20) < 1e-4
    session = onnxruntime.InferenceSession(out)
    (given,) = session.get_inputs()
    for batch in (1, 5):
        (output,) = session.run(None, {given.name: np.zeros((batch, 1, 20, 20), np.float32)})
        assert output.shape == (batch, 1, 20, 20)


class Sorting(nn.Module):
    """What no network of ours does: ONNX has no operator for it."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.searchsorted(torch.arange(5.0), image).float()


def test_operators_that_onnx_lacks_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ModelSpec("reconstruction", "swin", "swin", "demo", 1, 1)
    monkeypatch.setattr(export, "load_model", lambda _: (Sorting(), spec))
    with pytest.raises(ConfigError, match=r"--format onnx: ONNX has no operator for aten\.\w+; use --format pt2"):
        export_model(tmp_path / "model", tmp_path / "x.onnx", kind="onnx", size=20)
    assert not (tmp_path / "x.onnx").exists()


def test_unknown_formats_are_refused_with_the_list(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no 'tflite'; there are: pt2, onnx"):
        export_model(tmp_path, tmp_path / "x", kind="tflite", size=32)


def test_a_program_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    folder, out = saved(tmp_path / "model", "swin"), tmp_path / "model.pt2"
    with pytest.raises(BadFileError, match=r"model\.pt2: not written: the program's output differs"):
        export_model(folder, out, kind="pt2", size=20)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]

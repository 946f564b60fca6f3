from pathlib import Path

import pytest
import torch

from condswin.errors import BadFileError, ConfigError
from condswin.networks import list_variants
from condswin.networks.saving import ModelSpec, save_model
from condswin.steps import export
from condswin.steps.export import export_model

SMALL = {"embedding": 8, "heads": [2, 2], "window": 4}


def saved(folder: Path, variant: str) -> Path:
    torch.manual_seed(0)
    spec = ModelSpec("reconstruction", variant, "demo", 1, 1, SMALL)
    save_model(folder, spec.build(), spec)
    return folder


@pytest.mark.parametrize("variant", list_variants("variant"))
def test_programs_compute_what_networks_do_at_any_batch(variant: str, tmp_path: Path) -> None:
    out = tmp_path / "model.pt2"
    assert export_model(saved(tmp_path / "model", variant), out, kind="pt2", size=20) < 1e-4
    program = torch.export.load(out).module()
    assert [program(torch.zeros(batch, 1, 20, 20)).shape[0] for batch in (1, 5)] == [1, 5]


def test_unknown_formats_are_refused_with_the_list(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no 'tflite'; there are: pt2, onnx"):
        export_model(tmp_path, tmp_path / "x", kind="tflite", size=32)


def test_a_program_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    folder, out = saved(tmp_path / "model", "swin"), tmp_path / "model.pt2"
    with pytest.raises(BadFileError, match=r"model\.pt2: not written: the program's output differs"):
        export_model(folder, out, kind="pt2", size=20)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]

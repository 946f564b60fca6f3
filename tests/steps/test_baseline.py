from pathlib import Path

import pytest

from condswin.config.profiles import compose
from condswin.ct.facts import SegmentationFacts
from condswin.errors import ConfigError
from condswin.steps.baseline import baseline


def test_a_task_without_a_reference_method_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(SegmentationFacts, "reference_method", "")
    with pytest.raises(ConfigError, match="segmentation: has no reference method to be a baseline"):
        baseline(compose(["demo"]), "segmentation", prepared=tmp_path, out=tmp_path / "out")
    assert not list(tmp_path.iterdir())

import pytest

from tests.mri import bench as module
from tests.mri.bench import bench


def test_every_ratio_is_measured():
    ratios = bench(rounds=1)
    assert set(ratios) == {"undersample", "undersample files", "loader", "evaluate", "memory"}
    assert all(ratio > 0 for ratio in ratios.values())
    assert ratios["memory"] < 1.5  # of memory, unlike of time, a test may ask something


def test_what_gives_other_values_is_not_compared(monkeypatch):
    right = module.undersample
    monkeypatch.setattr(module, "undersample", lambda *given: right(*given) + 1e-3)
    with pytest.raises(RuntimeError, match=r"not the same: 0\.00"):
        bench(rounds=1)

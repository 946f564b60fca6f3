import pytest

from condswin.ct.nifti import read_labels
from condswin.ct.pairs import read_pair

from . import stress


@pytest.mark.parametrize("shift", [60.0, -60.0])
def test_stress_volumes_are_usable_and_the_same_every_time(tmp_path, monkeypatch, shift):
    monkeypatch.setattr(stress, "KINDS", {"shifted": stress.Kind(8, 48, 16.0, 8.0, stress._shift(shift))})
    for name in ("a", "b"):
        stress.write(tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["segmentation-0.nii.gz", "segmentation-1.nii.gz", "volume-0.nii.gz", "volume-1.nii.gz"]
    for case in (0, 1):
        _, labels = read_pair(*(tmp_path / "a" / f"{name}-{case}.nii.gz" for name in ("volume", "segmentation")))
        again = read_labels(tmp_path / "b" / f"segmentation-{case}.nii.gz")
        assert (labels.data == again.data).all()
        shown = labels.canonical.any(axis=(1, 2)).nonzero()[0]
        assert len(shown)
        assert (shown.mean() < 3.5) == (shift > 0)  # the liver lies lower where the volume reaches higher


def test_kinds_lie_outside_of_what_the_demo_draws():
    heights = {name: kind.shape[0] * kind.spacing[0] for name, kind in stress.KINDS.items()}
    assert heights["whole torso"] > 430
    assert stress.KINDS["fine pixels"].spacing[1] < 320 / 128
    assert stress.KINDS["thick slices"].spacing[0] > 16

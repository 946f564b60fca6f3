import json
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest

from condswin.config.profiles import compose
from condswin.ct.serving import SegmentationServing
from condswin.errors import BadDataError
from condswin.mri.serving import ReconstructionServing
from condswin.registry.aliases import CHAMPION
from condswin.registry.package import ModelAlteredError, ModelUnavailableError
from condswin.steps.shadow import Case, shadow
from condswin.tasks.serving import Serving
from tests.registry.toy import NAME, World

pytest_plugins = ["tests.registry.fixtures"]

TASK = "reconstruction"


@pytest.fixture
def rivals(world: World) -> World:
    """A champion that adds 0.5 and a challenger that adds 0.9; three scans, of which one is bright."""
    for bias in (0.5, 0.9):
        world.register(bias)
    world.client.set_registered_model_alias(NAME, CHAMPION, "1")
    (world.folder / "scans").mkdir()
    for name, level in (("a", 0.0), ("b", 1.0), ("bright", 9.0)):
        np.save(world.folder / "scans" / f"{name}.npy", np.full((2, 16, 20), level, np.float32))
    return world


def test_two_networks_on_unlabelled_files(rivals: World) -> None:
    told: list[Case] = []
    found = shadow(rivals.config, TASK, [rivals.folder / "scans"], tell=told.append)
    assert [case.input.name for case in told] == ["a.npy", "b.npy", "bright.npy"]
    assert [case.disagreement["difference"] for case in told] == pytest.approx([0.4] * 3, abs=0.02)
    assert told[2].unlike == {"champion": ["it is bright"], "challenger": ["it is bright"]}
    record = found.record()
    assert record["mean"]["difference"] == pytest.approx(0.4, abs=0.02)
    assert record["unlike_training_data"] == {"champion": 1, "challenger": 1}
    assert (record["champion"], record["challenger"]) == (f"models:/{NAME}/1", f"models:/{NAME}/2")
    assert (record["files"], record["compared"]) == (3, 3)
    assert sorted(path.name for path in (rivals.folder / "scans").iterdir()) == ["a.npy", "b.npy", "bright.npy"]
    same = shadow(rivals.config, TASK, [rivals.folder / "scans/a.npy"], challenger=f"models:/{NAME}/1")
    assert same.record()["mean"] == {"difference": 0.0}
    json.dumps([case.record() for case in told], allow_nan=False)


def test_what_cannot_be_compared_is_named(rivals: World) -> None:
    with pytest.raises(BadDataError, match=r"nowhere\.npy: no such file"):
        shadow(rivals.config, TASK, [rivals.folder / "nowhere.npy"])
    with pytest.raises(ModelUnavailableError, match="@nobody"):
        shadow(rivals.config, TASK, [rivals.folder / "scans"], champion=f"models:/{NAME}@nobody")
    rivals.client.set_registered_model_alias(NAME, CHAMPION, "2")
    with pytest.raises(BadDataError, match=f"^models:/{NAME}/2: is champion and challenger; register another network"):
        shadow(rivals.config, TASK, [rivals.folder / "scans"])
    rivals.client.set_registered_model_alias(NAME, CHAMPION, "1")
    weights = rivals.weights_of("2")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(ModelAlteredError, match=r"@challenger|/2"):
        shadow(rivals.config, TASK, [rivals.folder / "scans"])


def test_a_task_without_a_measure_is_said(tmp_path: Path) -> None:
    other = type("Other", (), {"subject": "denoising"})()
    with pytest.raises(BadDataError, match="shadow: no measure says how far predictions for denoising differ"):
        Serving.disagreement(other, tmp_path, tmp_path)


def reconstruction(path: Path, images: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        file["reconstruction"] = images.astype(np.float32)
    return path


def test_reconstructions_disagree_by_the_metrics_of_reconstruction(tmp_path: Path) -> None:
    images = np.random.default_rng(0).uniform(0, 1, (2, 16, 16))
    images[0, 0, 0] = 1
    one, other = (reconstruction(tmp_path / f"{number}.h5", images + 0.1 * number) for number in range(2))
    serving = ReconstructionServing(compose(["demo"]))
    found = serving.disagreement(one, other)
    assert found["psnr"] == pytest.approx(20.0, abs=1e-3)  # a tenth of the maximum
    assert set(found) == {"psnr", "ssim", "nmse"}
    same: dict[str, Any] = Case(one, serving.disagreement(one, one)).record()
    assert (same["psnr"], same["nmse"]) == (None, 0.0)


def test_segmentations_disagree_by_dice(tmp_path: Path) -> None:
    labels = np.zeros((2, 8, 8, 8), np.uint8)
    labels[0, :4], labels[1, 2:6] = 1, 1  # half of each livers' 256 voxels in common
    labels[0, 2, 2, 2] = 2
    paths = [tmp_path / f"{number}.nii.gz" for number in range(2)]
    for path, volume in zip(paths, labels, strict=True):
        nib.save(nib.Nifti1Image(volume, np.diag([1.0, 1.0, 2.0, 1.0])), path)
    serving = SegmentationServing(compose(["demo"]))
    assert serving.disagreement(*paths) == {"liver_dice": 0.5, "tumour_dice": 0.0}
    empty = Case(paths[1], serving.disagreement(paths[1], paths[1])).record()
    assert (empty["liver_dice"], empty["tumour_dice"]) == (1.0, None)

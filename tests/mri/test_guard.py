import re

import h5py
import numpy as np
import pytest

from condswin.config.profiles import compose
from condswin.errors import BadDataError, BadFileError
from condswin.mri.config import UndersampleConfig
from condswin.mri.extent import center
from condswin.mri.guard import refusals
from condswin.mri.masks import draw_mask
from condswin.mri.undersample import prepare_undersampled
from condswin.networks.saving import ModelSpec, save_model
from condswin.steps.predict import predict


def masks(kind="random", acceleration=4, fraction=0.08):
    return UndersampleConfig(mask=kind, accelerations=[acceleration], center_fractions=[fraction])


@pytest.fixture
def undersampled(write_volume, tmp_path):
    """A file of 160 columns undersampled with given settings."""

    def make(settings):
        source = write_volume(columns=160, rows=42, slices=1)
        prepare_undersampled(source, tmp_path / "out" / source.name, settings)
        return tmp_path / "out" / source.name

    return make


@pytest.mark.parametrize("kind", ["random", "equispaced", "equispaced_fraction", "magic", "rectangular_equispaced"])
def test_what_was_trained_on_is_accepted(undersampled, kind):
    assert refusals(undersampled(masks(kind)), masks(kind)) == []


def test_a_fully_sampled_file_is_accepted(write_volume):
    path = write_volume()
    with h5py.File(path, "a") as file:
        file["kspace"][:, :, :3] = 0  # as scanners leave the edges
    assert refusals(path, masks()) == []


def test_another_acceleration_is_refused_with_both_figures(undersampled):
    (reason, *_) = refusals(undersampled(masks(acceleration=8, fraction=0.08)), masks())
    assert "true acceleration is" in reason
    assert "trained with" in reason


def test_another_centre_is_refused(undersampled):
    reasons = refusals(undersampled(masks(fraction=0.02)), masks(fraction=0.15))
    assert any(re.search(r"centre is \d columns wide, the network was trained with 2\d", reason) for reason in reasons)


def test_another_pattern_is_refused(undersampled):
    reasons = refusals(undersampled(masks("equispaced_fraction")), masks("random"))
    assert reasons == ["its lines are regular, the network was trained with random masks"]
    reasons = refusals(undersampled(masks("random")), masks("equispaced_fraction"))
    assert any("lines are random" in reason for reason in reasons)


def test_undersampled_without_a_mask_is_refused(write_volume):
    path = write_volume()
    with h5py.File(path, "a") as file:
        file["kspace"][:, :, 10:14] = 0
    assert refusals(path, masks()) == ["4 columns between measured ones are zero but there is no `mask` that says so"]


@pytest.mark.parametrize("mask", [np.ones(30, bool), np.ones((42, 31), bool), np.zeros(31, bool)])
def test_masks_that_are_none(write_volume, mask):
    with pytest.raises(BadFileError, match="mask"):
        refusals(write_volume(datasets={"mask": mask}), masks())


def test_masks_may_have_singleton_axes(write_volume):
    mask = draw_mask(masks(fraction=0.16), 31, 1).sampled[None, :, None].astype(np.float32)
    assert refusals(write_volume(datasets={"mask": mask}), masks(fraction=0.16)) == []


def test_centre_of_a_mask():
    assert center(np.array([1, 0, 1, 1, 1, 0, 1, 0], bool)).width == 3
    assert center(np.array([1, 1, 0, 0, 1, 1], bool)).width == 0
    assert center(np.ones(5, bool)).width == 5


def test_predict_refuses_before_it_reconstructs_and_can_be_told_to(undersampled, tmp_path):
    model = ModelSpec(
        task="reconstruction",
        variant="swin",
        network="swin",
        preset="demo",
        in_channels=1,
        out_channels=1,
        overrides={"embedding": 16, "heads": [2, 2]},
        provenance={"parameters": {"data": masks("random").model_dump(mode="json")}},
    )
    save_model(tmp_path / "model", model.build(), model)
    file, out = undersampled(masks("equispaced_fraction")), tmp_path / "predicted"
    with pytest.raises(BadDataError, match=r"file1000001\.h5: its lines are regular.*\n.*--force") as caught:
        predict(compose(["demo"]), [file], model=str(tmp_path / "model"), out=out)
    assert "trained with random masks" in str(caught.value)
    assert not out.exists()
    (path,) = predict(compose(["demo"]), [file], model=str(tmp_path / "model"), out=out, force=True)
    with h5py.File(path) as written:
        assert written["reconstruction"].shape == (1, 20, 22)

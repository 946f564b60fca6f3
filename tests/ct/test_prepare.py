import math
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from condswin.ct.config import PrepareCtConfig
from condswin.ct.geometry import Geometry
from condswin.ct.metrics import score_case
from condswin.ct.nifti import read_labels
from condswin.ct.pairs import read_pair
from condswin.ct.prepare import prepare_case, prepared_names
from condswin.ct.prepared import open_prepared
from condswin.ct.resampling import labels_at, one_hot
from condswin.errors import BadFileError

from .fakes import AFFINES, affine, from_canonical, write_pair


def oracle(prepared: Path):
    """The segmentation that a perfect network would give: the prepared label, mapped back."""
    with open_prepared(prepared) as file:
        geometry = Geometry.from_attributes(file.attrs)
        size = geometry.canonical_shape[1:]
        return from_canonical(geometry, labels_at(one_hot(file["label"][:]), size))


@pytest.mark.parametrize("name", AFFINES)
def test_a_prepared_case_maps_back_exactly(tmp_path, name):
    volume, segmentation = write_pair(tmp_path / "in", 3, (37, 30, 9), AFFINES[name])
    prepare_case("volume-3", volume, segmentation, tmp_path / "out", PrepareCtConfig())
    names = prepared_names("volume-3", segmentation)
    assert names == ["volume-3.h5", "segmentation-3.nii.gz"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    assert (tmp_path / "out" / names[1]).read_bytes() == segmentation.read_bytes()
    image, labels = read_pair(volume, segmentation)
    np.testing.assert_array_equal(oracle(tmp_path / "out" / names[0]), labels.data)
    with h5py.File(tmp_path / "out" / names[0]) as file:
        assert file["image"].shape == file["label"].shape == image.geometry.canonical_shape
        assert file["image"].dtype == np.float16
        assert file["label"].dtype == np.uint8
        np.testing.assert_allclose(file["image"][:], image.canonical.clip(-160, 240), atol=0.07)  # HU
        np.testing.assert_array_equal(file["label"][:], labels.canonical)
        np.testing.assert_array_equal(file["liver_slices"][:], np.flatnonzero(labels.canonical.any((1, 2))))
        np.testing.assert_array_equal(file["tumour_slices"][:], np.flatnonzero((labels.canonical == 2).any((1, 2))))
        assert file.attrs["pixel_spacing"] == pytest.approx(image.geometry.spacing[1:])


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations([0, 1, 2]),
    flips=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    tilt=st.floats(0, 15),
    ratio=st.floats(0.6, 1.1),
)
def test_resampled_cases_map_back(tmp_path, order, flips, tilt, ratio):
    matrix = affine((1.0, 0.8, 1.3), order=order, flips=flips, tilt=tilt)
    volume, segmentation = write_pair(tmp_path / "in", 0, (44, 41, 40), matrix)
    spacing = PrepareCtConfig(spacing=ratio * math.sqrt(0.8 * 1.3))
    prepare_case("volume-0", volume, segmentation, tmp_path / "out", spacing)
    labels = read_labels(segmentation)
    scores = score_case(labels.data, oracle(tmp_path / "out" / "volume-0.h5"), matrix[:3, :3])
    assert scores["liver_dice"] >= 0.98
    assert scores["tumour_dice"] >= 0.90


def test_resampled_pixels_are_square_and_where_they_were(tmp_path):
    volume, segmentation = write_pair(tmp_path, 0, (60, 40, 4), affine((0.5, 1.0, 5.0), flips=(-1, -1, 1)))
    prepare_case("volume-0", volume, segmentation, tmp_path / "out", PrepareCtConfig(spacing=1.0))
    with open_prepared(tmp_path / "out/volume-0.h5") as file:
        assert file["image"].shape == (4, 40, 30)  # rows keep 1.0 mm, columns go from 0.5 to 1.0 mm
        assert list(file.attrs["pixel_spacing"]) == pytest.approx([1.0, 1.0])
        fine = read_labels(segmentation).canonical
        for axis, step in ((1, 1), (2, 2)):  # centres of mass agree: there is no shift by half a pixel
            centre = (np.argwhere(fine > 0).mean(0) + 0.5)[axis] / step
            assert (np.argwhere(file["label"][:] > 0).mean(0) + 0.5)[axis] == pytest.approx(centre, abs=0.15)


def test_decathlon_labels_are_renamed_and_suffixes_kept(tmp_path):
    volume, segmentation = write_pair(tmp_path, "x", suffix=".nii")
    msd = segmentation.rename(tmp_path / "liver_12.nii")
    prepare_case("volume-liver_12", volume, msd, tmp_path / "out", PrepareCtConfig())
    names = prepared_names("volume-liver_12", msd)
    assert names == ["volume-liver_12.h5", "segmentation-liver_12.nii"]
    assert (tmp_path / "out" / names[1]).read_bytes() == msd.read_bytes()


def test_prepared_bytes_depend_on_the_input_only(tmp_path):
    volume, segmentation = write_pair(tmp_path, 0)
    for out in ("a", "b"):
        prepare_case("volume-0", volume, segmentation, tmp_path / out, PrepareCtConfig(spacing=1.1))
    assert (tmp_path / "a/volume-0.h5").read_bytes() == (tmp_path / "b/volume-0.h5").read_bytes()


def test_a_bad_pair_leaves_nothing_behind(tmp_path):
    volume, segmentation = write_pair(tmp_path, 0)
    segmentation.write_bytes(segmentation.read_bytes()[:-20])
    with pytest.raises(BadFileError):
        prepare_case("volume-0", volume, segmentation, tmp_path / "out", PrepareCtConfig())
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())

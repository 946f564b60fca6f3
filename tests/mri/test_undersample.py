import h5py
import numpy as np
import pytest

from condswin.errors import BadFileError, ConfigError
from condswin.mri.config import UndersampleConfig
from condswin.mri.masks import draw_mask, name_seed
from condswin.mri.undersample import prepare_full, prepare_undersampled

from .conftest import centred_image

SETTINGS = UndersampleConfig(accelerations=[4], center_fractions=[0.16])
PERSONAL = (b"PERSON", b"SECRET", b"QUIXOTE", b"2017-03-04", b"SERIAL")


@pytest.mark.parametrize(
    ("rows", "columns", "size"), [(42, 31, (20, 22)), (41, 32, (21, 21)), (40, 33, (33, 33)), (64, 64, (32, 64))]
)
def test_layout_is_fastmri_s_test_set(write_volume, tmp_path, rows, columns, size):
    source = write_volume(rows=rows, columns=columns, size=size, attributes={"max": 5.0})
    out = tmp_path / "prepared" / "file1000001.h5"
    mask = prepare_undersampled(source, out, SETTINGS)
    with h5py.File(source) as before, h5py.File(out) as after:
        kspace, masked = before["kspace"][()], after["kspace"][()]
        assert (after["mask"].shape, after["mask"].dtype) == ((columns,), np.bool_)
        sampled = after["mask"][()]
        assert (sampled == draw_mask(SETTINGS, columns, name_seed("file1000001.h5")).sampled).all()
        assert masked.dtype == np.complex64
        assert masked.shape == kspace.shape
        assert (masked[..., ~sampled] == 0).all()
        assert masked[..., sampled].tobytes() == kspace[..., sampled].tobytes()

        assert after["zero_filled"].dtype == np.float32
        expected = centred_image(kspace * sampled, size)
        np.testing.assert_allclose(after["zero_filled"], expected, atol=1e-5 * expected.max())
        target = before["reconstruction_esc"][()]
        assert (after["reconstruction_esc"][()] == target).all()

        attributes = dict(after.attrs)
    assert attributes["acceleration"] == 4
    assert attributes["num_low_frequency"] == round(0.16 * columns)
    assert attributes["true_acceleration"] == mask.true_acceleration == columns / sampled.sum()
    assert attributes["acquisition"] == "CORPD_FBK"
    assert attributes["max"] == pytest.approx(target.max())
    assert attributes["norm"] == pytest.approx(np.linalg.norm(target))


def test_training_files_stay_fully_sampled(write_volume, tmp_path):
    source, out = write_volume(), tmp_path / "prepared.h5"
    prepare_full(source, out)
    with h5py.File(source) as before, h5py.File(out) as after:
        assert set(after) == {"kspace", "reconstruction_esc", "ismrmrd_header"}
        assert after["kspace"][()].tobytes() == before["kspace"][()].tobytes()


def test_nothing_personal_in_prepared_files(write_volume, tmp_path):
    source = write_volume()
    assert all(word in source.read_bytes() for word in PERSONAL)
    prepare_full(source, tmp_path / "a.h5")
    prepare_undersampled(source, tmp_path / "b.h5", SETTINGS)
    for path in (tmp_path / "a.h5", tmp_path / "b.h5"):
        assert not any(word in path.read_bytes() for word in PERSONAL)


def test_without_header_and_with_rss_target(write_volume, tmp_path):
    target = np.ones((3, 20, 22), np.float64)
    source = write_volume(header=None, datasets={"reconstruction_esc": None, "reconstruction_rss": target})
    prepare_undersampled(source, tmp_path / "out.h5", SETTINGS)
    with h5py.File(tmp_path / "out.h5") as after:
        assert "ismrmrd_header" not in after
        assert after["reconstruction_rss"].dtype == np.float32


def test_running_again_gives_the_same_bytes(write_volume, tmp_path):
    source, out = write_volume(), tmp_path / "prepared.h5"
    prepare_undersampled(source, out, SETTINGS)
    first = out.read_bytes()
    prepare_undersampled(source, out, SETTINGS)
    assert out.read_bytes() == first


def test_bad_source_or_setting_leaves_nothing(write_volume, tmp_path):
    folder = tmp_path / "prepared"
    bad = write_volume(datasets={"kspace": np.full((3, 42, 31), np.nan, np.complex64)})
    with pytest.raises(BadFileError):
        prepare_undersampled(bad, folder / "a.h5", SETTINGS)
    with pytest.raises(ConfigError):
        prepare_undersampled(
            write_volume(), folder / "a.h5", UndersampleConfig(accelerations=[4], center_fractions=[0.5])
        )
    assert not folder.exists() or not list(folder.iterdir())

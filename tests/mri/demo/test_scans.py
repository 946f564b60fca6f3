import h5py
import numpy as np
import pytest

from condswin.fourier import magnitude_image
from condswin.mri.config import DemoMriConfig, UndersampleConfig
from condswin.mri.demo.scans import make_scan, write_demo
from condswin.mri.header import parse_header
from condswin.mri.masks import draw_mask, name_seed
from condswin.mri.metrics import psnr

from ..conftest import centred_image, check

TINY = DemoMriConfig(train_volumes=5, test_volumes=2, slices=3, size=48)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    calls = []
    write_demo(folder, TINY, 10, lambda: calls.append(1))
    assert len(calls) == 7
    return folder


def test_files_are_fastmri_s(demo):
    names = sorted(str(path.relative_to(demo)) for path in demo.rglob("*.h5"))
    assert len(names) == 7
    assert names[0] == "singlecoil_train/file1000001.h5"
    assert names[-1] == "singlecoil_val/file1002002.h5"
    infos = [check(demo / name) for name in names]
    assert {info.acquisition for info in infos} == {"CORPD_FBK", "CORPDFS_FBK"}
    assert {info.shape[2] % 2 for info in infos} == {0, 1}
    assert all(info.shape[1] == 96 and info.shape[2] >= 1.1 * 48 for info in infos)
    for name in names:
        with h5py.File(demo / name) as file:
            assert 1e-6 < file["reconstruction_esc"][()].max() < 1e-2
    assert all(info.header.recon == (48, 48, 1) and info.header.encoded[1] == info.shape[2] for info in infos)


def test_patients_return_within_a_split_and_never_across(demo):
    by_split = [
        [check(p).patient for p in sorted((demo / s).iterdir())] for s in ("singlecoil_train", "singlecoil_val")
    ]
    assert len(set(by_split[0])) == 4
    assert not set(by_split[0]) & set(by_split[1])


def test_target_is_the_image_of_the_noisy_kspace(demo):
    for path in demo.rglob("*.h5"):
        with h5py.File(path) as file:
            target = file["reconstruction_esc"][()]
            assert target.dtype == np.float32
            np.testing.assert_allclose(target, centred_image(file["kspace"][()], (48, 48)), atol=1e-5 * target.max())
            assert file.attrs["max"] == pytest.approx(target.max())


def test_header_says_which_columns_were_measured(demo):
    for path in demo.rglob("*.h5"):
        with h5py.File(path) as file:
            first, last = parse_header(file["ismrmrd_header"][()]).padding
            measured = np.flatnonzero(np.abs(file["kspace"][()]).sum(axis=(0, 1)))
        assert (measured[0], measured[-1] + 1) == (first, last)


def test_same_seed_same_bytes(demo, tmp_path):
    write_demo(tmp_path, TINY, 10, lambda: None)
    for path in demo.rglob("*.h5"):
        assert (tmp_path / path.relative_to(demo)).read_bytes() == path.read_bytes()
    other = make_scan(TINY, 11, 1000001)
    with h5py.File(demo / "singlecoil_train" / "file1000001.h5") as file:
        assert other.kspace.shape != file["kspace"].shape or (other.kspace != file["kspace"][()]).any()


def test_zero_filled_is_bad_because_of_aliasing_not_noise():
    settings = DemoMriConfig(slices=4)
    scores, floors = [], []
    for number in range(1002001, 1002009):
        scan = make_scan(settings, 10, number)
        mask = draw_mask(UndersampleConfig(), scan.kspace.shape[-1], name_seed(f"file{number}.h5"))
        scores.append(psnr(scan.target, magnitude_image(scan.kspace, (128, 128), mask.sampled)))
        # The background in the corners of the field of view is noise alone.
        corner = scan.target[:, :6, :6]
        floors.append(20 * np.log10(scan.target.max() / np.sqrt(np.mean(np.square(corner, dtype=np.float64)))))
    assert 24 < np.mean(scores) < 30
    assert np.median(floors) > np.mean(scores) + 6


def test_neighbouring_slices_resemble_each_other():
    for number in (1000001, 1000002, 1000003):
        slices = make_scan(DemoMriConfig(slices=8), 10, number).target.reshape(8, -1)
        near, far = np.corrcoef(slices[3], slices[4])[0, 1], np.corrcoef(slices[0], slices[7])[0, 1]
        assert near > 0.75
        assert near > far + 0.05


@pytest.mark.parametrize("number", range(1000001, 1000041))
def test_every_volume_is_sound(number):
    scan = make_scan(DemoMriConfig(slices=2, size=32), 3, number)
    assert np.isfinite(scan.target).all()
    assert scan.target.max() > 0
    assert scan.kspace.dtype == np.complex64

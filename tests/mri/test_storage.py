"""What others write is what fastMRI writes, read to the same bits."""

import tracemalloc

import h5py
import numpy as np
import pytest
import torch

from condswin.errors import BadFileError
from condswin.mri.config import UndersampleConfig
from condswin.mri.guard import refusals
from condswin.mri.inputs import complex_volume, zero_filled_volume
from condswin.mri.reading import VolumeReader, checked_blocks
from condswin.mri.scoring import score_case
from condswin.mri.undersample import prepare_full, prepare_undersampled
from condswin.tasks.source import Case

from .conftest import check

SETTINGS = UndersampleConfig(center_fractions=[0.16])


def fields(real, imaginary, kind):
    def encode(kspace):
        out = np.empty(kspace.shape, [(real, kind), (imaginary, kind)])
        out[real], out[imaginary] = kspace.real, kspace.imag
        return out

    return encode


def reversed_fields(kspace):
    out = np.empty(kspace.shape, [("imag", "<f4"), ("real", "<f4")])
    out["imag"], out["real"] = kspace.imag, kspace.real
    return out


def pairs(kind):
    return lambda kspace: np.stack([kspace.real, kspace.imag], axis=-1).astype(kind)


KSPACES = {
    "complex128": (lambda kspace: kspace.astype(np.complex128), "kspace of complex128 read as complex64"),
    "big-endian": (lambda kspace: kspace.astype(">c8"), None),
    "big-endian complex128": (lambda kspace: kspace.astype(">c16"), "kspace of complex128 read as complex64"),
    "fields r and i": (fields("r", "i", "<f4"), None),
    "fields real and imag": (fields("real", "imag", "<f4"), "fields real and imag of kspace read as complex numbers"),
    "fields Re and Im, double": (fields("Re", "Im", ">f8"), "fields Re and Im of kspace read as complex numbers"),
    "fields of other order": (reversed_fields, "fields real and imag of kspace read as complex numbers"),
    "pairs": (pairs("<f4"), "last axis of kspace (2) read as real and imaginary part"),
    "pairs, double": (pairs(">f8"), "last axis of kspace (2) read as real and imaginary part"),
    "one coil": (lambda kspace: kspace[:, None], "kspace of one coil read as single-coil"),
    "one coil of pairs": (lambda kspace: pairs("f4")(kspace[:, None]), "kspace of one coil read as single-coil"),
}


@pytest.fixture
def rewrite(write_volume):
    """Writes a sound file with a dataset stored otherwise."""

    def make(name, encode, path="file1000001.h5", **changes):
        written = write_volume(path, **changes)
        with h5py.File(written, "a") as file:
            values = encode(file[name][()])
            del file[name]
            file.create_dataset(name, data=values, chunks=True, compression="gzip")
        return written

    return make


@pytest.fixture
def plain(write_volume, tmp_path):
    return write_volume(folder=tmp_path / "plain")


@pytest.mark.parametrize(("encode", "assumed"), KSPACES.values(), ids=KSPACES)
def test_kspace_goes_all_the_way(rewrite, plain, tmp_path, task, encode, assumed):
    path = rewrite("kspace", encode)
    with h5py.File(plain) as file:
        kspace = file["kspace"][()]
    with VolumeReader(path) as reader:
        read = np.concatenate([block for _, block in checked_blocks(reader, "kspace")])
    assert read.dtype == np.complex64
    assert read.tobytes() == kspace.tobytes()
    # Ingested,
    said = task.check_case(Case("file1000001", "", {"kspace": path})).details
    assert said["shape"] == [3, 42, 31]
    extra = set(said["assumed"]) - {"columns with values outside the header's encoding limits taken as measured"}
    assert (assumed in extra) if assumed else not extra
    # prepared,
    for folder, source in (("a", path), ("b", plain)):
        prepare_undersampled(source, tmp_path / folder / "file1.h5", SETTINGS)
        prepare_full(source, tmp_path / folder / "full.h5")
    for name in ("file1.h5", "full.h5"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    # and predicted.
    assert refusals(path, SETTINGS) == []
    assert torch.equal(zero_filled_volume(path, SETTINGS), zero_filled_volume(plain, SETTINGS))
    assert torch.equal(complex_volume(path, SETTINGS).image, complex_volume(plain, SETTINGS).image)


@pytest.mark.parametrize("encode", [lambda kspace: kspace[0], lambda kspace: pairs("f4")(kspace[0])])
def test_a_slice_without_its_axis_is_a_volume_of_one(rewrite, write_volume, encode):
    path = rewrite("kspace", encode, slices=1)
    with h5py.File(path, "a") as file:
        target = file["reconstruction_esc"][0]
        del file["reconstruction_esc"]
        file["reconstruction_esc"] = target
    info = check(path)
    assert (info.shape, info.target_shape) == ((1, 42, 31), (1, 20, 22))
    assert "kspace of two axes read as one slice" in info.assumed
    assert "reconstruction_esc of two axes read as one slice" in info.assumed
    expected = zero_filled_volume(write_volume(path.name, slices=1), SETTINGS)
    assert torch.equal(zero_filled_volume(path, SETTINGS), expected)


IMAGES = {
    "float64": (lambda image: image.astype(np.float64), "{} of float64 read as float32"),
    "big-endian": (lambda image: image.astype(">f4"), None),
    "big-endian float64": (lambda image: image.astype(">f8"), "{} of float64 read as float32"),
    "one coil": (lambda image: image[:, None], "axis of one coil of {} left out"),
}


@pytest.mark.parametrize(("encode", "assumed"), IMAGES.values(), ids=IMAGES)
def test_targets_are_read_and_scored(rewrite, plain, tmp_path, encode, assumed):
    path = rewrite("reconstruction_esc", encode)
    info = check(path)
    assert info.target_shape == (3, 20, 22)
    assert assumed is None or assumed.format("reconstruction_esc") in info.assumed
    for folder, source in (("a", path), ("b", plain)):
        prepare_undersampled(source, tmp_path / folder / "file1.h5", SETTINGS)
    assert (tmp_path / "a" / "file1.h5").read_bytes() == (tmp_path / "b" / "file1.h5").read_bytes()
    with h5py.File(plain) as file:
        images = 1.1 * file["reconstruction_esc"][()]
    for name, written in (("plain", images), ("other", encode(images))):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["reconstruction"] = written
    expected = score_case("x", plain, tmp_path / "plain.h5")
    found = score_case("x", path, tmp_path / "other.h5")
    assert str(found) == str(expected)


@pytest.mark.parametrize("encode", [fields("real", "imag", "f8"), pairs("f4")], ids=["fields", "pairs"])
def test_memory_is_that_of_a_block(write_volume, encode):
    slices = np.random.default_rng(0).standard_normal((1, 512, 320, 2), dtype=np.float32).view(np.complex64)[..., 0]
    path = write_volume(datasets={"reconstruction_esc": np.ones((24, 64, 64), np.float32)})
    with h5py.File(path, "a") as file:
        del file["kspace"]
        file["kspace"] = encode(np.repeat(slices, 24, axis=0))
        size = file["kspace"].nbytes
    tracemalloc.start()
    check(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 2


def test_a_slice_without_its_axis_is_bounded_as_a_whole(write_volume, monkeypatch):
    """One axis fewer must not get round the bound on what is read at once."""
    path = write_volume(slices=1)
    with h5py.File(path, "a") as file:
        kspace, target = file["kspace"][0], file["reconstruction_esc"][0]
        del file["kspace"], file["reconstruction_esc"]
        file["kspace"], file["reconstruction_esc"] = kspace, target
    check(path)
    monkeypatch.setattr("condswin.mri.reading._MAX_BLOCK", kspace.nbytes - 1)
    with pytest.raises(BadFileError, match="bytes at a time"):
        check(path)

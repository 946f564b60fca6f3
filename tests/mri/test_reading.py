import hashlib
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from condswin.errors import BadFileError
from condswin.mri.reading import VolumeReader, checked_blocks
from condswin.patients import patient_key

from .conftest import check

KSPACE = np.ones((3, 42, 31), np.complex64)
TARGET = np.ones((3, 20, 22), np.float32)


def with_value(array, value):
    changed = array.copy()
    changed[1, 5, 5] = value
    return changed


def records(kind, *names):
    return np.ones(KSPACE.shape, [(name, kind) for name in names])


def test_sound_file(write_volume):
    info = check(write_volume())
    assert info.shape == (3, 42, 31)
    assert info.target == "reconstruction_esc"
    assert info.target_shape == (3, 20, 22)
    assert info.acquisition == "CORPD_FBK"
    assert info.patient == patient_key("PERSON-42")
    assert info.header.recon == (20, 22, 1)


def test_no_identifier_in_what_a_check_returns(write_volume):
    for attributes in ({}, {"patient_id": None}):
        assert not any(word in str(check(write_volume(attributes=attributes))) for word in ("PERSON", "SECRET"))


def test_patient_is_the_attribute_s_or_the_header_s_or_the_file_s(write_volume):
    def key(**changes):
        return check(write_volume(**changes)).patient

    assert key() == patient_key("PERSON-42")
    assert key(attributes={"patient_id": np.bytes_(b"PERSON-42")}) == patient_key("PERSON-42")
    assert key(attributes={"patient_id": np.array([b"PERSON-42"])}) == patient_key("PERSON-42")
    assert key(attributes={"patient_id": None}) == patient_key("SECRET-17")
    assert key(attributes={"patient_id": None}, header=None) == patient_key("file1000001")


def test_patient_keys_need_the_secret_of_the_environment(monkeypatch):
    plain = patient_key("PERSON-42")
    monkeypatch.setenv("CONDSWIN_PATIENT_KEY", "a hospital's secret")
    keyed = patient_key("PERSON-42")
    assert keyed != plain
    assert keyed == patient_key("PERSON-42") != patient_key("PERSON-43")
    # RFC 2104, by Python's own two hashes.
    inner, outer = (bytes(b ^ pad for b in b"a hospital's secret".ljust(64, b"\0")) for pad in (0x36, 0x5C))
    digest = hashlib.sha256(outer + hashlib.sha256(inner + b"patient PERSON-42").digest()).hexdigest()
    assert keyed == digest[:16]


@pytest.mark.parametrize("header", [None, b"<a/>", "<a/>", np.bytes_(b"<a/>\0\0")])
def test_header_is_optional_and_of_any_string_type(write_volume, header):
    assert check(write_volume(header=header)).header.encoded is None


def test_missing_acquisition_and_rss_target(write_volume):
    path = write_volume(
        datasets={"reconstruction_esc": None, "reconstruction_rss": TARGET}, attributes={"acquisition": None}
    )
    info = check(path)
    assert (info.acquisition, info.target) == ("unknown", "reconstruction_rss")


def test_an_empty_slice_is_no_fault(write_volume):
    kspace, target = KSPACE.copy(), TARGET.copy()
    kspace[0], target[0] = 0, 0
    check(write_volume(datasets={"kspace": kspace, "reconstruction_esc": target}))


def test_chunked_compressed_and_big_endian_are_read(write_volume):
    path = write_volume()
    with h5py.File(path, "a") as file:
        kspace = file["kspace"][()]
        del file["kspace"]
        file.create_dataset("kspace", data=kspace, chunks=(2, 42, 10), compression="gzip")
        target = file["reconstruction_esc"][()]
        del file["reconstruction_esc"]
        file["reconstruction_esc"] = target.astype(">f4")
    check(path)
    with VolumeReader(path) as reader:
        read = np.concatenate([block for _, block in checked_blocks(reader, "reconstruction_esc")])
    assert np.array_equal(read, target)


BAD_DATASETS = {
    "no kspace": ({"kspace": None}, "no dataset 'kspace'"),
    "kspace of rank 2": ({"kspace": KSPACE[0]}, "3 slices, kspace 1"),
    "multi-coil": ({"kspace": np.ones((3, 2, 42, 31), np.complex64)}, "multi-coil"),
    "scalar": ({"kspace": np.complex64(1)}, "expected \\(slices"),
    "too large for complex64": (
        {"kspace": with_value(KSPACE.astype(np.complex128), 1e39)},
        "kspace holds values up to 1e\\+39, more than single precision can",
    ),
    "real kspace": ({"kspace": KSPACE.real}, "holds real numbers .*: store both parts"),
    "whole numbers": ({"kspace": KSPACE.real.astype(np.int16)}, "holds int16 .*: store it as complex64"),
    "pairs in front": ({"kspace": np.ones((2, 3, 42, 31), np.float32)}, "move axis 0, of length 2, to the end"),
    "records of whole numbers": ({"kspace": records("i2", "r", "i")}, "2 fields \\('r' int16, 'i' int16\\)"),
    "records of three": ({"kspace": records("f4", "r", "i", "weight")}, "records of 3 fields"),
    "records of other names": ({"kspace": records("f4", "x", "y")}, "call the parts r and i"),
    "text": ({"kspace": "hello"}, "holds text"),
    "no slices": ({"kspace": KSPACE[:0], "reconstruction_esc": TARGET[:0]}, "nothing in it"),
    "NaN": ({"kspace": with_value(KSPACE, np.nan)}, "kspace has NaN or infinite values, first in slice 1"),
    "infinite": ({"kspace": with_value(KSPACE, complex(0, -np.inf))}, "kspace has NaN or infinite"),
    "all zero": ({"kspace": 0 * KSPACE}, "kspace is zero everywhere"),
    "no target": ({"reconstruction_esc": None}, "has neither reconstruction_esc nor reconstruction_rss"),
    "target NaN": ({"reconstruction_esc": with_value(TARGET, np.nan)}, "reconstruction_esc has NaN"),
    "target zero": ({"reconstruction_esc": 0 * TARGET}, "reconstruction_esc is zero"),
    "other slices": ({"reconstruction_esc": TARGET[:2]}, "2 slices, kspace 3"),
    "large target": ({"reconstruction_esc": np.ones((3, 20, 32), np.float32)}, "larger than the image"),
    "integer target": ({"reconstruction_esc": TARGET.astype(int)}, "holds int64 .*, expected magnitudes"),
    "complex target": ({"reconstruction_esc": TARGET.astype(np.complex64)}, "holds complex64 .*, expected magnitudes"),
    "target too large for float32": (
        {"reconstruction_esc": with_value(TARGET.astype(np.float64), 1e39)},
        "reconstruction_esc holds values up to 1e\\+39",
    ),
    "coils before slices": ({"kspace": np.ones((2, 3, 42, 31), np.complex64)}, "as many coils as reconstruction_esc"),
    "sides exchanged": ({"kspace": np.ones((3, 31, 42), np.complex64)}, "encoded matrix \\(42, 31\\) .* other order"),
    "slices last": ({"kspace": np.ones((42, 31, 3), np.complex64)}, "slices are the first axis of both"),
    "target of rank 4": ({"reconstruction_esc": TARGET[None]}, "expected \\(slices"),
    "undersampled": ({"mask": np.ones(31, bool)}, "already undersampled"),
    "entities": ({"ismrmrd_header": b"<!DOCTYPE a []><a/>"}, "ismrmrd_header: declares"),
    "malformed header": ({"ismrmrd_header": b"<a>"}, "ismrmrd_header: not well-formed"),
    "numbers for a header": ({"ismrmrd_header": np.arange(5)}, "not one string"),
}


@pytest.mark.parametrize(("datasets", "reason"), BAD_DATASETS.values(), ids=BAD_DATASETS)
def test_refuses_bad_content(write_volume, datasets, reason):
    path = write_volume(datasets=datasets)
    with pytest.raises(BadFileError, match=reason) as caught:
        check(path)
    assert caught.value.path == path


def write_bytes(content):
    return lambda path: path.write_bytes(content)


def edit(change):
    def make(path):
        with h5py.File(path, "a") as file:
            del file["kspace"]
            change(file, path)

    return make


def external_link(file, path):
    with h5py.File(path.with_name("other.h5"), "w") as other:
        other["kspace"] = KSPACE
    file["kspace"] = h5py.ExternalLink("other.h5", "/kspace")


def external_storage(file, path):
    path.with_name("raw.bin").write_bytes(KSPACE.tobytes())
    raw = [(str(path.with_name("raw.bin")), 0, KSPACE.nbytes)]
    file.create_dataset("kspace", KSPACE.shape, KSPACE.dtype, external=raw)


def virtual(file, path):
    with h5py.File(path.with_name("other.h5"), "w") as other:
        other["kspace"] = KSPACE
    layout = h5py.VirtualLayout(KSPACE.shape, KSPACE.dtype)
    layout[:] = h5py.VirtualSource(str(path.with_name("other.h5")), "kspace", KSPACE.shape)
    file.create_virtual_dataset("kspace", layout)


def soft_link(file, path):
    file["elsewhere"] = KSPACE
    file["kspace"] = h5py.SoftLink("/elsewhere")


def bomb(file, path):
    file.create_dataset("kspace", (64, 256, 256), np.complex64, chunks=(1, 256, 256), compression="gzip")
    file["kspace"][...] = np.ones((64, 256, 256), np.complex64)


def huge(file, path):
    file.create_dataset("kspace", (2**20, 2**20, 2**10), np.complex64, chunks=(1, 64, 64))


def wide_chunks(file, path):
    file.create_dataset("kspace", (2100, 256, 128), np.complex64, chunks=(2100, 1, 8))
    file["kspace"][:, :4] = np.ones((2100, 4, 128), np.complex64)


BAD_FILES = {
    "missing": (Path.unlink, "no such file"),
    "empty": (write_bytes(b""), "empty"),
    "not HDF5": (write_bytes(b"hello" * 999), "cannot be read as HDF5"),
    "gzip": (write_bytes(b"\x1f\x8b" + bytes(999)), "cannot be read as HDF5"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-900]), "cannot be read as HDF5"),
    "group": (edit(lambda file, path: file.create_group("kspace")), "is a group"),
    "external link": (edit(external_link), "link to elsewhere"),
    "dangling link": (edit(lambda f, p: f.update({"kspace": h5py.ExternalLink("no.h5", "/k")})), "link to elsewhere"),
    "soft link": (edit(soft_link), "link to elsewhere"),
    "external storage": (edit(external_storage), "kept in other files"),
    "virtual": (edit(virtual), "kept in other files"),
    "bomb": (edit(bomb), "not believed"),
    "huge": (edit(huge), "not believed"),
    "wide chunks": (edit(wide_chunks), "bytes at a time"),
    "never written": (
        edit(lambda f, p: f.create_dataset("kspace", (3, 420, 310), np.complex64)),
        "not believed",
    ),
    "folder": (lambda path: (path.unlink(), path.mkdir()), "no such file"),
}


@pytest.mark.parametrize(("spoil", "reason"), BAD_FILES.values(), ids=BAD_FILES)
def test_refuses_bad_files(write_volume, spoil, reason):
    path = write_volume()
    spoil(path)
    tracemalloc.start()
    with pytest.raises(BadFileError, match=reason):
        check(path)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def large(slices):
    return {
        "kspace": np.ones((slices, 512, 320), np.complex64),
        "reconstruction_esc": np.ones((slices, 64, 64), np.float32),
    }


def test_reads_large_files_block_by_block(write_volume):
    # 64 slices of 1.25 MB.
    path = write_volume(datasets=large(64))
    tracemalloc.start()
    check(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 48e6


def test_blocks_cover_every_slice_once(write_volume):
    path = write_volume(datasets=large(37))
    with VolumeReader(path) as reader:
        parts = [(start, len(block)) for start, block in reader.blocks("kspace")]
    assert len(parts) > 1
    assert [start for start, _ in parts] == list(np.cumsum([0] + [length for _, length in parts])[:-1])
    assert sum(length for _, length in parts) == 37

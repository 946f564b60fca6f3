import gzip
import json
import resource
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from condswin.ct.config import CtIngestConfig
from condswin.ct.geometry import Geometry
from condswin.ct.nifti import read_image, read_labels, stem, write_labels
from condswin.errors import BadFileError

from .fakes import AFFINES, affine, anatomy, from_canonical, geometry, write
from .fuzz import MUST_REFUSE, patched

HU, LABELS = anatomy((21, 18, 7))


def raw(array=HU, matrix=None, **header):
    """Bytes of an uncompressed NIfTI file."""
    image = nib.Nifti1Image(array, AFFINES["plain"] if matrix is None else matrix)
    for field, value in header.items():
        image.header[field] = value
    return image.to_bytes()


def with_value(value, dtype=np.float32):
    array = HU.astype(dtype)
    array[3, 4, 5] = value
    return array


BAD_IMAGES = {
    "empty": (b"", "empty file"),
    "text": (b"not an image at all", "not a NIfTI file"),
    "tiny": (b"\x5c", "not a NIfTI file"),
    "header cut": (raw()[:200], "truncated inside the header"),
    "voxels cut": (raw()[:-100], "truncated"),
    "4D": (raw(np.stack([HU, HU], -1)), "4-dimensional"),
    "2D": (raw(HU[:, :, 0]), "2-dimensional"),
    "no slices": (raw(HU[:, :, :0]), "no voxels"),
    "NaN": (raw(with_value(np.nan)), "1 voxels are not finite"),
    "infinite": (raw(with_value(np.inf)), "not finite"),
    "beyond float32": (raw(with_value(1e300, np.float64)), "not finite"),
    "normalised": (raw(((HU + 1200) / 1600).clip(0, 1).astype(np.float32)), "no Hounsfield units"),
    "bytes": (raw(((HU + 1200) / 8).clip(0, 255).astype(np.uint8)), "no Hounsfield units"),
    "offset lost": (raw((HU + 1100).astype(np.uint16)), "no Hounsfield units"),
    "constant": (raw(np.full_like(HU, -40)), "no Hounsfield units"),
    "scaled up": (raw(HU.astype(np.int32) * 1000), "outside"),
    "complex": (raw(HU.astype(np.complex64)), "not real numbers"),
    "colour": (raw(np.zeros(HU.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])), "not real numbers"),
    "huge": (patched(raw(), 42, "3h", 32767, 32767, 32767), "need"),
    "negative": (patched(raw(), 42, "3h", -5, 18, 7), "no voxels"),
    "type": (patched(raw(), 70, "h", 12345), "bad NIfTI header"),
    "pair": (patched(raw(), 344, "4s", b"ni1\0"), "not a single-file NIfTI"),
    "offset in header": (patched(raw(), 108, "f", 0), "inside the header"),
    "NaN affine": (patched(raw(), 280, "f", np.nan), "sform is not finite"),
    "flat affine": (patched(raw(), 280, "12f", 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0), "singular"),
    "giant voxels": (raw(matrix=affine((900.0, 1, 1))), "voxels of 900"),
    "metres": (raw(xyzt_units=1), "millimetres"),
    "no such unit": (raw(xyzt_units=199), "bad NIfTI header"),
    "voxels far behind": (patched(raw(), 108, "f", 1e9), "voxels at byte 1000000000"),
}


@pytest.mark.parametrize("zipped", [False, True], ids=["nii", "gz"])
@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_images_are_named_with_the_reason(tmp_path, kind, zipped):
    data, reason = BAD_IMAGES[kind]
    path = tmp_path / ("volume-7.nii" + (".gz" if zipped else ""))
    path.write_bytes(gzip.compress(data) if zipped and data else data)
    with pytest.raises(BadFileError, match=reason) as caught:
        read_image(path)
    assert caught.value.path == path
    assert str(path) in str(caught.value)


def test_containers(tmp_path):
    whole = gzip.compress(raw())
    cases = {
        "cut.nii.gz": (whole[: len(whole) // 2], "truncated"),
        "sum.nii.gz": (whole[:-8] + b"\0" * 8, "damaged"),
        "body.nii.gz": (whole[:400] + bytes(50) + whole[450:], "damaged|not|bad|truncated"),
        "magic.nii.gz": (whole[:2], "truncated"),
        "plain.nii.gz": (raw(), "not gzip data"),
        "zipped.nii": (whole, "gzip data without .gz"),
    }
    for name, (data, reason) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadFileError, match=reason):
            read_image(tmp_path / name)
    with pytest.raises(BadFileError, match="no such file"):
        read_image(tmp_path / "none.nii")
    with pytest.raises(BadFileError, match="no such file"):
        read_image(tmp_path)


def test_a_false_claim_of_size_allocates_nothing(tmp_path):
    # 32767^2 x 8 voxels are 17 GB; zeros compress as far as deflate goes, so a small file might truly hold 30 MB.
    path = tmp_path / "volume-0.nii.gz"
    path.write_bytes(gzip.compress(patched(raw(), 42, "3h", 32767, 32767, 8)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadFileError, match="need 17178"):
        read_image(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<u2", "<i4", ">f4", "<f8"])
@pytest.mark.parametrize("name", ["volume-0.nii", "volume-0.nii.gz"])
def test_reads_what_nibabel_reads(tmp_path, name, dtype):
    offset = 2000 if dtype == "<u2" else 0
    image = nib.Nifti1Image((HU + offset).astype(dtype), AFFINES["oblique"])
    image.set_data_dtype(np.dtype(dtype))
    image.header.set_slope_inter(1, -offset)
    nib.save(image, tmp_path / name)
    volume = read_image(tmp_path / name)
    expected = nib.load(tmp_path / name)
    np.testing.assert_array_equal(volume.data, expected.get_fdata(dtype=np.float32))
    np.testing.assert_array_equal(volume.geometry.affine, expected.affine)
    assert volume.data.dtype == np.float32
    assert abs(volume.data - HU).max() < 1


def test_nifti2_and_slope(tmp_path):
    image = nib.Nifti2Image((HU * 2).astype(np.int16), AFFINES["lits"])
    image.header.set_slope_inter(0.5, 10)
    nib.save(image, tmp_path / "volume-0.nii.gz")
    np.testing.assert_allclose(read_image(tmp_path / "volume-0.nii.gz").data, HU + 10.0, atol=0.5)


def test_a_little_metal_is_no_error(tmp_path):
    array = HU.astype(np.int32)
    array[0, 0, 0] = 60000
    assert read_image(write(tmp_path / "volume-0.nii", array)).data.max() == 60000


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (np.where(LABELS == 2, 3, LABELS), "found 3"),
        (LABELS.astype(np.int16) - 1, "found -1"),
        (LABELS * 0.5, "found 0.5"),
        (np.where(LABELS == 2, np.nan, LABELS), "found nan"),
        (np.arange(LABELS.size, dtype=np.int32).reshape(LABELS.shape), r"found 3, 4, 5, 6, 7, \.\.\."),
    ],
)
def test_other_labels_are_refused(tmp_path, labels, reason):
    with pytest.raises(BadFileError, match=reason):
        read_labels(write(tmp_path / "segmentation-0.nii.gz", labels))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.int64, ">f4", ">u2"])
def test_labels_may_be_stored_as_any_number(tmp_path, dtype):
    image = nib.Nifti1Image(LABELS, AFFINES["plain"])
    image.header.set_xyzt_units("mm")
    image.header.set_data_dtype(dtype)
    (tmp_path / "segmentation-0.nii").write_bytes(patched(image.to_bytes(), 112, "2f", 1, 0))
    volume = read_labels(tmp_path / "segmentation-0.nii")
    np.testing.assert_array_equal(volume.data, LABELS)
    assert volume.data.dtype == np.uint8
    assert volume.assumed == ()


@pytest.mark.parametrize("stored", [np.uint8, np.int16, np.uint16, np.int32])
@pytest.mark.parametrize("edited", [np.float32, np.float64])
def test_labels_that_a_scaled_header_put_off_are_rounded_and_that_is_said(tmp_path, stored, edited):
    """An edited mask saved by nibabel with the header of the integers that it was."""
    header = nib.Nifti1Image(LABELS.astype(stored), AFFINES["plain"]).header
    header.set_xyzt_units("mm")
    nib.save(nib.Nifti1Image(LABELS.astype(edited), AFFINES["plain"], header), tmp_path / "segmentation-0.nii.gz")
    seen = np.unique(nib.load(tmp_path / "segmentation-0.nii.gz").get_fdata())
    volume = read_labels(tmp_path / "segmentation-0.nii.gz")
    np.testing.assert_array_equal(volume.data, LABELS)
    off = abs(seen.astype(np.float32) - np.rint(seen)).max() > 0
    assert volume.assumed == (("values almost 0, 1 or 2 rounded",) if off else ())


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1.002, "found 1.002"), (2.9999, "found 2.9999"), (1 + 2**-9, "found 1.0019531"), (-0.9, "-0.9")],
)
def test_what_is_no_rounding_is_shown_to_the_digit_that_differs(tmp_path, value, shown):
    labels = LABELS.astype(np.float64)
    labels[3, 4, 5] = value
    with pytest.raises(BadFileError, match=shown):
        read_labels(write(tmp_path / "segmentation-0.nii.gz", labels))


def test_fuzzed_pairs_are_read_or_refused_within_5_seconds_and_100_megabytes():
    """Each in a process of its own; which kinds of damage there are stands in `fuzz.py`."""
    command = [sys.executable, "-m", "tests.ct.fuzz", "312"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert run.returncode == 0, run.stderr
    tallies = json.loads(run.stdout)["kinds"]
    assert sum(sum(tally.values()) for tally in tallies.values()) == 312
    assert sum(tally["accepted"] for tally in tallies.values()) > 15
    assert tallies["turned"] == {"accepted": 12, "refused": 0, "wrong": 0}
    assert all(tallies[kind]["refused"] == 12 for kind in MUST_REFUSE)


@pytest.mark.parametrize("level", [1, 6, 9])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
def test_empty_labels_of_any_size_and_compression_are_read(tmp_path, dtype, level):
    """Zeros shrink by up to 1032:1, which is what a network leaves that found nothing."""
    path, shape = tmp_path / "segmentation-0.nii.gz", (512, 512, 100)
    header = patched(raw(np.zeros((1, 1, 1), dtype), AFFINES["lits"])[:352], 42, "3h", *shape)
    member = gzip.compress(bytes(1 << 21), level)
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    path.write_bytes(
        gzip.compress(header, level) + member * (count >> 21) + gzip.compress(bytes(count % (1 << 21)), level)
    )
    labels = read_labels(path)
    assert labels.data.shape == shape
    assert not labels.data.any()


def test_more_voxels_than_any_scan_has_are_refused_before_they_are_read(tmp_path):
    path = tmp_path / "segmentation-0.nii.gz"
    path.write_bytes(gzip.compress(patched(raw(LABELS)[:352], 42, "3h", 2048, 2048, 600), 9) + bytes(3_000_000))
    with pytest.raises(BadFileError, match="2516582400 voxels"):
        read_labels(path)
    image = tmp_path / "volume-0.nii.gz"  # float32 of these would be 4.3 GB
    image.write_bytes(gzip.compress(patched(raw()[:352], 42, "3h", 1025, 1024, 1024), 9) + bytes(3_000_000))
    with pytest.raises(BadFileError, match="no scan compresses that far"):
        read_image(image)


def test_an_image_of_almost_nothing_but_padding_is_read(tmp_path):
    """A masked scan, saved as doubles, that shrinks by more than 200:1."""
    path, hu = tmp_path / "volume-0.nii.gz", np.zeros((256, 256, 200), np.float64)
    hu[100:121, 100:118, 50:57] = HU
    write(path, hu, AFFINES["lits"])
    assert path.stat().st_size * 200 < hu.nbytes > 1 << 26
    np.testing.assert_array_equal(read_image(path).data, hu)


def test_what_follows_a_gzip_stream_is_named(tmp_path):
    path = tmp_path / "volume-0.nii.gz"
    whole = gzip.compress(raw())
    for tail, count in ((b"appended", 8), (bytes(700) + b"x", 1), (b"\x1f", 1), (b"\n" * 3_000_000, 3_000_000)):
        path.write_bytes(whole + tail)
        with pytest.raises(BadFileError, match=f": {count} bytes follow its gzip stream, which is whole"):
            read_image(path)
    for tail in (b"", bytes(700), gzip.compress(b""), bytes(3) + gzip.compress(bytes(9))):  # as gzip itself reads
        path.write_bytes(whole + tail)
        np.testing.assert_array_equal(read_image(path).data, HU)
    path.write_bytes(whole[:-8] + b"\1" * 8)
    with pytest.raises(BadFileError, match="damaged or unreadable: CRC"):
        read_image(path)
    path.write_bytes(whole[:-4] + b"\1" * 4)
    with pytest.raises(BadFileError, match="damaged or unreadable: Incorrect length"):
        read_image(path)
    for cut in (1, 8, len(whole) // 2):
        path.write_bytes(whole[:-cut])
        with pytest.raises(BadFileError, match="truncated: its gzip stream has no end"):
            read_image(path)


def test_what_follows_the_voxels_is_limited(tmp_path):
    small, large = tmp_path / "volume-0.nii.gz", tmp_path / "volume-1.nii.gz"
    small.write_bytes(gzip.compress(raw() + bytes(1000)))
    large.write_bytes(gzip.compress(raw() + bytes(20_000_000)))
    np.testing.assert_array_equal(read_image(small).data, HU)
    with pytest.raises(BadFileError, match="follow the voxels"):
        read_image(large)


@pytest.mark.parametrize("codes", [(1, 1), (2, 0), (0, 1), (4, 2), (0, 0)])
@pytest.mark.parametrize("name", AFFINES)
def test_predictions_keep_the_geometry_of_their_image(tmp_path, name, codes):
    source = write(tmp_path / "volume-0.nii.gz", HU, AFFINES[name], codes=codes)
    geometry = read_image(source, CtIngestConfig(unknown_geometry="assume")).geometry
    write_labels(tmp_path / "segmentation-0.nii.gz", LABELS, Geometry.from_attributes(geometry.attributes()))
    expected, written = nib.load(source), nib.load(tmp_path / "segmentation-0.nii.gz")
    np.testing.assert_allclose(written.affine, expected.affine, atol=1e-5)
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), LABELS)
    assert written.get_data_dtype() == np.uint8
    for field in ("sform_code", "qform_code"):
        assert written.header[field] == expected.header[field]
    np.testing.assert_allclose(written.header.get_zooms(), expected.header.get_zooms(), atol=1e-5)


def test_written_headers_hold_no_free_text(tmp_path):
    source = write(tmp_path / "volume-0.nii.gz", HU, descrip=b"Jane Doe", aux_file=b"123456")
    write_labels(tmp_path / "segmentation-0.nii.gz", LABELS, read_image(source).geometry)
    content = gzip.decompress((tmp_path / "segmentation-0.nii.gz").read_bytes())
    assert b"Jane" not in content
    assert b"123456" not in content


def test_canonical_slices_run_upwards_front_to_back_and_right_to_left():
    # An identity affine is RAS+: indices grow to the patient's right, front and head.
    array = np.zeros((4, 5, 6), np.uint8)
    array[3, 4, 0] = 1  # rightmost, frontmost, lowest
    canonical = geometry((4, 5, 6), np.eye(4)).to_canonical(array)
    assert canonical.shape == (6, 5, 4)
    assert canonical[0, 0, 0] == 1  # bottom slice, first row, first column: the liver's side of the image


@settings(deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    order=st.permutations([0, 1, 2]),
    flips=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    tilt=st.floats(-20, 20),
    spacing=st.tuples(*[st.floats(0.3, 8)] * 3),
)
def test_there_and_back_is_exact(shape, order, flips, tilt, spacing):
    matrix = affine(spacing, flips=flips, order=order, tilt=tilt)
    position = geometry(shape, matrix)
    array = np.arange(np.prod(shape)).reshape(shape)
    canonical = position.to_canonical(array)
    np.testing.assert_array_equal(from_canonical(position, canonical), array)
    assert canonical.shape == position.canonical_shape
    np.testing.assert_allclose(np.sort(position.spacing), np.sort(spacing), rtol=1e-4)
    # The canonical axes point up, back and left, as far as a tilted volume's can.
    steps = matrix[:3, :3] @ np.linalg.inv(np.diag(np.linalg.norm(matrix[:3, :3], axis=0)))
    for axis, (world, sign) in enumerate(((2, 1), (1, -1), (0, -1))):
        if canonical.shape[axis] < 2:
            continue
        first, second = np.take(canonical, 0, axis).flat[0], np.take(canonical, 1, axis).flat[0]
        moved = np.subtract(np.unravel_index(second, shape), np.unravel_index(first, shape))
        assert (steps @ moved)[world] * sign > 0.8


def test_stem():
    names = {"a/volume-1.nii.gz": "volume-1", "volume-1.5.nii": "volume-1.5", "x.h5": "x.h5"}
    assert [stem(Path(name)) for name in names] == list(names.values())

"""Which header field gives a volume its place, and what happens where none does."""

import nibabel as nib
import numpy as np
import pytest

from condswin.ct.cases import check_case, find_cases
from condswin.ct.config import CtIngestConfig
from condswin.ct.nifti import read_image, read_labels, write_labels
from condswin.ct.pairs import read_pair
from condswin.errors import BadFileError

from .fakes import AFFINES, affine, anatomy, write
from .fuzz import patched

HU, LABELS = anatomy((21, 18, 7))
ASSUME = CtIngestConfig(unknown_geometry="assume")
#: Where a NIfTI-1 header keeps these.
PIXDIM, SFORM_CODE, QFORM_CODE, QUATERNION, SFORM = 80, 254, 252, 256, 280
TURNED = affine((0.8, 0.7, 5.0), tilt=9.0, flips=(-1, -1, 1))


def file(folder, *patches, matrix=TURNED, codes=(1, 1), name="volume-0.nii", array=HU, unit="mm"):
    """A file whose header is patched at (offset, format, values...)."""
    path = write(folder / name, array, matrix, codes=codes)
    image = nib.load(path)
    image.header.set_xyzt_units(unit)
    data = image.to_bytes()
    for offset, kind, *values in patches:
        data = patched(data, offset, kind, *values)
    path.write_bytes(data)
    return path


def quaternion(path, excess):
    """Patch that makes the squares of a file's quaternion sum up to 1 + excess."""
    header = nib.load(path).header
    parts = np.array([header[f"quatern_{letter}"] for letter in "bcd"], np.float64)
    return QUATERNION, "3f", *(parts * np.sqrt((1 + excess) / (parts**2).sum()))


@pytest.mark.parametrize("more", [(1,), (1, 1), (1, 1, 1, 1)])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_trailing_axes_of_one_are_no_dimension(tmp_path, more, suffix):
    volume = write(tmp_path / f"volume-0{suffix}", HU.reshape(*HU.shape, *more), AFFINES["oblique"])
    segmentation = write(tmp_path / f"segmentation-0{suffix}", LABELS.astype(np.int16), AFFINES["oblique"])
    image, labels = read_pair(volume, segmentation)
    np.testing.assert_array_equal(image.data, HU)
    assert image.geometry.shape == HU.shape
    np.testing.assert_array_equal(image.geometry.affine, nib.load(volume).affine)
    write(segmentation, LABELS.reshape(*LABELS.shape, *more), AFFINES["oblique"])
    np.testing.assert_array_equal(read_pair(volume, segmentation)[1].data, labels.data)


@pytest.mark.parametrize("shape", [(21, 18, 1, 7), (1, 21, 18, 7), (21, 9, 7, 2), (21, 126), (21, 18, 7, 1, 1)])
def test_other_numbers_of_dimensions_are_named(tmp_path, shape):
    path = write(tmp_path / "volume-0.nii", HU.reshape(shape))
    if shape[3:] == (1, 1):
        assert read_image(path).data.shape == shape[:3]
    else:
        with pytest.raises(BadFileError, match=rf"{len(shape)}-dimensional \({', '.join(map(str, shape))}\)"):
            read_image(path)


@pytest.mark.parametrize("excess", [2e-6, 5e-4, 0.5])
def test_a_qform_a_hair_over_matters_only_without_an_sform(tmp_path, excess):
    straight = affine((0.8, 0.7, 5.0), flips=(-1, -1, 1))
    both = file(tmp_path, quaternion(file(tmp_path, matrix=straight), excess), matrix=straight)
    image = read_image(both)
    np.testing.assert_allclose(image.geometry.affine, straight, atol=1e-5)
    assert image.geometry.field == "sform"
    assert image.assumed == ()
    write_labels(tmp_path / "out.nii", LABELS, image.geometry)  # and nibabel reads the qform that is written
    written = nib.load(tmp_path / "out.nii")
    assert (written.header["sform_code"], written.header["qform_code"]) == (1, 1)
    np.testing.assert_allclose(written.get_qform(), straight, atol=1e-3)
    np.testing.assert_allclose(written.get_sform(), straight, atol=1e-5)

    alone = file(tmp_path, quaternion(both, excess), matrix=straight, codes=(0, 1))
    if excess > 0.1:
        with pytest.raises(BadFileError, match="bad orientation in the NIfTI header: the qform is no rotation"):
            read_image(alone)
        return
    image = read_image(alone)
    assert image.geometry.field == "qform"
    np.testing.assert_allclose(image.geometry.affine, straight, atol=1e-5)


NO_SFORM = {
    "all zeros": [0.0] * 12,
    "not finite": [np.nan, *[0.0] * 11],
    "singular or nearly so": [1.0, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0],
    "an identity matrix": [1.0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0],
}


@pytest.mark.parametrize("fault", NO_SFORM)
def test_an_sform_that_is_none_gives_way_to_the_qform(tmp_path, fault):
    path = file(tmp_path, (SFORM, "12f", *NO_SFORM[fault]), codes=(2, 1))
    image = read_image(path)
    assert image.geometry.field == "qform"
    np.testing.assert_allclose(image.geometry.affine, TURNED, atol=1e-3)
    assert image.assumed == (f"the sform is {fault}: the qform was read",)
    write_labels(tmp_path / "out.nii", LABELS, image.geometry)
    np.testing.assert_allclose(nib.load(tmp_path / "out.nii").affine, TURNED, atol=1e-3)

    neither = file(tmp_path, (SFORM, "12f", *NO_SFORM[fault]), codes=(2, 0))
    with pytest.raises(
        BadFileError, match=rf"the sform is {fault}.*set segmentation.ingest.unknown_geometry to assume"
    ):
        read_image(neither)


def test_two_positions_are_said(tmp_path):
    path = write(tmp_path / "volume-0.nii", HU, TURNED)
    image = nib.load(path)
    image.header.set_xyzt_units("mm")
    for shift, said in ((0.1, ()), (9.0, ("the qform lies elsewhere than the sform: the sform was read",))):
        moved = TURNED.copy()
        moved[2, 3] += shift
        image.set_qform(moved, 1)
        path.write_bytes(image.to_bytes())
        read = read_image(path)
        np.testing.assert_allclose(read.geometry.affine, TURNED, atol=1e-5)
        assert read.assumed == said


def test_small_liberties_are_said(tmp_path):
    assert read_image(file(tmp_path, unit="unknown")).assumed == ("no unit of length in the header: millimetres",)
    negative = file(tmp_path, (PIXDIM, "f", -0.8), codes=(0, 1))
    assert read_image(negative).assumed == ("negative pixdim: read without the sign",)
    np.testing.assert_array_equal(read_image(negative).geometry.affine, nib.load(negative).affine)
    odd = file(tmp_path, (SFORM_CODE, "h", 77))
    assert read_image(odd).assumed == ("sform_code is none of NIfTI's: not read",)
    assert read_image(odd).geometry.field == "qform"


@pytest.mark.parametrize("unit", ["micron", "meter"])
def test_other_units_come_with_the_sizes_that_tell_whether_they_are_meant(tmp_path, unit):
    with pytest.raises(BadFileError, match=rf"spatial unit '{unit}' \(voxels of 0.8 x 0.7 x 5\).*write 2 \(mm\)"):
        read_image(file(tmp_path, unit=unit))


ITK = np.diag([-1.0, -1, 1, 1])
UNKNOWN = {
    "no forms": ([], TURNED, (0, 0), "neither sform nor qform", "axes that run LAS"),
    "no forms, no size": ([(PIXDIM + 4, "f", 0)], TURNED, (0, 0), "pixdim is 0 along axis 2", "1 mm along 2"),
    "no thickness": ([(PIXDIM + 8, "f", 0)], TURNED, (0, 1), "pixdim is 0 along axis 3", "1 mm along 3"),
    "no sizes": ([(PIXDIM, "3f", 0, 0, 0)], TURNED, (0, 2), "along axis 1 and 2 and 3", "1 mm along 1 and 2 and 3"),
    "nibabel's": ([], np.eye(4), (2, 0), "the sform is an identity matrix", "1 mm, axes that run RAS"),
    "both": ([], np.eye(4), (1, 1), "the sform is an identity matrix", "1 mm, axes that run RAS"),
    "ITK's": ([], ITK, (0, 1), "the qform is an identity matrix", "1 mm, axes that run LPS"),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_what_cannot_be_known_is_refused_or_assumed_as_nibabel_does(tmp_path, kind):
    patches, matrix, codes, doubt, instead = UNKNOWN[kind]
    volume = file(tmp_path, *patches, matrix=matrix, codes=codes)
    segmentation = file(tmp_path, *patches, matrix=matrix, codes=codes, name="segmentation-0.nii", array=LABELS)
    (case,) = find_cases(tmp_path)
    for read, path in ((read_image, volume), (read_labels, segmentation)):
        with pytest.raises(BadFileError, match=rf"{doubt}.*set segmentation.ingest.unknown_geometry") as caught:
            read(path)
        assert instead in str(caught.value)
    with pytest.raises(BadFileError, match=doubt):
        check_case(case)

    image = read_image(volume, ASSUME)
    np.testing.assert_allclose(image.geometry.affine, nib.load(volume).affine, atol=1e-6)
    assert any(doubt in said and said.endswith(f"{instead} assumed") for said in image.assumed)
    details = check_case(case, ASSUME).details
    assert {said.split(": ")[0] for said in details["assumed"]} == {"volume", "segmentation"}
    assert details["geometry_from"] == ("sform" if codes[0] else "qform" if codes[1] else "pixdim")
    write_labels(tmp_path / "out.nii", LABELS, image.geometry)
    np.testing.assert_allclose(nib.load(tmp_path / "out.nii").affine, nib.load(volume).affine, atol=1e-5)


@pytest.mark.parametrize(
    "matrix", [np.diag([0.7, 0.7, 1, 1]), affine((1, 1, 1), origin=(0.0, 0.0, -3.0)), affine((1, 1, 1), tilt=3.0)]
)
def test_what_looks_like_an_identity_but_is_not_is_believed(tmp_path, matrix):
    image = read_image(file(tmp_path, matrix=matrix))
    assert image.assumed == ()
    np.testing.assert_allclose(image.geometry.affine, matrix, atol=1e-6)


def test_a_sound_pair_needs_no_assumption(tmp_path):
    file(tmp_path)
    file(tmp_path, name="segmentation-0.nii", array=LABELS)
    details = check_case(find_cases(tmp_path)[0]).details
    assert details["assumed"] == []
    assert details["geometry_from"] == "sform"
    assert details["liver_hu"] == pytest.approx(106, abs=5)

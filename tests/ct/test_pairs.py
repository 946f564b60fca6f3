"""An image and its labels: one grid, whoever wrote it, and labels on what they name."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from condswin.config.profiles import compose
from condswin.ct.cases import check_case, find_cases
from condswin.ct.config import CtIngestConfig, PrepareCtConfig
from condswin.ct.nifti import read_image, read_labels, write_labels
from condswin.ct.pairs import read_pair, tissue
from condswin.ct.prepare import prepare_case
from condswin.errors import BadFileError
from tests.whole import Whole

from .fakes import AFFINES, affine, anatomy, config, geometry, write

HU, LABELS = anatomy((21, 18, 7))
OF_IMAGE = CtIngestConfig(label_geometry="of-image")
SCAN = (512, 512, 400)


def moved(axis, voxels, matrix):
    """The affine whose voxels lie a part of a voxel further along an axis."""
    result = matrix.copy()
    result[:3, 3] += voxels * matrix[:3, axis]
    return result


def test_pairs_must_belong_together(tmp_path):
    volume = write(tmp_path / "volume-0.nii.gz", HU)
    for labels, matrix, reason in (
        (LABELS[:-1], None, r"shape \(20, 18, 7\) differs from \(21, 18, 7\), that of its image volume-0.nii.gz"),
        (LABELS, affine(flips=(-1, 1, 1)), "affine differs.*set segmentation.ingest.label_geometry to of-image"),
        (LABELS, affine((0.8, 0.8, 4.0)), "affine differs by up to 1 mm, corners lie up to 1.2 voxels away"),
        (LABELS * 0, None, "all voxels are background"),
    ):
        path = write(tmp_path / "segmentation-0.nii.gz", labels, matrix)
        with pytest.raises(BadFileError, match=reason) as caught:
            read_pair(volume, path)
        assert caught.value.path == path


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_tolerance_is_a_part_of_a_voxel_whatever_its_size(name, axis):
    matrix = AFFINES[name]
    here = geometry(SCAN, matrix)
    for part in (0.0, 1e-4, 0.2, -0.2):
        assert here.mismatch(geometry(SCAN, moved(axis, part, matrix))) is None
    for part in (0.5, -0.5, 1, 30):
        assert f"{abs(part):g} voxels away" in here.mismatch(geometry(SCAN, moved(axis, part, matrix)))


@pytest.mark.parametrize("seed", range(4))
def test_what_another_tool_rounds_is_the_same_grid(seed):
    """Four decimals of an affine, and sform to qform and back through single precision, over a whole scan."""
    rng = np.random.default_rng(seed)
    matrix = np.eye(4)
    turned = Rotation.from_euler("xyz", rng.uniform(-15, 15, 3), degrees=True).as_matrix()
    matrix[:3, :3] = turned @ np.diag([-0.703125, -0.703125, rng.uniform(0.7, 5)])
    matrix[:3, 3] = rng.uniform(-300, 300, 3)
    header = nib.Nifti1Header()
    header.set_data_shape(SCAN)
    header.set_qform(matrix, 1)
    for other in (np.round(matrix, 4), header.get_qform(), matrix.astype(np.float32).astype(float)):
        assert geometry(SCAN, matrix).mismatch(geometry(SCAN, other)) is None


def test_small_differences_are_said(tmp_path):
    volume = write(tmp_path / "volume-0.nii.gz", HU, xyzt_units=2)
    for part, said in ((1e-5, ()), (0.1, ("positions off by less than 0.25 voxels: the image's were taken",))):
        matrix = moved(1, part, AFFINES["plain"])
        image, labels = read_pair(volume, write(tmp_path / "segmentation-0.nii.gz", LABELS, matrix, xyzt_units=2))
        assert labels.assumed == said
        assert labels.geometry is image.geometry


EVERY = list(product(permutations(range(3)), product((1, -1), repeat=3)))


@pytest.mark.parametrize("name", ["lits", "oblique", "sagittal"])
def test_labels_in_every_orientation_of_the_grid_are_turned_and_score_1(tmp_path, name):
    """Shapes of three sizes and of two equal ones, where a wrong turn would fit."""
    task = Whole("segmentation", config())
    for number, (order, flips) in enumerate(EVERY[::3] if name == "oblique" else EVERY[1::7]):
        hu, labels = (HU, LABELS) if number % 2 else anatomy((18, 18, 7), seed=number)
        folder = tmp_path / str(number)
        volume = write(folder / "raw/volume-0.nii", hu, AFFINES[name], xyzt_units=2)
        turned = nib.Nifti1Image(labels, AFFINES[name]).as_reoriented(np.column_stack([order, flips]))
        path = write(folder / "raw/segmentation-0.nii", np.asarray(turned.dataobj), turned.affine, xyzt_units=2)
        image, read = read_pair(volume, path)
        np.testing.assert_array_equal(read.data, labels)
        as_is = order == (0, 1, 2) and flips == (1, 1, 1)
        assert read.assumed == (() if as_is else ("axes turned to those of the image, on the same grid",))
        # The target is on the image's grid, as predictions are, and any of the 48 is scored as it is.
        prepare_case("volume-0", volume, path, folder / "test", PrepareCtConfig())
        target = nib.load(folder / "test/segmentation-0.nii")
        np.testing.assert_allclose(target.affine, image.geometry.affine, atol=1e-5)
        np.testing.assert_array_equal(np.asarray(target.dataobj), labels)
        (row,) = task.score(folder / "test", path.parent)
        assert row["liver_dice"] == row["tumour_dice"] == 1


def test_labels_elsewhere_take_the_images_geometry_if_that_is_wanted(tmp_path):
    """As LiTS's cases whose segmentation has another origin."""
    matrix = AFFINES["lits"].copy()
    matrix[2, 3] += 121
    volume = write(tmp_path / "raw/volume-0.nii.gz", HU, AFFINES["lits"], xyzt_units=2)
    path = write(tmp_path / "raw/segmentation-0.nii.gz", LABELS, matrix, xyzt_units=2)
    with pytest.raises(BadFileError, match="differs by up to 121 mm"):
        read_pair(volume, path)
    image, labels = read_pair(volume, path, OF_IMAGE)
    np.testing.assert_array_equal(labels.data, LABELS)
    assert labels.geometry is image.geometry
    assert labels.assumed == (
        "geometry taken from the image (affine differs by up to 121 mm, corners lie up to 24.2 voxels away)",
    )
    task = Whole("segmentation", config(ingest={"label_geometry": "of-image"}))
    (case,) = task.find_cases(tmp_path / "raw").cases
    assert task.check_case(case).details["assumed"] == [f"segmentation: {labels.assumed[0]}"]
    task.prepare_case(case.name, case.files, "test", tmp_path / "test")
    write_labels(tmp_path / "out/segmentation-0.nii.gz", LABELS, image.geometry)
    for judge in (task, Whole("segmentation", config())):  # a prepared folder needs no option any more
        (row,) = judge.score(tmp_path / "test", tmp_path / "out")
        assert row["liver_dice"] == row["tumour_dice"] == 1
    # Predictions of others, too: written without the geometry of their image.
    write(tmp_path / "out/segmentation-0.nii.gz", LABELS, np.eye(4))
    assert task.score(tmp_path / "test", tmp_path / "out")[0]["liver_dice"] == 1
    with pytest.raises(BadFileError, match="label_geometry to of-image"):
        Whole("segmentation", config()).score(tmp_path / "test", tmp_path / "out")
    write(path, LABELS[:, :-1], AFFINES["lits"])
    with pytest.raises(BadFileError, match="shape"):
        read_pair(volume, path, OF_IMAGE)


@pytest.mark.parametrize("profile", ["lits", "thesis-2-lits"])
@pytest.mark.parametrize("label_matrix", [np.eye(4), AFFINES["lits"]], ids=["as the volume", "with a geometry"])
def test_lits_28_to_47_load_with_the_profile_and_say_so(tmp_path, profile, label_matrix):
    """Their volumes have an identity matrix and 1 mm, whatever the scan had."""
    volume = write(tmp_path / "raw/volume-28.nii", HU, np.eye(4), codes=(2, 0))
    write(tmp_path / "raw/segmentation-28.nii", LABELS, label_matrix, codes=(2, 0))
    (case,) = find_cases(tmp_path / "raw").cases
    with pytest.raises(BadFileError, match="unknown_geometry"):
        check_case(case)
    task = Whole("segmentation", compose([profile]))
    details = task.check_case(case).details
    said = (
        "volume: the sform is an identity matrix, what tools write without a geometry: 1 mm, axes that run RAS assumed"
    )
    assert said in details["assumed"]
    assert details["spacing"] == [1, 1, 1]
    task.prepare_case(case.name, case.files, "test", tmp_path / "test")
    image = read_image(volume, CtIngestConfig(unknown_geometry="assume"))
    write_labels(tmp_path / "out/segmentation-28.nii.gz", LABELS, image.geometry)
    (row,) = task.score(tmp_path / "test", tmp_path / "out")
    assert row["liver_dice"] == 1
    task.picture(tmp_path / "test", tmp_path / "out", case.name)


# ---- what lies under the labels


def body(shape=(24, 22, 9), liver=105):
    """A scan whose tissue fills one corner, so that labels turned round any axis lie on air."""
    rng = np.random.default_rng(0)
    hu = np.full(shape, -1000)
    hu[: shape[0] // 2, : shape[1] // 2, : shape[2] // 2] = -90
    labels = np.zeros(shape, np.uint8)
    labels[2:9, 2:8, 1:4] = 1
    labels[4:6, 4:6, 2:3] = 2
    hu[labels > 0] = liver
    return (hu + rng.normal(0, 6, shape)).astype(np.int16), labels


def pair(folder, hu, labels, name="lits"):
    return [
        write(folder / f"{role}-0.nii", array, AFFINES[name])
        for role, array in (("volume", hu), ("segmentation", labels))
    ]


@pytest.mark.parametrize(
    ("name", "axis", "words"),
    [
        ("lits", 0, r"axis 1 \(left-right\) reversed"),
        ("lits", 1, r"axis 2 \(front-back\) reversed"),
        ("plain", 2, r"axis 3 \(head-foot\) reversed"),
        ("sagittal", 0, r"axis 1 \(front-back\) reversed"),
        ("sagittal", 1, r"axis 2 \(head-foot\) reversed"),
        ("oblique", (0, 1), r"axis 1 \(left-right\) reversed and axis 2 \(front-back\) reversed"),
    ],
)
def test_labels_on_air_because_they_are_turned_round_name_the_axis(tmp_path, name, axis, words):
    hu, labels = body()
    read_pair(*pair(tmp_path, hu, labels, name))
    files = pair(tmp_path, hu, np.flip(labels, axis), name)
    with pytest.raises(
        BadFileError, match=rf"100% of them on air, in volume-0.nii: with {words} \(median 10\d HU\)"
    ) as e:
        read_pair(*files)
    assert e.value.path == files[1]
    with pytest.raises(BadFileError, match=words):  # a flipped image is the same mistake
        read_pair(*pair(tmp_path, np.flip(hu, axis), labels, name))


def test_of_several_turns_the_one_on_the_most_even_tissue_is_named(tmp_path):
    hu, labels = body()
    both = np.flip(labels, (0, 1)) > 0  # where these labels come to lie when turned round the other axis, too
    hu[both] = np.where(np.arange(both.sum()) % 2, 180, 20)
    with pytest.raises(BadFileError, match=r"with axis 1 \(left-right\) reversed \(median"):
        read_pair(*pair(tmp_path, hu, np.flip(labels, 0)))


def test_labels_on_air_because_axes_are_swapped_name_them(tmp_path):
    hu, labels = body((24, 24, 9))
    hu[:12, 8:], labels[2:9, 2:8] = -1000, 0
    labels[2:14, 2:7, 1:4] = 1
    hu[labels > 0] = 105
    with pytest.raises(BadFileError, match=r"with axes 1 \(left-right\) and 2 \(front-back\) swapped"):
        read_pair(*pair(tmp_path, hu, labels.transpose(1, 0, 2)))


def test_labels_on_air_because_they_are_shifted_or_anothers(tmp_path):
    hu, labels = body()
    with pytest.raises(
        BadFileError, match=r"lie on -\d+ HU \(median; livers have -75 to 300\).*shifted, or of another"
    ):
        read_pair(*pair(tmp_path, np.where(labels > 0, -1000, hu), labels))
    with pytest.raises(BadFileError, match=r"lie on 40 HU .*29% of them on air"):  # the median alone would pass
        read_pair(*pair(tmp_path, np.where(hu > -300, 40, hu), np.roll(labels, -4, axis=0)))


@pytest.mark.parametrize("liver", [-60, -40, 0, 25, 55, 110, 180, 250])
def test_livers_of_all_kinds_pass(tmp_path, liver):
    """Fat, no contrast, contrast, deposits of iron or iodine; with gas after embolisation in a tenth."""
    hu, labels = body(liver=liver)
    places = np.argwhere(labels > 0)
    for place in places[:: len(places) // 12]:
        hu[tuple(place)] = -900
    read_pair(*pair(tmp_path, hu, labels))


@pytest.mark.parametrize(
    ("liver", "shown"), [(-984, "-984"), (-850, "-850"), (-110, "-110"), (400, "400"), (900, "900")]
)
def test_what_is_no_liver_is_refused(tmp_path, liver, shown):
    hu, labels = body(liver=liver)
    hu = np.where(labels > 0, liver, hu)
    with pytest.raises(BadFileError, match=f"its labels lie on {shown} HU"):
        read_pair(*pair(tmp_path, hu, labels))


def test_tissue_is_what_numpy_says():
    hu, labels = body((30, 8, 40))
    hu = hu.astype(np.float32)
    under = tissue(hu, labels)
    values = hu[labels > 0]
    assert under.median == pytest.approx(np.median(values), abs=1)
    assert under.spread == pytest.approx(np.subtract(*np.percentile(values, [75, 25])), abs=1)
    assert under.air == 0


def test_evaluation_does_not_ask_what_lies_under_a_prediction(tmp_path):
    """A network may call air a liver: that is a score, not a damaged file."""
    task = Whole("segmentation", config())
    hu, labels = body()
    pair(tmp_path / "targets", hu, labels)
    write(tmp_path / "predictions/segmentation-0.nii.gz", np.flip(labels, 2), AFFINES["lits"])
    assert task.score(tmp_path / "targets", tmp_path / "predictions")[0]["liver_dice"] < 0.2
    assert read_labels(tmp_path / "predictions/segmentation-0.nii.gz").data.any()

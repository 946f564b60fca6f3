import json

import nibabel as nib
import numpy as np
import pytest

from condswin.ct.cases import case_of_target, check_case, find_cases, target_stem
from condswin.errors import BadDataError, BadFileError

from .fakes import AFFINES, SHARED, anatomy, write, write_pair


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_lits_and_decathlon_names_are_found_without_opening_files(tmp_path):
    touch(
        tmp_path,
        *["volume-10.nii.gz", "segmentation-10.nii.gz", "volume-2.nii", "segmentation-2.nii"],
        *["batch 1/volume-3.nii", "masks/segmentation-3.nii.gz"],  # halves may lie apart, as on Kaggle
        *["Task03_Liver/imagesTr/liver_1.nii.gz", "Task03_Liver/labelsTr/liver_1.nii.gz"],
        *["Task03_Liver/imagesTs/liver_9.nii.gz", "Task03_Liver/imagesTr/._liver_1.nii.gz"],
        *[".partial-x/volume-77.nii", ".partial-volume-5.nii.gz", "notes.txt", "other.nii.gz"],
    )
    cases = find_cases(tmp_path)
    assert [(case.name, case.folder) for case in cases] == [
        ("volume-10", ""),
        ("volume-2", ""),
        ("volume-3", "batch 1"),
        ("volume-liver_1", "Task03_Liver"),
    ]
    assert all(set(case.files) == {"volume", "segmentation"} for case in cases)
    assert all(path.is_absolute() for case in cases for path in case.files.values())
    assert cases[2].files["segmentation"] == tmp_path / "masks/segmentation-3.nii.gz"


@pytest.mark.parametrize(
    "names",
    [
        ("volume-1.nii", "volume-1.nii.gz"),
        ("a/volume-1.nii", "b/volume-1.nii"),
        ("a/segmentation-1.nii", "segmentation-1.nii"),
    ],
)
def test_two_files_of_one_name_are_refused(tmp_path, names):
    touch(tmp_path, *names)
    with pytest.raises(BadDataError, match="unique") as caught:
        find_cases(tmp_path)
    assert all(name in str(caught.value) for name in names)


def test_nothing_to_find(tmp_path):
    with pytest.raises(BadDataError, match="no such folder"):
        find_cases(tmp_path / "none")
    touch(tmp_path, "image.nii.gz", "imagesTr/readme.txt")
    with pytest.raises(BadDataError, match="no volume-N"):
        find_cases(tmp_path)


def test_half_a_case_is_listed_and_named_when_checked(tmp_path):
    write_pair(tmp_path, 0)
    touch(tmp_path, "volume-1.nii.gz", "segmentation-2.nii.gz")
    whole, image_only, labels_only = find_cases(tmp_path)
    check_case(whole)
    with pytest.raises(BadFileError, match="no segmentation for volume-1: found no segmentation-1") as caught:
        check_case(image_only)
    assert caught.value.path == tmp_path / "volume-1.nii.gz"
    with pytest.raises(BadFileError, match="no volume for volume-2") as caught:
        check_case(labels_only)
    assert caught.value.path == tmp_path / "segmentation-2.nii.gz"


def test_details_are_facts_that_identify_nobody(tmp_path):
    hu, labels = anatomy((16, 14, 6))
    write(tmp_path / "volume-mrn4711.nii.gz", hu, AFFINES["oblique"], descrip=b"Jane Doe")
    write(tmp_path / "segmentation-mrn4711.nii.gz", labels, AFFINES["oblique"], descrip=b"Jane Doe")
    info = check_case(find_cases(tmp_path)[0])
    text = json.dumps([info.patient, dict(info.details)])
    assert "4711" not in text
    assert "Jane" not in text
    assert info.details["shape"] == [16, 14, 6]
    assert info.details["spacing"] == pytest.approx([5.0, 0.8, 0.8], rel=1e-3)
    assert info.details["orientation"] == "LAS"
    assert info.details["oblique"] is True
    counts = {name: int((labels == value).sum()) for value, name in enumerate(("background", "liver", "tumour"))}
    assert info.details["voxels"] == counts
    assert info.details["hu"] == [hu.min(), hu.max()]


def test_each_case_is_a_patient_so_that_splits_cannot_part_its_slices(tmp_path):
    """The notebook split slices: neighbours of a training slice were test slices."""
    for number in range(3):
        write_pair(tmp_path, number)
    infos = [check_case(case) for case in find_cases(tmp_path)]
    assert len({info.patient for info in infos}) == 3
    assert [check_case(case).patient for case in find_cases(tmp_path)] == [info.patient for info in infos]


def test_equal_images_under_two_names_can_be_told(tmp_path):
    hu, labels = anatomy((12, 12, 5))
    for name, array, suffix in (("a", hu, ".nii.gz"), ("b", hu, ".nii"), ("c", hu + 1, ".nii")):
        write(tmp_path / f"volume-{name}{suffix}", array)
        write(tmp_path / f"segmentation-{name}.nii", labels)
    digests = [check_case(case).details["image_sha256"] for case in find_cases(tmp_path)]
    assert digests[0] == digests[1] != digests[2]


def test_names_of_targets_lead_back_to_cases(tmp_path):
    for case in ("volume-3", "volume-liver_12", "other"):
        assert case_of_target(tmp_path / f"{target_stem(case)}.nii.gz") == case


@pytest.mark.usefixtures("real_data")
def test_real_scans_pass():
    infos = {case.name: check_case(case) for case in find_cases(SHARED)}
    assert set(infos) == {"volume-0", "volume-100"}
    assert infos["volume-0"].details["voxels"]["tumour"] == 0
    assert infos["volume-100"].details["voxels"]["tumour"] == 14753
    header = nib.load(SHARED / "volume-0.nii.gz").header
    assert infos["volume-0"].details["spacing"] == pytest.approx([2.0, *np.asarray(header.get_zooms()[:2])], abs=1e-3)

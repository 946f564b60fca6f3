import json

import nibabel as nib
import numpy as np
import pytest

from condswin.config.task import IngestConfig
from condswin.ct.cases import case_of_target, check_case, find_cases, target_stem
from condswin.errors import BadDataError, BadFileError
from condswin.listing import summary

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
    cases = find_cases(tmp_path).cases
    assert [(case.name, case.folder) for case in cases] == [
        ("volume-10", ""),
        ("volume-2", ""),
        ("volume-3", "batch 1"),
        ("volume-liver_1", "Task03_Liver/imagesTr"),
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


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("volume-A.nii", "volume-a.nii"),
        ("volume-caf\u00e9.nii", "volume-cafe\u0301.nii"),
        ("volume-1.NII", "volume-1.nii.gz"),
    ],
)
def test_names_that_some_file_systems_take_for_one_are_refused(tmp_path, name, other):
    touch(tmp_path, f"a/{name}", f"b/{other}")
    with pytest.raises(BadDataError, match="unique"):
        find_cases(tmp_path)


def test_suffixes_count_in_any_case(tmp_path):
    hu, labels = anatomy((12, 12, 5))
    write(tmp_path / "plain.nii.gz", hu)
    write(tmp_path / "labels.nii", labels)
    (tmp_path / "plain.nii.gz").rename(tmp_path / "volume-1.NII.GZ")
    (tmp_path / "labels.nii").rename(tmp_path / "segmentation-1.Nii")
    (case,) = find_cases(tmp_path).cases
    assert {role: path.name for role, path in case.files.items()} == {
        "volume": "volume-1.NII.GZ",
        "segmentation": "segmentation-1.Nii",
    }
    assert check_case(case).details["shape"] == [12, 12, 5]


def test_what_is_in_no_case_is_counted(tmp_path):
    touch(
        tmp_path,
        *["Task03_Liver/imagesTr/liver_1.nii.gz", "Task03_Liver/labelsTr/liver_1.nii.gz"],
        *["Task03_Liver/imagesTr/._liver_1.nii.gz", "Task03_Liver/labelsTr/._liver_1.nii.gz"],
        *["Task03_Liver/imagesTs/liver_2.nii.gz", "Task03_Liver/dataset.json", "Task03_Liver/._dataset.json"],
    )
    found = find_cases(tmp_path)
    assert [case.name for case in found.cases] == ["volume-liver_1"]
    assert {reason: len(names) for reason, names in found.skipped.items()} == {
        "hidden": 3,
        "not .nii.gz or .nii": 1,
        "neither volume-N or segmentation-N nor in imagesTr or labelsTr": 1,
    }
    assert summary(found.skipped).startswith("5 files: 3 hidden (Task03_Liver/._dataset.json, ")
    assert "(Task03_Liver/imagesTs/liver_2.nii.gz)" in summary(found.skipped)


def test_named_folders_are_those_of_the_images(tmp_path):
    """Segmentations may lie apart, as on Kaggle; those of images that are left aside are left aside, too."""
    touch(
        tmp_path,
        *["pt1/volume-1.nii", "pt2/volume-2.nii", "masks/segmentation-1.nii", "masks/segmentation-2.nii"],
        *["more/volume-3.nii", "masks/segmentation-3.nii", "more/volume-1.nii", "more/segmentation-1.nii.gz"],
    )
    policy = IngestConfig(folders={"train": "pt1", "test": "pt2"})
    with pytest.raises(BadDataError, match=r"masks/segmentation-1\.nii and more/segmentation-1\.nii\.gz"):
        find_cases(tmp_path, policy)
    (tmp_path / "more/segmentation-1.nii.gz").unlink()
    found = find_cases(tmp_path, policy)
    assert [(case.name, case.folder, set(case.files)) for case in found.cases] == [
        ("volume-1", "pt1", {"volume", "segmentation"}),
        ("volume-2", "pt2", {"volume", "segmentation"}),
    ]
    aside = found.skipped["not in segmentation.ingest.folders"]
    assert sorted(aside) == ["masks/segmentation-3.nii", "more/volume-1.nii", "more/volume-3.nii"]
    # One in a named folder comes first.
    touch(tmp_path, "pt1/segmentation-1.nii")
    assert find_cases(tmp_path, policy).cases[0].files["segmentation"] == tmp_path / "pt1/segmentation-1.nii"


def test_nothing_to_find(tmp_path):
    with pytest.raises(BadDataError, match="no such folder"):
        find_cases(tmp_path / "none")
    touch(tmp_path, "image.nii.gz", "imagesTr/readme.txt")
    with pytest.raises(BadDataError, match="no volume-N"):
        find_cases(tmp_path)


def test_half_a_case_is_listed_and_named_when_checked(tmp_path):
    write_pair(tmp_path, 0)
    touch(tmp_path, "volume-1.nii.gz", "segmentation-2.nii.gz")
    whole, image_only, labels_only = find_cases(tmp_path).cases
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
    info = check_case(find_cases(tmp_path).cases[0])
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
    infos = [check_case(case) for case in find_cases(tmp_path).cases]
    assert len({info.patient for info in infos}) == 3
    assert [check_case(case).patient for case in find_cases(tmp_path).cases] == [info.patient for info in infos]


def test_equal_images_under_two_names_can_be_told(tmp_path):
    hu, labels = anatomy((12, 12, 5))
    for name, array, suffix in (("a", hu, ".nii.gz"), ("b", hu, ".nii"), ("c", hu + 1, ".nii")):
        write(tmp_path / f"volume-{name}{suffix}", array)
        write(tmp_path / f"segmentation-{name}.nii", labels)
    digests = [check_case(case).details["image_sha256"] for case in find_cases(tmp_path).cases]
    assert digests[0] == digests[1] != digests[2]


def test_names_of_targets_lead_back_to_cases(tmp_path):
    for case in ("volume-3", "volume-liver_12", "other"):
        assert case_of_target(tmp_path / f"{target_stem(case)}.nii.gz") == case


@pytest.mark.usefixtures("real_data")
def test_real_scans_pass():
    infos = {case.name: check_case(case) for case in find_cases(SHARED).cases}
    assert set(infos) == {"volume-0", "volume-100"}
    assert infos["volume-0"].details["voxels"]["tumour"] == 0
    assert infos["volume-100"].details["voxels"]["tumour"] == 14753
    header = nib.load(SHARED / "volume-0.nii.gz").header
    assert infos["volume-0"].details["spacing"] == pytest.approx([2.0, *np.asarray(header.get_zooms()[:2])], abs=1e-3)

"""Files that other tools named, turned, rounded or emptied, through the steps that users run."""

import csv
import gzip

import nibabel as nib
import numpy as np
import pytest

from condswin.ct.config import PrepareCtConfig
from condswin.ct.prepare import prepare_case
from condswin.errors import BadFileError
from condswin.manifest import Manifest
from condswin.steps.ingest import ingest
from condswin.steps.prepare import prepare
from condswin.steps.score import score_folders
from condswin.tasks.serving import Origin
from tests.whole import Whole

from .fakes import AFFINES, anatomy, config, write, write_pair
from .test_task import Thresholds


def decathlon(folder, suffixes=(".nii.gz", ".nii.gz")):
    """MSD's layout: image and labels have one name, macOS's files lie beside them, test images have no labels."""
    for number in range(5):
        hu, labels = anatomy((20, 18, 7), seed=number)
        for part, array, suffix in zip(("imagesTr", "labelsTr"), (hu, labels), suffixes, strict=True):
            write(folder / part / f"liver_{number}{suffix}", array, AFFINES["lits"])
            (folder / part / f"._liver_{number}{suffix}").write_bytes(b"\0\5\x16\7Mac OS X")
    write(folder / "imagesTs/liver_9.nii.gz", anatomy((20, 18, 7))[0], AFFINES["lits"])
    return folder


@pytest.mark.parametrize("suffixes", [(".nii.gz", ".nii.gz"), (".nii", ".nii"), (".nii", ".nii.gz")])
def test_the_decathlon_goes_from_ingestion_to_scores(tmp_path, suffixes):
    settings, source = config(), decathlon(tmp_path / "Task03_Liver", suffixes)
    ingest(settings, "segmentation", source=str(source), out=tmp_path / "ingested")
    manifest = prepare(settings, "segmentation", ingested=tmp_path / "ingested", out=tmp_path / "prepared")
    assert [case.name for case in manifest.cases] == [f"volume-liver_{number}" for number in range(5)]
    for case in manifest.cases:
        number = case.name.removeprefix("volume-")
        names = sorted(path.name for path in (tmp_path / "prepared" / case.split).glob(f"*{number}.*"))
        assert names == [f"segmentation-{number}{suffixes[1]}", f"volume-{number}.h5"]
        target = (tmp_path / "prepared" / case.split / names[0]).read_bytes()
        assert target == (source / "labelsTr" / f"{number}{suffixes[1]}").read_bytes()
    # What `predict` writes of the Decathlon's images is scored against the Decathlon's labels.
    task = Whole("segmentation", settings)
    for path in sorted((source / "imagesTr").glob("liver_*")):
        task.predict_raw(Thresholds(), path, tmp_path / "predictions", Origin())
    assert (tmp_path / "predictions/segmentation-liver_0.nii.gz").is_file()
    rows = task.score(source / "labelsTr", tmp_path / "predictions")
    assert [row["case"] for row in rows] == [f"liver_{number}" for number in range(5)]
    assert all(row["liver_dice"] > 0.8 for row in rows)
    task.picture(source / "labelsTr", tmp_path / "predictions", "liver_3")


def test_what_was_assumed_stands_in_the_manifest(tmp_path):
    """Three cases of three kinds; the lot is taken on with the options of the profile for LiTS."""
    for number, matrix in enumerate((AFFINES["lits"], np.eye(4), AFFINES["oblique"])):
        write_pair(tmp_path / "raw", number, (20, 18, 7), matrix)
    elsewhere = AFFINES["oblique"] + np.outer([0, 0, 1, 0], [0, 0, 0, 121.0])
    write(tmp_path / "raw/segmentation-2.nii.gz", anatomy((20, 18, 7), seed=2)[1], elsewhere)
    options = {"unknown_geometry": "assume", "label_geometry": "of-image"}
    settings = config(ingest=options)
    ingest(settings, "segmentation", source=str(tmp_path / "raw"), out=tmp_path / "ingested")
    prepare(settings, "segmentation", ingested=tmp_path / "ingested", out=tmp_path / "prepared")
    for folder in ("ingested", "prepared"):
        known = {case.name: case.details for case in Manifest.read(tmp_path / folder, "segmentation").cases}
        unit = "no unit of length in the header: millimetres"
        assert known["volume-0"]["assumed"] == [f"volume: {unit}"]
        assert sum("an identity matrix" in said for said in known["volume-1"]["assumed"]) == 2
        said = "segmentation: geometry taken from the image (affine differs by up to 121 mm"
        assert any(sentence.startswith(said) for sentence in known["volume-2"]["assumed"])
        assert [details["geometry_from"] for details in known.values()] == ["sform"] * 3


def test_an_evaluation_says_what_it_assumed(tmp_path, capsys):
    for number in range(3):
        _, path = write_pair(tmp_path / "targets", number)
        image = nib.load(path)
        labels = np.asarray(image.dataobj)
        other = nib.Nifti1Image(labels[..., None].astype(np.float64), image.affine, image.header)
        (tmp_path / "predictions").mkdir(exist_ok=True)
        nib.save(
            other if number else image.as_reoriented([[1, -1], [0, 1], [2, 1]]), tmp_path / "predictions" / path.name
        )
    folders = {"targets": tmp_path / "targets", "predictions": tmp_path / "predictions"}
    score_folders(config(), "segmentation", **folders, out=tmp_path / "scores")
    shown = capsys.readouterr().err
    assert "assumed for 1 of 3 cases: prediction: axes turned to those of the image, on the same grid" in shown
    assert "assumed for 2 of 3 cases: prediction: values almost 0, 1 or 2 rounded" in shown
    with (tmp_path / "scores/cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["liver_dice"] for row in rows] == ["1.0"] * 3
    assert ["axes turned" in row["assumed"] for row in rows] == [True, False, False]
    # Sound files leave no trace of it.
    score_folders(config(), "segmentation", targets=folders["targets"], predictions=folders["targets"], out=None)
    assert "assumed" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "prediction",
    [lambda labels: labels * 0, lambda labels: (np.arange(labels.size) == 7).reshape(labels.shape).astype(np.uint8)],
    ids=["empty", "one voxel"],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_a_network_that_found_nothing_scores_0(tmp_path, prediction, dtype):
    labels = np.zeros((300, 260, 130), np.uint8)
    labels[100:200, 100:180, 40:90], labels[120:125, 120:125, 50:55] = 1, 2
    write(tmp_path / "targets/segmentation-0.nii.gz", labels, AFFINES["lits"])
    image = nib.Nifti1Image(prediction(labels).astype(dtype), AFFINES["lits"])
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions/segmentation-0.nii.gz").write_bytes(gzip.compress(image.to_bytes(), 9))
    (row,) = Whole("segmentation", config()).score(tmp_path / "targets", tmp_path / "predictions")
    assert (row["liver_dice"], row["tumour_dice"], row["lesion_recall"]) == (0, 0, 0)


@pytest.mark.parametrize(("codes", "matrix"), [((0, 0), AFFINES["lits"]), ((2, 0), np.eye(4))])
def test_prediction_of_an_unknown_geometry_needs_the_option_and_keeps_the_header(tmp_path, codes, matrix):
    volume, _ = write_pair(tmp_path / "raw", 0, (24, 20, 7), matrix, codes=codes)
    with pytest.raises(BadFileError, match=r"set segmentation\.ingest\.unknown_geometry to assume"):
        Whole("segmentation", config()).predict_raw(Thresholds(), volume, tmp_path / "no", Origin())
    assert not (tmp_path / "no").exists()
    task = Whole("segmentation", config(ingest={"unknown_geometry": "assume"}))
    task.predict_raw(Thresholds(), volume, tmp_path / "out", Origin())
    source, written = nib.load(volume), nib.load(tmp_path / "out/segmentation-0.nii.gz")
    np.testing.assert_allclose(written.affine, source.affine, atol=1e-6)
    assert [int(written.header[field]) for field in ("sform_code", "qform_code")] == list(codes)
    (row,) = task.score(tmp_path / "raw", tmp_path / "out")
    assert row["liver_dice"] > 0.8


def test_targets_written_anew_depend_on_the_input_only(tmp_path):
    volume, path = write_pair(tmp_path, 0)
    nib.save(nib.load(path).as_reoriented([[0, -1], [1, 1], [2, -1]]), tmp_path / "segmentation-1.nii.gz")
    for out in ("a", "b"):
        prepare_case("volume-0", volume, tmp_path / "segmentation-1.nii.gz", tmp_path / out, PrepareCtConfig())
    written = [(tmp_path / out / "segmentation-0.nii.gz").read_bytes() for out in ("a", "b")]
    assert written[0] == written[1] != (tmp_path / "segmentation-1.nii.gz").read_bytes()
    np.testing.assert_array_equal(nib.load(tmp_path / "a/segmentation-0.nii.gz").dataobj, nib.load(path).dataobj)

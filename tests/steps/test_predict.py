"""`predict` on what people give it: files of two kinds, one name twice, folders; and what it leaves for viewers."""

import gzip
import json
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from condswin.config.names import TASKS
from condswin.config.profiles import compose
from condswin.errors import BadDataError, CondswinError, OutputError
from condswin.files import sha256
from condswin.mri.config import UndersampleConfig
from condswin.mri.masks import draw_mask, name_seed
from condswin.networks.saving import ModelSpec, save_model
from condswin.steps.predict import Result, predict
from tests.cli.calling import condswin
from tests.ct import fakes

SMALL = {"embedding": 16, "heads": [2, 2]}
KINDS = {
    "reconstruction": "MRI (reconstruction) and takes k-space",
    "segmentation": "CT (segmentation) and takes NIfTI",
}
HEADER = """<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
<encodedSpace><matrixSize><x>32</x><y>32</y><z>1</z></matrixSize></encodedSpace>
<reconSpace><matrixSize><x>20</x><y>24</y><z>1</z></matrixSize>
<fieldOfView_mm><x>40</x><y>36</y><z>4.5</z></fieldOfView_mm></reconSpace></encoding></ismrmrdHeader>"""


def model(folder: Path, task: str, **provenance: Any) -> str:
    channels = (1, 1) if task == "reconstruction" else (4, 3)
    spec = ModelSpec(task, "mine", "swin", "demo", *channels, SMALL, provenance)
    save_model(folder / f"model-{task}", spec.build(), spec)
    return str(folder / f"model-{task}")


def scan(path: Path, *, header: str | None = HEADER, **datasets: Any) -> Path:
    """Fully sampled single-coil k-space without target."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(len(path.name))
    kspace = draw.standard_normal((3, 32, 32, 2), dtype=np.float32).view(np.complex64)[..., 0]
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace
        if header is not None:
            file["ismrmrd_header"] = header
        for name, values in datasets.items():
            file[name] = values
    return path


def volume(path: Path) -> Path:
    return fakes.write(path, fakes.anatomy((40, 36, 3), len(path.name))[0])


def given(task: str, path: Path) -> Path:
    return scan(path) if task == "reconstruction" else volume(path)


ENDINGS = {"reconstruction": (".h5", ".hdf5"), "segmentation": (".nii.gz", ".nii")}


@pytest.mark.parametrize("task", TASKS)
def test_two_inputs_never_become_one_output(task: str, tmp_path: Path) -> None:
    name = model(tmp_path, task)
    first, second = ENDINGS[task]
    one = given(task, tmp_path / f"a/Scan{first}")
    for other in (f"a/Scan{second}", f"b/Scan{first}", f"b/scan{first}"):
        again = given(task, tmp_path / other)
        with pytest.raises(OutputError, match=r"both would be written") as refused:
            predict(compose(["demo"]), [one, again], model=name, out=tmp_path / "out")
        assert str(one) in str(refused.value)
        assert str(again) in str(refused.value)
    assert not (tmp_path / "out").exists()
    # One file is one input, however often it is given.
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / f"a/Scan{second}").unlink()
    paths = [one, tmp_path / "a/../a" / one.name, tmp_path / "link" / one.name, tmp_path / "a"]
    assert len(predict(compose(["demo"]), paths, model=name, out=tmp_path / "out")) == 1


def other_kinds(folder: Path) -> dict[str, Path]:
    folder.mkdir()
    Image.new("L", (4, 4)).save(folder / "slice.png")
    (folder / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(64))
    (folder / "scan.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    (folder / "notes.h5").write_text("not a scan\n")
    (folder / "notes.nii").write_text("kein Scan: Übersicht\n")
    (folder / "packed.nii.gz").write_bytes(gzip.compress(b"text"))
    np.save(folder / "array.npy", np.zeros(3))
    (folder / "unknown").write_bytes(bytes(range(256)) * 9)
    matlab = scan(folder / "v73.mat")
    matlab.write_bytes(b"MATLAB 7.3 MAT-file".ljust(512) + matlab.read_bytes())
    return {
        "a PNG picture": folder / "slice.png",
        "a DICOM file": folder / "IM0001",
        "a MATLAB file": folder / "scan.mat",
        "a text file": folder / "notes.h5",
        "a text file ": folder / "notes.nii",
        "a gzip file": folder / "packed.nii.gz",
        "a NumPy array": folder / "array.npy",
        "of no kind known here": folder / "unknown",
        "a MATLAB file ": folder / "v73.mat",
    }


@pytest.mark.parametrize("task", TASKS)
def test_files_of_another_kind_are_told_what_the_model_is_for(task: str, tmp_path: Path) -> None:
    name = model(tmp_path, task)
    foreign = other_kinds(tmp_path / "others")
    if task == "reconstruction":
        foreign["a NIfTI volume"] = volume(tmp_path / "volume-0.nii.gz")
        foreign["a NIfTI volume "] = volume(tmp_path / "volume-0.nii").rename(tmp_path / "misnamed.h5")
    else:
        foreign["an HDF5 file"] = scan(tmp_path / "scan.h5")
        foreign["an HDF5 file "] = scan(tmp_path / "scan").rename(tmp_path / "misnamed.nii.gz")
    for kind, path in foreign.items():
        with pytest.raises(BadDataError) as refused:
            predict(compose(["demo"]), [path], model=name, out=tmp_path / "out", force=True)
        assert str(refused.value).startswith(f"{path}: is {kind.strip()}, but this model is for {KINDS[task]}"), kind
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("task", TASKS)
def test_a_folder_stands_for_all_its_files(task: str, tmp_path: Path) -> None:
    name, raw, said = model(tmp_path, task), tmp_path / "raw", []
    first, second = ENDINGS[task]
    for path in (f"one{first}", f"deep/er/two{second}", f"THREE{first.upper()}", f"._one{first}", f".hidden/x{first}"):
        given(task, raw / path)
    given(task, tmp_path / f"elsewhere/four{first}")
    (raw / "linked").symlink_to(tmp_path / "elsewhere")
    (raw / "linked/loop").symlink_to(raw)
    (raw / "notes.txt").write_text("x")
    if task == "segmentation":
        for path in ("segmentation-one.nii.gz", "labelsTr/five.nii", "six.unprocessed.nii.gz"):
            volume(raw / path)
    else:
        with h5py.File(raw / "recon.h5", "w") as file:
            file["reconstruction"] = np.ones((1, 9, 9), np.float32)
    out = raw / "predictions"
    written = predict(compose(["demo"]), [raw], model=name, out=out, note=said.append)
    start, end = ("", ".h5") if task == "reconstruction" else ("segmentation-", ".nii.gz")
    assert {path.name for path in written} == {f"{start}{case}{end}" for case in ("one", "two", "THREE", "four")}
    kind = "1 reconstructions without k-space" if task == "reconstruction" else "3 segmentations"
    assert "4 to predict, passed over" in said[0]
    for expected in (kind, "hidden", "notes.txt"):
        assert expected in said[0]
    # What was predicted is no input of the next run.
    again = predict(compose(["demo"]), [raw], model=name, out=out, note=said.append)
    assert sorted(again) == sorted(written)
    assert "4 below the output folder" in said[1]


@pytest.mark.parametrize("task", TASKS)
def test_a_folder_without_any_says_what_is_there(task: str, tmp_path: Path) -> None:
    name = model(tmp_path, task)
    (tmp_path / "dicom").mkdir()
    (tmp_path / "dicom/IM0001").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(BadDataError, match=r"holds nothing for this model, which is for .*IM0001 is a DICOM file"):
        predict(compose(["demo"]), [tmp_path / "dicom"], model=name, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_reconstructions_say_how_they_were_made(tmp_path: Path) -> None:
    sampled = draw_mask(UndersampleConfig(), 32, 1).sampled
    files = [scan(tmp_path / "full.h5"), scan(tmp_path / "masked.h5", header=None, mask=sampled)]
    with h5py.File(files[1], "r+") as file:
        file["kspace"][...] = np.where(sampled, file["kspace"][()], 0)
        file["reconstruction_esc"] = np.ones((3, 16, 16), np.float32)
    name = model(tmp_path, "reconstruction")
    predict(compose(["demo"]), files, model=name, out=tmp_path / "out", force=True)
    drawn = draw_mask(compose(["demo"]).task("reconstruction").undersample, 32, name_seed("full.h5"))
    for path, mask in zip(files, (drawn.sampled, sampled), strict=True):
        with h5py.File(tmp_path / "out" / path.name) as file:
            about = dict(file.attrs)
            assert np.array_equal(about.pop("sampled_columns"), mask)
            assert about["true_acceleration"] == pytest.approx(32 / mask.sum())
            assert about["model"] == "reconstruction/mine"
            assert about["weights_sha256"] == sha256(Path(name) / "model.safetensors")
            assert about["software"].startswith("condswin ")
            assert "arbitrary" in about["units"]
            assert str(tmp_path) not in str(about)
            expected = None if path.stem == "masked" else [4.5, 2.0, 1.5]
            assert (list(about["voxel_mm"]) if "voxel_mm" in about else None) == expected
            assert about["mask"].startswith("of the input" if path.stem == "masked" else "equispaced_fraction")


def test_reconstructions_as_nifti_and_png(tmp_path: Path) -> None:
    files = [scan(tmp_path / "known.h5"), scan(tmp_path / "unknown.h5", header=HEADER.replace("fieldOfView", "field"))]
    results: list[Result] = []
    name = model(tmp_path, "reconstruction")
    predict(
        compose(["demo"]), files, model=name, out=tmp_path / "out", forms=["png", "nifti"],
        tell=lambda result, _: results.append(result),
    )  # fmt: skip
    for stem, voxel, rows in (("known", (1.5, 2.0, 4.5), 27), ("unknown", (1.0, 1.0, 1.0), 20)):
        with h5py.File(tmp_path / "out" / f"{stem}.h5") as file:
            images = file["reconstruction"][()]
        image = nib.load(tmp_path / "out" / f"{stem}.nii.gz")
        assert image.header.get_zooms() == voxel
        assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (0, 0)
        assert np.array_equal(np.asarray(image.dataobj)[3, 19 - 5, 2], images[2, 5, 3])
        picture = np.asarray(Image.open(tmp_path / "out" / f"{stem}.png"))
        assert picture.shape == (rows, 24)
        assert np.corrcoef(picture[:: rows - 1].ravel(), images[1, ::19].ravel())[0, 1] > 0.9
    assert "voxel size from the header" in results[0].warnings[-1]
    assert "1 mm assumed" in results[1].warnings[-1]


def test_lines_of_json_and_nothing_else(tmp_path: Path) -> None:
    name = model(tmp_path, "segmentation")
    for path in ("raw/a.nii.gz", "raw/b.nii.gz"):
        volume(tmp_path / path)
    out = condswin("predict", "raw", "--model", name, "--out", "out", "--png", "--json", cwd=tmp_path)
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["input"] for line in lines] == ["raw/a.nii.gz", "raw/b.nii.gz"]
    for line in lines:
        assert (line["status"], line["model"], line["error"]) == ("predicted", name, None)
        assert line["output"] == line["outputs"][0] == f"out/segmentation-{line['input'][4]}.nii.gz"
        assert all((tmp_path / path).is_file() for path in line["outputs"])
        assert line["seconds"] > 0
        assert line["warnings"][-1:] == [
            "the model does not say at which pixel size it was trained: predicted at 0.8 mm"
        ]


def test_a_file_that_fails_keeps_no_other_from_its_prediction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, results = model(tmp_path, "segmentation"), []
    files = [volume(tmp_path / f"raw/{case}.nii.gz") for case in "abc"]
    files[1].write_bytes(files[1].read_bytes()[:-400])
    with pytest.raises(BadDataError, match=r"raw/b\.nii\.gz: ") as failed:
        predict(
            compose(["demo"]), files, model=name, out=tmp_path / "out", force=True,
            tell=lambda result, _: results.append(result.record(name)),
        )  # fmt: skip
    assert "\n" not in str(failed.value)
    assert [result["status"] for result in results] == ["predicted", "failed", "predicted"]
    assert results[1]["output"] is None
    assert results[1]["error"] == str(failed.value)
    assert {path.name for path in (tmp_path / "out").iterdir() if path.name[0] != "."} == {
        "segmentation-a.nii.gz",
        "segmentation-c.nii.gz",
    }


def test_volumes_unlike_the_trainings_are_refused_before_any_is_predicted(tmp_path: Path) -> None:
    seen = {"pixel": [0.7, 0.8, 0.9], "slice": [4, 5, 6], "plane": [25, 30, 35], "height": [10, 15, 20]}
    name, results = model(tmp_path, "segmentation", seen=seen), []
    near, far = volume(tmp_path / "raw/near.nii.gz"), fakes.anatomy((40, 36, 3))[0]
    coarse = fakes.write(tmp_path / "raw/coarse.nii.gz", far, fakes.affine((3.0, 3.0, 20.0)))
    with pytest.raises(BadDataError, match=r"coarse\.nii\.gz: pixels are 3 mm wide.*; slices are .*\n.*--force"):
        predict(
            compose(["demo"]), [near, coarse], model=name, out=tmp_path / "out",
            tell=lambda result, _: results.append(result.status),
        )  # fmt: skip
    assert results == ["left", "refused"]
    assert not (tmp_path / "out").exists()
    assert len(predict(compose(["demo"]), [near, coarse], model=name, out=tmp_path / "out", force=True)) == 2


@pytest.mark.parametrize("task", TASKS)
def test_evaluate_refuses_two_files_of_one_case(task: str, tmp_path: Path) -> None:
    first, second = ENDINGS[task]
    for side in ("targets", "predictions"):
        for folder in ("targets", "predictions"):
            for ending in (first, second.upper()) if folder == side else (first,):
                given(task, tmp_path / side / folder / f"case{ending}")
        sides = [f"--{name}={side}/{name}" for name in ("targets", "predictions")]
        error = condswin("evaluate", task, *sides, "--out", "scores", cwd=tmp_path, code=1)
        assert error.startswith(f"error: {side}/{side}: case")
        assert f"case{first} " in error
        assert f"case{second.upper()} " in error
        assert "are both of the case case; remove or rename" in error
    assert not (tmp_path / "scores").exists()


@pytest.mark.parametrize("task", TASKS)
def test_evaluate_says_what_a_folder_of_the_other_task_holds(task: str, tmp_path: Path) -> None:
    (other,) = set(TASKS) - {task}
    given(other, tmp_path / f"wrong/x{ENDINGS[other][0]}")
    given(task, tmp_path / f"right/x{ENDINGS[task][0]}")
    holds = f"there are 1 {ENDINGS[other][0]}"
    for targets, predictions in (("wrong", "right"), ("right", "wrong")):
        error = condswin("evaluate", task, "--targets", targets, "--predictions", predictions, cwd=tmp_path, code=1)
        assert error.startswith("error: wrong: no ")
        assert holds in error


def test_models_of_tasks_without_such_a_form_say_so(tmp_path: Path) -> None:
    with pytest.raises(CondswinError, match="--svg: predictions of a model for MRI"):
        predict(
            compose(["demo"]), [scan(tmp_path / "a.h5")], model=model(tmp_path, "reconstruction"),
            out=tmp_path / "out", forms=["svg"],
        )  # fmt: skip

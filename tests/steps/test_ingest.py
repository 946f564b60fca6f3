import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import pytest

from condswin.config.names import SPLITS
from condswin.config.root import Config
from condswin.errors import BadDataError
from condswin.files import sha256
from condswin.manifest import Manifest
from condswin.mri.source import ReconstructionSource
from condswin.outputs import RECORD
from condswin.steps.demo_data import demo_data
from condswin.steps.ingest import SPLIT_FILE, ingest
from condswin.tasks.source import Case, CaseInfo

TASK = "reconstruction"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory, tiny: Config) -> Path:
    raw = tmp_path_factory.mktemp("generated") / "raw"
    section = tiny.reconstruction.model_copy(update={"source": str(raw)})
    demo_data(tiny.model_copy(update={"reconstruction": section}), TASK, out=raw)
    return raw


@pytest.fixture
def raw(generated: Path, tmp_path: Path) -> Path:
    shutil.copytree(generated, tmp_path / "raw")
    return tmp_path / "raw"


def quarantining(config: Config) -> Config:
    section = config.reconstruction.ingest.model_copy(update={"on_bad_file": "quarantine"})
    return config.model_copy(update={TASK: config.reconstruction.model_copy(update={"ingest": section})})


def test_files_are_copied_with_checksums_and_splits_follow_folders(tiny: Config, raw: Path, tmp_path: Path) -> None:
    manifest = ingest(tiny, TASK, source=str(raw), out=tmp_path / "out")
    assert manifest.counts() == {"train": 3, "val": 1, "test": 2}
    assert Manifest.read(tmp_path / "out", TASK) == manifest
    for case in manifest.cases:
        for file in case.files.values():
            assert sha256(tmp_path / "out" / file.path) == file.sha256
    tests = {case.name for case in manifest.cases if case.split == "test"}
    assert tests == {path.stem for path in (raw / "singlecoil_val").iterdir()}


def test_generated_files_are_known_by_their_content_or_declared(tiny: Config, raw: Path, tmp_path: Path) -> None:
    # Beside demo data under another name, changed: as if a scan of somebody's lay there.
    (first, *_) = sorted((raw / "singlecoil_train").iterdir())
    with h5py.File(first, "r+") as file:
        file.attrs["patient_id"] = "somebody"
    manifest = ingest(tiny, TASK, source=str(raw), out=tmp_path / "out")
    marks = {case.name: case.details["generated"] for case in manifest.cases}
    assert [name for name, mark in marks.items() if not mark] == [first.stem]
    assert (manifest.generated("train", "val"), manifest.generated("test")) == ("some", "all")
    older = replace(manifest, cases=[replace(manifest.cases[0], details={}), *manifest.cases[1:]])
    assert older.generated(manifest.cases[0].split) == "unknown"
    (raw / RECORD).unlink()
    copied = ingest(tiny, TASK, source=str(raw), out=tmp_path / "out")
    assert copied.generated("train", "val", "test") == "none"
    assert copied.fingerprint() == manifest.fingerprint()
    section = tiny.reconstruction.ingest.model_copy(update={"generated": True})
    told = tiny.model_copy(update={TASK: tiny.reconstruction.model_copy(update={"ingest": section})})
    assert ingest(told, TASK, source=str(raw), out=tmp_path / "out").generated("train", "val", "test") == "all"


def test_again_changes_nothing(tiny: Config, raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = ingest(tiny, TASK, source=str(raw), out=out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.h5")}
    assert ingest(tiny, TASK, source=str(raw), out=out) == first
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.h5")} == before


def test_copies_of_files_that_left_the_source_go_and_others_stay(tiny: Config, raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = ingest(tiny, TASK, source=str(raw), out=out)
    gone = next(case for case in first.cases if case.split == "train").files["kspace"].path
    next(raw.rglob(Path(gone).name)).unlink()
    mine = out / "train" / "mine.h5"
    mine.write_text("somebody's own")
    manifest = ingest(tiny, TASK, source=str(raw), out=out)
    assert not (out / gone).exists()
    assert len(manifest.cases) == len(first.cases) - 1
    assert mine.read_text() == "somebody's own"
    # It would be trained on, though, if nobody asked.
    with pytest.raises(BadDataError, match=r"mine\.h5: not in manifest\.json"):
        manifest.verify(out)


def test_every_bad_file_is_in_one_report_and_nothing_is_written(tiny: Config, raw: Path, tmp_path: Path) -> None:
    train = sorted((raw / "singlecoil_train").iterdir())
    train[0].write_bytes(train[0].read_bytes()[:1000])
    train[1].write_bytes(b"")
    with pytest.raises(BadDataError) as caught:
        ingest(tiny, TASK, source=str(raw), out=tmp_path / "out")
    assert f"singlecoil_train/{train[0].name}" in str(caught.value)
    assert f"singlecoil_train/{train[1].name}" in str(caught.value)
    assert "quarantine" in str(caught.value)
    assert not (tmp_path / "out").exists()
    report = json.loads((tmp_path / "out-bad-files.json").read_text())
    assert {bad["file"] for bad in report["bad_files"]} == {f"singlecoil_train/{path.name}" for path in train[:2]}


@pytest.mark.parametrize("relative", [True, False])
def test_quarantine_goes_on_without_bad_files_and_says_so(
    tiny: Config, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: bool
) -> None:
    bad = sorted((raw / "singlecoil_train").iterdir())[0]
    bad.write_bytes(b"no HDF5 at all")
    monkeypatch.chdir(tmp_path)
    source = raw.name if relative else str(raw)
    manifest = ingest(quarantining(tiny), TASK, source=source, out=tmp_path / "out")
    assert len(manifest.cases) == 5
    assert [entry["file"] for entry in manifest.rejected] == [f"singlecoil_train/{bad.name}"]


def test_only_bad_files_is_an_error_whatever_the_policy(tiny: Config, raw: Path, tmp_path: Path) -> None:
    for path in raw.rglob("*.h5"):
        path.write_bytes(b"")
    with pytest.raises(BadDataError, match="no case can be used"):
        ingest(quarantining(tiny), TASK, source=str(raw), out=tmp_path / "out")


def test_a_patient_in_folders_of_two_splits_is_refused(tiny: Config, raw: Path, tmp_path: Path) -> None:
    source = sorted((raw / "singlecoil_val").iterdir())[0]
    shutil.copy(source, raw / "singlecoil_train" / "copy.h5")
    with pytest.raises(BadDataError, match="one split only"):
        ingest(tiny, TASK, source=str(raw), out=tmp_path / "out")


def test_one_scan_under_two_names_in_two_splits_is_refused(tiny: Config, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    section = tiny.segmentation.model_copy(update={"source": str(raw)})
    demo_data(tiny.model_copy(update={"segmentation": section}), "segmentation", out=raw)
    for number in range(20, 40):
        for role in ("volume", "segmentation"):
            shutil.copy(raw / f"{role}-0.nii.gz", raw / f"{role}-{number}.nii.gz")
    with pytest.raises(BadDataError, match="have the same content"):
        ingest(tiny, "segmentation", source=str(raw), out=tmp_path / "out")


def test_leaks_are_found_before_anything_is_copied(tiny: Config, tmp_path: Path) -> None:
    raw, config = segmentation_source(tiny, tmp_path, folds=2)
    cases = ingest(config, "segmentation", source=str(raw), out=tmp_path / "good").cases
    one, other = (next(case.name for case in cases if case.split == split) for split in ("train", "val"))
    # The same voxels under another name: a training case now and in the other fold a validation case.
    for role in ("volume", "segmentation"):
        shutil.copy(
            raw / f"{role}-{one.removeprefix('volume-')}.nii.gz", raw / f"{role}-{other.removeprefix('volume-')}.nii.gz"
        )
    with pytest.raises(BadDataError, match="have the same content"):
        ingest(config, "segmentation", source=str(raw), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def segmentation_source(tiny: Config, folder: Path, **ingest_settings: int) -> tuple[Path, Config]:
    raw = folder / "raw"
    policy = tiny.segmentation.ingest.model_copy(update=ingest_settings)
    section = tiny.segmentation.model_copy(update={"source": str(raw), "ingest": policy})
    config = tiny.model_copy(update={"segmentation": section})
    demo_data(config, "segmentation", out=raw)
    return raw, config


@pytest.mark.parametrize("fold", [0, 1])
def test_splits_and_folds_are_saved(tiny: Config, tmp_path: Path, fold: int) -> None:
    raw, config = segmentation_source(tiny, tmp_path, folds=2, fold=fold)
    manifest = ingest(config, "segmentation", source=str(raw), out=tmp_path / "out")
    saved = json.loads((tmp_path / "out" / SPLIT_FILE).read_text())
    for split in SPLITS:
        assert saved[split] == sorted(case.name for case in manifest.cases if case.split == split)
        assert saved[split] == saved["folds"][fold][split]
    validated = [name for folding in saved["folds"] for name in folding["val"]]
    assert sorted(validated) == sorted(saved["train"] + saved["val"])
    assert (saved["seed"], len(saved["folds"])) == (tiny.seed, 2)


def test_a_missing_source_is_named(tiny: Config, tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match="no such folder"):
        ingest(tiny, TASK, source=str(tmp_path / "nowhere"), out=tmp_path / "out")


def test_only_new_or_changed_files_are_read_again(
    tiny: Config, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    check = ReconstructionSource.check_case
    monkeypatch.setattr(
        ReconstructionSource, "check_case", lambda task, case: read.append(case.name) or check(task, case)
    )
    first = ingest(tiny, TASK, source=str(raw), out=tmp_path / "out")
    assert len(read) == 6
    read.clear()
    assert ingest(tiny, TASK, source=str(raw), out=tmp_path / "out") == first
    assert read == []
    # Same size, other content: the time of modification tells.
    path = sorted((raw / "singlecoil_val").iterdir())[0]
    path.write_bytes(path.read_bytes())
    ingest(tiny, TASK, source=str(raw), out=tmp_path / "out")
    assert read == [path.stem]
    # Keys of patients made with another secret are other keys.
    read.clear()
    monkeypatch.setenv("CONDSWIN_PATIENT_KEY", "secret")
    second = ingest(tiny, TASK, source=str(raw), out=tmp_path / "out")
    assert len(read) == 6
    assert not {case.patient for case in first.cases} & {case.patient for case in second.cases}


def test_a_file_that_is_replaced_while_it_is_checked_is_read_again(
    tiny: Config, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sorted((raw / "singlecoil_val").iterdir())[0]
    read: list[str] = []
    check = ReconstructionSource.check_case

    def replacing(task: ReconstructionSource, case: Case) -> CaseInfo:
        found = check(task, case)
        if case.name == path.stem and len(read) < 6:
            path.with_suffix(".new").write_bytes(path.read_bytes())
            path.with_suffix(".new").replace(path)
        read.append(case.name)
        return found

    monkeypatch.setattr(ReconstructionSource, "check_case", replacing)
    for _ in range(2):
        ingest(tiny, TASK, source=str(raw), out=tmp_path / "out")
    assert read[6:] == [path.stem]

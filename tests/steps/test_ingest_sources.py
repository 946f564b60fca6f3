"""Sources as people have them: links, whole downloads, placeholders, full disks."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from condswin.config.root import Config
from condswin.errors import BadDataError, OutputError
from condswin.manifest import Manifest
from condswin.mri.source import ReconstructionSource
from condswin.steps.demo_data import demo_data
from condswin.steps.ingest import ingest
from condswin.steps.prepare import prepare

TASK = "reconstruction"
Writer = Callable[..., Path]


def with_ingest(config: Config, **settings: object) -> Config:
    policy = config.reconstruction.ingest.model_copy(update=settings)
    return config.model_copy(update={TASK: config.reconstruction.model_copy(update={"ingest": policy})})


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """Writes a sound scan of one small slice, different for each number."""

    def written(path: str, number: int, patient: str | None = "", **datasets: object) -> Path:
        draw = np.random.default_rng(number)
        kspace = draw.standard_normal((1, 32, 24, 2)).astype(np.float32).view(np.complex64)[..., 0]
        image = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes=(1, 2)), norm="ortho"), axes=(1, 2))
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(file, "w") as opened:
            opened["kspace"] = kspace
            if "mask" not in datasets:
                opened["reconstruction_esc"] = np.abs(image[:, 8:24, 4:20]).astype(np.float32)
            for name, values in datasets.items():
                opened[name] = values
            if patient is not None:
                opened.attrs["patient_id"] = patient or f"p{number}"
        return file

    return written


def names(manifest: Manifest) -> dict[str, list[str]]:
    return {split: sorted(case.name for case in manifest.cases if case.split == split) for split in manifest.counts()}


def download(write: Writer, part: str) -> None:
    """A fastMRI download: what is not for training or validation cannot be ingested, and names repeat."""
    for number in range(4):
        write(f"raw/{part}/singlecoil_train/file{number}.h5", number)
        write(f"raw/{part}/multicoil_train/file{number}.h5", number + 50)
    for number in range(4, 6):
        write(f"raw/{part}/singlecoil_val/file{number}.h5", number)
        write(f"raw/{part}/multicoil_val/file{number}.h5", number + 50)
        write(f"raw/{part}/singlecoil_test/file{number}.h5", number + 80, mask=np.arange(24) % 4 == 0)


def test_a_whole_download_is_used_by_configuration_alone(
    tiny: Config, write: Writer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    download(write, "")
    manifest = ingest(tiny, TASK, source=str(tmp_path / "raw"), out=tmp_path / "out")
    assert names(manifest)["test"] == ["file4", "file5"]
    assert manifest.counts() == {"train": 3, "val": 1, "test": 2}
    aside = {"not in reconstruction.ingest.folders": 8}
    assert {reason: len(paths) for reason, paths in manifest.skipped.items()} == aside
    assert Manifest.read(tmp_path / "out", TASK) == manifest
    said = capfd.readouterr().err
    assert "skipped 8 files: 8 not in reconstruction.ingest.folders (multicoil_train/, multicoil_val/, " in said


def test_knee_and_brain_in_one_place_are_told_by_their_folders(tiny: Config, write: Writer, tmp_path: Path) -> None:
    download(write, "knee")
    download(write, "brain")
    with pytest.raises(BadDataError, match=r"two files of one name, .* let reconstruction\.ingest\.folders name"):
        ingest(tiny, TASK, source=str(tmp_path / "raw"), out=tmp_path / "out")
    folders = {"train": "brain/multicoil_train", "test": "brain/multicoil_val"}
    manifest = ingest(with_ingest(tiny, folders=folders), TASK, source=str(tmp_path / "raw"), out=tmp_path / "out")
    assert names(manifest)["test"] == ["file4", "file5"]
    copy = next(case for case in manifest.cases if case.name == "file4").files["kspace"].path
    assert (tmp_path / "out" / copy).read_bytes() == (tmp_path / "raw/brain/multicoil_val/file4.h5").read_bytes()


def test_folders_that_are_not_there_are_said(
    tiny: Config, write: Writer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        write(f"raw/singlecoil_train/{number}.h5", number)
    ingest(tiny, TASK, source=str(tmp_path / "raw"), out=tmp_path / "out")
    said = capfd.readouterr().err
    assert "no files in singlecoil_val (reconstruction.ingest.folders): test drawn by patient\n" in said
    ingest(tiny, TASK, source=str(tmp_path / "raw/singlecoil_train"), out=tmp_path / "out2")
    said = capfd.readouterr().err
    assert "no files in singlecoil_train, singlecoil_val (reconstruction.ingest.folders): all splits drawn" in said
    (tmp_path / "raw/singlecoil_train").rename(tmp_path / "raw/singlecoil_val")
    ingest(tiny, TASK, source=str(tmp_path / "raw"), out=tmp_path / "out3")
    said = capfd.readouterr().err
    assert "no files in singlecoil_train (reconstruction.ingest.folders)\n" in said
    assert "warning: no train and no val cases: 4 cases of 4 patients" in said


@pytest.mark.parametrize("folders", [{}, {"train": "t", "test": "v"}])
def test_one_placeholder_for_all_patients_is_named(
    tiny: Config, write: Writer, tmp_path: Path, folders: dict[str, str]
) -> None:
    for number in range(6):
        write(f"raw/{'t' if number < 4 else 'v'}/{number}.h5", number, "SECRET")
    config = with_ingest(tiny, folders=folders)
    with pytest.raises(BadDataError, match="6 of 6 files have the same patient_id attribute") as caught:
        ingest(config, TASK, source=str(tmp_path / "raw"), out=tmp_path / "out")
    assert "SECRET" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    config = with_ingest(config, split_by="file")
    manifest = ingest(config, TASK, source=str(tmp_path / "raw"), out=tmp_path / "out")
    assert all(manifest.counts().values())
    assert len({case.patient for case in manifest.cases}) == 6


def test_files_without_an_identifier_are_people_of_their_own_and_that_is_said(
    tiny: Config, write: Writer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(5):
        write(f"raw/{number}.h5", number, [None, " "][number] if number < 2 else f"p{number}")
    manifest = ingest(with_ingest(tiny, folders={}), TASK, source=str(tmp_path / "raw"), out=tmp_path / "out")
    assert len({case.patient for case in manifest.cases}) == 5
    unnamed = [case for case in manifest.cases if case.details["patient_from"] == "file name"]
    assert [case.name for case in unnamed] == ["0", "1"]
    said = capfd.readouterr().err.splitlines()
    assert "assumed for 5 cases: no acquisition attribute: counted as unknown" in said
    assert "assumed for 2 cases: no patient's identifier: the file counts as a patient of its own" in said
    sentences = {case.name: len(case.details["assumed"]) for case in manifest.cases}
    assert sentences == {"0": 2, "1": 2, "2": 1, "3": 1, "4": 1}


def test_linked_files_and_folders_are_found_once(
    tiny: Config, write: Writer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(5):
        write(f"disk/{number}.H5", number)
    write("raw/singlecoil_val/7.h5", 7)
    (tmp_path / "raw/singlecoil_train").symlink_to(tmp_path / "disk")
    # The same scan beside itself, by two kinds of link.
    (tmp_path / "disk/alias.h5").symlink_to(tmp_path / "disk/2.H5")
    (tmp_path / "disk/zhard.h5").hardlink_to(tmp_path / "disk/3.H5")
    manifest = ingest(tiny, TASK, source=str(tmp_path / "raw"), out=tmp_path / "out")
    assert sorted(case.name for case in manifest.cases) == ["0", "1", "2", "3", "4", "7"]
    expected = ["singlecoil_train/alias.h5", "singlecoil_train/zhard.h5"]
    assert manifest.skipped == {"linked to what is read already": expected}
    assert "links lead to 1 of 3 folders, where DVC sees no change" in capfd.readouterr().err
    copies = [tmp_path / "out" / case.files["kspace"].path for case in manifest.cases]
    assert not any(path.is_symlink() for path in copies)


def test_a_training_file_linked_into_the_test_folder_is_refused(tiny: Config, write: Writer, tmp_path: Path) -> None:
    for number in range(4):
        write(f"raw/singlecoil_train/{number}.h5", number, None)
    (tmp_path / "raw/singlecoil_val").mkdir()
    (tmp_path / "raw/singlecoil_val/other.h5").symlink_to(tmp_path / "raw/singlecoil_train/2.h5")
    with pytest.raises(BadDataError, match=r"2 \(\w+\) and other \(test\) have the same content"):
        ingest(tiny, TASK, source=str(tmp_path / "raw"), out=tmp_path / "out")


@pytest.mark.parametrize("halves", ["both", "image only", "stored elsewhere"])
def test_a_ct_scan_by_two_names_is_one_case(tiny: Config, tmp_path: Path, halves: str) -> None:
    raw = tmp_path / "raw"
    section = tiny.segmentation.model_copy(update={"source": str(raw)})
    demo_data(tiny.model_copy(update={"segmentation": section}), "segmentation", out=raw)
    for role in ("volume", "segmentation") if halves == "both" else ("volume",):
        (raw / f"{role}-0a.nii.gz").symlink_to(f"{role}-0.nii.gz")
    if halves == "stored elsewhere":
        # No name is the file's own; the one with a segmentation is the case, although it comes later.
        (raw / "volume-0.nii.gz").rename(tmp_path / "scan.nii.gz")
        (raw / "volume-0.nii.gz").symlink_to(tmp_path / "scan.nii.gz")
        (raw / "volume-0a.nii.gz").rename(raw / "volume-00.nii.gz")
        (raw / "segmentation-0.nii.gz").rename(raw / "segmentation-00.nii.gz")
    manifest = ingest(tiny, "segmentation", source=str(raw), out=tmp_path / "out")
    kept, passed_over = ("00", "0") if halves == "stored elsewhere" else ("0", "0a")
    assert [case.name for case in manifest.cases] == [f"volume-{number}" for number in (kept, 1, 2, 3, 4)]
    assert {path for paths in manifest.skipped.values() for path in paths} >= {f"volume-{passed_over}.nii.gz"}


@pytest.mark.parametrize("policy", ["fail", "quarantine"])
def test_a_link_that_leads_nowhere_is_a_bad_file(tiny: Config, write: Writer, tmp_path: Path, policy: str) -> None:
    for number in range(5):
        write(f"raw/{number}.h5", number)
    (tmp_path / "raw/9.h5").symlink_to("/unmounted/9.h5")
    config = with_ingest(tiny, on_bad_file=policy)
    if policy == "fail":
        with pytest.raises(BadDataError, match=r"9\.h5: a link that leads nowhere"):
            ingest(config, TASK, source=str(tmp_path / "raw"), out=tmp_path / "out")
    else:
        manifest = ingest(config, TASK, source=str(tmp_path / "raw"), out=tmp_path / "out")
        assert manifest.rejected == [{"file": "9.h5", "reason": "a link that leads nowhere"}]


def test_results_are_not_written_where_links_lead(tiny: Config, write: Writer, tmp_path: Path) -> None:
    for number in range(5):
        write(f"disk/train/{number}.h5", number)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/linked").symlink_to(tmp_path / "disk")
    for place in ("disk/out", "disk/train/out", "raw/linked/out", "disk"):
        with pytest.raises(OutputError, match=r"lies in the source|holds the input|is the input"):
            ingest(tiny, TASK, source=str(tmp_path / "raw"), out=tmp_path / place, overwrite=True)
    # Above a linked file, a copy could take the place of the original.
    (tmp_path / "files").mkdir()
    for number in range(5):
        (tmp_path / f"files/{number}.h5").symlink_to(tmp_path / f"disk/train/{number}.h5")
    with pytest.raises(OutputError, match="holds the input"):
        ingest(tiny, TASK, source=str(tmp_path / "files"), out=tmp_path / "disk", overwrite=True)
    assert sorted(path.name for path in (tmp_path / "disk").rglob("*")) == sorted(
        ["train", *(f"{n}.h5" for n in range(5))]
    )


def test_only_what_decides_a_check_makes_files_be_read_again(
    tiny: Config, write: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        write(f"disk/{number}.h5", number)
        (tmp_path / "raw").mkdir(exist_ok=True)
        (tmp_path / f"raw/{number}.h5").symlink_to(tmp_path / f"disk/{number}.h5")
    read: list[str] = []
    check = ReconstructionSource.check_case
    monkeypatch.setattr(
        ReconstructionSource, "check_case", lambda task, case: read.append(case.name) or check(task, case)
    )

    def again(**settings: object) -> list[str]:
        read.clear()
        ingest(with_ingest(tiny, **settings), TASK, source=str(tmp_path / "raw"), out=tmp_path / "out")
        return sorted(read)

    assert again() == ["0", "1", "2", "3", "4"]
    assert again(copy=False) == again(split_by="file") == again(folders={}) == again(val_fraction=0.3) == []
    assert len(again(multicoil="combine")) == 5
    assert again(multicoil="combine") == []
    # The link stays as it is, what it leads to does not.
    write("disk/1.h5", 11)
    write("disk/other.h5", 12)
    (tmp_path / "raw/2.h5").unlink()
    (tmp_path / "raw/2.h5").symlink_to(tmp_path / "disk/other.h5")
    assert again(multicoil="combine") == ["1", "2"]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A disk of which a test says how much is free."""
    state = SimpleNamespace(total=10**9, free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: (state.total, 0, state.free))
    return state


def test_what_does_not_fit_is_refused_before_anything_is_read(
    tiny: Config,
    write: Writer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    disk: SimpleNamespace,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for number in range(5):
        write(f"raw/{number}.h5", number, padding=np.zeros(250_000, np.float32))
    size = sum(path.stat().st_size for path in (tmp_path / "raw").iterdir())
    disk.free = size - 1
    with monkeypatch.context() as patched:
        patched.setattr(ReconstructionSource, "check_case", None)
        with pytest.raises(
            OutputError, match=r"needs 5\.1 MB, 5\.1 MB are free .*reconstruction\.ingest\.copy to false"
        ):
            ingest(tiny, TASK, source=str(tmp_path / "raw"), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    disk.free = size
    manifest = ingest(tiny, TASK, source=str(tmp_path / "raw"), out=tmp_path / "out")
    assert "ingest reconstruction: 5.1 MB to write, 5.1 MB free" in capfd.readouterr().err
    # Copies that are there need no more, whatever split they move to; originals need nothing at all.
    disk.free = 0
    again = ingest(tiny.model_copy(update={"seed": 99}), TASK, source=str(tmp_path / "raw"), out=tmp_path / "out")
    assert names(again) != names(manifest)
    ingest(with_ingest(tiny, copy=False), TASK, source=str(tmp_path / "raw"), out=tmp_path / "left")
    write("raw/5.h5", 5)
    with pytest.raises(OutputError, match=r"needs 0\.\d MB, 0\.0 MB are free"):
        ingest(tiny, TASK, source=str(tmp_path / "raw"), out=tmp_path / "out")
    # A file system that tells nothing of its size.
    disk.total = 0
    ingest(tiny, TASK, source=str(tmp_path / "raw"), out=tmp_path / "out")


def test_preparing_says_what_it_needs_and_refuses_what_does_not_fit(
    tiny: Config, write: Writer, tmp_path: Path, disk: SimpleNamespace, capfd: pytest.CaptureFixture[str]
) -> None:
    disk.free = 10**9
    for number in range(5):
        write(f"raw/{number}.h5", number)
    ingest(tiny, TASK, source=str(tmp_path / "raw"), out=tmp_path / "out")
    # Complex k-space and images of four bytes: one, or two where k-space is masked.
    counts = Manifest.read(tmp_path / "out", TASK).counts()
    needed = 5 * 32 * 24 * 8 + 16 * 16 * 4 * (counts["train"] + 2 * (counts["val"] + counts["test"]))
    disk.free = needed - 1
    with pytest.raises(OutputError, match=r"prepare reconstruction needs 0\.0 MB"):
        prepare(tiny, TASK, ingested=tmp_path / "out", out=tmp_path / "prepared")
    assert not (tmp_path / "prepared").exists()
    disk.free = needed
    capfd.readouterr()
    prepare(tiny, TASK, ingested=tmp_path / "out", out=tmp_path / "prepared")
    assert "prepare reconstruction: 0.0 MB to write" in capfd.readouterr().err
    # What is there is replaced, which needs no more.
    disk.free = 0
    other = tiny.reconstruction.undersample.model_copy(update={"accelerations": [3]})
    changed = tiny.model_copy(update={TASK: tiny.reconstruction.model_copy(update={"undersample": other})})
    assert prepare(changed, TASK, ingested=tmp_path / "out", out=tmp_path / "prepared") is not None
    next((tmp_path / "prepared/train").iterdir()).write_bytes(b"damaged")
    with pytest.raises(OutputError):
        prepare(tiny, TASK, ingested=tmp_path / "out", out=tmp_path / "prepared")


def test_a_disk_that_fills_up_ends_in_one_line_and_no_half_file(
    tiny: Config, write: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        write(f"raw/{number}.h5", number)
    with monkeypatch.context() as patched:

        def full(*arguments: object) -> None:
            raise OSError(28, "No space left on device")

        patched.setattr(os, "fsync", full)
        patched.setattr("condswin.steps.ingest.check_file", lambda path: None)
        patched.setattr("condswin.steps.ingest.CheckCache.write", lambda cache: None)
        patched.setattr("condswin.outputs.write_json", lambda path, values: None)
        with pytest.raises(OutputError, match=r"cannot be copied from .*\(No space left on device\)"):
            ingest(tiny, TASK, source=str(tmp_path / "raw"), out=tmp_path / "out")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]

import os
from pathlib import Path

import pytest

from condswin.config.task import IngestConfig
from condswin.errors import BadDataError
from condswin.listing import HIDDEN, IRREGULAR, LINKED, UNREADABLE, Listing, list_files, summary

FOLDERS = IngestConfig(folders={"train": "train", "test": "test"})


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def listed(source: Path, policy: IngestConfig | None = None) -> Listing:
    return list_files(source, (".h5", ".nii.gz"), policy or IngestConfig())


def names(source: Path, policy: IngestConfig | None = None) -> list[str]:
    listing = listed(source, policy)
    return [listing.name(path) for path in listing.files]


def test_what_is_passed_over_is_counted_by_reason(tmp_path: Path) -> None:
    touch(tmp_path, "a/b/1.h5", "2.H5", "Volume.Nii.GZ", "a/._1.h5", ".cache/3.h5", "README.md", "x.nii")
    touch(tmp_path, "a/.condswin.json")
    os.mkfifo(tmp_path / "pipe.h5")
    listing = listed(tmp_path)
    assert [listing.name(path) for path in listing.files] == ["2.H5", "Volume.Nii.GZ", "a/b/1.h5"]
    # condswin's own record of a folder is nobody's file.
    assert listing.skipped == {
        HIDDEN: [".cache", "a/._1.h5"],
        "not .h5 or .nii.gz": ["README.md", "x.nii"],
        IRREGULAR: ["pipe.h5"],
    }


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path, "disk/deep/1.h5", "disk/2.h5", "source/3.h5")
    link(tmp_path / "source/linked", tmp_path / "disk")
    link(tmp_path / "source/4.h5", tmp_path / "disk/2.h5")
    link(tmp_path / "disk/deep/loop", tmp_path / "disk")
    link(tmp_path / "disk/deep/top", tmp_path / "source")
    link(tmp_path / "source/itself", Path("itself"))
    with pytest.raises(BadDataError, match=r"itself: a link that leads nowhere \(Too many levels"):
        names(tmp_path / "source")
    (tmp_path / "source/itself").unlink()
    assert names(tmp_path / "source") == ["3.h5", "4.h5", "linked/2.h5", "linked/deep/1.h5"]
    # The source may be a link itself.
    link(tmp_path / "door", tmp_path / "source")
    assert names(tmp_path / "door") == ["3.h5", "4.h5", "linked/2.h5", "linked/deep/1.h5"]
    assert [path.name for path in listed(tmp_path / "door").read] == ["source", "disk", "deep"]


def test_folders_that_all_link_to_each_other_are_read_once(tmp_path: Path) -> None:
    """By paths there would be 12! of them."""
    for number in range(12):
        touch(tmp_path, f"{number}/{number}.h5")
        for other in range(12):
            link(tmp_path / f"{number}/to{other}", tmp_path / f"{other}")
    assert len(names(tmp_path)) == 12


@pytest.mark.parametrize("hard", [False, True])
def test_one_file_by_two_paths_is_one_file_where_it_really_lies(tmp_path: Path, hard: bool) -> None:
    touch(tmp_path, "zoo/1.h5", "zoo/2.h5")
    link(tmp_path / "a", tmp_path / "zoo")
    (tmp_path / "all").mkdir()
    if hard:
        (tmp_path / "zoo1").mkdir()
        (tmp_path / "zoo1/1.h5").hardlink_to(tmp_path / "zoo/1.h5")
    else:
        link(tmp_path / "all/1.h5", tmp_path / "zoo/1.h5")
    listing = listed(tmp_path)
    assert [listing.name(path) for path in listing.files] == ["zoo/1.h5", "zoo/2.h5"]
    assert listing.skipped == {LINKED: ["a", "zoo1/1.h5" if hard else "all/1.h5"]}


def test_files_of_equal_content_may_be_stored_once_and_be_two(tmp_path: Path) -> None:
    """As DVC's cache does by links: empty segmentations of two cases, say."""
    touch(tmp_path, "cache/ab12")
    for number in range(2):
        link(tmp_path / f"source/{number}.h5", tmp_path / "cache/ab12")
    assert names(tmp_path / "source") == ["0.h5", "1.h5"]


@pytest.mark.parametrize("store", ["aa/store", "zz/store", "../elsewhere"])
def test_a_named_folder_may_be_a_link_wherever_it_leads(tmp_path: Path, store: str) -> None:
    source = tmp_path / "source"
    touch(source, f"{store}/1.h5", "test/2.h5", "other/3.h5")
    link(source / "deep/train", source / store)
    listing = listed(source, FOLDERS)
    assert [listing.name(path) for path in listing.files] == ["deep/train/1.h5", "test/2.h5"]
    assert [listing.name(path) for path in listing.outside] == ["other/3.h5"]


def test_a_loop_makes_no_other_folder_a_named_one(tmp_path: Path) -> None:
    touch(tmp_path, "train/1.h5", "other/2.h5")
    link(tmp_path / "train/loop", tmp_path)
    listing = listed(tmp_path, FOLDERS)
    assert [listing.name(path) for path in listing.files] == ["train/1.h5"]
    assert listing.skipped == {LINKED: ["train/loop"]}


@pytest.mark.parametrize("folder", [True, False])
def test_the_same_in_folders_of_two_splits_is_refused(tmp_path: Path, folder: bool) -> None:
    touch(tmp_path, "train/1.h5", "train/2.h5")
    if folder:
        link(tmp_path / "test", tmp_path / "train")
    else:
        link(tmp_path / "test/1.h5", tmp_path / "train/1.h5")
    with pytest.raises(BadDataError, match="the folders of two splits") as caught:
        listed(tmp_path, FOLDERS)
    assert "/test" in str(caught.value)
    assert "/train" in str(caught.value)


def test_named_folders_close_the_source_only_if_one_is_for_training(tmp_path: Path) -> None:
    touch(tmp_path, "test/1.h5", "other/2.h5", "3.h5")
    assert names(tmp_path, IngestConfig(folders={"test": "test"})) == ["3.h5", "other/2.h5", "test/1.h5"]
    assert names(tmp_path, IngestConfig(folders={"train": "absent"})) == ["3.h5", "other/2.h5", "test/1.h5"]
    # `.` is the source: what no longer name claims.
    assert names(tmp_path, IngestConfig(folders={"train": ".", "test": "test"})) == ["3.h5", "other/2.h5", "test/1.h5"]
    assert names(tmp_path, FOLDERS) == ["test/1.h5"]


def test_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "1.h5")
    link(tmp_path / "batch 2", tmp_path / "unmounted")
    with pytest.raises(BadDataError, match=r"batch 2: a link that leads nowhere \(No such file or directory\)"):
        listed(tmp_path)
    (tmp_path / "batch 2").unlink()
    # An editor's lock is hidden; a link to a file that is wanted is a case, which is checked like any other.
    link(tmp_path / ".#1.h5", tmp_path / "nobody@nowhere")
    link(tmp_path / "2.h5", tmp_path / "unmounted.h5")
    assert names(tmp_path) == ["1.h5", "2.h5"]


def test_folders_that_cannot_be_read_are_named_where_they_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "train/1.h5", "other/2.h5", "test/3.h5")
    scandir = os.scandir

    def denied(folder: Path) -> object:
        if Path(folder).name == "other":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(BadDataError, match="other: Permission denied"):
        listed(tmp_path)
    # Nothing of it is wanted if all folders that are named were found elsewhere.
    assert listed(tmp_path, FOLDERS).skipped == {UNREADABLE: ["other"]}
    with pytest.raises(BadDataError, match="other: Permission denied"):
        listed(tmp_path, IngestConfig(folders={"train": "train", "test": "singlecoil_val"}))


def test_summary_names_few_and_counts_many() -> None:
    assert summary({}) == summary({HIDDEN: []}) == ""
    assert summary({HIDDEN: ["a/.x"]}) == "1 file: 1 hidden (a/.x)"
    many = {"not wanted": [f"{folder}/{number}.h5" for folder in "abcde" for number in range(2)], HIDDEN: [".a", ".b"]}
    assert summary(many) == "12 files: 10 not wanted (a/, b/, c/ and 2 more), 2 hidden (.a, .b)"
    # Names are others' texts.
    assert summary({HIDDEN: ["\x1b[2J.a\n", "\udcff"]}) == "2 files: 2 hidden (\\x1b[2J.a\\n, \\udcff)"

"""Nothing that somebody else made is written over or removed, and what is ours is replaced and removed as recorded."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from condswin.errors import OutputError
from condswin.outputs import RECORD, check_file, check_output, open_output, refuse_equal, remove_output, write_result


def write(folder: Path, names: list[str], *, key: str = "k", content: str = "ours", **options: bool) -> None:
    output = open_output(folder, step="test", inputs=[], **options)
    output.claim(names)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    output.finish(names, {"key": key})


def tree(folder: Path) -> dict[str, str]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(RECORD))
    return {str(path.relative_to(folder)): path.read_text() for path in paths}


def test_a_second_run_removes_what_the_first_wrote_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    write(out, ["a", "deep/er/b"])
    (out / "deep" / "mine").write_text("mine")
    write(out, ["c"])
    assert tree(out) == {"c": "ours", "deep/mine": "mine"}
    assert not (out / "deep" / "er").exists()


def test_a_file_of_ours_that_somebody_changed_is_not_removed(tmp_path: Path) -> None:
    write(tmp_path, ["a", "b"])
    (tmp_path / "a").write_text("notes of an afternoon")
    write(tmp_path, ["c"])
    assert tree(tmp_path) == {"a": "notes of an afternoon", "c": "ours"}


def test_what_a_killed_run_left_is_ours(tmp_path: Path) -> None:
    output = open_output(tmp_path, step="test", inputs=[])
    output.claim(["a", "b"])
    (tmp_path / "a").write_text("half")  # and here it was killed
    again = open_output(tmp_path, step="test", inputs=[])
    assert not again.is_current({"key": "k"})
    write(tmp_path, ["b", "c"])
    assert tree(tmp_path) == {"b": "ours", "c": "ours"}


def test_results_are_current_only_if_whole_and_of_the_same_key(tmp_path: Path) -> None:
    def current(key: str) -> bool:
        return open_output(tmp_path, step="test", inputs=[]).is_current({"key": key})

    write(tmp_path, ["a"])
    assert current("k")
    assert not current("other")
    before = (tmp_path / "a").stat()
    (tmp_path / "a").write_text("OURS")
    os.utime(tmp_path / "a", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert not current("k"), "equal size, other content"
    (tmp_path / "a").unlink()
    assert not current("k")


@pytest.mark.parametrize("place", ["in", ".", "in/..", "in/deep/../../in"])
def test_folders_at_or_above_an_input_are_refused(tmp_path: Path, place: str) -> None:
    source = tmp_path / "in" / "deep"
    source.mkdir(parents=True)
    (source / "scan.h5").write_text("scan")
    for given_input in (source, source / "scan.h5"):
        with pytest.raises(OutputError, match="holds the input"):
            open_output(tmp_path / place, step="test", inputs=[given_input], overwrite=True)
    with pytest.raises(OutputError, match="is the input"):
        open_output(source, step="test", inputs=[source], overwrite=True)
    assert tree(tmp_path) == {"in/deep/scan.h5": "scan"}
    assert not list(tmp_path.rglob(RECORD))


def test_a_link_to_an_input_is_the_input(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "in")
    with pytest.raises(OutputError, match="is the input"):
        check_output(tmp_path / "out", step="test", inputs=[tmp_path / "in"])


def test_a_folder_with_other_things_is_refused_by_their_names(tmp_path: Path) -> None:
    for name in ("thesis.tex", "code", "a", "b"):
        (tmp_path / name).write_text("years of work")
    with pytest.raises(OutputError, match=r"holds a, b, code and 1 more, not written by condswin test"):
        open_output(tmp_path, step="test", inputs=[])
    assert not (tmp_path / RECORD).exists()


def test_overwrite_writes_beside_them_and_replaces_equal_names_only(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "a").write_text("an older result")
    write(tmp_path, ["a"], overwrite=True)
    assert tree(tmp_path) == {"a": "ours", "thesis.tex": "years of work"}
    write(tmp_path, ["b"])
    assert tree(tmp_path) == {"b": "ours", "thesis.tex": "years of work"}
    (tmp_path / "c").write_text("mine")
    with pytest.raises(OutputError, match="c is there and not what condswin test wrote"):
        write(tmp_path, ["c"])


def test_the_output_of_another_step_is_refused(tmp_path: Path) -> None:
    write(tmp_path, ["a"])
    with pytest.raises(OutputError, match="holds what condswin test wrote"):
        open_output(tmp_path, step="other", inputs=[], overwrite=True)


def test_an_input_is_never_written_over(tmp_path: Path) -> None:
    scan = tmp_path / "scan.h5"
    scan.write_text("scan")
    out = tmp_path / "out"
    out.mkdir()
    os.link(scan, out / "prediction.h5")
    output = open_output(out, step="test", inputs=[scan], overwrite=True)
    with pytest.raises(OutputError, match="is an input"):
        output.claim(["prediction.h5"])


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_unusable_places_are_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file, a folder is needed") as caught:
        check_output(tmp_path / place, step="test", inputs=[])
    assert "\n" not in str(caught.value)


def test_hidden_files_of_the_system_do_not_count(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*")
    write(tmp_path, ["a"])
    assert (tmp_path / ".gitignore").read_text() == "*"


@pytest.mark.parametrize(
    "record",
    [
        "[]",
        "{}",
        '{"format": 1, "files": 3}',
        '{"format": 1, "files": {"a": 3}}',
        "not JSON",
        '{"format": 99, "files": {}}',
    ],
)
def test_a_damaged_record_makes_nothing_ours(tmp_path: Path, record: str) -> None:
    (tmp_path / RECORD).write_text(record)
    (tmp_path / "a").write_text("mine")
    with pytest.raises(OutputError, match="holds a"):
        open_output(tmp_path, step="test", inputs=[])


@pytest.mark.parametrize("name", ["../victim", "/victim", "deep/../../victim"])
def test_a_forged_record_removes_nothing_outside(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    write(out, ["a"])
    victim = tmp_path / "victim"
    victim.write_text("x")
    record = json.loads((out / RECORD).read_text())
    record["files"][name.replace("/victim", str(victim)) if name[0] == "/" else name] = {}
    (out / RECORD).write_text(json.dumps(record))
    write(out, ["b"])
    assert victim.read_text() == "x"


def test_two_inputs_that_would_write_one_file_are_named() -> None:
    refuse_equal({Path("a/x.h5"): ["x.h5"], Path("b/y.h5"): ["y.h5"]})
    with pytest.raises(OutputError, match=r"a/x\.h5 and b/x\.h5: both would be written to x\.h5"):
        refuse_equal({Path("a/x.h5"): ["x.h5"], Path("b/x.h5"): ["x.h5"]})
    # Names that are one on some file systems.
    for one, other in (("x.h5", "X.h5"), ("\u00fc.h5", "u\u0308.h5"), ("stra\u00dfe.h5", "STRASSE.h5")):
        with pytest.raises(OutputError, match="both would be written"):
            refuse_equal({Path("a"): [one], Path("b"): [other]})


def test_names_longer_than_file_systems_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="a name of 258 bytes, 255 are possible; rename the input"):
        open_output(tmp_path / "o", step="predict", inputs=[]).claim(["x" * 255 + ".h5"])
    assert not (tmp_path / "o").exists()


def test_single_files_are_replaced_only_if_ours(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_result(path, "test", {"a": 1})
    write_result(path, "test", {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2, "written_by": "condswin test"}
    for name, content in (
        ("mine.json", '{"a": 1}'),
        ("page.html", "<html></html>"),
        ("net.pt2", "x"),
        ("empty.json", ""),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(OutputError, match="not written by condswin"):
            check_file(tmp_path / name)
        check_file(tmp_path / name, overwrite=True)
        with pytest.raises(OutputError, match="is an input"):
            check_file(tmp_path / name, inputs=[tmp_path / name], overwrite=True)
    with pytest.raises(OutputError, match="is a folder"):
        check_file(tmp_path)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sets(st.sampled_from(["a", "b", "c/d", "c/e"])), min_size=1, max_size=4),
    st.sets(st.sampled_from(["a", "b", "c/d", "mine", "c/mine"])),
)
def test_whatever_runs_follow_each_other_files_of_others_stay(
    tmp_path_factory: pytest.TempPathFactory, runs: list[set[str]], others: set[str]
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    write(folder, sorted(runs[0]))
    mine = {name for name in others if not (folder / name).exists()}
    for name in mine:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"mine {name}")
    left = set(runs[0])
    for names in runs[1:]:
        if names & mine:
            with pytest.raises(OutputError):
                write(folder, sorted(names))
        else:
            write(folder, sorted(names))
            left = names
    assert tree(folder) == {**dict.fromkeys(sorted(left), "ours"), **{name: f"mine {name}" for name in mine}}


def shared(folder: Path, names: list[str], *, killed: bool = False, overwrite: bool = False) -> None:
    output = open_output(folder, step="test", inputs=[], overwrite=overwrite, shared=True)
    output.claim(names)
    for name in names:
        (folder / name).write_text("ours")
    if not killed:
        output.finish(names)


def test_runs_that_share_a_folder_remove_nothing_of_each_other(tmp_path: Path) -> None:
    shared(tmp_path, ["a", "b"], killed=True)
    shared(tmp_path, ["c"])
    assert tree(tmp_path) == {"a": "ours", "b": "ours", "c": "ours"}
    # Two at once: the second one opens before the first has finished.
    first, second = (open_output(tmp_path, step="test", inputs=[], shared=True) for _ in range(2))
    for output, name in ((first, "d"), (second, "e")):
        output.claim([name])
        (tmp_path / name).write_text("ours")
    second.finish(["e"])
    first.finish(["d"])
    assert set(tree(tmp_path)) == {"a", "b", "c", "d", "e"}
    shared(tmp_path, ["a", "d", "e"])  # all of them are known as ours


def test_a_prediction_that_somebody_corrected_is_not_replaced(tmp_path: Path) -> None:
    shared(tmp_path, ["a"])
    shared(tmp_path, ["a"])
    (tmp_path / "a").write_text("corrected by hand")
    with pytest.raises(OutputError, match="a is there and not what condswin test wrote"):
        shared(tmp_path, ["a"])
    assert tree(tmp_path) == {"a": "corrected by hand"}
    shared(tmp_path, ["a"], overwrite=True)
    assert tree(tmp_path) == {"a": "ours"}


@pytest.mark.parametrize("killed", [False, True])
def test_a_file_that_was_to_be_replaced_and_was_not_stays(tmp_path: Path, killed: bool) -> None:
    (tmp_path / "case.png").write_text("mine")
    output = open_output(tmp_path, step="test", inputs=[], overwrite=True)
    output.claim(["case.png", "best.png"])
    (tmp_path / "best.png").write_text("ours")
    if not killed:
        output.finish(["best.png"])
    write(tmp_path, ["c"])
    assert tree(tmp_path) == {"c": "ours", "case.png": "mine"}


def test_what_an_earlier_run_left_is_gone_before_this_one_writes(tmp_path: Path) -> None:
    """A score that reads the folder would otherwise find it."""
    write(tmp_path, ["a", "a.unprocessed"])
    output = open_output(tmp_path, step="test", inputs=[])
    output.claim(["a"])
    assert set(tree(tmp_path)) == {"a"}


def test_cleaning_goes_through_links_to_other_disks(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    write(tmp_path / "out", ["a"])
    assert not remove_output(tmp_path / "out")
    assert not list((tmp_path / "disk").iterdir())

import re
from pathlib import Path

import pytest

from condswin.errors import BadDataError
from condswin.sources.keys import place, places

SOURCE = "s3://scans/knee"


@pytest.mark.parametrize(
    "key", ["singlecoil_train/a..b.h5", "Größe 1.h5", ".hidden/a.nii.gz", "$\\frac{1}{$.h5", "x" * 200]
)
def test_objects_keep_their_place_below_the_prefix(key: str) -> None:
    assert place(Path("in"), SOURCE, key) == Path("in") / key


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("../a.h5", "would lead out of the folder"),
        ("a/../../b.h5", "would lead out of the folder"),
        ("/etc/a.h5", "would lead out of the folder"),
        ("a/..", "would lead out of the folder"),
        ("a//b.h5", "a part of this object's key is empty or a dot"),
        ("a/./b.h5", "a part of this object's key is empty or a dot"),
        ("a.h5/", "a part of this object's key is empty or a dot"),
        ("", "a part of this object's key is empty or a dot"),
        (f"a/{'x' * 201}", "has 201 bytes, 200 are the most"),
        (f"{'é' * 101}.h5", "has 205 bytes, 200 are the most"),
    ],
)
def test_what_cannot_be_a_file_is_refused_by_its_key(key: str, reason: str) -> None:
    with pytest.raises(BadDataError, match=f"^{SOURCE}/{re.escape(key)}: .*{reason}.*; rename it$"):
        place(Path("in"), SOURCE, key)


@pytest.mark.parametrize("key", ["a\nerror: b.h5", "a\x1b[2J.h5", "a\0.h5", "a\u202egpj.h5"])
def test_what_a_terminal_would_obey_is_shown_as_code(key: str) -> None:
    with pytest.raises(BadDataError, match=r"cannot be printed; rename it$") as caught:
        place(Path("in"), SOURCE, key)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (["a/Scan.h5", "a/scan.h5"], "'a/Scan.h5' and 'a/scan.h5' are one file where case does not count"),
        (["caf\u00e9.h5", "cafe\u0301.h5"], "are one file where case does not count"),
        (["STRASSE.h5", "straße.h5"], "are one file where case does not count"),
        (["a", "a/b.h5"], "'a' would be a file, and a folder for 'a/b.h5'"),
        (["a/b.h5", "a"], "'a' would be a file, and a folder for 'a/b.h5'"),
        (["A/b/c.h5", "a/B"], "'a/B' would be a file, and a folder for 'A/b/c.h5'"),
    ],
)
def test_two_objects_of_one_file_are_both_named(keys: list[str], reason: str) -> None:
    with pytest.raises(BadDataError, match=f"^{SOURCE}: .*{re.escape(reason)}; rename one$"):
        places(Path("in"), SOURCE, keys)


def test_names_that_resemble_each_other_do_not_collide() -> None:
    keys = ["a/b.h5", "a/c.h5", "a.h5", "ab/b.h5", "A-b.h5"]
    assert places(Path("in"), SOURCE, keys) == {key: Path("in") / key for key in keys}

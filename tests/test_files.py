import os
from pathlib import Path

import pytest

from condswin.errors import BadFileError
from condswin.files import (
    atomic_file,
    atomic_folder,
    copy_with_sha256,
    fingerprint,
    read_json,
    sha256,
    write_json,
)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    with atomic_file(path) as temporary:
        temporary.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_temporary_files_keep_their_suffixes(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "volume.nii.gz") as temporary:
        assert temporary.name.endswith(".nii.gz")
        assert temporary.parent == tmp_path


def test_written_files_have_the_users_permissions(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_json(tmp_path / "a.json", 1)
    finally:
        os.umask(old)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o640


def test_folders_are_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with atomic_folder(out) as folder:
        (folder / "a").write_text("1")
    with atomic_folder(out) as folder:
        (folder / "b").write_text("2")
    with pytest.raises(RuntimeError), atomic_folder(out) as folder:  # noqa: PT012
        (folder / "c").write_text("3")
        raise RuntimeError
    assert [path.name for path in out.iterdir()] == ["b"]
    assert list(tmp_path.iterdir()) == [out]


def test_copies_are_equal_and_known_by_checksum(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(os.urandom(5_000_000))
    digest = copy_with_sha256(tmp_path / "a", tmp_path / "b")
    assert digest == sha256(tmp_path / "a") == sha256(tmp_path / "b")


def test_json_refuses_what_other_readers_would_not_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"psnr": float("nan")})
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("content", [None, "{", "\xff"])
def test_unreadable_json_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(BadFileError, match=r"a\.json"):
        read_json(path)


def test_fingerprints_do_not_depend_on_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})

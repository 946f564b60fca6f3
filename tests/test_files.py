import os
import subprocess
import sys
from pathlib import Path

import pytest

from condswin.errors import BadFileError
from condswin.files import (
    atomic_file,
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
    code = (
        "import sys; from pathlib import Path; from condswin.files import write_json; write_json(Path(sys.argv[1]), 1)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.json"], check=True, umask=0o027)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o640


def test_writing_leaves_the_umask_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(os, "umask", lambda mask: asked.append(mask) or 0o022)
    write_json(tmp_path / "a.json", 1)
    assert not asked


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


def test_names_at_the_limit_of_the_file_system(tmp_path: Path) -> None:
    path = tmp_path / ("肝" * 84 + ".h5")
    with atomic_file(path) as temporary:
        temporary.write_text("whole")
        assert temporary.suffix == ".h5"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_json_nested_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(BadFileError, match="not readable as JSON"):
        read_json(tmp_path / "deep.json")

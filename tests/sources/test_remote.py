"""Versions of data in a DVC remote: DVC's own checksums, sent once, fetched once, and refused in words."""

import errno
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.fs import LocalFileSystem

from condswin.config.root import Config
from condswin.errors import BadDataError, ConfigError, SourceError
from condswin.outcomes import settled
from condswin.sources.local import local_source, source_version
from condswin.sources.remote import fetch, keep
from condswin.steps.ingest import ingest
from condswin.versioned import stored

DVC = Path(sys.executable).with_name("dvc")
FILES = {"train/a.h5": b"first", "train/b.h5": b"second" * 99, "manifest.json": b"{}", ".condswin.json": b"[]"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(content)
    return tmp_path / "data"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def objects(remote: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in remote.rglob("*") if path.is_file()}


def test_a_project_of_dvc_pulls_what_was_kept(data: Path, tmp_path: Path) -> None:
    md5, project = keep(data, str(tmp_path / "remote")), tmp_path / "project"
    project.mkdir()
    (project / "data.dvc").write_text(f"outs:\n- md5: {md5}\n  hash: md5\n  path: data\n")
    (project / ".dvc").mkdir()
    (project / ".dvc" / "config").write_text(
        f"[core]\nno_scm = true\nanalytics = false\nremote = r\n['remote \"r\"']\nurl = {tmp_path / 'remote'}\n"
    )
    environment = {**os.environ, "DVC_SITE_CACHE_DIR": str(tmp_path / "site")}
    subprocess.run([DVC, "pull", "--quiet"], cwd=project, env=environment, check=True)
    assert contents(project / "data") == FILES
    assert (
        "up to date"
        in subprocess.run(
            [DVC, "status"], cwd=project, env=environment, check=True, capture_output=True, text=True
        ).stdout
    )


def test_what_is_there_is_not_sent_again(data: Path, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    first = keep(data, str(remote))
    before = objects(remote)
    assert len(before) == len(FILES) + 1
    (data / "train" / "c.h5").write_bytes(b"third")
    second = keep(data, str(remote))
    after = objects(remote)
    assert second != first
    assert {path: after[path] for path in before} == before
    assert len(after) == len(before) + 2


def test_a_version_is_a_source(data: Path, tmp_path: Path) -> None:
    remote, scratch = tmp_path / "remote", tmp_path / "scratch"
    md5 = keep(data, str(remote))
    source = f"dvc+{remote}/{md5}"
    assert source_version(source) == md5
    with pytest.raises(KeyboardInterrupt), local_source(source, scratch):
        raise KeyboardInterrupt
    (begun,) = tmp_path.glob("scratch-*")
    kept = (begun / "train" / "a.h5").stat().st_mtime_ns
    (begun / "train" / "b.h5").write_bytes(b"cut off")
    with local_source(source, scratch) as (folder, _):
        assert contents(folder) == FILES
        assert (folder / "train" / "a.h5").stat().st_mtime_ns == kept
    assert not list(tmp_path.glob("scratch*"))


def test_what_a_remote_does_not_hold_is_named(data: Path, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    md5 = keep(data, str(remote))
    for source, said in [
        (f"dvc+{remote}/{'0' * 32}.dir", "the remote has no such data"),
        (f"dvc+{remote}/latest", "write dvc+s3://bucket/prefix/MD5.dir"),
        (f"dvc+{remote}", "write dvc+s3://bucket/prefix/MD5.dir"),
    ]:
        with pytest.raises(BadDataError, match=re.escape(said)) as caught, local_source(source, tmp_path / "s"):
            pass
        assert "\n" not in str(caught.value)
    stored = remote / "files/md5" / hashlib.md5(FILES["train/a.h5"]).hexdigest()[:2]
    (altered,) = stored.iterdir()
    altered.chmod(0o644)
    altered.write_bytes(b"other")
    with (
        pytest.raises(SourceError, match=r"train/a\.h5 comes with another MD5"),
        local_source(f"dvc+{remote}/{md5}", tmp_path / "s"),
    ):
        pass


@pytest.mark.parametrize("error", [PermissionError("Forbidden"), OSError(errno.EIO, "503"), TimeoutError()])
def test_a_remote_that_does_not_answer_is_not_one_without_the_data(
    error: OSError, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    md5 = keep(data, str(tmp_path / "remote"))

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(LocalFileSystem, "info", refuse)
    monkeypatch.setattr(LocalFileSystem, "isfile", lambda *_: False)  # as fsspec has it of every error
    with pytest.raises(SourceError, match=r"check the task's source, AWS_ENDPOINT_URL and the keys"):
        settled(fetch)(f"dvc+{tmp_path / 'remote'}/{md5}", tmp_path / "out")
    subprocess.run([DVC, "init", "--quiet", "--no-scm"], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    assert stored(md5, str(tmp_path / "remote")) == ("", f"DVC cannot be asked ({type(error).__name__})")


def test_what_a_remote_lacks_is_not_asked_for_again(tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    assert "no such data" in settled(fetch)(f"dvc+{tmp_path / 'remote'}/{'0' * 32}.dir", tmp_path / "out")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_of_this_machine_is_not_the_remotes_fault(
    number: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    md5 = keep(data, str(tmp_path / "remote"))

    def full(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(LocalFileSystem, "get_file", full)
    with pytest.raises(OSError, match=os.strerror(number)):
        fetch(f"dvc+{tmp_path / 'remote'}/{md5}", tmp_path / "out")


@pytest.mark.parametrize("listing", [b"no JSON", b"{}", b'[{"relpath": "a"}]', b'[{"md5": "0"}]', b"[1]", b"[null]"])
def test_a_list_of_files_that_is_none_was_altered(listing: bytes, tmp_path: Path) -> None:
    md5 = hashlib.md5(listing).hexdigest()
    path = tmp_path / "remote/files/md5" / md5[:2] / f"{md5[2:]}.dir"
    path.parent.mkdir(parents=True)
    path.write_bytes(listing)
    with pytest.raises(BadDataError, match="its list of files was altered in the remote"):
        fetch(f"dvc+{tmp_path / 'remote'}/{md5}.dir", tmp_path / "out")


@pytest.mark.parametrize("name", ["../out.h5", "/etc/out.h5", "a\\n.h5"])
def test_paths_of_a_list_lead_nowhere_else(name: str, tmp_path: Path) -> None:
    content = b"x"
    md5 = hashlib.md5(content).hexdigest()
    listing = f'[{{"md5": "{md5}", "relpath": "{name}"}}]'.encode()
    whole = hashlib.md5(listing).hexdigest()
    for oid, data in ((md5, content), (f"{whole}.dir", listing)):
        path = tmp_path / "remote/files/md5" / oid[:2] / oid[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    source = f"dvc+{tmp_path / 'remote'}/{whole}.dir"
    with pytest.raises(BadDataError, match=r"key|names|altered"), local_source(source, tmp_path / "s"):
        pass
    assert not list(tmp_path.rglob("out.h5"))


def test_a_remote_that_cannot_be_written_is_one_line(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError) as caught:
        keep(data, str(tmp_path / "file" / "remote"))
    assert "\n" not in str(caught.value)


def test_left_where_they_are_is_not_for_what_is_fetched(tiny: Config, tmp_path: Path) -> None:

    section = tiny.segmentation.model_copy(
        update={"ingest": tiny.segmentation.ingest.model_copy(update={"copy": False})}
    )
    config = tiny.model_copy(update={"segmentation": section})
    with pytest.raises(ConfigError, match="but those of dvc"):
        ingest(config, "segmentation", source=f"dvc+/r/{'0' * 32}.dir", out=tmp_path / "out")

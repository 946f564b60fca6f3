"""Raw files in a bucket: fetched, resumed, and refused in words."""

import itertools
import sys
from pathlib import Path

import pytest

from condswin import cli
from condswin.config.root import Config
from condswin.errors import BadDataError
from condswin.files import read_json
from condswin.manifest import Manifest
from condswin.sources.local import local_source
from condswin.steps.demo_data import demo_data
from condswin.steps.ingest import ingest
from tests.services.conftest import Bucket
from tests.services.proxy import LOGIN, Proxy, login_page, opaque

pytestmark = pytest.mark.services
TASK = "reconstruction"


@pytest.fixture
def raw(tiny: Config, tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    section = tiny.reconstruction.model_copy(update={"source": str(folder)})
    demo_data(tiny.model_copy(update={TASK: section}), TASK, out=folder)
    return folder


def upload(bucket: Bucket, folder: Path, prefix: str) -> None:
    for path in folder.rglob("*.h5"):
        bucket.client().upload_file(str(path), bucket.name, f"{prefix}/{path.relative_to(folder)}")


def test_a_prefix_is_ingested_as_the_folder_it_came_from(
    bucket: Bucket, raw: Path, tiny: Config, tmp_path: Path
) -> None:
    upload(bucket, raw, "knee")
    from_folder = ingest(tiny, TASK, source=str(raw), out=tmp_path / "from-folder")
    out = tmp_path / "from-s3"
    from_s3 = ingest(tiny, TASK, source=f"s3://{bucket.name}/knee", out=out)
    assert from_s3.fingerprint() == from_folder.fingerprint()
    assert Manifest.read(out, TASK) == from_s3
    # Neither the download nor anything half done stays behind, only what was found out about the files.
    kept = {path.name for path in tmp_path.iterdir()}
    assert kept == {"raw", "from-folder", "from-s3", ".from-folder-checks.json", ".from-s3-checks.json"}
    written = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
    expected = {path.relative_to(tmp_path / "from-folder") for path in (tmp_path / "from-folder").rglob("*.*")}
    assert written == expected


def test_an_interrupted_download_goes_on_and_notices_changed_objects(bucket: Bucket, tmp_path: Path) -> None:
    client, scratch = bucket.client(), tmp_path / "scratch"
    for name in ("a", "b"):
        client.put_object(Bucket=bucket.name, Key=f"resume/{name}.h5", Body=f"first {name}".encode())
    client.put_object(Bucket=bucket.name, Key="resume/withdrawn.h5", Body=b"c")
    with pytest.raises(KeyboardInterrupt), local_source(f"s3://{bucket.name}/resume", scratch):
        raise KeyboardInterrupt
    (begun,) = tmp_path.iterdir()
    kept = (begun / "files" / "a.h5").stat().st_mtime_ns
    client.put_object(Bucket=bucket.name, Key="resume/b.h5", Body=b"third b")
    client.delete_object(Bucket=bucket.name, Key="resume/withdrawn.h5")
    with local_source(f"s3://{bucket.name}/resume", scratch) as (folder, _):
        assert folder == begun / "files"
        assert (folder / "a.h5").stat().st_mtime_ns == kept
        assert (folder / "b.h5").read_bytes() == b"third b"
        assert not (folder / "withdrawn.h5").exists()
    assert not list(tmp_path.iterdir())


def test_an_interrupted_download_of_another_source_is_not_mixed_in(bucket: Bucket, tmp_path: Path) -> None:
    client = bucket.client()
    for name in ("one", "other"):
        client.put_object(Bucket=bucket.name, Key=f"{name}/{name}.h5", Body=name.encode())
    with pytest.raises(KeyboardInterrupt), local_source(f"s3://{bucket.name}/one", tmp_path / "scratch"):
        raise KeyboardInterrupt
    with local_source(f"s3://{bucket.name}/other", tmp_path / "scratch") as (folder, _):
        assert [path.name for path in folder.glob("*.h5")] == ["other.h5"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [("s3://scans/nothing-here", "no objects under this prefix"), ("s3://no-such-bucket/knee", "NoSuchBucket")],
)
def test_what_s3_does_not_hold_is_named(bucket: Bucket, tmp_path: Path, source: str, reason: str) -> None:
    with pytest.raises(BadDataError, match=f"{source}: .*{reason}"), local_source(source, tmp_path / "scratch"):
        pass


def test_wrong_keys_are_named(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not the secret")
    source = f"s3://{bucket.name}/knee"
    with pytest.raises(BadDataError, match="credentials in the environment"), local_source(source, tmp_path / "s"):
        pass


def test_ingesting_again_fetches_what_is_new_and_drops_what_is_gone(
    bucket: Bucket,
    proxy: Proxy,
    raw: Path,
    tiny: Config,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, out = f"s3://{bucket.name}/knee", tmp_path / "out"
    keys = sorted(f"knee/{path.relative_to(raw)}" for path in raw.rglob("*.h5"))
    upload(bucket, raw, "knee")
    first = ingest(tiny, TASK, source=source, out=out)
    assert sorted(proxy.gets()) == keys
    assert {origin["url"] for origin in first.objects.values()} == {f"s3://{bucket.name}/{key}" for key in keys}
    assert ingest(tiny, TASK, source=source, out=out) == first
    assert proxy.gets() == []
    # The other name of each file went with the download.
    assert {path.stat().st_nlink for path in out.rglob("*.h5")} == {1}

    # One is withdrawn, one replaced by another scan, one copy damaged here.
    withdrawn, replaced = sorted((raw / "singlecoil_train").iterdir())[:2]
    damaged = next((raw / "singlecoil_val").iterdir())
    client = bucket.client()
    client.delete_object(Bucket=bucket.name, Key=f"knee/{withdrawn.relative_to(raw)}")
    content = replaced.read_bytes()
    client.put_object(Bucket=bucket.name, Key=f"knee/{replaced.relative_to(raw)}", Body=content + bytes(8))
    (held,) = out.rglob(damaged.name)
    held.write_bytes(content[:-1])
    capsys.readouterr()
    second = ingest(tiny, TASK, source=source, out=out)
    assert sorted(proxy.gets()) == sorted(f"knee/{path.relative_to(raw)}" for path in (replaced, damaged))
    assert f"{source}/{withdrawn.relative_to(raw)}: ingested before and not listed any more" in capsys.readouterr().err
    assert {case.name for case in second.cases} == {case.name for case in first.cases} - {withdrawn.stem}
    assert not list(out.rglob(withdrawn.name))
    assert withdrawn.stem not in (tmp_path / ".out-checks.json").read_text()
    assert withdrawn.stem not in (out / "splits.json").read_text()
    second.verify(out)


def test_what_was_taken_by_size_alone_is_said_of_each_case_and_refused_when_it_is_not_asked_for(
    bucket: Bucket, proxy: Proxy, raw: Path, tiny: Config, tmp_path: Path
) -> None:
    upload(bucket, raw, "knee")
    source, out = f"s3://{bucket.name}/knee", tmp_path / "out"
    for name in ("LIST", *(f"HEAD knee/{path.relative_to(raw)}" for path in raw.rglob("*.h5"))):
        proxy.plan(name, itertools.repeat(opaque))
    section = tiny.reconstruction.ingest.model_copy(update={"unchecked_objects": "accept"})
    accepting = tiny.model_copy(update={TASK: tiny.reconstruction.model_copy(update={"ingest": section})})
    first = ingest(accepting, TASK, source=source, out=out)
    for case in first.cases:
        assert case.details["assumed"] == ["the S3 server tells no checksum: the file is taken for whole by its size"]
    proxy.gets()
    assert ingest(accepting, TASK, source=source, out=out) == first
    assert proxy.gets() == []
    with pytest.raises(BadDataError, match=r"\.h5: the server tells no checksum of this object"):
        ingest(tiny, TASK, source=source, out=out)
    assert Manifest.read(out, TASK) == first


def test_the_command_ends_in_one_line_and_goes_on(
    bucket: Bucket,
    proxy: Proxy,
    raw: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    upload(bucket, raw, "knee")
    monkeypatch.chdir(tmp_path)
    command = ["condswin", "ingest", TASK, "--set", f"{TASK}.source=s3://{bucket.name}/knee", "--out", "out"]
    monkeypatch.setattr(sys, "argv", ["condswin", "params", "use", "demo", "tiny"])
    with pytest.raises(SystemExit):
        cli.main()
    monkeypatch.setattr(sys, "argv", command)
    bad = f"knee/{sorted(path.relative_to(raw) for path in raw.rglob('*.h5'))[-1]}"
    proxy.plan(f"GET {bad}", itertools.repeat(login_page))
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: s3://{bucket.name}/{bad}: {len(LOGIN)} bytes come, ")
    assert not (tmp_path / "out").exists()
    proxy.faults.clear()
    proxy.gets()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert proxy.gets() == [bad]
    assert len(Manifest.read(tmp_path / "out", TASK).cases) == len(list(raw.rglob("*.h5")))
    assert {origin["compared_by"] for origin in read_json(tmp_path / "out/manifest.json")["objects"].values()} == {
        "MD5"
    }
    assert not list(tmp_path.glob(".out-download*"))

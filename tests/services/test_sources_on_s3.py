"""Raw files in a bucket: fetched, resumed, and refused in words."""

from pathlib import Path

import pytest

from condswin.config.root import Config
from condswin.errors import BadDataError
from condswin.manifest import Manifest
from condswin.sources import local_source
from condswin.steps.demo_data import demo_data
from condswin.steps.ingest import ingest
from tests.services.conftest import Bucket

pytestmark = pytest.mark.services
TASK = "reconstruction"


@pytest.fixture
def bucket(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return s3


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
    kept = (begun / "a.h5").stat().st_mtime_ns
    client.put_object(Bucket=bucket.name, Key="resume/b.h5", Body=b"second b")
    client.delete_object(Bucket=bucket.name, Key="resume/withdrawn.h5")
    with local_source(f"s3://{bucket.name}/resume", scratch) as folder:
        assert folder == begun
        assert (folder / "a.h5").stat().st_mtime_ns == kept
        assert (folder / "b.h5").read_bytes() == b"second b"
        assert not (folder / "withdrawn.h5").exists()
    assert not list(tmp_path.iterdir())


def test_an_interrupted_download_of_another_source_is_not_mixed_in(bucket: Bucket, tmp_path: Path) -> None:
    client = bucket.client()
    for name in ("one", "other"):
        client.put_object(Bucket=bucket.name, Key=f"{name}/{name}.h5", Body=name.encode())
    with pytest.raises(KeyboardInterrupt), local_source(f"s3://{bucket.name}/one", tmp_path / "scratch"):
        raise KeyboardInterrupt
    with local_source(f"s3://{bucket.name}/other", tmp_path / "scratch") as folder:
        assert [path.name for path in folder.glob("*.h5")] == ["other.h5"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [("s3://models/nothing-here", "no objects under this prefix"), ("s3://no-such-bucket/knee", "NoSuchBucket")],
)
def test_what_s3_does_not_hold_is_named(bucket: Bucket, tmp_path: Path, source: str, reason: str) -> None:
    with pytest.raises(BadDataError, match=f"{source}: .*{reason}"), local_source(source, tmp_path / "scratch"):
        pass


def test_wrong_keys_are_named(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not the secret")
    source = f"s3://{bucket.name}/knee"
    with pytest.raises(BadDataError, match="credentials in the environment"), local_source(source, tmp_path / "s"):
        pass

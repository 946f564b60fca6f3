from pathlib import Path

import pytest

from condswin.errors import BadDataError
from condswin.sources.local import local_source


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.h5").write_bytes(b"a")
    with local_source(str(tmp_path / "scans"), tmp_path / "scratch") as (folder, origins):
        assert folder == tmp_path / "scans"
        assert not origins
    assert [path.name for path in tmp_path.rglob("*")] == ["scans", "a.h5"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/no/such/folder", "/no/such/folder: no such folder; set `source`"),
        (
            "https://scans.s3.amazonaws.com/a?X-Amz-Signature=SECRET",
            "https://: sources are folders, s3:// prefixes and dvc+s3://...",
        ),
        ("https://user:SECRET@host/knee", "https://: sources are folders, s3:// prefixes and dvc+s3://..."),
        ("s3://AKID:SECRET@scans/knee", "source: an s3:// address with credentials; set them in the environment"),
        ("s3://", "s3://: names no bucket; write s3://bucket/prefix"),
        ("s3:///knee", "s3:///knee: names no bucket; write s3://bucket/prefix"),
    ],
)
def test_what_is_no_source_is_named_without_secrets(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(BadDataError) as caught, local_source(source, tmp_path / "scratch"):
        pass
    assert str(caught.value).startswith(message)
    assert "SECRET" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_name_that_no_bucket_can_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    reason = "^s3://my bucket/knee: no valid name of a bucket or object; check the name"
    with pytest.raises(BadDataError, match=reason), local_source("s3://my bucket/knee", tmp_path / "scratch"):
        pass

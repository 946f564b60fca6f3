"""Servers and networks that lie, change or fall silent, between a real S3 server and an ingestion."""

import io
import itertools
import os
import resource
from pathlib import Path

import pytest
from boto3.s3.transfer import TransferConfig

from condswin.errors import BadDataError
from condswin.sources.local import local_source
from tests.services import proxy as faults
from tests.services.conftest import Bucket
from tests.services.proxy import Answer, Fault, Proxy

pytestmark = pytest.mark.services
ALWAYS = itertools.repeat


def put(bucket: Bucket, **contents: bytes) -> str:
    for name, content in contents.items():
        bucket.client().put_object(Bucket=bucket.name, Key=f"knee/{name}.h5", Body=content)
    return f"s3://{bucket.name}/knee"


def fetched(source: str, scratch: Path, **options: bool) -> dict[str, bytes]:
    with local_source(source, scratch, **options) as (folder, _):
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.h5")}


def refusal(source: str, scratch: Path) -> str:
    """The one line that a source is refused with, without secrets and words of the server's."""
    with pytest.raises(BadDataError) as caught, local_source(source, scratch):
        pass
    message = str(caught.value)
    assert message.isprintable()
    for secret in ("AKID", "X-Amz", "Sign in", "[/b]", "http://"):
        assert secret not in message
    return message


A, B = b"first scan " * 100, b"second scan " * 100
LIES = {
    "shortened body": (faults.shortened, "1193 bytes come, 1200 are listed"),
    "login page": (faults.login_page, f"{len(faults.LOGIN)} bytes come, 1200 are listed"),
    "flipped bit": (faults.flipped, "its content does not have the CRC32 that the server tells"),
    "503": (faults.slow_down, "the server answers SlowDown (HTTP 503)"),
    "reset": (faults.reset, "the connection is cut"),
    "cut off": (faults.cut_off, "the connection is cut"),
    "hang": (faults.hanging, "no answer in time"),
}


@pytest.mark.parametrize("fault", [fault for fault, _ in LIES.values()], ids=LIES.keys())
def test_what_happens_once_is_asked_for_again(bucket: Bucket, proxy: Proxy, tmp_path: Path, fault: Fault) -> None:
    source = put(bucket, a=A, b=B)
    proxy.plan("GET knee/a.h5", [fault])
    assert fetched(source, tmp_path / "scratch") == {"a.h5": A, "b.h5": B}
    assert proxy.gets() == ["knee/a.h5", "knee/a.h5", "knee/b.h5"]


@pytest.mark.parametrize(("fault", "reason"), LIES.values(), ids=LIES.keys())
def test_what_happens_always_is_one_line_and_a_later_run_asks_again(
    bucket: Bucket, proxy: Proxy, tmp_path: Path, fault: Fault, reason: str
) -> None:
    source = put(bucket, a=A, b=B)
    proxy.plan("GET knee/b.h5", ALWAYS(fault))
    message = refusal(source, tmp_path / "scratch")
    assert message.startswith(f"{source}/b.h5: {reason}; run again")
    assert 2 <= proxy.gets().count("knee/b.h5") <= 4
    (begun,) = tmp_path.iterdir()
    assert [path.name for path in (begun / "files").iterdir()] == ["a.h5"]
    proxy.faults.clear()
    assert fetched(source, tmp_path / "scratch") == {"a.h5": A, "b.h5": B}
    assert proxy.gets() == ["knee/b.h5"]


def listing(contents: str) -> Fault:
    return faults.saying(Answer(200, [], f"<R><Name>b</Name><Contents>{contents}</Contents></R>".encode()))


NOT_S3 = "the answer is not one of S3's, but perhaps a login page"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (faults.login_page, NOT_S3),
        (faults.saying(Answer(200, [], b"<html><body/></html>")), NOT_S3),
        (faults.saying(Answer(200, [], b"")), NOT_S3),
        (faults.saying(Answer(403, [], faults.LOGIN)), "the server answers an error (HTTP 403)"),
        (listing("<Key>elsewhere/a</Key><Size>1</Size>"), NOT_S3),
        (listing("<Key>knee/a</Key>"), NOT_S3),
        (listing("<Key>knee/a</Key><Size>big</Size>"), NOT_S3),
        (faults.reset, "the connection is cut"),
        (faults.hanging, "no answer in time"),
        (faults.slow_down, "the server answers SlowDown (HTTP 503)"),
        (
            faults.saying(Answer(400, [], b"<Error><Code>[/b] $</Code></Error>")),
            "the server answers an error (HTTP 400)",
        ),
    ],
)
def test_a_listing_that_is_none_is_one_line_and_removes_nothing(
    bucket: Bucket, proxy: Proxy, tmp_path: Path, fault: Fault, reason: str
) -> None:
    source = put(bucket, a=A)
    with pytest.raises(KeyboardInterrupt), local_source(source, tmp_path / "scratch"):
        raise KeyboardInterrupt
    proxy.plan("LIST", ALWAYS(fault))
    message = refusal(source, tmp_path / "scratch")
    assert message.startswith(f"{source}: ")
    assert f": {reason}; check the name" in message
    proxy.faults.clear()
    proxy.gets()
    assert fetched(source, tmp_path / "scratch") == {"a.h5": A}
    assert proxy.gets() == []


def test_a_flipped_bit_on_the_disk_is_found(bucket: Bucket, proxy: Proxy, tmp_path: Path) -> None:
    source = put(bucket, a=A, b=B)
    with pytest.raises(KeyboardInterrupt), local_source(source, tmp_path / "scratch"):
        raise KeyboardInterrupt
    (begun,) = tmp_path.iterdir()
    held = begun / "files" / "a.h5"
    at = held.stat()
    held.write_bytes(A[:50] + bytes([A[50] ^ 1]) + A[51:])
    os.utime(held, ns=(at.st_atime_ns, at.st_mtime_ns))
    proxy.gets()
    assert fetched(source, tmp_path / "scratch") == {"a.h5": A, "b.h5": B}
    assert proxy.gets() == ["knee/a.h5"]


def test_a_record_that_was_cut_off_costs_a_request(bucket: Bucket, proxy: Proxy, tmp_path: Path) -> None:
    source = put(bucket, a=A, b=B)
    with pytest.raises(KeyboardInterrupt), local_source(source, tmp_path / "scratch"):
        raise KeyboardInterrupt
    (begun,) = tmp_path.iterdir()
    record = begun / "objects.jsonl"
    record.write_text(record.read_text()[:-20])
    (begun / "files" / ".partial-1-b.h5").write_bytes(b"half")
    proxy.gets()
    with local_source(source, tmp_path / "scratch") as (folder, _):
        assert sorted(path.name for path in folder.iterdir()) == ["a.h5", "b.h5"]
    assert proxy.gets() == ["knee/b.h5"]


def test_an_object_that_is_replaced_after_the_listing(bucket: Bucket, proxy: Proxy, tmp_path: Path) -> None:
    source = put(bucket, a=A)
    proxy.plan("GET knee/a.h5", [faults.after(lambda: put(bucket, a=A[::-1]))])
    assert refusal(source, tmp_path / "scratch").startswith(f"{source}/a.h5: it changed since it was listed; run again")
    assert fetched(source, tmp_path / "scratch") == {"a.h5": A[::-1]}


def test_an_object_that_is_removed_after_the_listing(bucket: Bucket, proxy: Proxy, tmp_path: Path) -> None:
    source = put(bucket, a=A, b=B)
    remove = faults.after(lambda: bucket.client().delete_object(Bucket=bucket.name, Key="knee/a.h5"))
    proxy.plan("GET knee/a.h5", [remove])
    message = refusal(source, tmp_path / "scratch")
    assert message.startswith(f"{source}/a.h5: the server answers NoSuchKey (HTTP 404); run again")
    assert fetched(source, tmp_path / "scratch") == {"b.h5": B}


def test_a_stale_listing_of_an_object_that_was_replaced(bucket: Bucket, proxy: Proxy, tmp_path: Path) -> None:
    source = put(bucket, a=A)
    listings: list[Answer] = []
    proxy.plan("LIST", [lambda handler: (listings.append(handler.forward()), handler.reply(listings[0]))])
    fetched(source, tmp_path / "scratch")
    put(bucket, a=B)
    proxy.plan("LIST", [faults.saying(listings[0])])
    message = refusal(source, tmp_path / "scratch")
    assert message.startswith(f"{source}/a.h5: {len(B)} bytes come, {len(A)} are listed; run again")
    assert fetched(source, tmp_path / "scratch") == {"a.h5": B}


def test_an_object_in_parts_comes_in_parts_of_one_version(bucket: Bucket, proxy: Proxy, tmp_path: Path) -> None:
    first, second = bytes(17 << 20), b"\1" * (17 << 20)

    def upload(content: bytes) -> None:
        parts = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
        bucket.client().upload_fileobj(io.BytesIO(content), bucket.name, "knee/a.h5", Config=parts)

    upload(first)
    source = f"s3://{bucket.name}/knee"
    assert fetched(source, tmp_path / "scratch") == {"a.h5": first}
    assert len(proxy.gets()) == 3
    proxy.plan("GET knee/a.h5", [faults.whole, faults.flipped])
    with local_source(source, tmp_path / "scratch") as (folder, origins):
        assert (folder / "a.h5").read_bytes() == first
        assert origins[folder / "a.h5"].compared_by == "CRC32 of parts"
    assert len(proxy.gets()) == 6
    proxy.plan("GET knee/a.h5", [faults.whole, faults.after(lambda: upload(second))])
    assert "a.h5: it changed while it was fetched; run again" in refusal(source, tmp_path / "scratch")
    assert fetched(source, tmp_path / "scratch") == {"a.h5": second}


def test_what_no_checksum_vouches_for_is_taken_only_if_that_is_asked_for(
    bucket: Bucket, proxy: Proxy, tmp_path: Path
) -> None:
    source = put(bucket, a=A)
    proxy.plan("GET knee/a.h5", ALWAYS(faults.flipped))
    proxy.plan("LIST", ALWAYS(faults.opaque))
    proxy.plan("HEAD knee/a.h5", ALWAYS(faults.opaque))
    message = refusal(source, tmp_path / "scratch")
    assert message.startswith(f"{source}/a.h5: the server tells no checksum")
    assert "ingest.unchecked_objects to accept" in message
    assert not list(tmp_path.rglob("*.h5"))
    assert set(fetched(source, tmp_path / "scratch", accept_unchecked=True)) == {"a.h5"}


def test_markers_of_folders_and_versions_that_were_deleted_are_no_files(bucket: Bucket, tmp_path: Path) -> None:
    source, client = put(bucket, a=A), bucket.client()
    client.put_object(Bucket=bucket.name, Key="knee/train/", Body=b"")
    client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"})
    try:
        put(bucket, a=B, gone=A)
        client.delete_object(Bucket=bucket.name, Key="knee/gone.h5")
        assert fetched(source, tmp_path / "scratch") == {"a.h5": B}
    finally:
        client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Suspended"})


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (["knee/a.h5", "knee/A.h5"], "are one file where case does not count; rename one"),
        (["knee/a", "knee/a/b.h5"], "'a' would be a file, and a folder for 'a/b.h5'; rename one"),
        (["knee/a\nerror: done.h5"], "cannot be printed; rename it"),
        ([f"knee/{'x' * 230}"], "has 230 bytes, 200 are the most; rename it"),
    ],
)
def test_hostile_keys_are_one_line_before_anything_is_fetched(
    bucket: Bucket, proxy: Proxy, tmp_path: Path, keys: list[str], reason: str
) -> None:
    for key in keys:
        bucket.client().put_object(Bucket=bucket.name, Key=key, Body=A)
    message = refusal(f"s3://{bucket.name}/knee", tmp_path / "scratch")
    assert message.startswith(f"s3://{bucket.name}/knee")
    assert message.endswith(reason)
    assert proxy.gets() == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["/a.h5", "../a.h5", "a/../../b.h5", "a//b.h5"])
def test_keys_that_this_server_would_not_take_are_refused_of_others(
    bucket: Bucket, proxy: Proxy, tmp_path: Path, key: str
) -> None:
    proxy.plan("LIST", [listing(f"<Key>knee/{key}</Key><Size>1</Size>")])
    message = refusal(f"s3://{bucket.name}/knee", tmp_path / "scratch")
    assert message.startswith(f"s3://{bucket.name}/knee/{key}: ")
    assert message.endswith("; rename it")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("AWS_ENDPOINT_URL", "s3.example.org", "AWS_ENDPOINT_URL is no address like https://host:port"),
        ("AWS_ENDPOINT_URL", "http://user:AKIDSECRET@127.0.0.1:1", "no connection"),
        ("AWS_SECRET_ACCESS_KEY", "AKIDSECRET", "the server answers SignatureDoesNotMatch (HTTP 403)"),
        ("AWS_ACCESS_KEY_ID", "AKIDSECRET", "the server answers InvalidAccessKeyId (HTTP 403)"),
        ("HTTP_PROXY", "http://user:AKIDSECRET@127.0.0.1:1", "no connection to the proxy"),
    ],
)
def test_wrong_settings_are_named_without_secrets(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    source = put(bucket, a=A)
    monkeypatch.setenv(name, value)
    assert reason in refusal(source, tmp_path / "scratch")


def test_a_full_disk_is_one_line(bucket: Bucket, tmp_path: Path) -> None:
    source = put(bucket, a=bytes(3 << 20))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, limits[1]))
    try:
        message = refusal(source, tmp_path / "scratch")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert message.startswith(f"{source}/a.h5: it cannot be stored (File too large)")
    assert not list(tmp_path.rglob("*.h5"))


def test_an_empty_object_is_an_empty_file(bucket: Bucket, tmp_path: Path) -> None:
    assert fetched(put(bucket, a=b"", b=B), tmp_path / "scratch") == {"a.h5": b"", "b.h5": B}


def test_what_does_not_fit_is_refused_before_it_is_fetched(bucket: Bucket, proxy: Proxy, tmp_path: Path) -> None:
    source = put(bucket, a=A)
    proxy.plan("LIST", [listing(f"<Key>knee/a.h5</Key><Size>{9 * 10**15}</Size>")])
    assert "9000000.0 GB are to be fetched and " in refusal(source, tmp_path / "scratch")
    assert proxy.gets() == []

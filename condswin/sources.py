"""Where raw files come from: a folder, or an S3 prefix that is fetched first."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from condswin.errors import BadDataError
from condswin.files import atomic_file, fingerprint
from condswin.progress import track


@contextmanager
def local_source(source: str, scratch: Path) -> Iterator[Path]:
    """Yields a folder with the source's files; an S3 prefix is downloaded beside `scratch` while the block runs.

    An interrupted download goes on where it stopped: files that are there with the object's ETag are kept. Endpoint and
    credentials come from the environment (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...), never from parameters.

    Raises:
        BadDataError: The folder does not exist, or S3 refuses or holds nothing under the prefix.
    """
    if not source.startswith("s3://"):
        folder = Path(source)
        if not folder.is_dir():
            raise BadDataError(
                f"{source}: no such folder; set `source` in the parameters to a folder or an s3:// prefix"
            )
        yield folder
        return
    # Of this source alone: an interrupted download of another one is not mixed in.
    folder = scratch.with_name(f"{scratch.name}-{fingerprint(source)[:8]}")
    _download(source, folder)
    yield folder
    shutil.rmtree(folder)


def place(folder: Path, source: str, key: str) -> Path:
    """Where an object goes in a folder, by its key below the prefix.

    Raises:
        BadDataError: That would not be in the folder.
    """
    relative = PurePosixPath(key)
    if relative.is_absolute() or ".." in relative.parts:
        raise BadDataError(f"{source}/{key}: this object's key would lead out of the folder; rename it")
    return folder / relative


def _download(source: str, folder: Path) -> None:
    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    prefix = f"{prefix.rstrip('/')}/" if prefix else ""
    try:
        # A session of its own: the default one keeps the credentials that it saw first.
        client = boto3.Session().client("s3")
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        objects = [entry for page in pages for entry in page.get("Contents", []) if not entry["Key"].endswith("/")]
        if not objects:
            raise BadDataError(f"{source}: no objects under this prefix")
        listed = {place(folder, source.rstrip("/"), entry["Key"].removeprefix(prefix)) for entry in objects}
        for path in [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".etag"]:
            if path not in listed:  # no longer in the bucket
                path.unlink()
        for entry in track(objects, f"fetch {source}", total=len(objects)):
            target = place(folder, source.rstrip("/"), entry["Key"].removeprefix(prefix))
            mark = target.with_name(f".{target.name}.etag")
            if target.is_file() and mark.is_file() and mark.read_text() == entry["ETag"]:
                continue
            with atomic_file(target) as temporary:
                client.download_file(bucket, entry["Key"], os.fspath(temporary))
            mark.write_text(entry["ETag"])
    except (BotoCoreError, ClientError) as error:
        raise BadDataError(
            f"{source}: {error}; check the name, AWS_ENDPOINT_URL and the credentials in the environment"
        ) from None

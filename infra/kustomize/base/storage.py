"""Backups in S3: `storage.py put FILE`, `list`, `get FILE [NAME]`, and `bucket`, which makes the bucket.

BACKUP_DESTINATION is `s3://bucket/prefix`; endpoint and keys come from the environment as everywhere. `put` compares
what it stored with the file, and then removes all but the KEEP newest. `get` compares with what `put` noted.
"""

import hashlib
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import boto3

bucket, _, prefix = os.environ["BACKUP_DESTINATION"].removeprefix("s3://").partition("/")
client = boto3.client("s3")


def digest(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def names() -> list[str]:
    """Names of all backups, oldest first."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/mlflow-")
    return sorted(entry["Key"].removeprefix(f"{prefix}/") for page in pages for entry in page.get("Contents", []))


def put(path: Path) -> None:
    """Stores a file, and removes what is older than the KEEP newest."""
    if not path.stat().st_size:
        sys.exit(f"{path}: empty; nothing was stored")
    name = f"mlflow-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.dump"
    key = f"{prefix}/{name}"
    client.upload_file(str(path), bucket, key, ExtraArgs={"Metadata": {"sha256": digest(path)}})
    stored = client.head_object(Bucket=bucket, Key=key)
    if stored["ContentLength"] != path.stat().st_size:
        sys.exit(f"{key}: {stored['ContentLength']} bytes are stored of {path.stat().st_size}; older ones are kept")
    for old in names()[: -int(os.environ["KEEP"])]:
        client.delete_object(Bucket=bucket, Key=f"{prefix}/{old}")
    print(name)


def get(path: Path, name: str = "") -> None:
    """Fetches a backup, the newest if none is named."""
    found = names()
    name = name or (found[-1] if found else "")
    if name not in found:
        sys.exit(f"{bucket}/{prefix}: no backup {name}; there are: {', '.join(found) or 'none'}")
    key = f"{prefix}/{name}"
    client.download_file(bucket, key, str(path))
    if digest(path) != client.head_object(Bucket=bucket, Key=key)["Metadata"]["sha256"]:
        path.unlink()
        sys.exit(f"{key}: is not what was stored; choose another one (storage.py list)")
    print(name)


def make() -> None:
    """Makes the bucket, if it is not there."""
    if bucket not in [each["Name"] for each in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=bucket)
    print(bucket)


match sys.argv[1:]:
    case ["put", path]:
        put(Path(path))
    case ["get", path, *name]:
        get(Path(path), *name)
    case ["list"]:
        print(*names(), sep="\n")
    case ["bucket"]:
        make()
    case _:
        sys.exit(__doc__)

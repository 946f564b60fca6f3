"""infra/kustomize/base/storage.py against a bucket that is a folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.infra.rendering import ROOT

SCRIPT = ROOT / "infra/kustomize/base/storage.py"
#: Of boto3 what the script calls; objects are files, what is noted of one stands beside it.
BOTO3 = """
import json
import shutil
from pathlib import Path

class Client:
    def file(self, bucket, key):
        return Path("buckets", bucket, key)

    def get_paginator(self, operation):
        return self

    def paginate(self, Bucket, Prefix):
        root = Path("buckets", Bucket)
        keys = [str(path.relative_to(root)) for path in root.rglob("*.dump")]
        return [{"Contents": [{"Key": key} for key in keys if key.startswith(Prefix)]}]

    def upload_file(self, path, bucket, key, ExtraArgs):
        self.file(bucket, key).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, self.file(bucket, key))
        self.file(bucket, key + ".json").write_text(json.dumps(ExtraArgs["Metadata"]))

    def head_object(self, Bucket, Key):
        note = json.loads(self.file(Bucket, Key + ".json").read_text())
        return {"ContentLength": self.file(Bucket, Key).stat().st_size, "Metadata": note}

    def delete_object(self, Bucket, Key):
        self.file(Bucket, Key).unlink()

    def download_file(self, bucket, key, path):
        shutil.copy(self.file(bucket, key), path)

def client(name):
    return Client()
"""
NAMES = [f"mlflow-2026010{day}T011500Z.dump" for day in (1, 2, 3)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With three backups of a morning each."""
    (tmp_path / "boto3.py").write_text(BOTO3)
    for name in NAMES:
        (tmp_path / "new.dump").write_text(name)
        (put,) = storage(tmp_path, "put", "new.dump")
        stored = tmp_path / "buckets/backups/team/mlflow"
        for end in ("", ".json"):
            (stored / f"{put}{end}").rename(stored / f"{name}{end}")
    return tmp_path


def storage(folder: Path, *arguments: str, keep: int = 30) -> list[str]:
    environment = {"PYTHONPATH": str(folder), "BACKUP_DESTINATION": "s3://backups/team/mlflow", "KEEP": str(keep)}
    done = subprocess.run(
        [sys.executable, SCRIPT, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    return (done.stdout + done.stderr).splitlines()


def test_a_listed_name_is_one_that_get_takes(folder: Path) -> None:
    assert storage(folder, "list") == NAMES
    for name in NAMES:
        assert storage(folder, "get", "got.dump", name) == [name]
        assert (folder / "got.dump").read_text() == name
    assert storage(folder, "get", "got.dump") == [NAMES[-1]]


def test_a_name_that_is_not_there_is_answered_with_those_that_are(folder: Path) -> None:
    (said,) = storage(folder, "get", "got.dump", "team/mlflow/" + NAMES[0])
    assert said.endswith(f"there are: {', '.join(NAMES)}")
    assert not (folder / "got.dump").exists()


def test_the_oldest_go(folder: Path) -> None:
    (put,) = storage(folder, "put", "new.dump", keep=2)
    assert storage(folder, "list") == [NAMES[-1], put]

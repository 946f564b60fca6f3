"""Data that a cluster ingests is versioned as a laptop's: the same MD5, in a remote that clones pull from."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from kfp import dsl

import components
from condswin.config.parts import part
from condswin.config.profiles import write_config
from condswin.config.reading import read_yaml
from condswin.config.root import Config
from condswin.errors import SourceError
from condswin.manifest import Manifest
from condswin.sources.local import local_source
from condswin.sources.remote import keep
from condswin.steps.demo_data import demo_data
from condswin.versioned import stored
from tests.services.conftest import Bucket
from tests.services.proxy import proxy_to

pytestmark = pytest.mark.services
ROOT, TASK = Path(__file__).parents[2], "segmentation"
STAGE = f"""stages:
  ingest:
    cmd: condswin ingest {TASK}
    deps: [raw]
    params: [seed, {TASK}.ingest]
    outs:
      - data/ingested/{TASK}:
          persist: true
"""


@pytest.fixture
def config(tiny: Config, bucket: Bucket, tmp_path: Path) -> Config:
    """Whose source is a folder, as each machine has it, and whose remote is in the bucket."""
    section = tiny.segmentation.model_copy(update={"source": str(tmp_path / "raw")})
    cluster = tiny.cluster.model_copy(update={"dvc_remote": f"s3://{bucket.name}/dvc"})
    config = tiny.model_copy(update={TASK: section, "cluster": cluster})
    demo_data(config, TASK, out=tmp_path / "raw")
    return config


def on_the_cluster(config: Config, folder: Path) -> str:
    """Runs the component; returns the MD5 that it hands on."""
    folder.mkdir()
    asked = json.dumps(part(config, "ingest", TASK))
    version = components.resolve.python_func(params=asked, task=TASK)
    told = components.ingest.python_func(
        params=asked, task=TASK, code="", version=version,
        ingested=dsl.Dataset(uri=str(folder / "ingested")), md5=str(folder / "md5"),
    )  # fmt: skip
    assert told == ""
    return (folder / "md5").read_text()


@pytest.fixture
def clone(config: Config, bucket: Bucket, tmp_path: Path) -> Callable[[str], Callable[..., str]]:
    """Makes a clone of a project that only ingests; returns what runs DVC in it."""

    def make(name: str) -> Callable[..., str]:
        folder = tmp_path / name
        folder.mkdir()
        here = config.task(TASK).model_copy(update={"source": "raw"})
        write_config(config.model_copy(update={TASK: here}), folder / "params.yaml", comment="")
        (folder / "dvc.yaml").write_text(STAGE)
        shutil.copytree(tmp_path / "raw", folder / "raw")
        environment = os.environ | {
            "DVC_NO_ANALYTICS": "true",
            "DVC_SITE_CACHE_DIR": str(folder / "site"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }

        def dvc(*arguments: str) -> str:
            done = subprocess.run(["dvc", *arguments], cwd=folder, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        dvc("init", "--quiet", "--no-scm")
        dvc("remote", "add", "--quiet", "--default", "data", config.cluster.dvc_remote)
        dvc("remote", "modify", "data", "endpointurl", bucket.endpoint)
        return dvc

    return make


def test_a_clone_pulls_what_the_cluster_ingested_and_does_nothing(
    config: Config, clone: Callable[[str], Callable[..., str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    laptop = clone("laptop")
    laptop("repro")
    (out,) = read_yaml(tmp_path / "laptop" / "dvc.lock")["stages"]["ingest"]["outs"]
    # Not pushed by the laptop: the cluster does it.
    assert on_the_cluster(config, tmp_path / "pod") == out["md5"]

    other = clone("other")
    shutil.copy(tmp_path / "laptop" / "dvc.lock", tmp_path / "other")
    other("pull", "--quiet")
    assert "didn't change, skipping" in other("repro")
    ingested = tmp_path / "other" / "data/ingested" / TASK
    assert Manifest.read(ingested, TASK).fingerprint() == Manifest.read(tmp_path / "pod/ingested", TASK).fingerprint()
    # What `lineage --check` asks, where the data was never here.
    third = clone("third")
    assert third("status")
    monkeypatch.chdir(tmp_path / "third")
    assert stored(out["md5"], config.cluster.dvc_remote) == ("DVC's remote", None)
    assert stored("0" * 32 + ".dir", config.cluster.dvc_remote)[1] is not None


def test_a_second_try_sends_nothing_and_a_version_is_a_source(
    config: Config, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    md5 = on_the_cluster(config, tmp_path / "pod")

    def written() -> dict[str, str]:
        listed = bucket.client().list_objects_v2(Bucket=bucket.name, Prefix="dvc/")["Contents"]
        return {each["Key"]: each["LastModified"].isoformat() for each in listed}

    before = written()
    assert keep(tmp_path / "pod" / "ingested", config.cluster.dvc_remote) == md5
    assert written() == before

    source, scratch = f"dvc+{config.cluster.dvc_remote}/{md5}", tmp_path / "scratch"
    with pytest.raises(KeyboardInterrupt), local_source(source, scratch):
        raise KeyboardInterrupt
    with proxy_to(bucket.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with local_source(source, scratch) as (folder, _):
            Manifest.read(folder, TASK).verify(folder)
        (listing,) = proxy.gets()
    assert listing.endswith(".dir")


@pytest.mark.parametrize("keys", ["wrong", "of a reader", "none"])
def test_keys_that_may_not_write_are_one_line(
    keys: str, config: Config, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "raw"
    if keys == "wrong":
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not the secret")
    elif keys == "none":
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    else:
        for name, value in zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), bucket.reader, strict=True):
            monkeypatch.setenv(name, value)
    with pytest.raises(SourceError) as caught:
        keep(data, config.cluster.dvc_remote)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(config.cluster.dvc_remote)
    assert "keys" in str(caught.value)
    if keys == "of a reader":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", bucket.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", bucket.secret_key)
        md5 = keep(data, config.cluster.dvc_remote)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", bucket.reader[0])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", bucket.reader[1])
        with local_source(f"dvc+{config.cluster.dvc_remote}/{md5}", tmp_path / "s") as (folder, _):
            assert list(folder.rglob("*.nii.gz"))

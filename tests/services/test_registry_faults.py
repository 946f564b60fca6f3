"""What happens to a team's registry: files that are gone or altered, answers that fail, tables that are old, crowds."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy
from alembic import command
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base

from condswin.doctor.servers import _database
from condswin.errors import CondswinError, GateError
from condswin.files import read_json, sha256
from condswin.networks.saving import WEIGHTS, ModelSpec, save_model
from condswin.registry import lock, tracking
from condswin.registry.aliases import CHALLENGER, CHAMPION, KEY, LAST_CHAMPION, PREVIOUS
from condswin.registry.package import PACKAGE, ModelAlteredError, ModelUnavailableError, load_registered
from condswin.registry.tracking import TrackingError, connect, tracked_run
from condswin.steps.approve import approve, freeze, history
from condswin.steps.predict import predict
from condswin.steps.promote import rollback
from condswin.steps.register import register
from condswin.steps.serve import serve
from condswin.steps.shadow import shadow
from tests.registry.toy import NAME, SMALL, World, make_config, plain_tags
from tests.services.conftest import Bucket, MlflowServer
from tests.services.proxy import Fault, cut_off, done_but_500, error_500, late, login_page, proxy_to, reset

pytest_plugins = ["tests.registry.fixtures", "tests.services.team"]
pytestmark = [pytest.mark.services, pytest.mark.usefixtures("few_files")]

#: Of the model that is uploaded in parts.
MEGABYTES = float(os.environ.get("CONDSWIN_TEST_MEGABYTES", "12"))
#: Weights of such a network, by the square of its embedding.
PER_WIDTH = 115
PART = 5 << 20


def scan(folder: Path) -> Path:
    path = folder / "scan.npy"
    np.save(path, np.zeros((2, 16, 20), np.float32))
    return path


def versions(team: World) -> list[str]:
    return sorted((str(entry.version) for entry in team.client.search_model_versions(f"name = '{NAME}'")), key=int)


def test_what_mlflow_gc_removed(team: World, quick_smoke: None, mlflow_server: MlflowServer) -> None:
    """A version outlives the run that made it, but not its files."""
    for bias in (0.5, 0.7, 0.9):
        assert team.promote(team.register(bias))[0]
    client = team.client
    for version in ("2", "3"):
        client.delete_run(client.get_model_version(NAME, version).run_id)
    client.delete_logged_model(client.get_model_version(NAME, "3").source.removeprefix("models:/"))
    collected = subprocess.run(
        [
            *(sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", mlflow_server.database),
            *("--artifacts-destination", f"s3://{mlflow_server.bucket.name}/mlflow"),
            *("--tracking-uri", mlflow_server.uri),
        ],
        env={**os.environ, **mlflow_server.bucket.environment, "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert collected.returncode == 0, collected.stderr[-2000:]
    load_registered(f"models:/{NAME}/2", team.config)
    assert read_json(team.register(0.7))["version"] == "2"
    for gone in (f"models:/{NAME}/3", f"models:/{NAME}@{CHAMPION}"):
        with pytest.raises(ModelUnavailableError, match="its files cannot be fetched"):
            load_registered(gone, team.config)
    again = team.register(0.9)
    assert read_json(again)["version"] == "4"
    with pytest.raises(GateError, match=r"champion cannot be loaded, nothing was changed: .*`condswin rollback`"):
        team.promote(again)
    assert rollback(team.config, "reconstruction").champion == "2"
    assert team.promote(again)[0]
    assert team.aliases() == {CHALLENGER: "4", CHAMPION: "4", PREVIOUS: "2"}


def test_weights_that_were_altered_in_the_bucket(team: World, quick_smoke: None, s3: Bucket) -> None:
    """Whoever may write to the bucket changes a byte of the champion and of the challenger."""
    assert team.promote(team.register(0.5))[0]
    challenger = team.register(0.9)
    client, digests = s3.client(), {team.tags(version)["weights_sha256"] for version in ("1", "2")}
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=s3.name)
    for key in [entry["Key"] for page in pages for entry in page["Contents"] if entry["Key"].endswith(WEIGHTS)]:
        path = team.folder / "weights"
        client.download_file(s3.name, key, str(path))
        if sha256(path) in digests:
            content = path.read_bytes()
            client.put_object(Bucket=s3.name, Key=key, Body=content[:-1] + bytes([content[-1] ^ 1]))
    image, altered = scan(team.folder), "its files are not those that were registered"
    for alias in (CHAMPION, CHALLENGER):
        with pytest.raises(ModelAlteredError, match=altered):
            predict(team.config, [image], model=f"models:/{NAME}@{alias}", out=team.folder / "out")
        with pytest.raises(ModelAlteredError, match=altered):
            serve(team.config, f"models:/{NAME}@{alias}", host="127.0.0.1", port=0)
    with pytest.raises(ModelAlteredError, match=altered):
        shadow(team.config, "reconstruction", [image])
    with pytest.raises(GateError, match=f"the challenger cannot be loaded, .*{altered}.*; run register again"):
        team.promote(challenger)
    again = team.register(0.9)
    assert (read_json(again)["version"], team.tags("3")["condswin.supersedes"]) == ("3", "2")
    with pytest.raises(GateError, match=f"the champion cannot be loaded, .*{altered}"):
        team.promote(again)
    assert not list(team.folder.glob("out/*"))
    assert team.aliases() == {CHALLENGER: "3", CHAMPION: "1"}


class Each(dict[str, Any]):
    """Faults in the first answers of each kind; identifiers and paths of files make no kind."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__()
        self.faults_of_each = faults

    def get(self, name: str, default: Any = None) -> Any:
        method, _, path = name.partition(" ")
        kind = [method, *(part for part in path.split("/")[:4] if not any(map(str.isdigit, part)))]
        return self.setdefault(" ".join(kind), iter(self.faults_of_each))


#: What happens to the first answers of each kind of request, of which the client sends one again.
FAULTS = {
    "an error": [error_500],
    "errors in a row": [error_500] * 2,
    "an error after the deed": [done_but_500],
    "cut off": [cut_off],
    "cut off in a row": [cut_off] * 2,
    "reset in a row": [reset] * 2,
    "too late": [late],
    "too late in a row": [late] * 2,
    "another page": [login_page],
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_answers_that_fail_leave_nothing_half_done(
    faults: Sequence[Fault], team: World, quick_smoke: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command goes on, or ends in a line that names the server, and is completed by running it again."""
    image, task = scan(team.folder), "reconstruction"
    assert team.promote(team.register(0.5))[0]
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr(tracking, "PATIENCE", 4.0)
    monkeypatch.setattr(lock, "LEASE", 6.0)
    said: list[str] = []
    with proxy_to(team.config.tracking.uri) as proxy:
        proxy.faults = Each(faults)
        behind = World(team.folder, make_config(proxy.endpoint))

        def until_done(deed: Callable[[], Any]) -> Any:
            for _ in range(40):
                started = time.monotonic()
                try:
                    return deed()
                except CondswinError as error:
                    said.append(str(error))
                assert time.monotonic() - started < 60
                assert all({KEY, PACKAGE} <= set(team.tags(version)) for version in versions(team))
                assert team.aliases()[CHAMPION] in {"1", "2"}
            raise AssertionError(said)

        registered = until_done(lambda: behind.register(0.9))
        assert until_done(lambda: behind.promote(registered, hold=True))[1]["outcome"] == "held"
        until_done(lambda: approve(behind.config, task, "2", by="Jane", why="fine"))
        address = f"models:/{NAME}@{CHAMPION}"
        until_done(lambda: predict(behind.config, [image], model=address, out=team.folder / "out", force=True))
        until_done(lambda: rollback(behind.config, task))
        until_done(lambda: freeze(behind.config, task, by="Jane", why="audit"))
        until_done(lambda: freeze(behind.config, task, by="Jane", why="passed", lift=True))
        kinds = len(proxy.faults)
    assert kinds > 25
    assert all("\n" not in line and len(line) < 400 for line in said), said
    named = f"MLflow at {proxy.endpoint}: "
    assert all(line.startswith(named) or line.endswith(("run it again", "when it is faster")) for line in said), said
    happened = [(each["version"], each["event"]) for each in history(team.config, task)]
    happened = [each for each in happened if each[1] != "registered"]
    assert happened == [("1", "promoted"), ("2", "promoted"), ("2", "rolled back"), ("", "frozen"), ("", "lifted")]
    assert versions(team) == ["1", "2"]
    assert team.aliases() == {CHALLENGER: "2", CHAMPION: "1"}
    assert plain_tags(team.client) == {LAST_CHAMPION: "1"}
    assert [path.name for path in (team.folder / "out").glob("*.npy")] == ["scan.npy"]


def test_tables_of_an_older_mlflow(postgres: str, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow upgrades them when it opens them, if it misses one: that is for people to decide, after a backup."""
    server = sqlalchemy.create_engine(postgres, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(sqlalchemy.text("CREATE DATABASE older"))
    uri = sqlalchemy.make_url(postgres).set(database="older").render_as_string(hide_password=False)
    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
    Base.metadata.create_all(engine)
    settings = _get_alembic_config(uri)
    with engine.begin() as connection:
        settings.attributes["connection"] = connection
        command.upgrade(settings, f"{tracking.migrations().get_current_head()}-1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    found = _database(uri)
    assert (found.state, "tables of an older MLflow than" in found.said) == ("failed", True)
    assert "mlflow db upgrade" in found.mend
    for _ in range(2):  # nothing was changed
        with pytest.raises(TrackingError, match=r"its tables are of another MLflow .*; `condswin doctor`") as caught:
            connect(make_config("sqlite:///mlflow.db"))
    assert str(sqlalchemy.make_url(uri).password) not in str(caught.value)
    subprocess.run([sys.executable, "-m", "mlflow", "db", "upgrade", uri], check=True, capture_output=True, timeout=120)
    assert _database(uri).state == "ok"
    with tracked_run(make_config("sqlite:///mlflow.db"), "a run"):
        pass


def peak_kilobytes(process: int) -> int:
    """The most memory that a process and its descendants held, each by itself."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    status = Path(f"/proc/{process}/status").read_text()
    own = int(status.partition("VmHWM:")[2].split()[0])
    return max([own, *(peak_kilobytes(int(child)) for child in children)])


@pytest.mark.parametrize("parts", [True, False], ids=["in parts", "whole"])
def test_a_large_model(
    parts: bool, team: World, s3: Bucket, mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the server, or in parts to addresses that the server signs: the client has no key of the bucket."""
    monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", str(parts).lower())
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", str(PART))
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE", str(PART))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")
    width = next(width for width in range(64, 4096, 16) if width**2 * PER_WIDTH * 4 / 1e6 >= MEGABYTES)
    spec = ModelSpec("reconstruction", "swin", "swin", "demo", 1, 1, {**SMALL, "embedding": width})
    folder = team.folder / "large"
    save_model(folder, spec.build(), spec)
    size = (folder / WEIGHTS).stat().st_size
    assert size > 0.9e6 * MEGABYTES
    comparison = team.comparison(weights_sha256=sha256(folder / WEIGHTS))
    stored = s3.keys()
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    found = register(team.config, "reconstruction", comparison, folder, team.folder / "large.json")
    registered = time.monotonic()
    model, _ = load_registered(found["uri"], team.config)
    loaded = time.monotonic()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert mlflow_server.process is not None
    print(
        f"{size / 1e6:.0f} MB {'in parts' if parts else 'whole'}: registered in {registered - started:.1f} s, loaded "
        f"in {loaded - registered:.1f} s; peak of the client {after / 1e3:.0f} MB ({before / 1e3:.0f} MB before), of "
        f"the server {peak_kilobytes(mlflow_server.process.pid) / 1e3:.0f} MB"
    )
    assert sum(weight.numel() for weight in model.parameters()) * 4 > 0.9e6 * MEGABYTES
    client = s3.client()
    heads = [client.head_object(Bucket=s3.name, Key=key) for key in s3.keys() - stored]
    (tag,) = (head["ETag"].strip('"') for head in heads if head["ContentLength"] == size)
    assert tag.endswith(f"-{-(-size // PART)}") == parts
    assert not client.list_multipart_uploads(Bucket=s3.name).get("Uploads")

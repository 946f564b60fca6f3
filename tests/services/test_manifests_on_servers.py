"""What manifests start, started here with their own commands and environment: MLflow, the backup and its way back."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from mlflow.exceptions import MlflowException

from condswin.config.profiles import compose, write_config
from condswin.files import read_json
from condswin.registry.aliases import CHAMPION, REJECTED
from condswin.registry.package import load_registered
from condswin.steps.approve import approve, freeze, reject
from condswin.steps.demo_data import demo_data
from tests.infra.rendering import ROOT, Object, containers, pods, render
from tests.registry.toy import NAME, World, install, make_config, make_prepared
from tests.services.conftest import POSTGRES, Bucket, free_ports, stop, wait_until

pytest_plugins = ["tests.registry.fixtures"]
pytestmark = pytest.mark.services
ADMIN, RUNNER = ("admin", "a-password-of-the-admin"), ("runner", "a-password-of-the-runner")


@pytest.fixture(scope="module")
def objects() -> list[Object]:
    return render(ROOT / "infra/kustomize/laptop")


@pytest.fixture(scope="module")
def secrets(postgres: str, s3: Bucket, services_folder: Path) -> dict[tuple[str, str], str]:
    """What docs/how-to/cluster.md puts into the Secrets, for an own database on the server at hand."""
    address = urlsplit(postgres)
    environment = {**os.environ, "PGPASSWORD": str(address.password), "PGHOST": str(address.hostname)}
    options = ["-p", str(address.port), "-U", "mlflow", "-d", "postgres", "-c", "CREATE DATABASE mlflow"]
    subprocess.run([POSTGRES / "psql", *options], env=environment, check=True, capture_output=True)
    uri = address._replace(path="/mlflow").geturl()
    page = (ROOT / "docs/how-to/cluster.md").read_text()
    (ini,) = [line.split("'")[1] for line in page.splitlines() if line.strip().startswith("printf '[mlflow]")]
    return {
        ("postgres", "password"): str(address.password),
        ("mlflow", "database-uri"): uri,
        ("mlflow", "basic_auth.ini"): ini.replace("\\n", "\n") % uri,
        ("mlflow", "flask-key"): "0123456789abcdef0123456789abcdef",
        ("mlflow", "admin-username"): ADMIN[0],
        ("mlflow", "admin-password"): ADMIN[1],
        ("mlflow-client", "MLFLOW_TRACKING_USERNAME"): RUNNER[0],
        ("mlflow-client", "MLFLOW_TRACKING_PASSWORD"): RUNNER[1],
        ("s3", "AWS_ACCESS_KEY_ID"): s3.access_key,
        ("s3", "AWS_SECRET_ACCESS_KEY"): s3.secret_key,
    }


@pytest.fixture(scope="module")
def settings(objects: list[Object], s3: Bucket) -> dict[str, str]:
    """The ConfigMap, with the addresses of this machine."""
    (found,) = [each["data"] for each in objects if each["kind"] == "ConfigMap" and "PUBLIC_HOST" in each["data"]]
    return {**found, "AWS_ENDPOINT_URL": s3.endpoint, "MLFLOW_S3_ENDPOINT_URL": s3.endpoint}


def environment_of(container: Object, settings: dict[str, str], secrets: dict[tuple[str, str], str]) -> dict[str, str]:
    """As a kubelet makes it: settings first, then each variable, which may name earlier ones."""
    found = dict(settings) if "envFrom" in container else {}
    for each in container.get("env", ()):
        if "value" in each:
            value = each["value"]
            for name, known in found.items():
                value = value.replace(f"$({name})", known)
        elif "secretKeyRef" in each["valueFrom"]:
            reference = each["valueFrom"]["secretKeyRef"]
            value = secrets[reference["name"], reference["key"]]
        else:
            value = "condswin"  # the namespace
        found[each["name"]] = value
    return found


@pytest.fixture(scope="module")
def place(services_folder: Path) -> Path:
    folder = services_folder / "manifests"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def run(objects: list[Object], settings: dict[str, str], secrets: dict[tuple[str, str], str], place: Path) -> Any:
    """Runs the containers of a Job one after another, with this machine's programs, folders and ports."""
    address = urlsplit(secrets["mlflow", "database-uri"])

    def run(name: str, **more: str) -> list[str]:
        (spec,) = [template["spec"] for each, template in pods(objects) if each == name]
        said = []
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            own = environment_of(container, settings, secrets) | more
            if "PGHOST" in own:
                own |= {"PGHOST": str(address.hostname), "PGPORT": str(address.port)}
            command = [part.replace("/backup/", f"{place}/").replace("/scripts/", f"{ROOT}/infra/kustomize/base/")
                       for part in [*container["command"], *container.get("args", ())]]  # fmt: skip
            for variable, value in own.items():
                command = [part.replace(f"$({variable})", value) for part in command]
            path = f"{Path(sys.executable).parent}:{POSTGRES}:/usr/bin:/bin"
            done = subprocess.run(
                command, env={"PATH": path, "HOME": str(place), **own}, cwd=place, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{shlex.join(command)}:\n{done.stdout}{done.stderr}"
            said.append(done.stdout)
        return said

    run("Job/bucket")
    return run


@pytest.fixture(scope="module")
def server(
    objects: list[Object], settings: dict[str, str], secrets: dict[tuple[str, str], str], place: Path, run: Any
) -> Iterator[str]:
    """MLflow as its Deployment starts it, on loopback."""
    (container,) = [each for name, each in containers(objects) if name == "Deployment/mlflow/mlflow"]
    (port,) = free_ports(1)
    own = environment_of(container, {**settings, "PUBLIC_HOST": f"127.0.0.1:{port}"}, secrets)
    (place / "basic_auth.ini").write_text(secrets["mlflow", "basic_auth.ini"])
    own["MLFLOW_AUTH_CONFIG_PATH"] = str(place / "basic_auth.ini")
    arguments = ["127.0.0.1" if each == "0.0.0.0" else str(port) if each == "5000" else each
                 for each in container["args"]]  # fmt: skip
    own |= {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(place), "TMPDIR": str(place)}
    log = place / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*container["command"], *arguments], cwd=place, env=own, stdout=file, stderr=file, start_new_session=True
        )

    def ready() -> bool:
        assert process.poll() is None, log.read_text()[-3000:]
        probe = container["readinessProbe"]["httpGet"]
        try:
            return requests.get(f"http://127.0.0.1:{port}{probe['path']}", timeout=2).ok
        except requests.RequestException:
            return False

    try:
        wait_until(ready, "MLflow", log)
        address = f"http://127.0.0.1:{port}"
        assert make_users(address) == ["runner: made"]
        yield address
    finally:
        stop(process)


def make_users(address: str, *people: str) -> list[str]:
    """What `infra/users.py` says."""
    own = {**os.environ, "MLFLOW_TRACKING_URI": address, "RUNNER": RUNNER[1]}
    own |= {"MLFLOW_TRACKING_USERNAME": ADMIN[0], "MLFLOW_TRACKING_PASSWORD": ADMIN[1]}
    command = [sys.executable, ROOT / "infra/users.py", *people]
    return subprocess.run(command, env=own, check=True, capture_output=True, text=True).stdout.splitlines()


def login(patch: pytest.MonkeyPatch, user: tuple[str, str]) -> None:
    patch.setenv("MLFLOW_TRACKING_USERNAME", user[0])
    patch.setenv("MLFLOW_TRACKING_PASSWORD", user[1])


def test_only_users_get_in_and_only_by_its_names(server: str) -> None:
    address = f"{server}/api/2.0/mlflow/registered-models/search"
    assert requests.get(address, timeout=10).status_code == 401
    assert requests.get(address, auth=("runner", "wrong"), timeout=10).status_code == 401
    assert requests.get(address, auth=RUNNER, timeout=10).status_code == 200
    for host, status in (("evil.example", 403), ("mlflow.condswin.svc:5000", 200), ("mlflow:5000", 200),
                         ("localhost:5000", 200)):  # fmt: skip
        assert requests.get(address, auth=RUNNER, headers={"Host": host}, timeout=10).status_code == status, host
    assert requests.get(server, auth=RUNNER, timeout=10).headers["X-Frame-Options"] == "DENY"


def test_a_champion_of_a_user_survives_by_its_backup(
    server: str, run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clean_environment: None
) -> None:
    """Registered and promoted by a user who is no administrator, decided on inside the cluster, lost and restored."""
    login(monkeypatch, RUNNER)
    install(monkeypatch)
    make_prepared(tmp_path / "prepared")
    team = World(tmp_path, make_config(server))
    assert team.promote(team.register(0.5))[0]
    (said,) = run("CronJob/promoter", MLFLOW_TRACKING_URI=server)
    assert "promoted" in said
    (_, key) = run("CronJob/backup")
    assert key.startswith("mlflow-20")
    team.client.delete_registered_model(NAME)
    team.client.create_experiment("later")
    run("CronJob/restore")
    assert team.aliases()[CHAMPION] == "1"
    assert team.client.get_experiment_by_name("later") is None
    model, _ = load_registered(f"models:/{NAME}@{CHAMPION}", team.config)
    assert model.projection[-2].bias[0].item() == pytest.approx(0.5)


def test_old_backups_go_and_a_damaged_one_is_refused(run: Any, server: str, s3: Bucket) -> None:
    store = replace(s3, name="condswin").client()

    def stored() -> list[str]:
        listed = store.list_objects_v2(Bucket="condswin", Prefix="backups/").get("Contents", [])
        return [each["Key"] for each in listed]

    for _ in range(3):
        run("CronJob/backup", KEEP="2")
        time.sleep(1.1)  # their names tell seconds
    assert len(stored()) == 2
    newest = stored()[-1]
    note = store.head_object(Bucket="condswin", Key=newest)["Metadata"]
    store.put_object(Bucket="condswin", Key=newest, Body=b"other bytes", Metadata=note)
    with pytest.raises(AssertionError, match="is not what was stored; choose another one"):
        run("CronJob/restore")


def test_the_age_of_champions_is_told(run: Any, server: str) -> None:
    own = {"MLFLOW_TRACKING_URI": server, "MODELS": NAME}
    (said,) = run("CronJob/champion-age", **own)
    assert said.startswith("condswin-reconstruction: version 1, 0.0 days")
    with pytest.raises(AssertionError, match="condswin-segmentation: no champion"):
        run("CronJob/champion-age", **own | {"MODELS": f"{NAME} condswin-segmentation"})
    with pytest.raises(AssertionError, match=r"version 1, 0\.0 days"):
        run("CronJob/champion-age", **own, MAX_DAYS="0")


def test_tables_of_this_version_need_no_upgrade(run: Any, server: str) -> None:
    run("CronJob/mlflow-upgrade")


def test_people_decide_and_administrators_undo(
    server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clean_environment: None
) -> None:
    """What the cluster page says of rights: a person's user sets tags and aliases, and deletes none of a version.

    It comes last, since it makes another champion.
    """
    login(monkeypatch, RUNNER)
    install(monkeypatch)
    make_prepared(tmp_path / "prepared")
    team = World(tmp_path, make_config(server))
    assert not team.promote(team.register(0.9), hold=True)[0]
    runner, jane = make_users(server, "j.doe")
    assert runner == "runner: is there already, with the password of RUNNER"
    login(monkeypatch, ("j.doe", jane.split()[-1]))
    (version,) = {int(number) for number in team.client.get_registered_model(NAME).aliases.values()} - {1}
    assert approve(team.config, "reconstruction", str(version), by="Jane", why="read twenty cases").changed
    assert reject(team.config, "reconstruction", "1", by="Jane", why="older").changed
    freeze(team.config, "reconstruction", by="Jane", why="audit")
    freeze(team.config, "reconstruction", by="Jane", why="done", lift=True)
    with pytest.raises(MlflowException, match="Permission denied"):
        team.client.delete_model_version_tag(NAME, "1", REJECTED)
    with pytest.raises(MlflowException, match="Permission denied"):
        team.client.delete_registered_model_alias(NAME, CHAMPION)
    for user in (RUNNER, ADMIN):
        login(monkeypatch, user)
        team.client.set_model_version_tag(NAME, "1", REJECTED, "{}")
        team.client.delete_model_version_tag(NAME, "1", REJECTED)
    assert team.aliases()[CHAMPION] == str(version)


def test_a_retraining_with_keys_in_files_reads_s3_and_makes_a_champion(
    server: str, s3: Bucket, tmp_path: Path, clean_environment: None
) -> None:
    """All tasks, with keys of S3 that may read alone and MLflow's user `runner`, both in files of their clients."""
    given = ["reconstruction=null", "segmentation.variants={swin: {overrides: {embedding: 16, heads: [2, 2]}}}"]
    raw = tmp_path / "raw"
    demo_data(compose(["demo", "tiny"], [*given, f"segmentation.source={raw}"]), "segmentation", out=raw)
    for path in raw.rglob("*.*"):
        s3.client().upload_file(str(path), s3.name, f"ct/{path.relative_to(raw)}")
    before = s3.keys()
    config = compose(["demo", "tiny"], [*given, f"segmentation.source=s3://{s3.name}/ct"])
    write_config(config, tmp_path / "params.yaml", comment="")
    key, secret = s3.reader
    for name, lines in (
        ("aws", ("[default]", f"aws_access_key_id = {key}", f"aws_secret_access_key = {secret}")),
        ("mlflow", ("[mlflow]", f"mlflow_tracking_username = {RUNNER[0]}", f"mlflow_tracking_password = {RUNNER[1]}")),
    ):
        (tmp_path / f".{name}").mkdir()
        (tmp_path / f".{name}/credentials").write_text("\n".join(lines))
    own = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MLFLOW_"))}
    own |= {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": server}
    own |= {"AWS_ENDPOINT_URL": s3.endpoint, "AWS_DEFAULT_REGION": "us-east-1"}
    command = [sys.executable, "-m", "pipelines", "run", "--local", "--root", "outputs"]
    ended = subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True, timeout=600)
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said[-6000:]
    assert not any(each in said for each in (key, secret, RUNNER[1]))
    (decision,) = tmp_path.glob("outputs/*/promote/decision")
    assert read_json(decision)["promoted"] is True
    (manifest,) = tmp_path.glob("outputs/*/ingest/ingested/manifest.json")
    assert len(read_json(manifest)["cases"]) == sum(path.name.startswith("volume") for path in raw.rglob("*"))
    assert s3.keys() == before

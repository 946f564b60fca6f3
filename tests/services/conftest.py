"""Real servers on loopback: PostgreSQL, S3 (SeaweedFS) and an MLflow server that keeps models in both.

Each has its own folder and free ports, and is stopped by its process id.
"""

import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from botocore.exceptions import BotoCoreError, ClientError

from condswin.sources import s3 as fetching
from tests.services.proxy import Proxy, proxy_to

POSTGRES = Path("/usr/lib/postgresql/15/bin")
START_WITHIN = 120.0


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def wait_until(ready: Callable[[], bool], what: str, log: Path) -> None:
    deadline = time.monotonic() + START_WITHIN
    while not ready():
        assert time.monotonic() < deadline, f"{what} did not start:\n{log.read_text()[-3000:]}"
        time.sleep(0.2)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a server and the workers that it started in its session."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(8)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="session")
def services_folder() -> Iterator[Path]:
    # Not pytest's own: the user postgres cannot enter that.
    folder = Path(tempfile.mkdtemp(prefix="condswin-services-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(services_folder: Path) -> Iterator[str]:
    """URI of an empty database."""
    folder, (port,) = services_folder / "postgres", free_ports(1)
    folder.mkdir()
    root = os.getuid() == 0  # PostgreSQL refuses to run as root
    if root:
        shutil.chown(folder, "postgres", "postgres")
    password = secrets.token_hex(8)
    (folder / "password").write_text(password)
    (folder / "password").chmod(0o644)

    def run(program: str, *arguments: str) -> None:
        command = [str(POSTGRES / program), *arguments]
        with (folder / "log").open("ab") as log:
            subprocess.run(
                ["runuser", "-u", "postgres", "--", *command] if root else command,
                check=True,
                stdout=log,
                stderr=log,
                cwd=folder,
            )

    data = str(folder / "data")
    run("initdb", "-D", data, "-U", "mlflow", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    run("pg_ctl", "-D", data, "-o", options, "-l", str(folder / "server.log"), "-w", "start")
    yield f"postgresql+psycopg2://mlflow:{password}@127.0.0.1:{port}/postgres"
    run("pg_ctl", "-D", data, "-m", "fast", "-w", "stop")


@dataclass(frozen=True)
class Bucket:
    endpoint: str
    name: str
    access_key: str
    secret_key: str
    #: Key and secret that may read alone.
    reader: tuple[str, str]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "MLFLOW_S3_ENDPOINT_URL": self.endpoint,
            "AWS_ENDPOINT_URL": self.endpoint,
        }

    def keys(self) -> set[str]:
        """Of all objects."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {entry["Key"] for page in pages for entry in page.get("Contents", [])}

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
        )


@pytest.fixture(scope="session")
def s3(services_folder: Path) -> Iterator[Bucket]:
    """An empty bucket that only its keys open."""
    folder = services_folder / "s3"
    folder.mkdir()
    master, volume, filer, port, *grpc = free_ports(8)
    reader = (secrets.token_hex(8), secrets.token_hex(16))
    bucket = Bucket(f"http://127.0.0.1:{port}", "models", secrets.token_hex(8), secrets.token_hex(16), reader)
    people = [
        ("mlflow", (bucket.access_key, bucket.secret_key), ["Admin", "Read", "List", "Tagging", "Write"]),
        ("reader", reader, ["Read", "List"]),
    ]
    identities = [
        {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
        for name, (key, secret), actions in people
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    command = [
        *(str(Path(sys.executable).with_name("weed")), "server", f"-dir={folder}", "-ip=127.0.0.1"),
        *("-ip.bind=127.0.0.1", "-volume.max=200", "-master.volumeSizeLimitMB=64", "-volume.preStopSeconds=0"),
        *("-s3", f"-s3.port={port}", "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={folder / 's3.json'}"),
        *(f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"),
        *(f"-master.port.grpc={grpc[0]}", f"-volume.port.grpc={grpc[1]}", f"-filer.port.grpc={grpc[2]}"),
        f"-s3.port.grpc={grpc[3]}",
    ]
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, cwd=folder, start_new_session=True)

    def ready() -> bool:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            bucket.client().create_bucket(Bucket=bucket.name)
        except (BotoCoreError, ClientError):
            return False
        return True

    try:
        wait_until(ready, "SeaweedFS", log)
        yield bucket
    finally:
        stop(process)


@pytest.fixture
def bucket(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """The bucket of raw files, empty before and after, which clients find in the environment."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    # Outside, patience is a matter of minutes.
    monkeypatch.setattr(fetching, "READ_TIMEOUT", 2.0)
    monkeypatch.setattr(fetching, "REQUESTS", 2)
    monkeypatch.setattr(fetching, "STREAMS", 2)
    client = s3.client()
    own = dataclasses.replace(s3, name="scans")
    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
        client.create_bucket(Bucket=own.name)
    yield own
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=own.name):
        for entry in page.get("Contents", []):
            client.delete_object(Bucket=own.name, Key=entry["Key"])


@pytest.fixture
def proxy(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """What clients find in the place of the bucket's server."""
    with proxy_to(bucket.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@dataclass
class MlflowServer:
    """An MLflow server that can be stopped and started again at the same place."""

    folder: Path
    database: str
    bucket: Bucket
    port: int
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        log = self.folder / "log"
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--workers", "1", "--backend-store-uri", self.database),
            *("--artifacts-destination", f"s3://{self.bucket.name}/mlflow", "--serve-artifacts"),
        ]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                command,
                stdout=file,
                stderr=file,
                cwd=self.folder,
                env={**os.environ, **self.bucket.environment, **quiet},
                start_new_session=True,
            )

        def ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, log.read_text()[-3000:]
            try:
                return requests.get(f"{self.uri}/health", timeout=2).ok
            except requests.RequestException:
                return False

        wait_until(ready, "MLflow", log)

    def stop(self) -> None:
        if self.process is not None:
            stop(self.process)


@pytest.fixture(scope="session")
def mlflow_server(services_folder: Path, postgres: str, s3: Bucket) -> Iterator[MlflowServer]:
    folder, (port,) = services_folder / "mlflow", free_ports(1)
    folder.mkdir()
    server = MlflowServer(folder, postgres, s3, port)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def mlserver(services_folder: Path) -> Path:
    """Program of an MLServer in an environment of its own."""
    folder = services_folder / "mlserver"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # What its pins leave out (torch, MLflow and what they need) is gigabytes: ours, found after its own.
    (site / "ours.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    pins = Path(__file__).parents[2] / "infra/mlserver.txt"
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python")]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "-r", str(pins)], check=True)
    return folder / "bin/mlserver"

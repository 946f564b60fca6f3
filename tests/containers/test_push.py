"""`make image PUSH=...` with a real Docker and a real registry on loopback."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import yaml

from tests.containers.conftest import stop, wait_until
from tests.containers.docker_client import docker

pytestmark = pytest.mark.containers
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def registry(daemon: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An empty registry's address."""
    if not shutil.which("docker-registry"):
        pytest.skip("no registry here; on Debian: apt-get install --no-install-recommends docker-registry")
    folder = tmp_path_factory.mktemp("registry")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    settings = {"version": 0.1, "storage": {"filesystem": {"rootdirectory": str(folder)}}, "http": {"addr": address}}
    (folder / "config.yml").write_text(yaml.safe_dump(settings))
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            ["docker-registry", "serve", folder / "config.yml"], stdout=file, stderr=file, start_new_session=True
        )

    def ready() -> bool:
        try:
            return requests.get(f"http://{address}/v2/", timeout=2).ok
        except requests.RequestException:
            return False

    try:
        wait_until(ready, process, log)
        yield address
    finally:
        stop(process)


def test_an_image_is_pushed_noted_and_pulled_by_its_digest(registry: str, base_image: str, tmp_path: Path) -> None:
    (tmp_path / "infra").mkdir()
    (tmp_path / "infra/Dockerfile").write_text(
        "ARG BASE_IMAGE\nFROM ${BASE_IMAGE} AS cpu\nARG GIT_COMMIT\nENV CONDSWIN_GIT_COMMIT=${GIT_COMMIT}\n"
    )
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b")
    for command in (("init", "--quiet"), ("add", "infra"), ("commit", "--quiet", "--message", "a")):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.strip()
    name = f"{registry}/team/condswin"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DOCKER_BUILDKIT": "0"}

    def pipelines(*arguments: str) -> str:
        command = [sys.executable, "-m", "pipelines", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    pipelines("image", "--push", name, "--build-arg", f"BASE_IMAGE={base_image}")
    (noted,) = yaml.safe_load((tmp_path / "infra/images.yaml").read_text())["images"].values()
    listed = requests.get(
        f"http://{registry}/v2/team/condswin/manifests/{noted['tag']}",
        headers={"Accept": "application/vnd.docker.distribution.manifest.v2+json"},
        timeout=10,
    )
    assert listed.headers["Docker-Content-Digest"] == noted["digest"]
    docker("image", "rm", "--force", "condswin:cpu", f"{name}:{noted['tag']}")
    docker("pull", "--quiet", f"{name}@{noted['digest']}")
    (details,) = json.loads(docker("image", "inspect", f"{name}@{noted['digest']}"))
    assert details["Config"]["Labels"]["org.opencontainers.image.revision"] == commit
    assert f"CONDSWIN_GIT_COMMIT={commit}" in details["Config"]["Env"]
    assert details["Size"] == noted["size"]
    bill = json.loads((tmp_path / "infra" / noted["sbom"]).read_text())
    assert bill["metadata"]["component"]["bom-ref"] == f"{name}@{noted['digest']}"
    assert all(part["purl"].startswith(("pkg:pypi/", "pkg:deb/debian/")) for part in bill["components"])

    docker("image", "rm", "--force", f"{name}@{noted['digest']}")
    pipelines("pin", "again", f"{name}:{noted['tag']}")
    known = yaml.safe_load((tmp_path / "infra/images.yaml").read_text())["images"]
    assert known["again"]["digest"] == noted["digest"]

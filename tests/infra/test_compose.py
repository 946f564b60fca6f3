"""infra/compose.yaml: what docker compose makes of it, and that nothing of it is open or secret."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.infra.rendering import ROOT, containers, render

FILE = ROOT / "infra/compose.yaml"
SECRETS = ("database", "admin", "flask", "s3")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())["services"]
    return found


def compose() -> list[str]:
    """Compose as a plug-in of docker, or as a program of its own."""
    if shutil.which("docker") and not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    pytest.skip("no docker compose here; on Debian: apt-get install --no-install-recommends docker-compose")


def test_compose_takes_it(tmp_path: Path) -> None:
    shutil.copy(FILE, tmp_path)
    (tmp_path / "secrets").mkdir()
    for name in SECRETS:
        (tmp_path / "secrets" / name).write_text("x")
    done = subprocess.run([*compose(), "-f", str(tmp_path / "compose.yaml"), "config"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["services"].keys() == {"postgres", "condswin-s3", "mlflow"}
    (tmp_path / "compose.yaml").write_text(FILE.read_text().replace("healthcheck:", "healthcheque:"))
    broken = subprocess.run([*compose(), "-f", str(tmp_path / "compose.yaml"), "config"], capture_output=True)
    assert broken.returncode != 0


def test_only_this_machine_reaches_it(services: dict[str, Any]) -> None:
    ports = [port for each in services.values() for port in each.get("ports", ())]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert services["postgres"]["networks"] == ["inside"]


def test_everything_is_watched_and_kept(services: dict[str, Any]) -> None:
    for name, each in services.items():
        assert each["healthcheck"]["test"], name
        assert each["restart"] == "unless-stopped", name
    assert services["mlflow"]["depends_on"].keys() == services.keys() - {"mlflow"}
    assert all(each["condition"] == "service_healthy" for each in services["mlflow"]["depends_on"].values())
    volumes = yaml.safe_load(FILE.read_text())["volumes"]
    assert {volume.split(":")[0] for each in services.values() for volume in each.get("volumes", ())} == set(volumes)


def test_secrets_are_files_that_git_does_not_see(services: dict[str, Any]) -> None:
    declared = yaml.safe_load(FILE.read_text())["secrets"]
    assert declared == {name: {"file": f"secrets/{name}"} for name in SECRETS}
    assert {name for each in services.values() for name in each["secrets"]} == set(declared)
    for name, each in services.items():
        for variable, value in each.get("environment", {}).items():
            assert value.startswith("/run/secrets/") or not re.search("PASSWORD|SECRET|TOKEN", variable), (
                name,
                variable,
            )
    ignored = subprocess.run(["git", "check-ignore", "--quiet", "infra/secrets/admin"], cwd=ROOT)
    assert ignored.returncode == 0


def test_mlflow_has_users_and_a_list_of_names_as_in_the_cluster(services: dict[str, Any]) -> None:
    environment, (script,) = services["mlflow"]["environment"], services["mlflow"]["command"]
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert "*" not in environment["MLFLOW_SERVER_ALLOWED_HOSTS"]
    assert "--app-name basic-auth" in script
    page = (ROOT / "docs/how-to/cluster.md").read_text()
    (line,) = re.findall(r"printf '(\[mlflow\].*?)'", script)
    assert f"printf '{line}'" in page


def test_scripts_of_containers_are_shell_and_write_the_keys(services: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "s3").write_text("Sesame\n")
    for name in ("mlflow", "condswin-s3"):
        (script,) = (part.replace("$$", "$") for part in services[name]["command"])
        subprocess.run(["sh", "-n"], input=script, text=True, check=True)
        lines = (
            script.replace("/run/secrets", str(tmp_path)).replace("/tmp/s3.json", f"{tmp_path}/s3.json").splitlines()
        )
        if name == "condswin-s3":
            subprocess.run(["sh", "-euc", lines[0]], check=True)
    (identity,) = json.loads((tmp_path / "s3.json").read_text())["identities"]
    assert identity["credentials"] == [{"accessKey": "condswin", "secretKey": "Sesame"}]


def test_storage_is_started_as_in_the_cluster_and_opens_s3_alone(services: dict[str, Any]) -> None:
    (script,) = services["condswin-s3"]["command"]
    (line,) = [line for line in script.splitlines() if line.startswith("exec weed ")]
    (container,) = [each for name, each in containers(render(ROOT / "infra/kustomize/laptop"))
                    if name == "StatefulSet/condswin-s3/s3"]  # fmt: skip
    here, there = (dict(part.lstrip("-").partition("=")[::2] for part in parts)
                   for parts in (line.split()[2:], container["args"]))  # fmt: skip
    assert {**here, "s3.config": ""} == {**there, "s3.config": ""}
    assert there["ip.bind"] == "127.0.0.1"
    assert there["s3.ip.bind"] == "0.0.0.0"
    assert {there["s3.port.iceberg"], there["s3.port.lance"]} == {"0"}
    asked = subprocess.run([Path(sys.executable).with_name("weed"), "server", "-h"], capture_output=True, text=True)
    known = set(re.findall(r"^  -([\w.]+)", asked.stdout + asked.stderr, re.MULTILINE))
    assert there.keys() - {"server"} <= known

"""A Docker daemon, the image built on it from a clean copy of the tree, and an MLflow server on loopback.

Uses the daemon that the docker client reaches (DOCKER_HOST); where there is none, root starts one, with its own folders
and without touching the machine's network: everything here runs on the host's network or on none.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.containers.docker_client import COMMIT, daemon_answers, docker

ROOT = Path(__file__).parents[2]
PUBLIC_BASE = "python:3.11-slim"
STANDIN_BASE = "condswin-base:test"
MAKE_STANDIN = ROOT.parent / "shared" / "tools" / "make-base-image.sh"
#: Outlives the tests: torch's wheel has 200 MB.
WHEELS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "condswin-test" / "wheels"


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, f"{process.args} ended:\n{log.read_text()[-3000:]}"
        assert time.monotonic() < deadline, f"{process.args} did not start:\n{log.read_text()[-3000:]}"
        time.sleep(0.3)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a server, which ends its own helpers: dockerd hangs if its containerd is told at the same time."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="session", autouse=True)
def daemon() -> Iterator[None]:
    """A Docker daemon behind the environment's DOCKER_HOST, which kfp's runner and the docker client both read."""
    if daemon_answers():
        yield
        return
    if not (shutil.which("docker") and shutil.which("dockerd")):
        pytest.skip("no Docker here; on Debian: apt-get install --no-install-recommends docker.io")
    if os.getuid() != 0:
        pytest.skip("no Docker daemon answers, and only root can start one; start it or set DOCKER_HOST")
    # Not below pytest's own folder: a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="condswin-docker-"))
    host, log = f"unix://{folder / 'docker.sock'}", folder / "log"
    command = [
        *("dockerd", "--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")),
        *("--host", host, "--pidfile", str(folder / "pid"), "--group", str(os.getgid())),
        *("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", host)
        with log.open("wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file, cwd=folder, start_new_session=True)
        try:
            wait_until(daemon_answers, process, log)
            yield
        finally:
            stop(process)
            # A stopped daemon leaves its own network namespace mounted.
            for line in Path("/proc/self/mounts").read_text().splitlines():
                if (mounted := line.split()[1]).startswith(f"{folder}/"):
                    subprocess.run(["umount", mounted], check=True)
            shutil.rmtree(folder)


@pytest.fixture(scope="session")
def base_image(daemon: None) -> str:
    """The public base image, or where no registry answers, a stand-in made from this machine's Python."""
    for known in (PUBLIC_BASE, STANDIN_BASE):
        if docker("image", "ls", "--quiet", known):
            return known
    pulled = subprocess.run(["docker", "pull", "--quiet", PUBLIC_BASE], capture_output=True, text=True, timeout=600)
    if pulled.returncode == 0:
        return PUBLIC_BASE
    if not MAKE_STANDIN.exists():
        pytest.skip(f"{PUBLIC_BASE} cannot be pulled ({pulled.stderr.strip()}) and there is no {MAKE_STANDIN}")
    # Left ignored as Python does, SIGPIPE cannot end an `ldconfig -p` whose reader has found its line and gone: in the
    # script, under `pipefail`, that is an error now and then.
    made = subprocess.run(
        ["bash", str(MAKE_STANDIN), STANDIN_BASE], capture_output=True, text=True, timeout=600, restore_signals=False
    )
    assert made.returncode == 0, made.stdout + made.stderr
    return STANDIN_BASE


@pytest.fixture(scope="session")
def torch_wheel() -> Path:
    """torch as pip finds it for this machine, in the version of the lock file."""
    (version,) = re.findall(r"^torch==(.+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    WHEELS.mkdir(parents=True, exist_ok=True)
    if not (known := sorted(WHEELS.glob(f"torch-{version}[+-]*.whl"))):
        # Downloaded beside its final place: an interrupted download is no wheel.
        with tempfile.TemporaryDirectory(dir=WHEELS) as folder:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
            subprocess.run([*pip, f"torch=={version}"], check=True, timeout=1800)
            (downloaded,) = Path(folder).glob("*.whl")
            known = [downloaded.rename(WHEELS / downloaded.name)]
    return known[0]


@pytest.fixture(scope="session")
def context(torch_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean copy of the tree: what git tracks or would, and torch's wheel."""
    folder = tmp_path_factory.mktemp("context")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    shutil.copy2(torch_wheel, folder / "infra" / "wheels")
    return folder


def pip_arguments() -> list[str]:
    """Build arguments for the package index that this machine's pip is set up for, if it is not the default."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    settings = dict(re.findall(r"^\S+?\.([a-z-]+)='(.*)'$", listed, re.MULTILINE))  # the environment's come last
    arguments = []
    for setting in ("index-url", "extra-index-url", "trusted-host"):
        # A folder of this machine is none of the container's.
        if value := " ".join(part for part in settings.get(setting, "").split() if not part.startswith("file:")):
            arguments += ["--build-arg", f"PIP_{setting.upper().replace('-', '_')}={value}"]
    return arguments


@pytest.fixture(scope="session")
def image(base_image: str, context: Path) -> Iterator[str]:
    """Tag of the image, cpu target, built from the clean copy."""
    tag, log = f"condswin:test-{os.getpid()}", context.with_name("build.log")
    command = [
        *("docker", "build", "--network", "host", "--file", "infra/Dockerfile", "--target", "cpu", "--tag", tag),
        *("--build-arg", f"BASE_IMAGE={base_image}", "--build-arg", f"GIT_COMMIT={COMMIT}"),
        *pip_arguments(),
        ".",
    ]
    began = time.monotonic()
    with log.open("wb") as file:
        # The classic builder needs no plug-in; what it builds, BuildKit builds too.
        environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
        built = subprocess.run(command, cwd=context, env=environment, stdout=file, stderr=file, timeout=3000)
    assert built.returncode == 0, log.read_text()[-6000:]
    print(f"image built in {time.monotonic() - began:.0f} s")
    yield tag
    docker("image", "rm", "--force", tag)


@pytest.fixture(scope="session")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of an MLflow server on sqlite that keeps models too: its clients need neither database nor storage."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "log"
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
        *("--artifacts-destination", str(folder / "artifacts"), "--serve-artifacts"),
    ]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **quiet}, stdout=file, stderr=file, start_new_session=True
        )

    def ready() -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{port}/health", timeout=2).ok
        except requests.RequestException:
            return False

    try:
        wait_until(ready, process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process)

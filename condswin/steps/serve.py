"""Step: answer requests with a registered model, which is verified before anything of it is read or run."""

import ctypes
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests  # type: ignore[import-untyped]

from condswin.config.root import Config
from condswin.errors import GateError
from condswin.files import write_json
from condswin.registry import serve_package
from condswin.registry.package import exact_uri, verified_package
from condswin.registry.smoke import clean_environment
from condswin.temporary import owned_folder

#: Seconds within which the server must answer.
START_WITHIN = 300.0
#: Seconds for one request: a large volume takes minutes.
REQUEST_TIMEOUT = "3600"

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def serve(
    config: Config,
    model: str,
    *,
    host: str,
    port: int,
    mlserver: Path | None = None,
    tell: Callable[[str, str], None] = lambda model, url: None,
) -> None:
    """Serves a registered model until the process is told to end.

    The package is fetched and found to be what was registered, and signed where a key is given. Then a process of its
    own, without this one's credentials, runs MLflow's scoring server on it. On Linux it ends with this one, however
    this one ends. Package and scans lie in a temporary folder; if both are killed, the next `serve` removes it.

    Args:
        config: Names the registry; files are predicted with its `predict` of the model's task.
        model: `models:/NAME@ALIAS` or `models:/NAME/VERSION`. The version is read once: an alias that moves later
            changes nothing here.
        host: Address to listen on. There is no authentication.
        port: Port; 0 for any that is free.
        mlserver: Program of an MLServer in an environment of its own, which answers by the V2 protocol instead.
        tell: Called with the version and the server's address once it answers.

    Raises:
        ModelUnavailableError: There is no such version.
        ModelAlteredError: It is not what was registered.
        GateError: The address cannot be listened on, the server does not start, or ended by itself.
    """
    exact = exact_uri(model, config)
    with (
        _listen(host, port) as listener,
        owned_folder("condswin-serve-") as (home, lock),
        verified_package(exact, config, within=home) as package,
    ):
        number = listener.getsockname()[1]
        url = f"http://{_reached_at(host)}:{number}"
        environment = clean_environment(str(home)) | {
            "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT": REQUEST_TIMEOUT,
            "TMPDIR": str(home),
        }
        if mlserver is not None:
            settings = home / "mlserver"  # it looks for models in all that lies there
            _write_settings(settings, package, exact, host, number)
            command = [str(mlserver.absolute()), "start", str(settings)]
            listener.close()  # it insists on listening itself
        else:
            parameters = home / "parameters.json"
            write_json(parameters, _told(config))
            script = str(Path(serve_package.__file__))
            socket_number = str(listener.fileno())
            command = [sys.executable, "-P", script, str(package), str(parameters), socket_number, exact]
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=2,  # the address is all that stands on this one's
            pass_fds=(lock,) if mlserver else (lock, listener.fileno()),
            preexec_fn=_end_with_parent,
        )
        try:
            listener.close()  # who asks while nobody listens is to be told so
            _wait(process, f"{url}/{'v2/health/ready' if mlserver else 'ping'}", exact)
            tell(exact, url)
            raise GateError(f"{exact}: its server ended (exit code {process.wait()})")
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _told(config: Config) -> dict[str, Any]:
    """Parameters for the package's code, which may be older: what it cannot know is named only if it is wanted.

    The address of a registry may hold a password.
    """
    kept_back: dict[str, Any] = {"tracking": True, "cluster": True, **{name: {"gate"} for name in config.present}}
    return config.model_dump(mode="json", exclude_defaults=True, exclude=kept_back)


def _wait(process: subprocess.Popen[bytes], url: str, exact: str) -> None:
    give_up = time.monotonic() + START_WITHIN
    asking = requests.Session()
    asking.trust_env = False  # a proxy would answer for the server
    while time.monotonic() < give_up:
        if process.poll() is not None:
            raise GateError(f"{exact}: its server did not start (exit code {process.returncode})")
        try:
            if asking.get(url, timeout=2).ok:
                return
        except requests.RequestException:
            pass
        time.sleep(0.2)
    raise GateError(f"{exact}: its server did not answer within {START_WITHIN:.0f} s")


def _write_settings(folder: Path, package: Path, exact: str, host: str, port: int) -> None:
    """What MLServer reads: the package as a model of the registered model's name and version."""
    _, name, version = exact.split("/")
    ports = {"http_port": port, "grpc_port": _free_port(host), "metrics_port": _free_port(host)}
    write_json(folder / "settings.json", {"host": host, "parallel_workers": 0, "debug": False, **ports})
    parameters = {"uri": str(package), "version": version}
    runtime = "mlserver_mlflow.MLflowRuntime"
    write_json(folder / "model-settings.json", {"name": name, "implementation": runtime, "parameters": parameters})


def _free_port(host: str) -> int:
    with _listen(host, 0) as one:
        return int(one.getsockname()[1])


def _listen(host: str, port: int) -> socket.socket:
    """Takes the port before anything is started: who answers there is the server, and no other that was there."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, UnicodeError) as error:
        raise GateError(f"--host {host} --port {port}: {error}; --port 0 takes any that is free") from None


def _reached_at(host: str) -> str:
    """What to write for a host in an address."""
    host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _end_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

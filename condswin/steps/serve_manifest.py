"""Step: a KServe InferenceService that names a registered version by its artifacts, and whether it still is the one.

KServe fetches a package by the address of its files and resolves no alias (kserve/kserve#3555). So the manifest pins
what the alias means today, and `stale` compares.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from condswin.config.pools import load_pools
from condswin.config.reading import read_yaml
from condswin.config.root import Config
from condswin.errors import BadFileError, ConfigError, StaleError
from condswin.files import write_json
from condswin.registry.package import PACKAGE, find_registered
from condswin.registry.tracking import connect, tracking_errors, tracking_uri

Runtime = Literal["mlserver", "condswin"]
#: Annotations: the version that is pinned, the address that it was resolved from, and the checksum of its files.
MODEL, RESOLVED_FROM, DIGEST = "condswin/model", "condswin/resolved-from", "condswin/package-sha256"
#: Secret of the namespace with the account at MLflow, by the variables' names.
_SECRET, _CREDENTIALS = "mlflow-client", ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
#: Schemes that KServe's storage initializer fetches from.
_FETCHED = ("s3", "gs", "pvc", "https", "hdfs", "webhdfs")
#: Names of services in Kubernetes.
_NAME = re.compile("[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
_PROXIED = re.compile(r"mlflow-artifacts:(?://[^/]*)?/(?P<path>.*)")


def manifest(config: Config, model: str, *, runtime: Runtime, artifacts: str = "", name: str = "") -> dict[str, Any]:
    """An InferenceService of what an address means now.

    Args:
        config: Names the registry; the image of the pool of `predict` (`cluster.pools`) runs the
            runtime `condswin`.
        model: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        runtime: `mlserver`: KServe's own for MLflow models, V2 protocol, which verifies nothing. `condswin`: a
            container that runs `condswin serve`, which fetches the version from the registry and compares it with the
            checksum there; it knows no keys, so it checks no signature.
        artifacts: For `mlserver`: where the server keeps what it hands out itself, `s3://bucket/prefix`; clients are
            not told.
        name: Of the service; empty for the model's.

    Returns:
        The manifest.

    Raises:
        ModelUnavailableError: There is no such version.
        ConfigError: KServe cannot fetch from where the files lie, the pools cannot be read, or no service may have
            that name.
    """
    entry = find_registered(model, config)
    name = name or entry.name
    if not _NAME.fullmatch(name):
        raise ConfigError(f"--name {name!r}: no name of a service; give small letters, digits and -, 63 at most")
    exact = f"models:/{entry.name}/{entry.version}"
    notes = {MODEL: exact, RESOLVED_FROM: model, DIGEST: entry.tags.get(PACKAGE, "unknown")}
    if runtime == "mlserver":
        uri = notes["condswin/artifacts"] = _address(config, exact, artifacts)
        predictor: dict[str, Any] = {
            "model": {"modelFormat": {"name": "mlflow"}, "protocolVersion": "v2", "storageUri": uri}
        }
    else:
        command = ["condswin", "serve", exact, "--host", "0.0.0.0", "--port", "8080"]
        ready = {"httpGet": {"path": "/ping", "port": 8080}}
        container = {
            "name": "kserve-container",
            "image": load_pools(config.cluster.pools).of("predict").image,
            "command": command,
            "ports": [{"containerPort": 8080, "protocol": "TCP"}],
            "readinessProbe": ready,
            "env": [{"name": "MLFLOW_TRACKING_URI", "value": _server(config)}, *map(_from_secret, _CREDENTIALS)],
        }
        predictor = {"containers": [container]}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "annotations": notes},
        "spec": {"predictor": predictor},
    }


def require_current(config: Config, path: Path, model: str = "") -> str:
    """Compares a manifest with the registry.

    Args:
        config: Names the registry.
        path: What `condswin serve-manifest` wrote.
        model: Address to compare with; empty for the one that the manifest was made from.

    Returns:
        The version that it rightly pins.

    Raises:
        BadFileError: The file is none of ours.
        StaleError: The address means another version now, or the version's files are registered otherwise.
        ModelUnavailableError: The address means nothing any more.
    """
    pinned, wanted, digest = _notes(path)
    entry = find_registered(model or wanted, config)
    now = f"models:/{entry.name}/{entry.version}"
    if now != pinned:
        raise StaleError(f"{path}: pins {pinned}, but {model or wanted} is {now}; write it again and apply it")
    if entry.tags.get(PACKAGE, "unknown") != digest:
        raise StaleError(f"{path}: pins {pinned} with other files than are registered; write it again and apply it")
    return pinned


def write_manifest(path: Path, made: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Writes a manifest as JSON, which is YAML too; one of ours is replaced.

    Raises:
        BadFileError: The file is there and none of ours.
    """
    if path.exists() and not overwrite:
        _notes(path)
    write_json(path, made)


def _notes(path: Path) -> tuple[str, str, str]:
    try:
        notes = read_yaml(path)["metadata"]["annotations"]
        return str(notes[MODEL]), str(notes[RESOLVED_FROM]), str(notes[DIGEST])
    except (ConfigError, KeyError, TypeError):
        raise BadFileError(path, "is not what condswin serve-manifest writes; give another file") from None


def _address(config: Config, exact: str, artifacts: str) -> str:
    """Where a version's files lie, for a cluster."""
    client, (_, name, version) = connect(config), exact.split("/")
    with tracking_errors(tracking_uri(config)):
        uri = str(client.get_model_version_download_uri(name, version))
    if found := _PROXIED.fullmatch(uri):
        if not artifacts:
            raise ConfigError(
                f"{exact}: the MLflow server hands its files out itself and tells nobody where they lie; give "
                "--artifacts s3://BUCKET/PREFIX, the server's --artifacts-destination"
            )
        uri = f"{artifacts.rstrip('/')}/{found['path']}"
    if uri.partition("://")[0] not in _FETCHED:
        raise ConfigError(f"{exact}: its files lie at {uri}, where no cluster fetches them; keep artifacts in S3")
    return uri


def _from_secret(variable: str) -> dict[str, Any]:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": _SECRET, "key": variable}}}


def _server(config: Config) -> str:
    uri = tracking_uri(config)
    if not uri.startswith(("http://", "https://")) or {"@", "?"} & set(uri):
        raise ConfigError("tracking.uri: the runtime condswin needs an MLflow server: http(s)://HOST, no password")
    return uri

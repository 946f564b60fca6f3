import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from condswin.errors import BadFileError, ConfigError, StaleError
from condswin.registry.aliases import CHAMPION
from condswin.registry.package import PACKAGE, ModelUnavailableError
from condswin.steps.serve_manifest import manifest, require_current, write_manifest
from tests.registry.toy import NAME, World

pytest_plugins = ["tests.registry.fixtures"]

URI = f"models:/{NAME}@{CHAMPION}"


@pytest.fixture
def crowned(world: World, client: MlflowClient) -> World:
    client.set_registered_model_alias(NAME, CHAMPION, "1")
    for version in ("1", "2"):
        client.set_model_version_tag(NAME, version, PACKAGE, version * 64)
    return world


def lie_at(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MlflowClient, "get_model_version_download_uri", lambda *_: uri)


def test_an_alias_is_pinned_by_its_files_and_goes_stale(
    crowned: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lie_at("s3://models/mlflow/1/m-a/artifacts", monkeypatch)
    made = manifest(crowned.config, URI, runtime="mlserver")
    assert made["spec"]["predictor"]["model"] == {
        "modelFormat": {"name": "mlflow"},
        "protocolVersion": "v2",
        "storageUri": "s3://models/mlflow/1/m-a/artifacts",
    }
    assert made["metadata"]["name"] == NAME
    path = tmp_path / "service.json"
    write_manifest(path, made)
    write_manifest(path, made)
    assert json.loads(path.read_text()) == made
    assert require_current(crowned.config, path) == f"models:/{NAME}/1"
    crowned.client.set_registered_model_alias(NAME, CHAMPION, "2")
    with pytest.raises(StaleError, match=f"pins models:/{NAME}/1, but {URI} is models:/{NAME}/2") as caught:
        require_current(crowned.config, path)
    assert caught.value.exit_status == 3
    crowned.client.set_registered_model_alias(NAME, CHAMPION, "1")
    crowned.client.set_model_version_tag(NAME, "1", PACKAGE, "f" * 64)
    with pytest.raises(StaleError, match="with other files than are registered"):
        require_current(crowned.config, path)
    crowned.client.delete_registered_model_alias(NAME, CHAMPION)
    with pytest.raises(ModelUnavailableError):
        require_current(crowned.config, path)


def test_files_that_only_the_server_reaches_need_its_destination(
    crowned: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for uri in ("mlflow-artifacts:/1/models/m-a", "mlflow-artifacts://host:5000/1/models/m-a"):
        lie_at(uri, monkeypatch)
        with pytest.raises(ConfigError, match="--artifacts s3://BUCKET/PREFIX"):
            manifest(crowned.config, URI, runtime="mlserver")
        made = manifest(crowned.config, URI, runtime="mlserver", artifacts="s3://models/mlflow/", name="knee")
        assert made["spec"]["predictor"]["model"]["storageUri"] == "s3://models/mlflow/1/models/m-a"
        assert made["metadata"]["name"] == "knee"
    for name in ("My_Knee", "knee; rm -rf x", "-knee", "k" * 64, "kn\nee"):
        with pytest.raises(ConfigError, match=r"--name .*: no name of a service; give small letters") as caught:
            manifest(crowned.config, URI, runtime="mlserver", artifacts="s3://models/mlflow/", name=name)
        assert "\n" not in str(caught.value)
    lie_at("file:///somewhere", monkeypatch)
    with pytest.raises(ConfigError, match="keep artifacts in S3"):
        manifest(crowned.config, URI, runtime="mlserver")


def test_a_container_that_verifies_needs_a_server(
    crowned: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lie_at("mlflow-artifacts:/1/models/m-a", monkeypatch)  # which MLflow itself hands out
    with pytest.raises(ConfigError, match="needs an MLflow server"):
        manifest(crowned.config, URI, runtime="condswin")
    monkeypatch.setattr("condswin.steps.serve_manifest.tracking_uri", lambda _: "http://mlflow:5000")
    made = manifest(crowned.config, URI, runtime="condswin")
    (container,) = made["spec"]["predictor"]["containers"]
    assert container["command"][:3] == ["condswin", "serve", f"models:/{NAME}/1"]
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    assert container["env"] == [
        {"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow:5000"},
        *({"name": name, "valueFrom": {"secretKeyRef": {"name": "mlflow-client", "key": name}}} for name in names),
    ]
    champion = (Path(__file__).parents[2] / "infra/kustomize/base/champion.yaml").read_text()
    assert all(f"secretKeyRef: {{name: mlflow-client, key: {name}}}" in champion for name in names)
    theirs = tmp_path / "theirs.yaml"
    theirs.write_text("kind: InferenceService\nmetadata: {name: x}\n")
    with pytest.raises(BadFileError, match=r"theirs\.yaml: is not what condswin serve-manifest writes"):
        write_manifest(theirs, made)
    with pytest.raises(BadFileError, match=r"theirs\.yaml"):
        require_current(crowned.config, theirs)
    write_manifest(theirs, made, overwrite=True)

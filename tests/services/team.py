"""Fixture of the tests of a team's registry; a test module asks for it by `pytest_plugins`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from condswin.registry import lock, tracking
from tests.registry.toy import World, install, make_config, make_prepared
from tests.services.conftest import MlflowServer


@pytest.fixture
def team(
    tmp_path: Path, mlflow_server: MlflowServer, clean_environment: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """A client without any key for the bucket."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # Servers beside other tests may take seconds for an answer.
    monkeypatch.setattr(tracking, "PATIENCE", 60.0)
    monkeypatch.setattr(lock, "LEASE", 60.0)
    install(monkeypatch)
    make_prepared(tmp_path / "prepared")
    world = World(tmp_path, make_config(mlflow_server.uri))
    yield world
    client = world.client
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)

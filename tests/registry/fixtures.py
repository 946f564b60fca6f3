"""Fixtures of the registry's tests; a test module asks for them by `pytest_plugins`."""

import shutil
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from condswin.registry import lock
from condswin.registry.smoke import Smoke
from condswin.registry.tracking import connect
from tests.registry.toy import NAME, World, install, leave_out_code, make_config, make_prepared


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Creating MLflow's tables takes seconds; a copy takes none."""
    folder = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        connect(make_config(f"sqlite:///{folder}/mlflow.db")).search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("CONDSWIN_GIT_COMMIT", raising=False)


@pytest.fixture
def world(tmp_path: Path, empty_database: Path, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> World:
    """A registry without models, and three test cases."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for tiny networks in child processes beside other tests
    torch.set_num_threads(1)
    install(monkeypatch)
    # A disk that others fill takes seconds for a write, and a lease of seconds allows none of that.
    monkeypatch.setattr(lock, "LEASE", 120.0)
    shutil.copyfile(empty_database, tmp_path / "mlflow.db")
    make_prepared(tmp_path / "prepared")
    return World(tmp_path, make_config(f"sqlite:///{tmp_path}/mlflow.db"))


@pytest.fixture
def client(world: World) -> MlflowClient:
    """A registry with four versions (whose files nobody needs here) and no champion."""
    client = world.client
    client.create_registered_model(NAME)
    for _ in range(4):
        client.create_model_version(NAME, source=str(world.folder))
    return client


@pytest.fixture
def quick_smoke(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares the clean process, which takes seconds; other tests have it."""
    monkeypatch.setattr("condswin.steps.promote.smoke", lambda *_, **__: Smoke([], 1.0))


@pytest.fixture
def few_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages without the code that a clean process runs: they are stored and fetched in a tenth of the time."""
    leave_out_code(monkeypatch)

"""A trained network as an MLflow model, and back: code, safetensors and JSON, no pickle."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from torch import nn

import condswin
from condswin.config import Config, TaskName
from condswin.errors import CondswinError
from condswin.networks.saving import DESCRIPTION, WEIGHTS, ModelSpec, load_model, read_spec
from condswin.registry.tracking import connect, tracking_uri, wait_for_server

#: What running a logged model imports; logged with the versions installed here.
REQUIREMENTS = ("einops", "mlflow", "monai", "numpy", "safetensors", "torch")

_SERVING = Path(__file__).with_name("serving.py")
_ARTIFACT = "model"


class ModelUnavailableError(CondswinError):
    """A registered model is gone or damaged, or this version of condswin cannot build it."""


def model_name(task: TaskName) -> str:
    """The registered model of a task."""
    return f"condswin-{task}"


def log_package(folder: Path) -> str:
    """Logs a saved network to the active run.

    Args:
        folder: As `condswin.networks.saving.save_model` wrote it.

    Returns:
        URI of the logged model, `models:/m-...`.
    """
    spec = read_spec(folder)
    any_size = (-1, -1)
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype(np.float32), (-1, spec.in_channels, *any_size))]),
        Schema([TensorSpec(np.dtype(np.float32), (-1, spec.out_channels, *any_size))]),
    )
    with tempfile.TemporaryDirectory(prefix="condswin-package-") as temporary, _sys_path_kept():
        # Only these two files: a model folder may hold checkpoints, which are pickles.
        model = Path(temporary) / _ARTIFACT
        model.mkdir()
        for name in (WEIGHTS, DESCRIPTION):
            shutil.copyfile(folder / name, model / name)
        info = mlflow.pyfunc.log_model(
            name=f"{spec.task}-{spec.variant}",
            python_model=str(_SERVING),
            artifacts={_ARTIFACT: str(model)},
            code_paths=[str(Path(condswin.__file__).parent)],
            pip_requirements=requirements(),
            signature=signature,
            # Batch and sides of more than one, so that no dimension is mistaken for a fixed one.
            input_example=np.zeros((2, spec.in_channels, 16, 16), np.float32),
        )
    return str(info.model_uri)


def requirements() -> list[str]:
    """Pins of what inference needs, without local parts (`+cpu`), which no index serves."""
    return [f"{name}=={version(name).split('+')[0]}" for name in REQUIREMENTS]


def load_registered(uri: str, config: Config) -> tuple[nn.Module, ModelSpec]:
    """Loads a network in evaluation mode on the CPU, with the installed condswin's code.

    Args:
        uri: `models:/NAME@champion`, `models:/NAME/3`, or the path of a local model folder.
        config: Names the tracking server.

    Raises:
        TrackingError: The server does not answer.
        ModelUnavailableError: It has no such model, or the model's files are missing or damaged.
        BadFileError: The local folder is missing or damaged.
    """
    if not uri.startswith("models:/"):
        return load_model(Path(uri))
    connect(config)
    with tempfile.TemporaryDirectory(prefix="condswin-load-") as temporary:
        folder = fetch(uri, config, Path(temporary))
        try:
            return load_model(folder)
        except (CondswinError, ValueError, TypeError) as error:
            text = str(error).replace(f"{folder}/", "")
            raise ModelUnavailableError(f"{uri}: {text}") from error


def fetch(uri: str, config: Config, folder: Path, *, only: str | None = None) -> Path:
    """Downloads the saved network inside a registered model (or one file of it) to `folder`; `connect` comes first.

    Raises:
        TrackingError: The server does not answer.
        ModelUnavailableError: It has no such model, or the model's files are gone.
    """
    wanted = f"artifacts/{_ARTIFACT}" + (f"/{only}" if only else "")
    try:
        # A local store is handed out in place unless a destination is given: never touch the original.
        path = mlflow.artifacts.download_artifacts(f"{uri.rstrip('/')}/{wanted}", dst_path=str(folder))
    except Exception as error:  # each artifact store raises its own
        wait_for_server(tracking_uri(config))
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelUnavailableError(f"{uri}: its files cannot be fetched ({reason[:300]})") from error
    return Path(path)


@contextmanager
def _sys_path_kept() -> Iterator[None]:
    """MLflow tries a model out while logging it: puts its code first on `sys.path` and leaves it there."""
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before

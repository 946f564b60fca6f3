"""A trained network as an MLflow model, and back: code, safetensors and JSON, no pickle.

Whoever can write to the artifact store could replace code, or weights together with their description. So a version
is tagged with a checksum over its whole package when it is registered, the tag lies in the registry's database, and
nothing of a package is read or run before its files are fetched once and found to be those that were registered.
"""

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from torch import nn

import condswin
from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.errors import BadFileError, CondswinError
from condswin.files import fingerprint, sha256, write_json
from condswin.networks.saving import DESCRIPTION, WEIGHTS, ModelSpec, load_model, read_spec
from condswin.registry.aliases import aliased, find_version
from condswin.registry.sbom import sbom
from condswin.registry.signing import SIGNATURE, objection, sign
from condswin.registry.tracking import (
    MEND,
    TrackingError,
    connect,
    in_a_line,
    tracking_errors,
    tracking_uri,
    wait_for_server,
    without_password,
)

#: Version tag: `package_sha256` of the files that were registered.
PACKAGE = "condswin.package_sha256"
#: What running a logged model imports; logged with the versions installed here.
REQUIREMENTS = ("einops", "mlflow", "monai", "numpy", "safetensors", "scipy", "torch")

_SERVING = "registry/serving.py"
#: Where the saved network lies in a package.
NETWORK = "artifacts/model"
_LOADER = "mlflow.pyfunc.loaders.code_model"
#: The model card in a package, with its pictures beside it.
CARD = "README.md"
#: Files that a package may hold beside `MLmodel`: text, pictures, and weights that cannot carry code.
_KINDS = {".html", ".json", ".md", ".png", ".py", ".safetensors", ".txt", ".typed", ".yaml"}
_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>[0-9]+)|@(?P<alias>[^/@]+))")


class ModelUnavailableError(CondswinError):
    """A registered model is gone, damaged or altered, or this version of condswin cannot build it."""


class ModelAlteredError(ModelUnavailableError):
    """A registered model's files are there, but not as they were registered."""


class Logged(NamedTuple):
    """A package in MLflow's artifact store.

    Attributes:
        uri: `models:/m-...`.
        sha256: Checksum of its files, taken before they left this machine.
        signed_by: As `condswin.registry.signing.sign` says it.
    """

    uri: str
    sha256: str
    signed_by: str


def model_name(task: TaskName) -> str:
    """The registered model of a task."""
    return f"condswin-{task}"


def log_package(folder: Path, beside: Mapping[str, bytes] | None = None) -> Logged:
    """Logs a saved network to the active run.

    Args:
        folder: As `condswin.networks.saving.save_model` wrote it.
        beside: Further files by path in the package: `CARD` and its pictures.
    """
    spec = read_spec(folder)
    name = f"{spec.task}-{spec.variant}"
    run = mlflow.active_run().info
    client = MlflowClient()
    logged = client.create_logged_model(run.experiment_id, name=name, source_run_id=run.run_id)
    model = Model(model_id=logged.model_id, model_uuid=logged.model_id, run_id=run.run_id, artifact_path=name)
    with tempfile.TemporaryDirectory(prefix="condswin-package-") as temporary:
        package = Path(temporary) / model_name(spec.task)  # a signature says this name
        _build(folder, spec, model, package)
        write_json(package / "sbom.json", sbom(REQUIREMENTS))
        for path, content in (beside or {}).items():
            (package / path).parent.mkdir(exist_ok=True)
            (package / path).write_bytes(content)
        refuse_pickles(package)
        signed_by = sign(package)
        digest = package_sha256(package)
        client.log_model_artifacts(logged.model_id, str(package))
    client.log_outputs(run.run_id, [LoggedModelOutput(logged.model_id, step=0)])
    client.finalize_logged_model(logged.model_id, "READY")
    return Logged(f"models:/{logged.model_id}", digest, signed_by)


def _build(folder: Path, spec: ModelSpec, model: Model, package: Path) -> None:
    """Writes a package without byte code and without paths of this machine."""
    any_size = (-1, -1)
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype(np.float32), (-1, spec.in_channels, *any_size))]),
        Schema([TensorSpec(np.dtype(np.float32), (-1, spec.out_channels, *any_size))]),
    )
    network, code = package.parent / "model", package.parent / "condswin"
    # Only these two files: a model folder may hold checkpoints, which are pickles.
    network.mkdir()
    for name in (WEIGHTS, DESCRIPTION):
        shutil.copyfile(folder / name, network / name)
    shutil.copytree(Path(condswin.__file__).parent, code, ignore=_no_code_or_data)
    with _sys_path_kept():
        mlflow.pyfunc.save_model(
            package,
            mlflow_model=model,
            python_model=str(code / _SERVING),
            artifacts={Path(NETWORK).name: str(network)},
            code_paths=[str(code)],
            pip_requirements=requirements(),
            signature=signature,
            # Batch and sides of more than one, so that no dimension is mistaken for a fixed one.
            input_example=np.zeros((2, spec.in_channels, 16, 16), np.float32),
        )
    flavor = model.flavors["python_function"]
    flavor["model_code_path"] = Path(_SERVING).name
    for artifact in flavor["artifacts"].values():
        artifact["uri"] = artifact["path"]
    model.save(package / "MLmodel")


def _no_code_or_data(folder: str, names: list[str]) -> list[str]:
    """What may lie beside the sources on somebody's machine: byte code, notes, an editor's files."""
    return [name for name in names if name == "__pycache__" or (Path(folder, name).is_file() and not _is_plain(name))]


def _is_plain(name: str) -> bool:
    return Path(name).suffix in _KINDS and not name.startswith(".")


def requirements() -> list[str]:
    """Pins of what inference needs, without local parts (`+cpu`), which no index serves."""
    return [f"{name}=={version(name).split('+')[0]}" for name in REQUIREMENTS]


def package_sha256(package: Path) -> str:
    """Checksum of the names and contents of all files of a package: MLmodel, code, weights, description, requirements.

    Raises:
        BadFileError: There is a link, a socket or the like.
    """
    files = {}
    for path in package.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise BadFileError(path, "is no plain file")
        if path.is_file():
            files[path.relative_to(package).as_posix()] = sha256(path)
    return fingerprint(files)


def refuse_pickles(package: Path) -> None:
    """Refuses a package that may hold pickles, or that MLflow would load in another way than by running `serving.py`.

    Raises:
        BadFileError: It is such a package.
    """
    description = package / "MLmodel"
    try:
        flavors = Model.load(description).flavors
        flavor = flavors["python_function"]
        plain = set(flavors) == {"python_function"} and flavor["loader_module"] == _LOADER
        plain = plain and flavor["model_code_path"] == Path(_SERVING).name and "python_model" not in flavor
    except Exception as error:  # whatever MLflow makes of a damaged file
        raise BadFileError(description, f"not readable ({type(error).__name__})") from None
    if not plain:
        raise BadFileError(description, "asks for a pickle or for a loader of its own; register the network again")
    for path in package.rglob("*"):
        if path.is_file() and path not in (description, package / SIGNATURE) and not _is_plain(path.name):
            raise BadFileError(path, f"no file of this kind belongs into a package; there may be: {sorted(_KINDS)}")


@contextmanager
def verified_package(uri: str, config: Config, *, within: Path | None = None) -> Iterator[Path]:
    """Fetches the package of a registered version to a temporary folder, which holds exactly what was registered.

    Args:
        uri: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        config: Names the tracking server.
        within: Where the temporary folder is made, if not where all are.

    Raises:
        TrackingError: The server does not answer.
        ModelUnavailableError: It has no such version, or its files are gone.
        ModelAlteredError: They are not those that were registered, or not signed by a key that is trusted here.
        BadFileError: A key is none.
    """
    entry = find_registered(uri, config)
    name, number = entry.name, entry.version
    expected = entry.tags.get(PACKAGE)
    if expected is None:
        raise ModelUnavailableError(
            f"{uri}: an older condswin registered version {number} without the tag {PACKAGE}, so nobody can tell "
            "whether its files are those that were registered; register the network again, as a new version"
        )
    with tempfile.TemporaryDirectory(prefix="condswin-load-", dir=within) as temporary:
        package = fetch(f"models:/{name}/{number}", config, Path(temporary))
        (package / "registered_model_meta").unlink(missing_ok=True)  # MLflow's client writes it while fetching
        try:
            found = package_sha256(package)
            if found != expected:
                raise ModelAlteredError(
                    f"{uri}: its files are not those that were registered (SHA-256 {found[:12]}..., the tag {PACKAGE} "
                    f"says {expected[:12]}...); restore them, or register the network again, as a new version"
                )
            refuse_pickles(package)
            if model_name(task := read_spec(package / NETWORK).task) != name:
                raise ModelAlteredError(f"{uri}: its files are of a network for {task}")
        except BadFileError as error:
            raise ModelAlteredError(f"{uri}: {str(error).replace(f'{package}/', '')}") from error
        if wrong := objection(package):
            raise ModelAlteredError(f"{uri}: {wrong}; whoever holds the key registers the network again")
        yield package


def find_registered(uri: str, config: Config) -> ModelVersion:
    """The version that an address means.

    Raises:
        TrackingError: The server does not answer.
        ModelUnavailableError: It has no such version, or has not finished it.
    """
    parts = _URI.fullmatch(uri.rstrip("/"))
    if parts is None:
        raise ModelUnavailableError(f"{uri}: no name of a registered version; give models:/NAME/VERSION or /NAME@ALIAS")
    client, name = connect(config), parts["name"]
    with tracking_errors(tracking_uri(config)):
        number = parts["version"] or aliased(client, name, parts["alias"])
        entry = None if number is None else find_version(client, name, number)
    if entry is None:
        raise ModelUnavailableError(f"{uri}: MLflow at {without_password(tracking_uri(config))} has no such version")
    if entry.status != "READY":
        raise ModelUnavailableError(f"{uri}: MLflow has not finished version {number} ({entry.status}); register again")
    return entry


def exact_uri(uri: str, config: Config) -> str:
    """`models:/NAME/VERSION` for an address that may have an alias, which could mean another version tomorrow.

    Raises:
        TrackingError: The server does not answer.
        ModelUnavailableError: It has no such version.
    """
    entry = find_registered(uri, config)
    return f"models:/{entry.name}/{entry.version}"


def load_package(uri: str, package: Path) -> tuple[nn.Module, ModelSpec]:
    """Loads the network of a verified package, in evaluation mode on the CPU, with the installed condswin's code.

    Raises:
        ModelUnavailableError: This version of condswin cannot build it.
    """
    folder = package / NETWORK
    try:
        return load_model(folder)
    except (CondswinError, ValueError, TypeError) as error:
        raise ModelUnavailableError(f"{uri}: {str(error).replace(f'{folder}/', '')}") from error


def fetch_network(uri: str, config: Config, folder: Path) -> None:
    """Puts the network of a registered version into a folder, as `condswin.networks.saving.save_model` wrote it.

    Raises:
        TrackingError: The server does not answer.
        ModelUnavailableError: It has no such version, or its files are missing or not those that were registered.
    """
    with verified_package(uri, config) as package:
        shutil.copytree(package / NETWORK, folder, dirs_exist_ok=True)


def load_registered(uri: str, config: Config) -> tuple[nn.Module, ModelSpec]:
    """Loads a network in evaluation mode on the CPU, with the installed condswin's code.

    Args:
        uri: `models:/NAME@champion`, `models:/NAME/3`, or the path of a local model folder.
        config: Names the tracking server.

    Raises:
        TrackingError: The server does not answer.
        ModelUnavailableError: It has no such model, or the model's files are missing or not those that were registered.
        BadFileError: The local folder is missing or damaged.
    """
    if not uri.startswith("models:/"):
        return load_model(Path(uri))
    with verified_package(uri, config) as package:
        return load_package(uri, package)


def fetch(uri: str, config: Config, folder: Path) -> Path:
    """Downloads a registered model's package to `folder`; `connect` comes first.

    Raises:
        TrackingError: The server or its store does not answer, or does not hand out the files.
        ModelUnavailableError: It has no such model, or the model's files are gone.
    """
    place = tracking_uri(config)
    for last in (False, True):
        try:
            # A local store is handed out in place unless a destination is given: never touch the original.
            path = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder)))
            break
        except Exception as error:  # each artifact store raises its own
            wait_for_server(place)
            # Of an answer that was cut off, a refusal or a gateway's page nobody may think that files are gone.
            if last and isinstance(error, MlflowException) and error.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise ModelUnavailableError(f"{uri}: its files cannot be fetched ({in_a_line(error)})") from error
            if last:
                raise TrackingError(
                    f"MLflow at {without_password(place)}: the files of {uri} cannot be fetched ({in_a_line(error)}); "
                    f"{MEND}"
                ) from error
    if not (path / "MLmodel").is_file():  # for an emptied folder, MLflow fetches nothing and is content
        raise ModelUnavailableError(f"{uri}: its files cannot be fetched (there is no MLmodel)")
    return path


@contextmanager
def _sys_path_kept() -> Iterator[None]:
    """MLflow tries a model out while saving it: puts its code first on `sys.path` and leaves it there."""
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before

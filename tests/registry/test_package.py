import ast
import compileall
import json
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.utils.rest_utils import verify_rest_response
from requests import Response

import condswin
from condswin.errors import BadFileError, GateError
from condswin.files import read_json
from condswin.networks.saving import load_model
from condswin.registry.package import (
    _KINDS,
    PACKAGE,
    REQUIREMENTS,
    ModelUnavailableError,
    load_package,
    load_registered,
    log_package,
    model_name,
    package_sha256,
    requirements,
    verified_package,
)
from condswin.registry.smoke import _SETTINGS, ENVIRONMENT, compare_outputs, golden_batch, smoke
from condswin.registry.tracking import TrackingError, tracked_run
from condswin.steps.promote import rollback
from tests.registry.toy import NAME, World, make_config

pytest_plugins = ["tests.registry.fixtures"]


#: Secrets of the process that promotes.
SECRETS = {
    "AWS_ACCESS_KEY_ID": "hush-1",
    "AWS_SECRET_ACCESS_KEY": "hush-2",
    "MLFLOW_TRACKING_USERNAME": "hush-3",
    "MLFLOW_TRACKING_PASSWORD": "hush-4",
    "CONDSWIN_PATIENT_KEY": "hush-5",
    "PYTHONPATH": "/hush-6",
    "A_TOKEN_THAT_NOBODY_THOUGHT_OF": "hush-7",
}


def logged(world: World, folder: Path) -> Path:
    """Registers a network without the step; returns the folder that MLflow keeps."""
    with tracked_run(world.config, "package"):
        uri, digest, _ = log_package(folder)
        mlflow.register_model(uri, NAME, tags={PACKAGE: digest})
    world.client.set_registered_model_alias(NAME, "champion", "1")
    return next((world.folder / "mlartifacts").rglob("MLmodel")).parent


def test_names() -> None:
    assert (model_name("reconstruction"), model_name("segmentation")) == (NAME, "condswin-segmentation")


def test_a_package_holds_text_and_weights_and_works_in_a_process_of_its_own(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = world.network(0.5)
    (folder / "last.ckpt").write_bytes(b"a checkpoint is a pickle")
    path_before = list(sys.path)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", False)  # as on most machines
        sources = world.folder / "sources" / "condswin"
        shutil.copytree(Path(condswin.__file__).parent, sources)
        compileall.compile_dir(sources, quiet=1)
        for name in (".notes.txt", "cache.pkl", "networks/try.ipynb"):
            (sources / name).write_text("left by a developer")
        patch.setattr(condswin, "__file__", str(sources / "__init__.py"))
        kept = logged(world, folder)
    assert sys.path == path_before

    files = {path.relative_to(kept).as_posix(): path for path in kept.rglob("*") if path.is_file()}
    assert {"MLmodel", "serving.py", "artifacts/model/model.safetensors", "artifacts/model/model.json"} <= set(files)
    assert {Path(name).suffix for name in files if name != "MLmodel"} <= _KINDS
    assert not [name for name in files if "notes" in name]
    assert "code/condswin/networks/models.py" in files
    assert files["requirements.txt"].read_text().split() == requirements()
    contents = b"".join(path.read_bytes() for path in files.values())
    machine = {str(world.folder), tempfile.gettempdir(), str(Path.home()), str(Path(condswin.__file__).parents[1])}
    assert not [path for path in machine if path.encode() + b"/" in contents]

    signature = mlflow.models.get_model_info(f"models:/{NAME}/1").signature
    assert [(spec.type, spec.shape) for spec in signature.inputs.inputs] == [(np.dtype("float32"), (-1, 1, -1, -1))]
    assert [spec.shape for spec in signature.outputs.inputs] == [(-1, 1, -1, -1)]

    uri = f"models:/{NAME}/1"
    with verified_package(uri, world.config) as package:
        model, spec = load_package(uri, package)
        found = smoke(uri, package, model, spec)
        assert package_sha256(package) == package_sha256(kept)  # running it leaves no byte code
    assert found.problems == []
    assert found.latency_ms > 0


def test_the_clean_process_knows_no_secret(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    model, spec = load_model(world.network(0.5))
    seen = world.folder / "seen.json"
    script = world.folder / "script.py"
    script.write_text(f"import json, os, sys; json.dump(dict(os.environ), open({str(seen)!r}, 'w')); sys.exit(7)")
    monkeypatch.setattr("condswin.registry.smoke._SCRIPT", script)
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    with pytest.raises(GateError, match="exit code 7"):
        smoke("models:/a/1", world.folder, model, spec)
    environment = read_json(seen)
    assert not [value for value in environment.values() if "hush" in value]
    assert set(environment) <= {*ENVIRONMENT, *_SETTINGS, "HOME"}
    assert environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert environment["PATH"] == os.environ["PATH"]
    assert environment["HOME"] != os.environ.get("HOME")


def test_loading_by_alias_version_and_path(world: World) -> None:
    folder = world.network(0.5)
    logged(world, folder)
    batch = torch.from_numpy(golden_batch(1))
    expected = load_model(folder)[0](batch)
    for uri in (f"models:/{NAME}@champion", f"models:/{NAME}/1", str(folder)):
        model, spec = load_registered(uri, world.config)
        assert not model.training
        assert (spec.task, spec.variant) == ("reconstruction", "swin")
        assert torch.equal(model(batch), expected)


@pytest.mark.parametrize(
    "uri",
    [f"models:/{NAME}/7", f"models:/{NAME}@nobody", "models:/condswin-nothing/1", "models:/m-0123", f"models:/{NAME}"],
)
def test_models_that_do_not_exist_are_named(uri: str, world: World) -> None:
    with pytest.raises(ModelUnavailableError, match=uri):
        load_registered(uri, world.config)


def test_a_local_folder_that_does_not_exist(world: World) -> None:
    with pytest.raises(BadFileError, match=r"nowhere/model\.json: no such file"):
        load_registered(str(world.folder / "nowhere"), world.config)


def spoil_code(kept: Path, marker: Path) -> None:
    with (kept / "code/condswin/networks/__init__.py").open("a") as file:
        file.write(f"\nfrom pathlib import Path\nPath({str(marker)!r}).touch()\n")


def spoil_serving(kept: Path, marker: Path) -> None:
    with (kept / "serving.py").open("a") as file:
        file.write(f"\nPath({str(marker)!r}).touch()\n")


def add_code(kept: Path, marker: Path) -> None:
    (kept / "code/einops.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\n")


class Touch:
    """A pickle that runs something when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def ask_for_a_pickle(kept: Path, marker: Path) -> None:
    (kept / "model.json").write_bytes(pickle.dumps(Touch(marker)))
    description = Model.load(kept / "MLmodel")
    flavor = description.flavors["python_function"]
    del flavor["model_code_path"]
    flavor |= {"loader_module": "mlflow.pyfunc.model", "python_model": "model.json"}
    description.save(kept / "MLmodel")


def add_a_pickle(kept: Path, marker: Path) -> None:
    (kept / "artifacts/model/extra.pkl").write_bytes(pickle.dumps(Touch(marker)))


def take_another_network(kept: Path, marker: Path) -> None:
    world = World(marker.parent, make_config("sqlite:///unused"))
    for path in world.network(0.9).iterdir():
        shutil.copyfile(path, kept / "artifacts/model" / path.name)


def damage_weights(kept: Path, marker: Path) -> None:
    weights = kept / "artifacts/model/model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))


def lose_weights(kept: Path, marker: Path) -> None:
    (kept / "artifacts/model/model.safetensors").unlink()


PICKLES = (ask_for_a_pickle, add_a_pickle)
SPOILED = (spoil_code, spoil_serving, add_code, *PICKLES, take_another_network, damage_weights, lose_weights)


def test_what_was_altered_in_the_store_is_neither_run_nor_loaded(world: World, quick_smoke: None) -> None:
    registered = world.register(0.5)
    kept, marker, aside = world.package_of("1"), world.folder / "ran", world.folder / "aside"
    world.client.set_registered_model_alias(NAME, "previous-champion", "1")
    shutil.copytree(kept, aside)
    for spoil in SPOILED:
        spoil(kept, marker)
        with pytest.raises(ModelUnavailableError, match=f"{NAME}/1: its files are not those that were registered"):
            load_registered(f"models:/{NAME}/1", world.config)
        with pytest.raises(GateError, match=r"the challenger cannot be loaded, .*not those that were"):
            world.promote(registered)
        with pytest.raises(GateError, match=r"cannot roll back, nothing was changed: .*not those that were"):
            rollback(world.config, "reconstruction")
        assert not marker.exists(), spoil.__name__
        shutil.rmtree(kept)
        shutil.copytree(aside, kept)
    assert "champion" not in world.aliases()
    assert world.promote(registered)[0]  # restored


@pytest.mark.parametrize("spoil", PICKLES)
def test_a_package_that_was_registered_with_a_pickle_is_not_run(
    spoil: Callable[[Path, Path], None], world: World
) -> None:
    """Somebody who may register versions, and knows how to make the checksum."""
    registered = world.register(0.5)
    kept, marker = world.package_of("1"), world.folder / "ran"
    spoil(kept, marker)
    world.client.set_model_version_tag(NAME, "1", PACKAGE, package_sha256(kept))
    with pytest.raises(GateError, match=r"asks for a pickle|extra\.pkl: no file of this kind"):
        world.promote(registered)
    assert not marker.exists()
    # The clean process refuses it as well.
    model, spec = load_model(world.network(0.5))
    if spoil is ask_for_a_pickle:
        with pytest.raises(GateError, match="cannot load and run it"):
            smoke("models:/a/1", kept, model, spec)
    assert not marker.exists()


def test_versions_without_a_checksum_are_refused(world: World) -> None:
    registered = world.register(0.5)
    world.client.delete_model_version_tag(NAME, "1", PACKAGE)
    with pytest.raises(
        ModelUnavailableError, match=r"an older condswin .* register the network again, as a new version"
    ):
        load_registered(f"models:/{NAME}/1", world.config)
    with pytest.raises(GateError, match=r"an older condswin .* register the network again"):
        world.promote(registered)


def test_files_that_are_gone_and_networks_that_cannot_be_built(world: World) -> None:
    kept, uri = logged(world, world.network(0.5)), f"models:/{NAME}/1"
    description = kept / "artifacts/model/model.json"
    values = json.loads(description.read_text())
    description.write_text(json.dumps({**values, "network": "of a newer condswin"}))
    world.client.set_model_version_tag(NAME, "1", PACKAGE, package_sha256(kept))
    with pytest.raises(ModelUnavailableError, match="no network 'of a newer condswin'"):
        load_registered(uri, world.config)
    shutil.rmtree(kept)
    with pytest.raises(ModelUnavailableError, match="its files cannot be fetched"):
        load_registered(uri, world.config)


def test_a_checksum_covers_names_and_contents_and_no_links(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.py").write_text("1")
    first = package_sha256(tmp_path)
    (tmp_path / "a" / "x.py").rename(tmp_path / "y.py")
    assert package_sha256(tmp_path) != first
    (tmp_path / "y.py").rename(tmp_path / "a" / "x.py")
    assert package_sha256(tmp_path) == first
    (tmp_path / "z.py").symlink_to(tmp_path / "a" / "x.py")
    with pytest.raises(BadFileError, match=r"z\.py: is no plain file"):
        package_sha256(tmp_path)


def test_what_a_smoke_test_objects_to(world: World) -> None:
    _, spec = load_model(world.network(0.5))
    good = {"unpickled": [], "own_code": True}
    expected = np.zeros((2, 1, 64, 64), np.float32)
    assert compare_outputs(expected, expected, spec, good) == []
    bad = expected.copy()
    bad[0, 0, 0, 0] = np.nan
    assert "1 of 8192 output values are not finite" in compare_outputs(bad, expected, spec, good)[0]
    assert "differs from this one's by up to 0.01" in compare_outputs(expected + 0.01, expected, spec, good)[0]
    # NaN in both processes is no agreement.
    assert compare_outputs(bad, bad, spec, good)
    assert "shape (1, 1, 64, 64)" in compare_outputs(expected[:1], expected, spec, good)[0]
    assert (
        "unpickles ['torch.Tensor']"
        in compare_outputs(expected, expected, spec, {**good, "unpickled": ["torch.Tensor"]})[0]
    )
    assert "code that was logged" in compare_outputs(expected, expected, spec, {**good, "own_code": False})[0]


def test_requirements_are_what_the_logged_code_imports() -> None:
    root = Path(condswin.__file__).parent
    small = ("files", "errors", "fourier", "plain", "suggest")
    served = [root / "registry/serving.py", *(root / f"{name}.py" for name in small), *(root / "networks").glob("*.py")]
    imported = {
        name.split(".")[0]
        for path in served
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    ours = {name for name in imported if name == "condswin"}
    third_party = imported - ours - set(sys.stdlib_module_names)
    distributions = packages_distributions()
    assert {name for name in third_party if not set(distributions[name]) & set(REQUIREMENTS)} == set()
    # What those files import of condswin is among them.
    inside = {
        node.module
        for path in served
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("condswin.")
    }
    known = {f"condswin.{name}" for name in small}
    assert {module for module in inside if not module.startswith("condswin.networks")} <= known


@pytest.mark.parametrize("status", [401, 403, 404, 409, 429, 500, 503, 504])
def test_a_refusal_or_a_gateway_s_page_does_not_say_that_files_are_gone(
    status: int, world: World, few_files: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.register(0.5)
    page = Response()
    page.status_code, page._content = status, b"<html>please log in</html>"

    def refused(*_: object, **__: object) -> None:
        verify_rest_response(page, "/api/2.0/mlflow/logged-models/m-1")

    with monkeypatch.context() as patch:
        patch.setattr("mlflow.artifacts.download_artifacts", refused)
        with pytest.raises(TrackingError, match=rf"files of models:/.*/1 cannot be fetched \(.* code {status} != 200"):
            world.register(0.5)
    assert len(world.client.search_model_versions(f"name = '{NAME}'")) == 1


def test_files_that_are_missing_once_are_not_gone(
    world: World, few_files: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, answers = mlflow.artifacts.download_artifacts, [MlflowException("none", RESOURCE_DOES_NOT_EXIST)]

    def download(*arguments: Any, **named: Any) -> Any:
        if answers:
            raise answers.pop()
        return real(*arguments, **named)

    world.register(0.5)
    monkeypatch.setattr("mlflow.artifacts.download_artifacts", download)
    assert read_json(world.register(0.5))["version"] == "1"


def test_files_that_cannot_be_fetched_tell_no_password(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> str:
        raise OSError("403 for url: http://me:hush@host/api")

    world.register(0.5)
    monkeypatch.setattr("mlflow.artifacts.download_artifacts", refused)
    refusal = r"files of models:/.*/1 cannot be fetched \(403 for url: http://\*\*\*@host/api\); when it answers again"
    with pytest.raises(TrackingError, match=refusal):
        load_registered(f"models:/{NAME}/1", world.config)
    with pytest.raises(TrackingError, match=refusal):  # no reason to take them for gone, and to register them again
        world.register(0.5)
    assert len(world.client.search_model_versions(f"name = '{NAME}'")) == 1

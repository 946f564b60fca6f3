import ast
import json
import shutil
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch

import condswin
from condswin.errors import BadFileError, GateError
from condswin.networks.saving import load_model
from condswin.registry.package import (
    REQUIREMENTS,
    ModelUnavailableError,
    load_registered,
    log_package,
    model_name,
    requirements,
)
from condswin.registry.smoke import compare_outputs, golden_batch, smoke
from condswin.registry.tracking import tracked_run, tracking_uri
from tests.registry.toy import NAME, World

pytest_plugins = ["tests.registry.fixtures"]


def logged(world: World, folder: Path) -> Path:
    """Registers a network without the step; returns the folder that MLflow keeps."""
    with tracked_run(world.config, "package"):
        uri = log_package(folder)
        mlflow.register_model(uri, NAME)
    world.client.set_registered_model_alias(NAME, "champion", "1")
    return next((world.folder / "mlartifacts").rglob("MLmodel")).parent


def test_names() -> None:
    assert (model_name("reconstruction"), model_name("segmentation")) == (NAME, "condswin-segmentation")


def test_a_package_holds_no_pickle_and_works_in_a_process_of_its_own(world: World) -> None:
    folder = world.network(0.5)
    (folder / "last.ckpt").write_bytes(b"a checkpoint is a pickle")
    path_before = list(sys.path)
    kept = logged(world, folder)
    assert sys.path == path_before

    names = [path.name for path in kept.rglob("*") if path.is_file()]
    assert {"MLmodel", "serving.py", "model.safetensors", "model.json", "requirements.txt"} <= set(names)
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pth", ".pt", ".ckpt", ".joblib", ".pyc"))]
    # A pickle of protocol 2 or later under any name starts with this byte and ends with a full stop.
    contents = {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    assert not [path for path, content in contents.items() if content[:1] == b"\x80" and content[-1:] == b"."]
    assert (kept / "code/condswin/networks/models.py").is_file()
    assert (kept / "requirements.txt").read_text().split() == requirements()

    signature = mlflow.models.get_model_info(f"models:/{NAME}/1").signature
    assert [(spec.type, spec.shape) for spec in signature.inputs.inputs] == [(np.dtype("float32"), (-1, 1, -1, -1))]
    assert [spec.shape for spec in signature.outputs.inputs] == [(-1, 1, -1, -1)]

    model, spec = load_registered(f"models:/{NAME}/1", world.config)
    found = smoke(f"models:/{NAME}/1", model, spec, tracking=tracking_uri(world.config))
    assert found.problems == []
    assert found.latency_ms > 0


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


@pytest.mark.parametrize("uri", [f"models:/{NAME}/7", f"models:/{NAME}@nobody", "models:/condswin-nothing/1"])
def test_models_that_do_not_exist_are_named(uri: str, world: World) -> None:
    with pytest.raises(ModelUnavailableError, match=uri):
        load_registered(uri, world.config)


def test_a_local_folder_that_does_not_exist(world: World) -> None:
    with pytest.raises(BadFileError, match=r"nowhere/model\.json: no such file"):
        load_registered(str(world.folder / "nowhere"), world.config)


def test_damaged_files_are_found_out(world: World) -> None:
    kept = logged(world, world.network(0.5))
    weights, uri = kept / "artifacts/model/model.safetensors", f"models:/{NAME}/1"
    model, spec = load_registered(uri, world.config)
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ModelUnavailableError, match=rf"{uri}: model\.safetensors: checksum differs"):
        load_registered(uri, world.config)
    with pytest.raises(GateError, match=r"cannot load and run it .*checksum differs"):
        smoke(uri, model, spec, tracking=tracking_uri(world.config))
    weights.write_bytes(whole)
    description = kept / "artifacts/model/model.json"
    values = json.loads(description.read_text())
    description.write_text(json.dumps({**values, "variant": "of a newer condswin"}))
    with pytest.raises(ModelUnavailableError, match="no variant 'of a newer condswin'"):
        load_registered(uri, world.config)
    shutil.rmtree(kept)
    with pytest.raises(ModelUnavailableError, match="its files cannot be fetched"):
        load_registered(uri, world.config)


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
    served = [root / "registry/serving.py", root / "files.py", root / "errors.py", *(root / "networks").glob("*.py")]
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
    assert all(
        module in ("condswin.files", "condswin.errors") or module.startswith("condswin.networks") for module in inside
    )

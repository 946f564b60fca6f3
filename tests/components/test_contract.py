"""The contract of components: nothing but one call into condswin, nothing imported that a bare compile lacks."""

import ast
import inspect
import json
import sys
from pathlib import Path

import pytest
import yaml
from google.protobuf.json_format import ParseDict
from kfp import dsl
from kfp.pipeline_spec import pipeline_spec_pb2

import components
from condswin import kubeflow
from condswin.config.root import Config
from condswin.errors import DriftError
from condswin.mri.config import DriftConfig
from condswin.steps.demo_data import NOTE

ROOT = Path(components.__file__).parent
NAMES = components.__all__


@pytest.mark.parametrize("name", NAMES)
def test_modules_import_only_the_standard_library_and_kfp(name: str) -> None:
    tree = ast.parse((ROOT / f"{name}.py").read_text())
    imported = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert imported <= {"kfp", "components", *sys.stdlib_module_names}


@pytest.mark.parametrize("name", NAMES)
def test_bodies_are_one_import_and_one_call(name: str) -> None:
    tree = ast.parse((ROOT / f"{name}.py").read_text())
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef))
    docstring, importing, call = function.body
    assert ast.get_docstring(function)
    assert isinstance(importing, ast.ImportFrom)
    assert importing.module == "condswin"
    assert isinstance(call, ast.Return | ast.Expr)
    assert isinstance(call.value, ast.Call)
    assert docstring is function.body[0]


@pytest.mark.parametrize("name", NAMES)
def test_calls_match_what_condswin_offers(name: str) -> None:
    """Bodies run only in the image; a wrong number of arguments would show there first."""
    tree = ast.parse((ROOT / f"{name}.py").read_text())
    call = next(
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == name
    )
    assert len(call.args) == len(inspect.signature(getattr(kubeflow, name)).parameters)


@pytest.mark.parametrize("name", NAMES)
def test_components_install_nothing_when_they_start(name: str) -> None:
    spec = ParseDict(yaml.safe_load(_compiled(name)), pipeline_spec_pb2.PipelineSpec())
    assert "pip install" not in str(spec)


def _compiled(name: str) -> str:
    import tempfile

    from kfp import compiler

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "component.yaml")
        compiler.Compiler().compile(getattr(components, name), str(path))
        return path.read_text()


def test_a_component_runs_on_real_artifacts(tiny: Config, tmp_path: Path) -> None:
    section = tiny.segmentation.model_copy(update={"source": "s3://somewhere/lits"})
    params = tiny.model_copy(update={"segmentation": section}).model_dump_json()
    raw = dsl.Dataset(uri=str(tmp_path / "raw"))
    source = components.demo_data.python_func(params=params, task="segmentation", raw=raw)
    assert source == "s3://somewhere/lits"
    generated = components.demo_data.python_func(params=tiny.model_dump_json(), task="segmentation", raw=raw)
    assert generated == raw.path
    assert not (tmp_path / "raw" / NOTE).exists()
    ingested = dsl.Dataset(uri=str(tmp_path / "ingested"))
    fingerprint = components.ingest.python_func(
        params=tiny.model_dump_json(), task="segmentation", source=generated, ingested=ingested
    )
    assert len(fingerprint) == 64
    assert (tmp_path / "ingested" / "manifest.json").is_file()


def test_data_that_drifted_stops_the_pipeline_with_its_card_written(tiny: Config, tmp_path: Path) -> None:
    raw, ingested = (dsl.Dataset(uri=str(tmp_path / name)) for name in ("raw", "ingested"))
    # Drift below what chance does to few volumes is none.
    demo = tiny.reconstruction.demo.model_copy(update={"train_volumes": 12, "test_volumes": 3})
    config = tiny.model_copy(update={"reconstruction": tiny.reconstruction.model_copy(update={"demo": demo})})
    params = config.model_dump_json()
    source = components.demo_data.python_func(params=params, task="reconstruction", raw=raw)
    components.ingest.python_func(params=params, task="reconstruction", source=source, ingested=ingested)

    card, metrics = dsl.Artifact(uri=str(tmp_path / "card")), dsl.Metrics(uri=str(tmp_path / "metrics"))
    components.data_card.python_func(params=params, ingested=ingested, card=card, metrics=metrics)
    assert metrics.metadata == {"cases": 15}

    known = json.loads((tmp_path / "card" / "card.json").read_text())
    known["statistics"]["columns"] = [value + 1000 for value in known["statistics"]["columns"]]
    (tmp_path / "reference.json").write_text(json.dumps(known))
    drift = DriftConfig(reference=str(tmp_path / "reference.json"))
    params = config.model_copy(
        update={"reconstruction": config.reconstruction.model_copy(update={"drift": drift})}
    ).model_dump_json()
    card, metrics = dsl.Artifact(uri=str(tmp_path / "new")), dsl.Metrics(uri=str(tmp_path / "metrics"))
    with pytest.raises(DriftError, match=r"drifted by 1\.000 from .*reference\.json"):
        components.data_card.python_func(params=params, ingested=ingested, card=card, metrics=metrics)
    assert metrics.metadata == {"cases": 15, "drift": 1.0}
    assert (tmp_path / "new" / "card.html").is_file()

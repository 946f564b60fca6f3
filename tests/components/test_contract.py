"""The contract of components: nothing but one call into the image, nothing imported that a bare compile lacks."""

import ast
import inspect
import json
import os
import re
import sys
from pathlib import Path

import pytest
import yaml
from google.protobuf.json_format import ParseDict
from kfp import dsl
from kfp.pipeline_spec import pipeline_spec_pb2

import components
from condswin import kubeflow
from condswin.config.parts import part
from condswin.config.pools import STEPS
from condswin.config.root import Config
from condswin.config.task import DriftConfig
from condswin.ct.config import SegmentationConfig
from condswin.errors import ImageError, SourceError, StoppedError
from condswin.steps.demo_data import demo_data
from pipelines import starting

ROOT = Path(components.__file__).parent
NAMES = components.__all__
#: What a component calls: the library, or for what asks Kubeflow's API, of which the library knows nothing, pipelines.
CALLED = {name: ("condswin", "kubeflow", kubeflow) for name in NAMES} | {"retrain": ("pipelines", "starting", starting)}


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
    package, module, _ = CALLED[name]
    assert (importing.module, [alias.name for alias in importing.names]) == (package, [module])
    assert isinstance(call, ast.Return | ast.Expr)
    assert isinstance(call.value, ast.Call)
    assert docstring is function.body[0]


@pytest.mark.parametrize("name", NAMES)
def test_files_are_reached_by_their_path_alone(name: str) -> None:
    """The address of an artifact is the storage's, whose endpoint and keys a component does not know."""
    parameters = {each.arg for node in ast.walk(ast.parse((ROOT / f"{name}.py").read_text()))
                  if isinstance(node, ast.FunctionDef) for each in node.args.args}  # fmt: skip
    read = {
        node.attr
        for node in ast.walk(ast.parse((ROOT / f"{name}.py").read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in parameters
    }
    assert read <= {"path", "log_metric", "state", "pipeline_task_name"}


@pytest.mark.parametrize("name", NAMES)
def test_calls_match_what_is_offered(name: str) -> None:
    """Bodies run only in the image; a wrong number of arguments would show there first."""
    tree = ast.parse((ROOT / f"{name}.py").read_text())
    call = next(
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == name
    )
    inspect.signature(getattr(CALLED[name][2], name)).bind(*call.args)


@pytest.mark.parametrize("name", NAMES)
def test_docstrings_tell_the_user_interface_of_every_input_and_output(name: str) -> None:
    spec, text = getattr(components, name).component_spec, getattr(components, name).python_func.__doc__
    assert spec.description == text.strip().splitlines()[0]
    described = {*spec.inputs, *(output for output in spec.outputs or () if output != "Output")}
    assert described == set(re.findall(r"^        (\w+): \S", text, re.MULTILINE))
    assert ("Output" in (spec.outputs or {})) == ("Returns:" in text)


def test_every_component_has_a_pool_to_be_named_in() -> None:
    assert set(STEPS) == set(NAMES)


SETTLED = ("ingest", "data_card", "prepare", "train", "train_nodes", "evaluate", "baseline", "predict", "tune")


@pytest.mark.parametrize("name", NAMES)
def test_what_a_verdict_is_passed_on_is_a_text_and_nothing_else_is_judged(name: str) -> None:
    function = getattr(kubeflow, name)
    assert (inspect.unwrap(function) is not function) == (name in SETTLED)
    if name in SETTLED:
        assert getattr(components, name).component_spec.outputs["Output"].type == "String"


def test_the_user_interface_is_given_pages_and_metrics() -> None:
    shown = {
        (name, output): spec.type.removeprefix("system.").partition("@")[0]
        for name in NAMES
        for output, spec in (getattr(components, name).component_spec.outputs or {}).items()
        if spec.type.startswith(("system.HTML", "system.Markdown", "system.Metrics", "system.ClassificationMetrics"))
    }
    assert shown == {
        ("baseline", "detection"): "ClassificationMetrics",
        ("baseline", "metrics"): "Metrics",
        ("compare", "table"): "Markdown",
        ("data_card", "metrics"): "Metrics",
        ("data_card", "page"): "HTML",
        ("evaluate", "detection"): "ClassificationMetrics",
        ("evaluate", "metrics"): "Metrics",
        ("predict", "metrics"): "Metrics",
        ("predict", "page"): "Markdown",
        ("promote", "page"): "Markdown",
        ("report", "page"): "HTML",
    }


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


def given(config: Config, component: str, task: str, variant: str = "") -> dict[str, str]:
    params = json.dumps(part(config, component, task, variant))
    return {"params": params, "task": task, "code": kubeflow.code_of(component, task)}


def ingested(config: Config, task: str, out: Path) -> dsl.Dataset:
    asked, dataset = given(config, "ingest", task), dsl.Dataset(uri=str(out))
    version = components.resolve.python_func(params=asked["params"], task=task)
    components.ingest.python_func(**asked, version=version, ingested=dataset, md5=f"{out}.md5")
    assert Path(f"{out}.md5").read_text() == ""
    return dataset


def test_a_component_runs_on_real_artifacts(tiny: Config, tmp_path: Path) -> None:
    ingested(tiny, "segmentation", tmp_path / "ingested")
    cases = json.loads((tmp_path / "ingested" / "manifest.json").read_text())["cases"]
    assert len(cases) == tiny.segmentation.demo.cases


def test_the_version_changes_with_the_source_and_other_data_is_refused(tiny: Config, tmp_path: Path) -> None:
    demo_data(tiny.model_copy(update={"segmentation": with_source(tiny, tmp_path / "raw")}), "segmentation",
              out=tmp_path / "raw")  # fmt: skip
    config = tiny.model_copy(update={"segmentation": with_source(tiny, tmp_path / "raw")})
    asked, out = given(config, "ingest", "segmentation"), dsl.Dataset(uri=str(tmp_path / "ingested"))
    md5 = str(tmp_path / "md5")

    def version() -> str:
        return components.resolve.python_func(params=asked["params"], task="segmentation")

    first = version()
    assert version() == first
    one = next((tmp_path / "raw").rglob("*.nii.gz"))
    os.utime(one, (0, 0))
    assert version() != first
    # No outcome, which the cache would keep: the source may come to hold that again.
    with pytest.raises(SourceError, match="it changed meanwhile; start another run"):
        components.ingest.python_func(**asked, version=first, ingested=out, md5=md5)
    assert components.ingest.python_func(**asked, version=version(), ingested=out, md5=md5) == ""
    assert (tmp_path / "ingested" / "manifest.json").is_file()


def with_source(config: Config, folder: Path) -> SegmentationConfig:
    return config.segmentation.model_copy(update={"source": str(folder)})


def test_demo_data_has_a_version_of_its_settings(tiny: Config) -> None:
    def version(config: Config, task: str) -> str:
        return components.resolve.python_func(params=given(config, "ingest", task)["params"], task=task)

    assert version(tiny, "segmentation") == version(tiny, "segmentation")
    assert version(tiny, "segmentation") != version(tiny.model_copy(update={"seed": 11}), "segmentation")


def test_other_code_than_the_pipeline_was_compiled_with_is_refused(tiny: Config, tmp_path: Path) -> None:
    out = dsl.Dataset(uri=str(tmp_path))
    with pytest.raises(ImageError, match="ingest segmentation: this image holds other code"):
        components.ingest.python_func(
            **given(tiny, "ingest", "segmentation") | {"code": "0"}, version="", ingested=out, md5=str(tmp_path / "md5")
        )


@pytest.mark.parametrize(
    ("task", "demo", "statistic"),
    [
        ("reconstruction", {"train_volumes": 12, "test_volumes": 3}, "columns"),
        ("segmentation", {"cases": 15, "size": 48, "slices": 6}, "hu_median"),
    ],
)
def test_data_that_drifted_stops_the_pipeline_with_its_card_written(
    tiny: Config, tmp_path: Path, task: str, demo: dict[str, int], statistic: str
) -> None:
    # Drift below what chance does to few volumes is none.
    section = tiny.task(task)
    section = section.model_copy(update={"demo": section.demo.model_copy(update=demo)})
    config = tiny.model_copy(update={task: section})
    data = ingested(config, task, tmp_path / "ingested")

    def card_of(config: Config, out: Path, metrics: dsl.Metrics, reference: dsl.Artifact | None = None) -> str:
        card, page = dsl.Artifact(uri=str(out)), dsl.HTML(uri=f"{out}.html")
        told: str = components.data_card.python_func(
            **given(config, "data_card", task),
            ingested=data,
            card=card,
            page=page,
            metrics=metrics,
            reference=reference,
        )
        return told

    metrics = dsl.Metrics(uri=str(tmp_path / "metrics"))
    assert card_of(config, tmp_path / "card", metrics) == ""
    assert metrics.metadata == {"cases": 15}

    champions, metrics = dsl.Artifact(uri=str(tmp_path / "card")), dsl.Metrics(uri=str(tmp_path / "metrics"))
    assert card_of(config, tmp_path / "again", metrics, champions) == ""
    assert metrics.metadata == {"cases": 15, "drift": 0.0}
    without = dsl.Artifact(uri=str(tmp_path))
    assert "registered without a data card" in card_of(config, tmp_path / "none", metrics, without)

    known = json.loads((tmp_path / "card" / "card.json").read_text())
    known["statistics"][statistic] = [value + 1000 for value in known["statistics"][statistic]]
    (tmp_path / "reference.json").write_text(json.dumps(known))
    drift = DriftConfig(reference=str(tmp_path / "reference.json"))
    config = config.model_copy(update={task: section.model_copy(update={"drift": drift})})
    metrics = dsl.Metrics(uri=str(tmp_path / "metrics"))
    stopped = card_of(config, tmp_path / "new", metrics)
    assert re.match(rf"data_card {task}: .*: drifted by 1\.000 from .*reference\.json", stopped)
    assert metrics.metadata == {"cases": 15, "drift": 1.0}
    assert (tmp_path / "new.html").read_bytes() == (tmp_path / "new" / "card.html").read_bytes()
    with pytest.raises(StoppedError, match="drifted by"):
        components.verdict.python_func(outcome_1="", outcome_2=stopped)


def test_a_verdict_on_nothing_is_none() -> None:
    components.verdict.python_func(outcome_1="", outcome_9="")

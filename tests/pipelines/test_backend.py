"""The compiled pipeline on a model of the backend: what it would stumble over, and what its cache spares."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import compiler, dsl

from condswin.config.names import TASKS
from condswin.config.profiles import compose
from condswin.config.reading import parse_config
from condswin.config.root import Config
from pipelines.catalogue import PIPELINES
from pipelines.retraining import build
from tests.pipelines.backend import LARGEST_PARAMETER, SCHEMES, Backend, tasks_in_order, tasks_of, violations

VERSIONS = {"resolve": "first"}
#: What every run does: the source is listed, and the registry asked.
ALWAYS = ("resolve", "register", "promote")


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return compiled(compose(["demo", "cluster"]), tmp_path_factory.mktemp("spec"))


def compiled(config: Config, folder: Path) -> dict[str, Any]:
    return written(build(config, config.present), folder)


def written(pipeline: Any, folder: Path) -> dict[str, Any]:
    compiler.Compiler().compile(pipeline, str(folder / "pipeline.yaml"))
    spec: dict[str, Any] = next(yaml.load_all((folder / "pipeline.yaml").read_text(), Loader=yaml.CSafeLoader))
    return spec


def changed(*settings: str) -> Config:
    return compose(["demo", "cluster"], list(settings))


def executed(spec: dict[str, Any]) -> list[str]:
    return tasks_in_order(spec)


def kinds(names: list[str]) -> set[str]:
    return {name.rstrip("0123456789").rstrip("-") for name in names}


def test_the_backend_stumbles_over_nothing(spec: dict[str, Any]) -> None:
    assert not list(violations(spec))


@pytest.mark.parametrize("name", [name for name in PIPELINES if name != "retraining"])
def test_the_backend_stumbles_over_no_other_pipeline(name: str, tmp_path: Path) -> None:
    config = compose(["demo", "cluster"])
    other = written(PIPELINES[name](config, config.present), tmp_path)
    assert not list(violations(other))
    backend = Backend()
    assert kinds(backend.run(other, VERSIONS)) == kinds(tasks_in_order(other))
    # Which version is champion is asked in every run, and what uses it is not taken from the cache. Nor is a trial.
    using = {"evaluation": {"evaluate", "report"}, "drift": {"data-card"}, "batch-predict": {"predict"}}
    again = {"fetch", *using[name]} if name in using else {"tune"}
    assert kinds(backend.run(other, VERSIONS)) == {"resolve", *again}


def test_a_run_of_unchanged_data_only_asks_source_and_registry(spec: dict[str, Any]) -> None:
    backend = Backend()
    assert kinds(backend.run(spec, VERSIONS)) == kinds(tasks_in_order(spec))
    assert kinds(backend.run(spec, VERSIONS)) == set(ALWAYS)


def test_new_data_makes_everything_anew(spec: dict[str, Any]) -> None:
    """But for the verdict on tasks that told of nothing, which is the same for any data."""
    backend = Backend()
    backend.run(spec, VERSIONS)
    assert set(backend.run(spec, {"resolve": "second"})) == {
        name for name in tasks_in_order(spec) if not name.startswith("verdict")
    }


@pytest.mark.parametrize(
    ("setting", "again"),
    [
        ("reconstruction.gate.patients=30", {"report"}),
        ("segmentation.predict.fill_holes=false", {"evaluate", "compare", "report"}),
        ("reconstruction.train.epochs=5", {"train", "evaluate", "compare", "report"}),
        ("reconstruction.drift.threshold=0.5", {"data-card"}),
        (
            "reconstruction.undersample.accelerations=[8]",
            {"data-card", "prepare", "baseline", "train", "evaluate", "compare", "report"},
        ),
    ],
)
def test_a_setting_makes_again_what_reads_it(
    setting: str, again: set[str], spec: dict[str, Any], tmp_path: Path
) -> None:
    backend = Backend()
    backend.run(spec, VERSIONS)
    ran = backend.run(compiled(changed(setting), tmp_path), VERSIONS)
    assert kinds(ran) == {*again, *ALWAYS}
    task = setting.partition(".")[0]
    # Nothing of the other task.
    both = sum(name.startswith("train") for name in ran)
    assert both == (len(compose(["demo"]).task(task).variants) if "train" in again else 0)


def test_a_changed_variant_leaves_the_others_as_they_are(spec: dict[str, Any], tmp_path: Path) -> None:
    backend = Backend()
    backend.run(spec, VERSIONS)
    other = compiled(changed("reconstruction.variants.swin.overrides.stem_channels=24"), tmp_path)
    ran = backend.run(other, VERSIONS)
    assert kinds(ran) == {"train", "evaluate", "compare", "report", *ALWAYS}
    assert sum(name.startswith("train") for name in ran) == 1
    assert sum(name.startswith("evaluate") for name in ran) == 1


def test_other_code_is_no_hit_of_the_cache(spec: dict[str, Any]) -> None:
    """As where the code of a step changed and the image's tag did not."""
    backend, other = Backend(), copy.deepcopy(spec)
    backend.run(spec, VERSIONS)
    for task in tasks_of(other).values():
        if task["componentRef"]["name"].startswith("comp-evaluate"):
            task["inputs"]["parameters"]["code"]["runtimeValue"]["constant"] = "other"
    assert kinds(backend.run(other, VERSIONS)) == {"evaluate", "compare", "report", *ALWAYS}


def mutated(spec: dict[str, Any], kind: str) -> dict[str, Any]:
    spec = copy.deepcopy(spec)
    tasks = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    if kind == "size":
        tasks["prepare"]["inputs"]["parameters"]["params"]["runtimeValue"]["constant"] = "x" * (LARGEST_PARAMETER + 1)
    elif kind == "missing":
        del tasks["compare"]["inputs"]["artifacts"]["model_1"]
    elif kind == "retries":
        del tasks["train"]["retryPolicy"]["backoffDuration"]
    elif kind == "window":
        tasks["train"]["retryPolicy"]["backoffMaxDuration"] = "600s"
    elif kind == "request":
        executors = spec["deploymentSpec"]["executors"]
        del executors["exec-compare"]["container"]["resources"]["resourceMemoryRequest"]
    elif kind == "number":
        spec["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]["resourceCpuLimit"] = 8
    elif kind == "hook":
        tasks["compare"]["triggerPolicy"] = {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    elif kind == "condition":
        tasks["train"]["triggerPolicy"] = {"condition": "inputs.parameter_values['code'] == ''"}
    elif kind == "text":
        run = tasks["register"]["inputs"]["parameters"]["pipeline_run"]["runtimeValue"]
        run["constant"] = f"run {run['constant']}"
    elif kind == "loop":
        tasks["train"]["parameterIterator"] = {"itemInput": "variant", "items": {"raw": '["swin"]'}}
    elif kind == "root":
        spec["defaultPipelineRoot"] = "file:///outputs"
    elif kind == "endpoint":
        spec["defaultPipelineRoot"] = "s3://bucket?endpoint=m"
    elif kind == "paths":
        args = spec["deploymentSpec"]["executors"]["exec-train"]["container"]["args"]
        args[args.index("{{$}}")] = "{}"
    elif kind == "cache":
        tasks["register"]["cachingOptions"] = {"enableCache": True}
    elif kind == "name":
        tasks["x" * 64] = tasks.pop("promote")
    return spec


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("size", "prepare: params is larger than 10000 bytes"),
        ("missing", "compare: model_1 is given no value and is not optional"),
        ("retries", "train: tried again at once"),
        ("window", "train: ended by its retry policy after 600s"),
        ("request", "compare: no request of memory, as a text"),
        ("number", "train: no limit of cpu, as a text"),
        ("hook", "compare: goes on after failures, and is no exit handler's"),
        ("condition", "train: below a condition, of which no exit handler is told"),
        ("text", "register: pipeline_run has a placeholder in a text, which stays as it is"),
        ("loop", "a loop, which an exit handler breaks (kubeflow/pipelines#12390) and is not told of (#13321)"),
        ("root", "file:///outputs: a root that the launcher has no folder for, or that says how it is reached"),
        (
            "endpoint",
            "s3://bucket?endpoint=m: a root that the launcher has no folder for, or that says how it is reached",
        ),
        ("paths", "train: is not told where its inputs and outputs are"),
        ("cache", "register: pipeline_run is another in each run, of which the cache knows none"),
        ("name", f"{'x' * 64}: a name of more than 63 characters"),
    ],
)
def test_what_the_backend_stumbles_over_is_found(kind: str, said: str, spec: dict[str, Any]) -> None:
    assert list(violations(mutated(spec, kind))) == [said]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_artifacts_lie_where_the_launcher_puts_them(scheme: str) -> None:
    """Whichever storage Kubeflow has, and wherever its endpoint is: components go by `path` alone."""
    artifact = dsl.Dataset(uri=f"{scheme}bucket/outputs/run/prepare/prepared")
    assert artifact.path == f"{SCHEMES[scheme]}bucket/outputs/run/prepare/prepared"


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def address() -> str:
    return "s3://models/best"


def test_an_importer_of_a_task_s_output_is_found(tmp_path: Path) -> None:
    """The local runner runs it, the backend does not: "parent DAG does not have input parameter"."""

    @dsl.pipeline(name="importing")
    def importing() -> None:
        dsl.importer(artifact_uri=address().output, artifact_class=dsl.Model)

    found = [line for line in violations(written(importing, tmp_path)) if line.startswith("importer")]
    assert found == ["importer: an importer whose address is another task's output"]


@pytest.mark.parametrize("task", TASKS)
def test_a_pipeline_of_one_task_shares_nothing_with_the_other(task: str, tmp_path: Path) -> None:
    values = compose(["demo", "cluster"]).values()
    config = parse_config({name: part for name, part in values.items() if name in (task, "cluster")}, origin="test")
    assert not list(violations(compiled(config, tmp_path)))

import json
from pathlib import Path

import pytest
import yaml
from google.protobuf.json_format import ParseDict
from kfp import compiler
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
from kfp.pipeline_spec import pipeline_spec_pb2
from typer.testing import CliRunner

from components.compare import VARIANTS
from condswin.config.names import TASKS
from condswin.config.profiles import compose, write_config
from condswin.config.reading import load_config, parse_config
from condswin.config.root import Config
from condswin.errors import ConfigError
from pipelines.__main__ import COMPILED, app
from pipelines.retraining import CHECKPOINTS, build

ROOT = Path(__file__).parents[2]


def compiled(config: Config, tmp_path: Path) -> tuple[dict, dict]:
    path = tmp_path / "pipeline.yaml"
    compiler.Compiler().compile(build(config, config.present), str(path))
    spec, *platform = yaml.safe_load_all(path.read_text())
    ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    executors = platform[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if platform else {}
    for executor in executors.values():
        ParseDict(executor, KubernetesExecutorConfig())
    return spec, executors


@pytest.fixture(scope="module")
def cluster() -> Config:
    values = compose(["demo", "cluster"]).model_dump(mode="json")
    values["cluster"]["checkpoints_claim"] = "condswin-checkpoints"
    return parse_config(values, origin="test")


def test_committed_yaml_is_what_the_parameters_compile_to(tmp_path: Path) -> None:
    config = load_config(ROOT / "params.yaml")
    for tasks in (TASKS, *((task,) for task in TASKS)):
        pipeline = build(config, tasks, with_code=False)
        compiler.Compiler().compile(pipeline, str(tmp_path / "pipeline.yaml"))
        assert (tmp_path / "pipeline.yaml").read_text() == (COMPILED / f"{pipeline.name}.yaml").read_text()


@pytest.mark.parametrize("task", TASKS)
def test_parameters_of_one_task_compile_to_its_pipeline_alone(task: str, tmp_path: Path) -> None:
    values = compose(["demo", "tiny"]).values()
    (other,) = set(TASKS) - {task}
    config = parse_config({name: part for name, part in values.items() if name not in (other, "tasks")}, origin="test")
    write_config(config, tmp_path / "params.yaml", comment="")
    done = CliRunner().invoke(
        app, ["compile", "--params", str(tmp_path / "params.yaml"), "--out", str(tmp_path / "out")]
    )
    assert done.exit_code == 0, done.output
    (written,) = (tmp_path / "out").iterdir()
    assert written.name == f"{task}.yaml"
    assert f"constant: {other}" not in written.read_text()
    assert f"constant: {task}" in written.read_text()
    refused = CliRunner().invoke(app, ["run", "--local", "--task", other, "--params", str(tmp_path / "params.yaml"),
                                       "--root", str(tmp_path / "root")])  # fmt: skip
    assert isinstance(refused.exception, ConfigError)
    assert f"{other}: not in these parameters" in str(refused.exception)


def test_variants_are_unrolled_for_both_tasks(cluster: Config, tmp_path: Path) -> None:
    spec, _ = compiled(cluster, tmp_path)
    tasks = spec["root"]["dag"]["tasks"]
    names = {task["taskInfo"]["name"] for task in tasks.values()}
    for task in TASKS:
        for variant in cluster.task(task).variants:
            assert f"train {task} {variant}" in names
            assert f"evaluate {task} {variant}" in names


def test_every_reference_leads_somewhere(cluster: Config, tmp_path: Path) -> None:
    """The schema alone does not see a dangling one."""
    spec, executors = compiled(cluster, tmp_path)
    tasks = spec["root"]["dag"]["tasks"]
    for task in tasks.values():
        component = spec["components"][task["componentRef"]["name"]]
        assert component["executorLabel"] in spec["deploymentSpec"]["executors"]
        assert set(task.get("dependentTasks", [])) <= set(tasks)
    assert set(executors) <= set(spec["deploymentSpec"]["executors"])


def test_every_task_runs_the_configured_image(cluster: Config, tmp_path: Path) -> None:
    spec, _ = compiled(cluster, tmp_path)
    images = {
        executor["container"]["image"]
        for executor in spec["deploymentSpec"]["executors"].values()
        if "container" in executor
    }
    assert images == {cluster.cluster.image}


def test_steps_with_effects_elsewhere_are_never_cached_and_all_are_retried(cluster: Config, tmp_path: Path) -> None:
    spec, _ = compiled(cluster, tmp_path)
    for name, task in spec["root"]["dag"]["tasks"].items():
        cached = task["cachingOptions"].get("enableCache", False)
        assert cached == (not name.startswith(("register", "promote", "resolve"))), name
        assert task["retryPolicy"]["maxRetryCount"] == cluster.cluster.retries


def test_training_gets_a_gpu_node_shared_memory_and_its_checkpoints(cluster: Config, tmp_path: Path) -> None:
    spec, executors = compiled(cluster, tmp_path)
    training = {name: value for name, value in executors.items() if name.startswith("exec-train")}
    assert len(training) == sum(len(cluster.task(task).variants) for task in TASKS)
    for name, executor in training.items():
        resources = spec["deploymentSpec"]["executors"][name]["container"]["resources"]
        assert resources["accelerator"] == {
            "count": "1", "type": "nvidia.com/gpu", "resourceCount": "1", "resourceType": "nvidia.com/gpu"
        }  # fmt: skip
        assert executor["nodeSelector"]["labels"] == cluster.cluster.gpu_node_selector
        assert executor["tolerations"][0]["key"] == "nvidia.com/gpu"
        assert executor["emptyDirMounts"][0]["mountPath"] == "/dev/shm"
        assert executor["pvcMount"][0]["mountPath"] == CHECKPOINTS


def test_no_gpu_is_asked_for_where_none_is_configured(tmp_path: Path) -> None:
    spec, executors = compiled(compose(["demo"]), tmp_path)
    assert "accelerator" not in json.dumps(spec["deploymentSpec"])
    assert "nodeSelector" not in json.dumps(executors)


def test_every_task_gets_environment_and_secrets_by_reference(tmp_path: Path) -> None:
    values = compose(["demo", "cluster"]).values()
    values["cluster"]["environment"] = {"AWS_ENDPOINT_URL": "http://s3.storage:9000"}
    values["cluster"]["secrets"] = {"storage": {"accesskey": "AWS_ACCESS_KEY_ID", "secretkey": "AWS_SECRET_ACCESS_KEY"}}
    values["tracking"]["uri"] = "http://mlflow.mlflow:5000"
    spec, executors = compiled(parse_config(values, origin="test"), tmp_path)
    for name, executor in spec["deploymentSpec"]["executors"].items():
        environment = {each["name"]: each["value"] for each in executor["container"]["env"]}
        assert environment == {
            "MLFLOW_TRACKING_URI": "http://mlflow.mlflow:5000",
            "MLFLOW_EXPERIMENT_NAME": "condswin",
            "AWS_ENDPOINT_URL": "http://s3.storage:9000",
        }
        (secret,) = executors[name]["secretAsEnv"]
        assert secret["secretNameParameter"]["runtimeValue"]["constant"] == "storage"
        assert {each["secretKey"]: each["envVar"] for each in secret["keyToEnv"]} == {
            "accesskey": "AWS_ACCESS_KEY_ID",
            "secretkey": "AWS_SECRET_ACCESS_KEY",
        }


def test_more_variants_than_compare_takes_are_refused() -> None:
    variants = {f"swin-{number}": {"network": "swin"} for number in range(VARIANTS + 1)}
    values = compose(["demo"]).values()
    values["reconstruction"]["variants"] = variants
    with pytest.raises(ConfigError, match=r"reconstruction\.variants: 9; a pipeline compares at most 8"):
        build(parse_config(values, origin="test"), ("reconstruction",))


def test_mri_data_is_prepared_after_its_card_was_written(cluster: Config, tmp_path: Path) -> None:
    spec, _ = compiled(cluster, tmp_path)
    tasks = spec["root"]["dag"]["tasks"]
    waiting = [name for name, task in tasks.items() if "data-card" in task.get("dependentTasks", [])]
    assert len(waiting) == 1
    assert tasks[waiting[0]]["componentRef"]["name"].startswith("comp-prepare")
    assert tasks[waiting[0]]["inputs"]["parameters"]["task"]["runtimeValue"]["constant"] == "reconstruction"

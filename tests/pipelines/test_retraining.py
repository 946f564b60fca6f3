import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.json_format import ParseDict
from kfp import compiler, dsl, local
from kfp.dsl import pipeline_task
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
from kfp.pipeline_spec import pipeline_spec_pb2
from typer.testing import CliRunner

from components.compare import VARIANTS
from condswin.config.names import TASKS
from condswin.config.pools import Pools, load_pools
from condswin.config.profiles import compose, write_config
from condswin.config.reading import load_config, parse_config
from condswin.config.root import Config
from condswin.errors import ConfigError
from condswin.notify import WEBHOOK
from pipelines.__main__ import COMPILED, app
from pipelines.catalogue import PIPELINES
from pipelines.placing import CHECKPOINTS, LABEL
from pipelines.retraining import build
from pipelines.tasks import _callers_by_name
from tests.pipelines.backend import platform_violations, tasks_of

ROOT = Path(__file__).parents[2]


def compiled(config: Config, tmp_path: Path) -> tuple[dict, dict]:
    path = tmp_path / "pipeline.yaml"
    compiler.Compiler().compile(build(config, config.present), str(path))
    spec, *platform = yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader)
    ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    executors = platform[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if platform else {}
    for executor in executors.values():
        ParseDict(executor, KubernetesExecutorConfig())
    return spec, executors


@pytest.fixture(scope="module")
def cluster() -> Config:
    return compose(["demo", "cluster"])


@pytest.fixture(scope="module")
def pools(cluster: Config) -> Pools:
    return load_pools(cluster.cluster.pools)


@pytest.fixture(scope="module")
def made(cluster: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    """The pipeline of both tasks, and what it says to Kubernetes by executor."""
    return compiled(cluster, tmp_path_factory.mktemp("made"))


def step_of(executor: str) -> str:
    return re.sub(r"-\d+$", "", executor.removeprefix("exec-")).replace("-", "_")


def test_committed_yaml_is_what_the_parameters_compile_to(tmp_path: Path) -> None:
    config = load_config(ROOT / "params.yaml")
    made = [make(config, TASKS, with_code=False) for make in PIPELINES.values()]
    for pipeline in (*made, *(build(config, (task,), with_code=False) for task in TASKS)):
        compiler.Compiler().compile(pipeline, str(tmp_path / "pipeline.yaml"))
        assert (tmp_path / "pipeline.yaml").read_text() == (COMPILED / f"{pipeline.name}.yaml").read_text()


def test_kfp_is_left_as_it_was() -> None:
    """While a pipeline is made it is spared reading the source of its callers; it still knows their names."""
    graph = build(compose(["demo"]), ("reconstruction",))
    assert pipeline_task.inspect is inspect

    def outer() -> None:
        with _callers_by_name():
            graph().set_cpu_limit("1")

    with pytest.raises(ValueError, match="set_cpu_limit can only be used on single-step components"):
        dsl.pipeline(outer, name="outer")


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
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *(f"{task}.yaml", "evaluation.yaml", "drift.yaml", "batch-predict.yaml", "search.yaml")
    }
    for written in (tmp_path / "out").iterdir():
        assert f"constant: {other}" not in written.read_text()
        assert f"constant: {task}" in written.read_text()
    refused = CliRunner().invoke(app, ["run", "--local", "--task", other, "--params", str(tmp_path / "params.yaml"),
                                       "--root", str(tmp_path / "root")])  # fmt: skip
    assert isinstance(refused.exception, ConfigError)
    assert f"{other}: not in these parameters" in str(refused.exception)


def test_variants_are_unrolled_for_both_tasks(cluster: Config, made: tuple[dict, dict]) -> None:
    spec, _ = made
    tasks = tasks_of(spec)
    names = {task["taskInfo"]["name"] for task in tasks.values()}
    for task in TASKS:
        for variant in cluster.task(task).variants:
            assert f"train {task} {variant}" in names
            assert f"evaluate {task} {variant}" in names


def test_every_reference_leads_somewhere(made: tuple[dict, dict]) -> None:
    """The schema alone does not see a dangling one."""
    spec, executors = made
    tasks = {**tasks_of(spec), **spec["root"]["dag"]["tasks"]}
    for task in tasks.values():
        component = spec["components"][task["componentRef"]["name"]]
        assert "dag" in component or component["executorLabel"] in spec["deploymentSpec"]["executors"]
        assert set(task.get("dependentTasks", [])) <= set(tasks)
    assert set(executors) <= set(spec["deploymentSpec"]["executors"])


def test_every_task_asks_what_its_pool_says(pools: Pools, made: tuple[dict, dict]) -> None:
    spec, executors = made
    for name, executor in spec["deploymentSpec"]["executors"].items():
        pool, asked, platform = pools.of(step_of(name)), executor["container"]["resources"], executors[name]
        assert executor["container"]["image"] == pool.image
        assert (asked["resourceCpuRequest"], asked["resourceCpuLimit"]) == (pool.cpu.request, pool.cpu.limit)
        assert (asked["resourceMemoryRequest"], asked["resourceMemoryLimit"]) == (
            pool.memory.request,
            pool.memory.limit,
        )
        assert ("accelerator" in asked) == bool(pool.accelerator)
        assert platform["activeDeadlineSeconds"] == str(pool.timeout)
        assert platform["podMetadata"]["labels"] == {LABEL: pools.name_of(step_of(name))}
        assert len(platform.get("tolerations", [])) == len(pool.tolerations)
        volumes = {mount["mountPath"]: mount["sizeLimit"] for mount in platform.get("emptyDirMounts", [])}
        assert volumes == {path: size for path, size in {"/dev/shm": pool.shm, "/tmp": pool.scratch}.items() if size}


def test_no_quantity_is_a_number_in_the_yaml(cluster: Config, tmp_path: Path) -> None:
    """A CPU limit of 8 instead of "8" is refused by Kubernetes' API."""
    compiled(cluster, tmp_path)
    text = (tmp_path / "pipeline.yaml").read_text()
    written = re.findall(r"(?:resource\w+(?:Limit|Request)|resourceCount|activeDeadlineSeconds|sizeLimit): (.+)", text)
    assert written
    assert all(isinstance(yaml.safe_load(value), str) for value in written)


def test_only_what_runs_networks_is_near_a_gpu_or_its_image(pools: Pools, made: tuple[dict, dict]) -> None:
    spec, _ = made
    near = {
        step_of(name)
        for name, executor in spec["deploymentSpec"]["executors"].items()
        if "accelerator" in executor["container"]["resources"] or executor["container"]["image"] == "condswin:gpu"
    }
    assert near == {"train", "evaluate", "promote"}
    assert pools.of("compare").cpu.limit == "1"


def test_steps_with_effects_elsewhere_are_never_cached_and_only_verdicts_are_final(
    pools: Pools, made: tuple[dict, dict]
) -> None:
    spec, _ = made
    for name, task in tasks_of(spec).items():
        step = step_of(name)
        cached = task["cachingOptions"].get("enableCache", False)
        assert cached == (step not in ("register", "promote", "resolve", "notify")), name
        tries = 0 if step in ("verdict", "notify") else pools.of(step).retry.count
        assert task.get("retryPolicy", {}).get("maxRetryCount", 0) == tries


def test_training_gets_a_gpu_node_shared_memory_and_its_checkpoints(cluster: Config, made: tuple[dict, dict]) -> None:
    spec, executors = made
    training = {name: value for name, value in executors.items() if name.startswith("exec-train")}
    assert len(training) == sum(len(cluster.task(task).variants) for task in TASKS)
    for name, executor in training.items():
        resources = spec["deploymentSpec"]["executors"][name]["container"]["resources"]
        assert resources["accelerator"] == {
            "count": "1", "type": "nvidia.com/gpu", "resourceCount": "1", "resourceType": "nvidia.com/gpu"
        }  # fmt: skip
        assert executor["nodeSelector"]["labels"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
        assert executor["nodeAffinity"][0]["matchExpressions"][0]["values"] == ["true"]
        assert executor["tolerations"][0] == {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
        memory = {"mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": "8Gi", "volumeName": "shared-memory"}
        assert memory in executor["emptyDirMounts"]
        assert executor["pvcMount"][0]["mountPath"] == CHECKPOINTS
    assert all("pvcMount" not in value for name, value in executors.items() if name not in training)


def test_kubernetes_is_asked_for_what_the_backend_understands(made: tuple[dict, dict]) -> None:
    assert not list(platform_violations(made[1]))


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("emptyDirMounts", [{"volumeName": "scratch", "sizeLimit": "5GB"}], "'5GB' is no quantity"),
        ("emptyDirMounts", [{"volumeName": "a"}, {"volumeName": "a"}], "two volumes of one name"),
        ("nodeAffinity", [{"matchExpressions": []}] * 2, "what nodes must have, in several terms"),
        ("tolerations", [{"operator": "Equal"}], "a toleration without a key"),
        ("secretAsEnv", [{"keyToEnv": []}], "a Secret without a name"),
    ],
)
def test_what_the_backend_does_not_understand_is_found(
    part: str, value: list[dict], said: str, made: tuple[dict, dict]
) -> None:
    (found,) = platform_violations({"exec-train": {**made[1]["exec-train"], part: value}})
    assert found.startswith(f"exec-train: {said}")


def test_nodes_must_have_all_that_they_must_have(cluster: Config, tmp_path: Path) -> None:
    wishes = "[{key: zone, values: [a]}, {key: disk, operator: Exists}, {key: spot, operator: Exists, weight: 5}]"
    (tmp_path / "pools.yaml").write_text(f"pools: {{default: {{affinity: {wishes}}}}}\n")
    section = cluster.cluster.model_copy(update={"pools": str(tmp_path / "pools.yaml")})
    _, executors = compiled(cluster.model_copy(update={"cluster": section}), tmp_path)
    assert not list(platform_violations(executors))
    must, should = executors["exec-compare"]["nodeAffinity"]
    assert [expression["key"] for expression in must["matchExpressions"]] == ["zone", "disk"]
    assert should["weight"] == 5


def test_a_claim_for_one_node_is_one_for_each_training(cluster: Config, tmp_path: Path) -> None:
    text = (ROOT / "infra" / "pools.yaml").read_text()
    one_each = "{claim: 'condswin-{task}-{variant}', access: ReadWriteOnce}"
    (tmp_path / "pools.yaml").write_text(re.sub(r"(checkpoints: ){.*}", rf"\g<1>{one_each}", text))
    section = cluster.cluster.model_copy(update={"pools": str(tmp_path / "pools.yaml")})
    _, executors = compiled(cluster.model_copy(update={"cluster": section}), tmp_path)
    claims = [value["pvcMount"][0]["constant"] for value in executors.values() if "pvcMount" in value]
    assert len(set(claims)) == len(claims) == sum(len(cluster.task(task).variants) for task in TASKS)
    assert "condswin-reconstruction-swin" in claims


def test_no_gpu_is_asked_for_where_no_pools_are_named(tmp_path: Path) -> None:
    spec, executors = compiled(compose(["demo"]), tmp_path)
    assert "accelerator" not in json.dumps(spec["deploymentSpec"])
    assert "nodeSelector" not in json.dumps(executors)


def test_the_webhook_is_known_to_the_exit_handler_alone(made: tuple[dict, dict], tmp_path: Path) -> None:
    spec, executors = made
    knows = {name for name, value in executors.items() if WEBHOOK in json.dumps(value.get("secretAsEnv", ""))}
    assert knows == {"exec-notify"}
    assert tasks_of(spec)["notify"]["dependentTasks"] == ["exit-handler-1"]
    assert "notify" not in tasks_of(compiled(compose(["demo"]), tmp_path)[0])


def test_every_task_gets_environment_and_secrets_by_reference(tmp_path: Path) -> None:
    values = compose(["demo", "cluster"]).values()
    values["cluster"]["environment"] = {"AWS_ENDPOINT_URL": "http://s3.storage:9000"}
    values["cluster"]["secrets"] = {"storage": {"accesskey": "AWS_ACCESS_KEY_ID", "secretkey": "AWS_SECRET_ACCESS_KEY"}}
    values["tracking"]["uri"] = "http://mlflow.mlflow:5000"
    spec, executors = compiled(parse_config(values, origin="test"), tmp_path)
    for name, executor in spec["deploymentSpec"]["executors"].items():
        if step_of(name) in ("verdict", "notify"):  # which speak to nobody but the webhook
            assert "env" not in executor["container"]
            continue
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


def test_volumes_are_where_sources_are_read(tmp_path: Path) -> None:
    _, executors = compiled(compose(["demo", "cluster"], ["cluster.volumes={scans: /scans}"]), tmp_path)
    mounted = {
        step_of(name)
        for name, platform in executors.items()
        for mount in platform.get("pvcMount", ())
        if mount["mountPath"] == "/scans"
    }
    assert mounted == {"resolve", "ingest"}


def test_the_version_of_ingested_data_goes_to_the_registry(made: tuple[dict, dict]) -> None:
    tasks = tasks_of(made[0])
    for name, task in tasks.items():
        if step_of(name) == "register":
            given = task["inputs"]["parameters"]["source_md5"]["taskOutputParameter"]
            assert given["outputParameterKey"] == "md5"
            # Of the same task.
            ingest = tasks[given["producerTask"]]["taskInfo"]["name"]
            assert ingest == f"ingest {task['taskInfo']['name'].removeprefix('register ')}"


def test_more_variants_than_compare_takes_are_refused() -> None:
    variants = {f"swin-{number}": {"network": "swin"} for number in range(VARIANTS + 1)}
    values = compose(["demo"]).values()
    values["reconstruction"]["variants"] = variants
    with pytest.raises(ConfigError, match=r"reconstruction\.variants: 9; a pipeline compares at most 8"):
        build(parse_config(values, origin="test"), ("reconstruction",))


def test_nothing_starts_before_the_verdict_on_what_it_takes(made: tuple[dict, dict]) -> None:
    spec, _ = made
    tasks = tasks_of(spec)
    names = {name: task["taskInfo"]["name"] for name, task in tasks.items()}

    def waits_for(task: str) -> set[str]:
        (found,) = (name for name, shown in names.items() if shown == task)
        return {names[name].removeprefix("verdict ") for name in tasks[found]["dependentTasks"]
                if names[name].startswith("verdict")}  # fmt: skip

    assert waits_for("prepare reconstruction") == {"ingest reconstruction", "data card reconstruction"}
    assert waits_for("prepare segmentation") == {"ingest segmentation", "data card segmentation"}
    assert waits_for("train segmentation swin") == {"prepare segmentation"}
    assert waits_for("evaluate segmentation swin") == {"train segmentation swin"}
    assert waits_for("compare segmentation") == {"evaluate segmentation"}


def test_containers_of_this_machine_may_write_their_outputs_and_tmp_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(local, "init", lambda runner, **_: given.update(runner.container_run_args))
    monkeypatch.setitem(PIPELINES, "retraining", lambda *_, **__: lambda: None)
    done = CliRunner().invoke(app, ["run", "--docker", "--root", str(tmp_path), "--params", str(ROOT / "params.yaml")])
    assert done.exit_code == 0, done.output
    assert given["read_only"] is True
    assert list(given["tmpfs"]) == ["/tmp"]

"""Manifests for Kubeflow Trainer come back equal from the models of its SDK, for whatever a pool asks."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from condswin.config.names import TASKS
from condswin.config.pools import Pools, load_pools
from condswin.config.profiles import compose
from condswin.config.reading import parse_config
from condswin.config.root import Config
from condswin.errors import ConfigError
from pipelines.images import pinned
from pipelines.nodes import NODE, RUNTIME, train_job
from pipelines.placing import CHECKPOINTS, LABEL
from tests.infra.rendering import ROOT, one, render, with_trainer
from tests.pipelines.backend import Backend, tasks_of, violations
from tests.pipelines.test_backend import ALWAYS, VERSIONS, compiled, kinds
from tests.pipelines.trainer_models import problems_of

POOLS = (ROOT / "infra" / "pools.yaml").read_text()


def pools_of(folder: Path, **changes: Any) -> str:
    """`infra/pools.yaml` with two nodes for trainings, and other changes of their pool."""
    values = yaml.safe_load(POOLS)
    values["pools"]["gpu"] |= {"nodes": 2, **changes}
    (folder / "pools.yaml").write_text(yaml.safe_dump(values))
    return str(folder / "pools.yaml")


def asked(pools: str, **cluster: Any) -> Config:
    values = compose(["demo", "cluster"]).values()
    values["cluster"] |= {"pools": pools, **cluster}
    return parse_config(values, origin="test")


@pytest.fixture
def two(tmp_path: Path) -> Config:
    secrets = {"s3": {"key": "AWS_SECRET_ACCESS_KEY"}, "mlflow-client": {"MLFLOW_TRACKING_PASSWORD": "PASSWORD"}}
    return asked(pools_of(tmp_path), environment={"AWS_ENDPOINT_URL": "http://s3:8333"}, secrets=secrets)


def job_of(config: Config) -> dict[str, Any]:
    return train_job(config, load_pools(config.cluster.pools), "reconstruction", "swin")


def test_a_pool_becomes_a_job_that_the_models_know(two: Config) -> None:
    job = job_of(two)
    assert not list(problems_of("TrainJob", job))
    assert len(json.dumps(job)) < 5000
    trainer, (patch,) = job["spec"]["trainer"], job["spec"]["runtimePatches"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 1)
    assert trainer["resourcesPerNode"] == {
        "requests": {"cpu": "6", "memory": "24Gi", "nvidia.com/gpu": "1"},
        "limits": {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"},
    }
    environment = {each["name"]: each.get("value") or each["valueFrom"]["secretKeyRef"] for each in trainer["env"]}
    assert environment["AWS_ENDPOINT_URL"] == "http://s3:8333"
    assert environment["AWS_SECRET_ACCESS_KEY"] == {"name": "s3", "key": "key"}
    assert environment["MLFLOW_TRACKING_URI"] == two.tracking.uri
    (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    template = node["template"]["spec"]["template"]
    assert template["metadata"]["labels"] == {LABEL: "gpu"}
    pod = template["spec"]
    assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert [each["key"] for each in pod["tolerations"]] == ["nvidia.com/gpu", "cloud.google.com/gke-spot"]
    (wish,) = pod["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert wish["weight"] == 100
    assert {each["name"]: each.get("emptyDir", {}).get("sizeLimit") for each in pod["volumes"]} == {
        "checkpoints": None, "shared-memory": "8Gi", "scratch": "50Gi"}  # fmt: skip
    assert job["spec"]["activeDeadlineSeconds"] == load_pools(two.cluster.pools).of("train").timeout


@pytest.mark.parametrize(
    "change",
    [
        {"accelerator": None, "image": "condswin:big"},
        {"shm": "", "scratch": "", "selector": {}, "affinity": [], "tolerations": []},
        {"affinity": [{"key": "zone", "values": ["a"]}, {"key": "disk", "operator": "Exists"}]},
        {"tolerations": [{"key": "", "effect": ""}, {"key": "a", "operator": "Equal", "value": "b"}]},
        {"accelerator": {"type": "amd.com/gpu", "count": 8}, "nodes": 16},
        {"checkpoints": {"claim": "condswin-{task}-{variant}"}},
    ],
)
def test_so_does_any_other(change: dict[str, Any], tmp_path: Path) -> None:
    assert not list(problems_of("TrainJob", job_of(asked(pools_of(tmp_path, **change)))))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda job: job["spec"].update(podTemplateOverrides=[]), "spec.podTemplateOverrides: no such key"),
        (lambda job: job["spec"]["trainer"].update(numNodes="2"), "num"),
        (lambda job: job["spec"]["trainer"].update(nodes=2), "trainer.nodes: no such key"),
        (lambda job: job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0][
            "template"]["spec"]["template"]["spec"].update(priorityClassName="x"), "priorityClassName: no such key"),
    ],
)  # fmt: skip
def test_what_the_models_would_drop_or_refuse_is_found(broken: Any, said: str, two: Config) -> None:
    job = copy.deepcopy(job_of(two))
    broken(job)
    (found,) = problems_of("TrainJob", job)
    assert said in found


def test_the_runtime_is_one_that_the_models_know_and_jobs_fit(tmp_path: Path, two: Config) -> None:
    """What jobs patch is there by name, and nothing clears away pods of jobs that ended."""
    folder = tmp_path / "kustomize"
    shutil.copytree(ROOT / "infra/kustomize", folder)
    objects = render(with_trainer(folder))
    runtime = one(objects, "TrainingRuntime", RUNTIME)
    assert not list(problems_of("TrainingRuntime", runtime))
    assert "ttlSecondsAfterFinished" not in json.dumps(runtime)
    assert runtime["metadata"]["namespace"] == "condswin"
    (node,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    pod = node["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (node["name"], container["name"]) == (NODE, NODE)
    patched = job_of(two)["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]
    volumes = patched["template"]["spec"]["template"]["spec"]["volumes"]
    kinds = {each["name"]: set(each) for each in pod["volumes"]}
    assert all(kinds[each["name"]] == set(each) for each in volumes)
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert mounts == {"checkpoints": CHECKPOINTS, "scratch": "/tmp", "shared-memory": "/dev/shm"}
    assert container["command"] == ["torchrun", "-m", "condswin.kubeflow.node"]
    claim = one(objects, "PersistentVolumeClaim", "condswin-checkpoints")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    (binding,) = [each for each in objects if each["kind"] == "RoleBinding"
                  and each["metadata"]["name"] == "condswin-trainer"]  # fmt: skip
    assert binding["subjects"][0] | {"namespace": "condswin"} == {
        "kind": "ServiceAccount", "name": "condswin-runner", "namespace": "condswin"}  # fmt: skip


def test_a_pool_of_several_nodes_is_all_that_it_takes(two: Config, tmp_path: Path) -> None:
    spec = compiled(two, tmp_path)
    assert not list(violations(spec))
    tasks = tasks_of(spec)
    found = [task for name, task in tasks.items() if name.startswith("train-nodes")]
    assert len(found) == sum(len(two.task(task).variants) for task in TASKS)
    assert not [name for name in tasks if name.startswith("train") and not name.startswith("train-nodes")]
    for task in found:
        given = {name: each["runtimeValue"]["constant"] for name, each in task["inputs"]["parameters"].items()}
        assert not list(problems_of("TrainJob", json.loads(given["job"])))
        assert (given["image"], given["checkpoints"]) == ("condswin:gpu", CHECKPOINTS)
        assert task["taskInfo"]["name"] == f"train {given['task']} {given['variant']}"
    waiting = {name: each["container"] for name, each in spec["deploymentSpec"]["executors"].items()
               if name.startswith("exec-train-nodes")}  # fmt: skip
    assert all(each["image"] == "condswin:cpu" and "accelerator" not in each["resources"] for each in waiting.values())
    backend = Backend()
    assert "train-nodes" in kinds(backend.run(spec, VERSIONS))
    assert kinds(backend.run(spec, VERSIONS)) == set(ALWAYS)
    changed = two.values()
    changed["reconstruction"]["gate"]["patients"] = 30
    other = compiled(parse_config(changed, origin="test"), tmp_path)
    assert kinds(backend.run(other, VERSIONS)) == {*ALWAYS, "report"}


def test_the_image_of_a_job_is_a_digest_too(two: Config, tmp_path: Path) -> None:
    spec = compiled(two, tmp_path)
    images = {name: f"registry.example/{name}@sha256:{'0' * 64}" for name in ("condswin:cpu", "condswin:gpu")}
    for task in tasks_of(pinned(spec, images)).values():
        if "image" in task.get("inputs", {}).get("parameters", {}):
            assert task["inputs"]["parameters"]["image"]["runtimeValue"]["constant"] == images["condswin:gpu"]
    only = {name: each for name, each in spec["deploymentSpec"]["executors"].items()
            if each["container"]["image"] == "condswin:cpu"}  # fmt: skip
    spec["deploymentSpec"]["executors"] = only
    with pytest.raises(ConfigError, match="condswin:gpu: a tag, which can move"):
        pinned(spec, {"condswin:cpu": images["condswin:cpu"]})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"checkpoints": None, "spot": False}, "train: its 2 nodes share data, checkpoints and result"),
        ({"checkpoints": {"claim": "{task}-{variant}", "access": "ReadWriteOnce"}}, "train: its 2 nodes share"),
        ({"timeout": 1209601}, "train_nodes: waits for trainings of at most 1209601 s and is ended after 1209600 s"),
        ({"nodes": 0}, "nodes"),
    ],
)
def test_pools_that_cannot_hold_several_nodes_are_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        load_pools(pools_of(tmp_path, **change))


def test_processes_that_a_node_does_not_have_are_refused(two: Config) -> None:
    train = two.reconstruction.train.model_copy(update={"processes": 4})
    section = two.reconstruction.model_copy(update={"train": train})
    with pytest.raises(ConfigError, match=r"reconstruction\.train\.processes: 4, but each node .* has 1 accelerators"):
        job_of(two.model_copy(update={"reconstruction": section}))


def test_without_them_pools_of_one_node_are_as_they_were() -> None:
    assert isinstance(load_pools(str(ROOT / "infra" / "pools.yaml")), Pools)
    assert load_pools("").of("train").nodes == 1

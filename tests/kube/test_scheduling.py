"""The real scheduler puts what pools ask for on their nodes: pods of tasks as Kubeflow makes them, and of TrainJobs."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from condswin.config.pools import load_pools
from pipelines.nodes import NODE
from pipelines.placing import LABEL
from tests.infra.rendering import Object, one, pods
from tests.kube.conftest import GPU_TAINT, KIND, Cluster, until
from tests.kube.objects import node, volume
from tests.pipelines.test_trainer_models import asked, job_of, pools_of

pytestmark = pytest.mark.kube

NAMESPACE = "runs"
SPOT, CPUS = {"l4-spot-1", "l4-spot-2"}, {"cpu-1", "cpu-2"}
#: Where pods of a pool may go.
ON = {"gpu": {*SPOT, "l4-1"}, "small": CPUS, "cpu": CPUS}


@pytest.fixture(scope="module", autouse=True)
def namespace(cluster: Cluster) -> None:
    """A namespace of runs alone, without a quota, and with the claim for checkpoints."""
    cluster.core.create_namespace({"metadata": {"name": NAMESPACE}})
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim",
             "metadata": {"name": "condswin-checkpoints", "namespace": NAMESPACE},
             "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}}  # fmt: skip
    account = {"apiVersion": "v1", "kind": "ServiceAccount",
               "metadata": {"name": "condswin-runner", "namespace": NAMESPACE}}  # fmt: skip
    cluster.plane.kubectl("apply", "-f", "-", given=[volume("runs", claim), claim, account])
    read = cluster.core.read_namespaced_persistent_volume_claim
    until(lambda: read("condswin-checkpoints", NAMESPACE).status.phase == "Bound", "binding the claim")


@pytest.fixture(autouse=True)
def tidy(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.remove_pods(NAMESPACE)


def test_each_task_gets_a_node_of_its_pool_and_no_other(tasks: dict[str, Object], cluster: Cluster) -> None:
    pools = load_pools("infra/pools.yaml")
    assert len(tasks) > 40
    for name, pod in tasks.items():
        (node,) = cluster.place(NAMESPACE, pod).values()
        pool = pools.name_of(name.rstrip("0123456789").rstrip("-").replace("-", "_"))
        assert pod["metadata"]["labels"][LABEL] == pool
        assert node in ON[pool], name
        cluster.remove_pods(NAMESPACE, name)


def trainings(tasks: dict[str, Object], number: int) -> list[Object]:
    """So many pods of the task `train`, `train-0` the first."""
    pods = [copy.deepcopy(tasks["train"]) for _ in range(number)]
    for place, pod in enumerate(pods):
        pod["metadata"]["name"] = f"train-{place}"
    return pods


def test_trainings_go_to_spot_nodes_first_and_to_others_when_those_are_full(
    tasks: dict[str, Object], cluster: Cluster
) -> None:
    """Each node has eight GPUs and processors for sixteen trainings."""
    nodes = list(cluster.place(NAMESPACE, *trainings(tasks, 25)).values())
    assert set(nodes[:16]) == SPOT
    assert nodes[16:24] == ["l4-1"] * 8
    assert nodes[24].startswith("- 0/6 nodes are available: ")
    assert "3 Insufficient nvidia.com/gpu" in nodes[24]
    # One that ends makes room.
    cluster.remove_pods(NAMESPACE, "train-0")
    assert until(lambda: cluster.core.read_namespaced_pod("train-24", NAMESPACE).spec.node_name, "the last") in SPOT


def without(key: str) -> Callable[[Object], Any]:
    return lambda pod: pod["spec"].pop(key)


@pytest.mark.parametrize(
    ("breaking", "said"),
    [
        (without("tolerations"), "node(s) had taint {nvidia.com/gpu: present}"),
        (lambda pod: pod["spec"]["tolerations"].pop(0), "node(s) had taint {nvidia.com/gpu: present}"),
        (lambda pod: pod["spec"]["nodeSelector"].update({KIND: "nvidia-h100"}), "didn't match"),
        (lambda pod: _limits(pod).update({"nvidia.com/gpu": "9"}), "Insufficient nvidia.com/gpu"),
        (lambda pod: _requests(pod).update(cpu="100") or _limits(pod).update(cpu="100"), "Insufficient cpu"),
        (lambda pod: _requests(pod).update(memory="400Gi") or _limits(pod).update(memory="400Gi"),
         "Insufficient memory"),
        (lambda pod: pod["spec"]["volumes"][-1]["persistentVolumeClaim"].update(claimName="other"),
         'persistentvolumeclaim "other" not found'),
    ],
)  # fmt: skip
def test_what_fits_no_node_waits_and_the_scheduler_says_why(
    breaking: Callable[[Object], Any], said: str, tasks: dict[str, Object], cluster: Cluster
) -> None:
    pod = copy.deepcopy(tasks["train"])
    breaking(pod)
    (node,) = cluster.place(NAMESPACE, pod).values()
    assert node.startswith("- ")
    assert said in node


def test_without_tolerating_spot_nodes_trainings_take_others(tasks: dict[str, Object], cluster: Cluster) -> None:
    pod = copy.deepcopy(tasks["train"])
    del pod["spec"]["tolerations"][1]
    assert cluster.place(NAMESPACE, pod) == {"train": "l4-1"}


def test_without_its_selector_a_training_might_take_another_teams_gpu(
    tasks: dict[str, Object], cluster: Cluster
) -> None:
    """What keeps it away is the label, since taints are the same."""
    pods = trainings(tasks, 32)
    for pod in pods:
        without("nodeSelector")(pod)
    assert "a100-1" in cluster.place(NAMESPACE, *pods).values()


def _requests(pod: Object) -> dict[str, str]:
    found: dict[str, str] = pod["spec"]["containers"][0]["resources"]["requests"]
    return found


def _limits(pod: Object) -> dict[str, str]:
    found: dict[str, str] = pod["spec"]["containers"][0]["resources"]["limits"]
    return found


def patched(template: Object, patch: Object, folder: Path) -> Object:
    """A pod's template with a strategic merge patch, as Trainer applies patches of its runtimes."""
    (folder / "pod.yaml").write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", **template}))
    kubectl = Path(sys.executable).with_name("kubectl")
    command = [kubectl, "patch", "--local", "-f", folder / "pod.yaml", "--type=strategic", "-o", "json", "-p"]
    done = subprocess.run([*command, json.dumps(patch)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: Object = json.loads(done.stdout)
    return found


def pods_of_trainjob(job: Object, runtime: Object, folder: Path) -> list[Object]:
    """The pods that Trainer and JobSet make of a job."""
    ((_, template),) = pods([runtime])
    (replicated,) = job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    trainer = job["spec"]["trainer"]
    ours = {
        "name": NODE,
        "image": "condswin@sha256:0",
        "env": trainer["env"],
        "resources": {"$patch": "replace", **trainer["resourcesPerNode"]},
    }
    base = {**template, "metadata": {**template["metadata"], "name": "any"}}
    pod = patched(base, replicated["template"]["spec"]["template"], folder)
    pod = patched(pod, {"spec": {"containers": [ours]}}, folder)
    return [
        {**pod, "metadata": {**pod["metadata"], "name": f"node-0-{number}"}} for number in range(trainer["numNodes"])
    ]


def test_each_pod_of_a_trainjob_gets_a_gpu_node_of_the_pool(
    cluster: Cluster, rendered: dict[str, list[Object]], tmp_path: Path
) -> None:
    runtime = one(rendered["nodes"], "TrainingRuntime", "condswin")
    whole = {"accelerator": {"type": "nvidia.com/gpu", "count": 8}, "cpu": {"request": "48", "limit": "64"}}
    job = job_of(asked(pools_of(tmp_path, **whole)))
    made = pods_of_trainjob(job, runtime, tmp_path)
    assert len(made) == 2
    placed = cluster.place(NAMESPACE, *made)
    assert sorted(placed.values()) == sorted(SPOT)
    there = cluster.core.read_namespaced_pod("node-0-1", NAMESPACE)
    (container,) = there.spec.containers
    assert container.resources.requests["nvidia.com/gpu"] == container.resources.limits["nvidia.com/gpu"] == "8"
    assert {each.name: each.mount_path for each in container.volume_mounts if "/var/run" not in each.mount_path} == {
        "checkpoints": "/checkpoints", "scratch": "/tmp", "shared-memory": "/dev/shm"}  # fmt: skip
    assert {each.name: each.empty_dir.size_limit for each in there.spec.volumes if each.empty_dir} == {
        "scratch": "50Gi", "shared-memory": "8Gi"}  # fmt: skip


def test_the_registry_takes_the_place_of_a_task_where_a_node_is_short(
    cluster: Cluster, rendered: dict[str, list[Object]], tasks: dict[str, Object]
) -> None:
    here = {"kubernetes.io/hostname": "tight"}
    cluster.add_node(node("tight", {"cpu": "3", "memory": "16Gi"}))
    try:
        task = copy.deepcopy(tasks["prepare"])
        _requests(task)["cpu"] = "2900m"
        task["spec"]["nodeSelector"] = here
        assert cluster.place(NAMESPACE, task) == {"prepare": "tight"}
        template = copy.deepcopy(one(rendered["nodes"], "Deployment", "mlflow")["spec"]["template"])
        template["metadata"]["name"] = "mlflow"
        template["spec"] |= {"nodeSelector": here, "serviceAccountName": "default"}
        del template["spec"]["topologySpreadConstraints"]
        cluster.core.create_namespaced_pod(NAMESPACE, template)

        def nominated() -> Any:
            return cluster.core.read_namespaced_pod("mlflow", NAMESPACE).status.nominated_node_name

        assert until(nominated, "making room") == "tight"
        assert cluster.core.read_namespaced_pod("prepare", NAMESPACE).metadata.deletion_timestamp
    finally:
        cluster.core.delete_node("tight")


def test_the_taint_is_what_keeps_tasks_without_gpus_away(tasks: dict[str, Object], cluster: Cluster) -> None:
    """On nodes that nothing else would suit."""
    assert GPU_TAINT["key"] not in json.dumps(tasks["prepare"]["spec"].get("tolerations", []))
    pod = copy.deepcopy(tasks["prepare"])
    pod["spec"]["nodeSelector"] = {KIND: "nvidia-l4"}
    (node,) = cluster.place(NAMESPACE, pod).values()
    assert "had taint {nvidia.com/gpu: present}" in node

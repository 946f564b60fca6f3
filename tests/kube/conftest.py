"""One cluster for all tests: nodes with and without GPUs, volumes, and everything of infra/ applied to it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from kfp import compiler
from kubernetes import client

from condswin.config.profiles import compose
from pipelines import retraining
from tests.infra.rendering import Object, of
from tests.kube.control_plane import BINARIES, PROGRAMS, ControlPlane
from tests.kube.objects import as_before, definitions, node, overlays, pod_of_task, volume

#: As GKE labels and taints nodes, which is what infra/pools.yaml is made for.
GPU_TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
SPOT_TAINT = {"key": "cloud.google.com/gke-spot", "value": "true", "effect": "NoSchedule"}
KIND, SPOT = "cloud.google.com/gke-accelerator", "cloud.google.com/gke-spot"
_BIG = {"cpu": "96", "memory": "384Gi", "nvidia.com/gpu": "8"}
NODES = [
    node("cpu-1", {"cpu": "64", "memory": "256Gi"}),
    node("cpu-2", {"cpu": "64", "memory": "256Gi"}),
    node("l4-spot-1", _BIG, {KIND: "nvidia-l4", SPOT: "true"}, [GPU_TAINT, SPOT_TAINT]),
    node("l4-spot-2", _BIG, {KIND: "nvidia-l4", SPOT: "true"}, [GPU_TAINT, SPOT_TAINT]),
    node("l4-1", _BIG, {KIND: "nvidia-l4"}, [GPU_TAINT]),
    # Of another team: the same taint, another kind.
    node("a100-1", _BIG, {KIND: "nvidia-tesla-a100"}, [GPU_TAINT]),
]


def until(answer: Callable[[], Any], what: str, seconds: float = 120) -> Any:
    """What a controller brings about."""
    deadline = time.monotonic() + seconds
    while not (found := answer()):
        assert time.monotonic() < deadline, f"{what}: not in {seconds:.0f} s"
        time.sleep(0.1)
    return found


@dataclass
class Cluster:
    """What tests ask of the control plane, as its administrator."""

    plane: ControlPlane

    def __post_init__(self) -> None:
        self.core = client.CoreV1Api(self.plane.api())

    def add_node(self, node: Object) -> None:
        """Adds a node, which is ready."""
        self.core.create_node(node)
        self.core.patch_node_status(node["metadata"]["name"], {"status": node["status"]})
        # Admission makes each new one wait for a controller that is off here.
        self.core.patch_node(node["metadata"]["name"], {"spec": {"taints": node["spec"]["taints"]}})

    def place(self, namespace: str, *pods: Object) -> dict[str, str]:
        """Where the scheduler puts pods, or, behind `-`, why nowhere, by their names."""
        for pod in pods:
            self.core.create_namespaced_pod(namespace, pod)
        return {pod["metadata"]["name"]: self._placed(namespace, pod["metadata"]["name"]) for pod in pods}

    def _placed(self, namespace: str, name: str) -> str:
        def looked() -> str:
            pod = self.core.read_namespaced_pod(name, namespace)
            why = [each.message for each in pod.status.conditions or () if each.reason == "Unschedulable"]
            return pod.spec.node_name or (f"- {why[0]}" if why else "")

        return str(until(looked, f"scheduling {name}"))

    def remove_pods(self, namespace: str, *names: str) -> None:
        """Removes pods at once, as no kubelet ends them."""
        for name in names or [each.metadata.name for each in self.core.list_namespaced_pod(namespace).items]:
            self.core.delete_namespaced_pod(name, namespace, grace_period_seconds=0)


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    if missing := [each for each in PROGRAMS if not (BINARIES / each).is_file()]:
        pytest.skip(f"no {missing[0]} in {BINARIES}: make kube-binaries")
    plane = ControlPlane(tmp_path_factory.mktemp("kube"))
    try:
        plane.start([*definitions()])
        yield plane
    finally:
        plane.stop()


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Object]]:
    return overlays(tmp_path_factory.mktemp("infra"))


@pytest.fixture(scope="session")
def cluster(plane: ControlPlane, rendered: dict[str, list[Object]]) -> Cluster:
    """A cluster with the overlays `production`, then `nodes` on top of it, and `laptop` in a namespace of that name."""
    cluster = Cluster(plane)
    for each in NODES:
        cluster.add_node(each)
    for name in ("laptop", "nodes"):
        for claim in claims(rendered[name]):
            plane.kubectl("apply", "-f", "-", given=volume(f"{name}-{claim['metadata']['name']}", claim))
    for name in ("laptop", "production", "nodes"):
        apply(plane, rendered[name])
    # A controller gives each namespace its account a moment later.
    accounts = ("--all-namespaces", "--field-selector=metadata.name=default", "-o", "name")
    until(lambda: len(plane.kubectl("get", "sa", *accounts).split()) >= len(cluster.core.list_namespace().items),
          "giving each namespace an account")  # fmt: skip
    # RBAC hears of a binding a moment later; this is of the last.
    wanted = client.V1SubjectAccessReviewSpec(
        user="system:serviceaccount:condswin:condswin-runner",
        resource_attributes=client.V1ResourceAttributes(
            group="trainer.kubeflow.org", resource="trainjobs", verb="create", namespace="condswin"
        ),
    )
    review, access = client.V1SubjectAccessReview(spec=wanted), client.AuthorizationV1Api(plane.api())
    until(lambda: access.create_subject_access_review(review).status.allowed, "giving rights")
    return cluster


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Object]:
    """Pods of all tasks of the retraining pipeline, by their executors."""
    config = compose(["demo", "cluster"], ["cluster.secrets={s3: {AWS_SECRET_ACCESS_KEY: AWS_SECRET_ACCESS_KEY}}"])
    written = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    compiler.Compiler().compile(retraining.build(config, config.present), str(written))
    spec, platform = yaml.load_all(written.read_text(), Loader=yaml.CSafeLoader)
    names = [name.removeprefix("exec-") for name in spec["deploymentSpec"]["executors"]]
    return {name: pod_of_task(spec, platform, f"exec-{name}", name, "condswin-runner") for name in names}


def apply(plane: ControlPlane, objects: list[Object], *arguments: str, fails: bool = False) -> str:
    """Applies objects as the cluster page does; a key that the server's schema does not have is refused."""
    given = [as_before(each) for each in objects]
    return plane.kubectl("apply", "--validate=strict", *arguments, "-f", "-", given=given, fails=fails)


def claims(objects: list[Object]) -> Iterator[Object]:
    """Claims for volumes: those that are there, and those that StatefulSets make."""
    yield from of(objects, "PersistentVolumeClaim")
    for each in of(objects, "StatefulSet"):
        for template in each["spec"]["volumeClaimTemplates"]:
            name = f"{template['metadata']['name']}-{each['metadata']['name']}-0"
            yield {**template, "metadata": {"name": name, "namespace": each["metadata"]["namespace"]}}

"""What admission does with pods and claims of a namespace of ours: quota, limits, priorities.

The quota is counted by the real controller. Pod security is of later servers, and not looked at here.
"""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client

from tests.infra.rendering import Object, one
from tests.kube.conftest import Cluster, apply, until

pytestmark = pytest.mark.kube

NAMESPACE = "admission"


@pytest.fixture(autouse=True)
def namespace(cluster: Cluster, rendered: dict[str, list[Object]]) -> Iterator[None]:
    """A namespace with the quota, the limits and the account of ours, and without pods."""
    found = [
        {**each, "metadata": {**each["metadata"], "namespace": NAMESPACE}}
        for each in rendered["nodes"]
        if each["kind"] in ("ResourceQuota", "LimitRange")
        or (each["kind"], each["metadata"]["name"]) == ("ServiceAccount", "condswin-runner")
    ]
    assert len(found) == 3
    if NAMESPACE not in [each.metadata.name for each in cluster.core.list_namespace().items]:
        cluster.core.create_namespace({"metadata": {"name": NAMESPACE}})
    apply(cluster.plane, found)
    until(lambda: used(cluster).get("requests.nvidia.com/gpu") == "0", "counting the quota")
    yield
    cluster.remove_pods(NAMESPACE)
    for claim in cluster.core.list_namespaced_persistent_volume_claim(NAMESPACE).items:
        cluster.core.delete_namespaced_persistent_volume_claim(claim.metadata.name, NAMESPACE)
    until(lambda: used(cluster).get("pods") == used(cluster).get("persistentvolumeclaims") == "0", "tidying")


def used(cluster: Cluster) -> dict[str, str]:
    found = cluster.core.read_namespaced_resource_quota("condswin", NAMESPACE).status.used
    return dict(found or {})


def refused(cluster: Cluster, pod: Object) -> str:
    with pytest.raises(client.ApiException) as error:
        cluster.core.create_namespaced_pod(NAMESPACE, pod)
    assert error.value.status == 403
    return str(error.value.body)


def renamed(pod: Object, name: str) -> Object:
    made = copy.deepcopy(pod)
    made["metadata"]["name"] = name
    return made


def test_the_quota_lets_in_as_many_gpus_as_it_says(
    cluster: Cluster, tasks: dict[str, Object], rendered: dict[str, list[Object]]
) -> None:
    limit = int(one(rendered["nodes"], "ResourceQuota", "condswin")["spec"]["hard"]["requests.nvidia.com/gpu"])
    for number in range(limit):
        cluster.core.create_namespaced_pod(NAMESPACE, renamed(tasks["train"], f"train-{number}"))
    said = refused(cluster, renamed(tasks["train"], "train-more"))
    assert (
        f"exceeded quota: condswin, requested: requests.nvidia.com/gpu=1, used: requests.nvidia.com/gpu={limit}" in said
    )
    # Tasks without GPUs go on.
    cluster.core.create_namespaced_pod(NAMESPACE, tasks["prepare"])
    cluster.core.delete_namespaced_pod("train-0", NAMESPACE, grace_period_seconds=0)
    until(lambda: used(cluster)["requests.nvidia.com/gpu"] == str(limit - 1), "giving back")
    cluster.core.create_namespaced_pod(NAMESPACE, renamed(tasks["train"], "train-more"))


def test_containers_of_kubeflow_and_argo_get_limits_without_which_the_quota_refuses_them(
    cluster: Cluster, tasks: dict[str, Object]
) -> None:
    made = cluster.core.create_namespaced_pod(NAMESPACE, tasks["prepare"])
    main, wait = made.spec.containers
    (init,) = made.spec.init_containers
    assert (main.resources.requests, main.resources.limits) == (
        {"cpu": "2", "memory": "8Gi"}, {"cpu": "4", "memory": "16Gi"})  # fmt: skip
    for each in (init, wait):
        assert each.resources.requests == {"cpu": "50m", "memory": "64Mi"}
        assert each.resources.limits == {"cpu": "1", "memory": "512Mi"}
    cluster.core.delete_namespaced_limit_range("condswin", NAMESPACE)

    def refused_now() -> Any:
        """Admission hears of it a moment later."""
        try:
            cluster.core.create_namespaced_pod(NAMESPACE, renamed(tasks["prepare"], "bare"))
        except client.ApiException as error:
            return error.body
        cluster.remove_pods(NAMESPACE, "bare")
        return None

    assert "must specify limits.cpu,limits.memory,requests.cpu,requests.memory" in until(refused_now, "refusing")


def test_the_registry_comes_first_and_no_priority_is_made_up(
    cluster: Cluster, tasks: dict[str, Object], rendered: dict[str, list[Object]]
) -> None:
    value = one(rendered["nodes"], "PriorityClass", "condswin-service")["value"]
    for name in ("mlflow", "postgres"):

        def made(name: str = name) -> list[Any]:
            found: list[Any] = cluster.core.list_namespaced_pod(
                "condswin", label_selector=f"app.kubernetes.io/name=condswin-{name}"
            ).items
            return found

        assert {pod.spec.priority for pod in until(made, f"pods of {name}")} == {value}
    assert cluster.core.create_namespaced_pod(NAMESPACE, tasks["prepare"]).spec.priority == 0
    pod = renamed(tasks["prepare"], "important")
    pod["spec"]["priorityClassName"] = "condswin-servics"
    assert "no PriorityClass with name condswin-servics was found" in refused(cluster, pod)


def test_an_account_that_is_not_there_has_no_pods(cluster: Cluster, tasks: dict[str, Object]) -> None:
    pod = copy.deepcopy(tasks["prepare"])
    pod["spec"]["serviceAccountName"] = "condswin-runer"
    assert 'serviceaccount \\"condswin-runer\\" not found' in refused(cluster, pod)


def test_pods_pull_images_with_the_secret_of_their_account(cluster: Cluster, tasks: dict[str, Object]) -> None:
    made = cluster.core.create_namespaced_pod(NAMESPACE, tasks["prepare"])
    assert [each.name for each in made.spec.image_pull_secrets] == ["registry"]


def test_claims_are_counted_too(cluster: Cluster) -> None:
    def claim(name: str, size: str) -> Object:
        return {"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteMany"],
                "resources": {"requests": {"storage": size}}}}  # fmt: skip

    with pytest.raises(client.ApiException, match=r"exceeded quota: condswin, requested: requests\.storage=2Ti"):
        cluster.core.create_namespaced_persistent_volume_claim(NAMESPACE, claim("large", "2Ti"))
    for number in range(10):
        cluster.core.create_namespaced_persistent_volume_claim(NAMESPACE, claim(f"claim-{number}", "1Gi"))
    with pytest.raises(client.ApiException, match="exceeded quota: condswin, requested: persistentvolumeclaims=1"):
        cluster.core.create_namespaced_persistent_volume_claim(NAMESPACE, claim("one-more", "1Gi"))

"""What infra/kustomize makes is taken by a real server, and its controllers make pods of it that are let in and placed.

It is 1.20: what came later is asked for as it was before (`LATER`), and kinds of others are stored without a look.
"""

import copy
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.infra.rendering import Object, of, one
from tests.kube.conftest import Cluster, apply, until
from tests.kube.objects import BROUGHT, LATER, as_before, job_from

pytestmark = pytest.mark.kube

#: How pods of a kind are called, behind its name.
NAMED = {"Deployment": "-[a-z0-9]+-[a-z0-9]{5}", "StatefulSet": "-0", "Job": "-[a-z0-9]{5}"}
NAMESPACES = {"laptop": "laptop", "nodes": "condswin"}


@pytest.mark.parametrize("overlay", NAMESPACES)
def test_all_is_there_and_a_second_time_nothing_changes(
    overlay: str, cluster: Cluster, rendered: dict[str, list[Object]]
) -> None:
    before = contents(cluster, rendered[overlay])
    assert len(before) == len(rendered[overlay]) >= 35
    apply(cluster.plane, rendered[overlay])
    assert contents(cluster, rendered[overlay]) == before


def contents(cluster: Cluster, objects: list[Object]) -> dict[str, Object]:
    given = [as_before(each) for each in objects]
    found = json.loads(cluster.plane.kubectl("get", "-f", "-", "-o", "json", given=given))["items"]
    kept: dict[str, Object] = {}
    for each in found:
        # This server counts a policy's generation on where an update leaves its spec as it is.
        told = ("labels",) if each["kind"] == "NetworkPolicy" else ("generation", "labels")
        metadata = {key: each["metadata"].get(key) for key in told}
        kept[f"{each['kind']}/{each['metadata']['name']}"] = {**each, "metadata": metadata, "status": None}
    return kept


def test_what_this_server_does_not_know_as_it_is(cluster: Cluster, rendered: dict[str, list[Object]]) -> None:
    known = set(cluster.plane.kubectl("api-versions").split())
    asked = {(each["apiVersion"], each["kind"]) for name in NAMESPACES for each in rendered[name]}
    assert LATER.keys() <= asked
    of_others = {(f"{group}/{version}", kind) for group, version, kind, _ in BROUGHT}
    assert {version for version, _ in asked - LATER.keys() - of_others} <= known
    # The server has `batch/v1`, and no CronJob there.
    assert "policy/v1" not in known
    cronjob = next(iter(of(rendered["nodes"], "CronJob")))
    assert "no matches for kind" in cluster.plane.kubectl(
        "apply", "--dry-run=server", "-f", "-", given=cronjob, fails=True
    )


@pytest.mark.parametrize(
    ("kind", "name", "breaking", "said"),
    [
        ("Deployment", "mlflow", lambda spec: spec["template"]["spec"].update(securityContex={}), "unknown field"),
        ("Deployment", "mlflow", lambda spec: spec["selector"]["matchLabels"].update(a="b"), "does not match template"),
        ("Deployment", "mlflow", lambda spec: spec["template"]["spec"]["volumes"].pop(), "volumeMounts[1].name"),
        ("Service", "mlflow", lambda spec: spec["ports"][0].update(targetPort="a-name-that-is-too-long"), "targetPort"),
        ("Job", "checkpoints", lambda spec: spec["template"]["spec"].update(restartPolicy="Always"), "restartPolicy"),
        ("CronJob", "backup", lambda spec: spec.update(schedule="61 1 * * *"), "schedule"),
        ("NetworkPolicy", "runs", lambda spec: spec["egress"][0]["ports"][0].update(port=70000), "port"),
        ("Ingress", "mlflow", lambda spec: spec["rules"][0].update(host="Replaced!"), "host"),
        ("LimitRange", "condswin", lambda spec: spec["limits"][0]["default"].update(cpu="10m"), "default request"),
        ("PodDisruptionBudget", "mlflow", lambda spec: spec.update(minAvailable=1), "cannot be both set"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_one_place_is_refused(
    kind: str, name: str, breaking: Callable[[Any], Any], said: str, cluster: Cluster, rendered: dict[str, list[Object]]
) -> None:
    """Shows that the server looks at what it is given; most of these fit their schemas."""
    each = copy.deepcopy(one(rendered["nodes"], kind, name))
    breaking(each["spec"])
    each["metadata"]["name"] += "-broken"
    assert said in apply(cluster.plane, [each], "--dry-run=server", fails=True)


@pytest.mark.parametrize("overlay", NAMESPACES)
def test_controllers_make_pods_of_it_which_are_let_in_and_get_a_node(
    overlay: str, cluster: Cluster, rendered: dict[str, list[Object]]
) -> None:
    """Under quota, limits, accounts and priorities; on nodes without GPUs; with volumes bound."""
    namespace, objects = NAMESPACES[overlay], rendered[overlay]
    made = cluster.plane.kubectl("get", "--raw", f"/apis/batch/v1beta1/namespaces/{namespace}/cronjobs")
    uids = {each["metadata"]["name"]: each["metadata"]["uid"] for each in json.loads(made)["items"]}
    jobs = [
        job_from(each, f"{each['metadata']['name']}-now", uids[each["metadata"]["name"]])
        for each in of(objects, "CronJob")
    ]
    assert len(jobs) == 5
    for job in jobs:
        cluster.plane.kubectl("apply", "-f", "-", given=job)
    wanted = {each["metadata"]["name"] + NAMED[each["kind"]]: each["spec"].get("replicas", 1)
              for each in (*objects, *jobs) if each["kind"] in NAMED}  # fmt: skip

    def placed() -> bool:
        names = [pod.metadata.name for pod in cluster.core.list_namespaced_pod(namespace).items if pod.spec.node_name]
        return {name: sum(bool(re.fullmatch(name, each)) for each in names) for name in wanted} == wanted

    try:
        until(placed, f"pods of {', '.join(wanted)}")
    except AssertionError as error:
        pods = cluster.plane.kubectl("--namespace", namespace, "get", "pods", "-o", "wide")
        raise AssertionError(f"{error}\n{pods}\n{events(cluster, namespace)}") from None
    pods = cluster.core.list_namespaced_pod(namespace).items
    assert {pod.spec.node_name for pod in pods} <= {"cpu-1", "cpu-2"}
    assert not events(cluster, namespace)


def events(cluster: Cluster, namespace: str) -> list[str]:
    found = cluster.core.list_namespaced_event(namespace).items
    return [f"{each.involved_object.name}: {each.message}" for each in found if each.reason == "FailedCreate"]

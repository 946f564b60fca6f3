"""What service accounts may do: what their component needs, and nothing else; asked of RBAC and tried with tokens."""

import copy
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from kubernetes import client

from condswin.errors import ClusterError
from condswin.kubeflow import trainjobs
from condswin.kubeflow.trainjobs import RESOURCE, Jobs
from tests.infra.rendering import Object, one
from tests.kube.conftest import Cluster, until
from tests.kube.objects import job_from
from tests.pipelines.test_trainer_models import asked, job_of, pools_of
from tests.pipelines.trainer_stub import COMPLETE

pytestmark = pytest.mark.kube

#: Verb, resource, and the name where one alone is meant.
Right = tuple[str, str, str]
#: What Kubeflow's launcher and Argo's executor ask for in the pods of runs.
RUN: set[Right] = {
    ("create", "workflowtaskresults.argoproj.io", ""),
    ("patch", "workflowtaskresults.argoproj.io", ""),
    ("get", "pods", ""),
    ("get", "configmaps", "kfp-launcher"),
    ("get", "secrets", "mlpipeline-minio-artifact"),
}
#: What `condswin.kubeflow.trainjobs` asks for in them.
TRAIN: set[Right] = {
    *((verb, "trainjobs.trainer.kubeflow.org", "") for verb in ("create", "get", "delete")),
    ("list", "pods", ""),
    ("get", "pods/log", ""),
}
#: What `kubectl` asks for when the cluster page's people decide.
DECIDE: set[Right] = {
    ("get", "cronjobs.batch", "promoter"),
    *((verb, "jobs.batch", "") for verb in ("create", "get", "list", "watch", "delete")),
    *((verb, resource, "") for verb in ("get", "list", "watch") for resource in ("pods", "pods/log")),
}
ACCOUNTS: dict[str, dict[str, set[Right]]] = {
    "laptop": {"condswin-runner": RUN, "condswin-promoter": DECIDE,
               "mlflow": set(), "postgres": set(), "backup": set(), "condswin-s3": set(), "default": set()},
    "condswin": {"condswin-runner": RUN | TRAIN, "condswin-promoter": DECIDE,
                 "mlflow": set(), "postgres": set(), "backup": set(), "default": set()},
}  # fmt: skip
ALL = [(namespace, account) for namespace, accounts in ACCOUNTS.items() for account in accounts]
#: What no account may ask for.
NOBODY = [
    "GET /api/v1/namespaces/NAMESPACE/secrets",
    "GET /api/v1/namespaces/NAMESPACE/secrets/postgres",
    "POST /api/v1/namespaces/NAMESPACE/pods/any/exec?command=sh",
    "POST /api/v1/namespaces/NAMESPACE/pods",
    "POST /api/v1/namespaces/NAMESPACE/serviceaccounts/condswin-promoter/token",
    "DELETE /apis/apps/v1/namespaces/NAMESPACE/deployments/mlflow",
    "POST /apis/rbac.authorization.k8s.io/v1/namespaces/NAMESPACE/rolebindings",
    "GET /api/v1/secrets",
    "GET /api/v1/pods",
    "GET /api/v1/nodes",
    "GET /api/v1/namespaces",
    "GET /api/v1/namespaces/kube-system/pods",
    "GET /apis/rbac.authorization.k8s.io/v1/clusterroles",
    "DELETE /apis/scheduling.k8s.io/v1/priorityclasses/condswin-service",
]
JOBS, PODS = "/apis/batch/v1/namespaces/{}/jobs", "/api/v1/namespaces/{}/pods"


def rights(cluster: Cluster, token: str, namespace: str) -> Iterator[Right]:
    """All that RBAC lets a token's owner do in a namespace, or in the whole cluster."""
    review = client.V1SelfSubjectRulesReview(spec=client.V1SelfSubjectRulesReviewSpec(namespace=namespace))
    status = client.AuthorizationV1Api(cluster.plane.api(token)).create_self_subject_rules_review(review).status
    assert not status.incomplete
    for rule in status.resource_rules:
        for group in rule.api_groups:
            for resource in rule.resources:
                named, _, sub = resource.partition("/")
                whole = ".".join(filter(None, (named, group))) + (f"/{sub}" if sub else "")
                yield from ((verb, whole, name) for verb in rule.verbs for name in rule.resource_names or ("",))


@pytest.mark.parametrize(("namespace", "account"), ALL)
def test_an_account_has_exactly_the_rights_of_its_component(namespace: str, account: str, cluster: Cluster) -> None:
    token = cluster.plane.token(account, namespace)
    anyone = set(rights(cluster, cluster.plane.token("default", "default"), namespace))
    # To ask what one may do oneself.
    assert {resource for _, resource, _ in anyone} <= {
        "selfsubjectaccessreviews.authorization.k8s.io", "selfsubjectrulesreviews.authorization.k8s.io"
    }  # fmt: skip
    assert set(rights(cluster, token, namespace)) - anyone == ACCOUNTS[namespace][account]
    for other in {"default", "kube-system", *ACCOUNTS} - {namespace}:
        assert set(rights(cluster, token, other)) == anyone, other


@pytest.mark.parametrize("namespace", ACCOUNTS)
def test_every_account_is_asked(namespace: str, cluster: Cluster) -> None:
    found = cluster.core.list_namespaced_service_account(namespace).items
    assert {each.metadata.name for each in found} == ACCOUNTS[namespace].keys()


def answer(cluster: Cluster, account: str, namespace: str, method: str, path: str) -> int:
    """Status of a request with an account's token; 403 is RBAC's."""
    api = cluster.plane.api(cluster.plane.token(account, namespace))
    with requests.Session() as session:
        # No proxy stands between this machine and itself, whatever its environment says.
        session.trust_env = False
        return session.request(
            method,
            api.configuration.host + path,
            headers={"Authorization": api.configuration.api_key["authorization"]},
            json={} if method in ("POST", "PATCH") else None,
            verify=api.configuration.ssl_ca_cert,
            timeout=30,
        ).status_code


@pytest.mark.parametrize(("namespace", "account"), ALL)
def test_nobody_reaches_secrets_shells_others_or_the_cluster(namespace: str, account: str, cluster: Cluster) -> None:
    asked = [each.replace("NAMESPACE", namespace) for each in NOBODY]
    assert {each: answer(cluster, account, namespace, *each.split()) for each in asked} == dict.fromkeys(asked, 403)


@pytest.mark.parametrize(
    ("account", "method", "path", "status"),
    [
        ("condswin-runner", "GET", "/api/v1/namespaces/condswin/configmaps/kfp-launcher", 404),
        ("condswin-runner", "GET", "/api/v1/namespaces/condswin/configmaps/settings", 403),
        ("condswin-runner", "GET", "/api/v1/namespaces/condswin/secrets/mlpipeline-minio-artifact", 404),
        ("condswin-runner", "GET", "/api/v1/namespaces/condswin/secrets/s3", 403),
        ("condswin-runner", "POST", JOBS.format("condswin"), 403),
        ("condswin-runner", "DELETE", "/api/v1/namespaces/condswin/pods/any", 403),
        ("condswin-promoter", "GET", JOBS.format("condswin"), 200),
        ("condswin-promoter", "GET", JOBS.format("laptop"), 403),
        ("condswin-promoter", "GET", "/apis/batch/v1beta1/namespaces/condswin/cronjobs/promoter", 200),
        ("condswin-promoter", "GET", "/apis/batch/v1beta1/namespaces/condswin/cronjobs/backup", 403),
        ("condswin-promoter", "DELETE", "/apis/batch/v1beta1/namespaces/condswin/cronjobs/promoter", 403),
        ("mlflow", "GET", PODS.format("condswin"), 403),
    ],
)
def test_requests_are_let_through_and_refused_by_name(
    account: str, method: str, path: str, status: int, cluster: Cluster
) -> None:
    """404 is of an object that is not there, and so behind RBAC."""
    assert answer(cluster, account, "condswin", method, path) == status


def test_whoever_decides_goes_the_cluster_pages_way_with_a_token(
    cluster: Cluster, rendered: dict[str, list[Object]]
) -> None:
    token = cluster.plane.token("condswin-promoter", "condswin")

    def k(*arguments: str, **more: Any) -> str:
        return cluster.plane.kubectl("--namespace", "condswin", *arguments, token=token, **more)

    # The page's kubectl reads `cronjob/promoter`, of a version that this server does not have; RBAC knows none.
    promoter = "/apis/batch/{}/namespaces/condswin/cronjobs/promoter"
    assert "could not find" in k("get", "--raw", promoter.format("v1"), fails=True)
    uid = json.loads(k("get", "--raw", promoter.format("v1beta1")))["metadata"]["uid"]
    job = job_from(one(rendered["nodes"], "CronJob", "promoter"), "approve-3", uid)
    job["spec"]["template"]["spec"]["containers"][0]["args"] = ["approve", "reconstruction", "3", "--by", "J. Doe"]
    k("create", "-f", "-", given=job)
    pod = until(lambda: k("get", "pods", "--selector=job-name=approve-3", "-o", "name"), "the job's pod").strip()
    # As the kubelet of its node would.
    cluster.core.patch_namespaced_pod_status(
        pod.removeprefix("pod/"), "condswin", {"status": {"phase": "Succeeded"}}
    )  # fmt: skip
    k("wait", "--for=condition=complete", "--timeout=60s", "job/approve-3")
    # Without a kubelet, lines cannot be had; that is not for want of a right.
    assert "orbidden" not in k("logs", "job/approve-3", fails=True)
    k("delete", "job", "approve-3")


@pytest.fixture
def job(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Object:
    """A TrainJob as the task `train_nodes` has it, and a task that looks often."""
    monkeypatch.setattr(trainjobs, "EVERY", 0.2)
    for name in ("KFP_POD_NAME", "KFP_POD_UID"):
        monkeypatch.delenv(name, raising=False)
    made = job_of(asked(pools_of(tmp_path)))
    return {**made, "metadata": {**made["metadata"], "name": "train-0123"}}


def test_a_task_runs_a_trainjob_with_its_accounts_token(
    job: Object, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    objects, where = client.CustomObjectsApi(cluster.plane.api()), {**RESOURCE, "namespace": "condswin"}
    pod = {"metadata": {"name": "train-0123-node-0-0", "labels": {
        "jobset.sigs.k8s.io/jobset-name": "train-0123", "batch.kubernetes.io/job-completion-index": "0"}},
        "spec": {"schedulerName": "nobody", "containers": [{"name": "node", "image": "any"}]}}  # fmt: skip

    def end() -> None:
        def there() -> bool:
            found = objects.list_namespaced_custom_object(**where)["items"]
            return [each["metadata"]["name"] for each in found] == ["train-0123"]

        until(there, "TrainJob")
        cluster.core.create_namespaced_pod("condswin", pod)
        objects.patch_namespaced_custom_object_status(name="train-0123", body={"status": COMPLETE}, **where)

    ending = threading.Thread(target=end)
    ending.start()
    try:
        Jobs(cluster.plane.api(cluster.plane.token("condswin-runner", "condswin")), "condswin").run(job)
    finally:
        ending.join()
        cluster.remove_pods("condswin", "train-0123-node-0-0")
    assert capsys.readouterr().out.splitlines()[-1] == "TrainJob train-0123: Complete"
    until(lambda: not objects.list_namespaced_custom_object(**where)["items"], "deleting the TrainJob")


def test_a_trainjob_goes_with_the_pod_that_started_it(
    job: Object, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects, where = client.CustomObjectsApi(cluster.plane.api()), {**RESOURCE, "namespace": "condswin"}
    pod = {"metadata": {"name": "task"}, "spec": {"containers": [{"name": "main", "image": "any"}]}}
    made = cluster.core.create_namespaced_pod("condswin", pod)
    monkeypatch.setenv("KFP_POD_NAME", "task")
    monkeypatch.setenv("KFP_POD_UID", made.metadata.uid)
    jobs = Jobs(cluster.plane.api(cluster.plane.token("condswin-runner", "condswin")), "condswin")
    assert jobs._create(copy.deepcopy(job))
    assert not jobs._create(copy.deepcopy(job))
    cluster.remove_pods("condswin", "task")
    until(lambda: not objects.list_namespaced_custom_object(**where)["items"], "collecting the TrainJob")


def test_without_the_component_for_several_nodes_a_task_is_refused_in_one_line(job: Object, cluster: Cluster) -> None:
    jobs = Jobs(cluster.plane.api(cluster.plane.token("condswin-runner", "laptop")), "laptop")
    with pytest.raises(ClusterError, match="Kubernetes refuses to get trainjobs in laptop: 403 Forb") as error:
        jobs.run(job)
    assert "\n" not in str(error.value)

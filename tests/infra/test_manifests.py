"""What kubectl makes of infra/kustomize: objects as Kubernetes knows them, and rules that each of them keeps."""

import copy
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from pipelines.images import DIGEST, UNPINNED, Image, record
from pipelines.placing import LABEL
from tests.infra.rendering import ROOT, Object, containers, of, one, pods, render

#: Of objects that Kubernetes itself has no schema for: their keys, which are tested below.
CUSTOM = {"PrometheusRule", "TrainingRuntime"}
#: The one pod that is root, and what it runs.
ROOT_JOB = "Job/checkpoints"
GIVES_GROUP = ["sh", "-c", "chgrp 0 /checkpoints && chmod 2770 /checkpoints"]
#: Of Kubeflow Pipelines in its own namespace, where these manifests may go too.
OF_KUBEFLOW = re.compile(
    "seaweedfs|minio|mysql|postgres-service|ml-pipeline.*|metadata-.*|workflow-controller|cache-.*"
)
#: How policies select tasks of runs: Kubeflow's label, which every pipeline's have, beside that of condswin's.
TASK = {
    "matchLabels": {"pipelines.kubeflow.org/v2_component": "true"},
    "matchExpressions": [{"key": LABEL, "operator": "Exists"}],
}
#: Labels of pods that are not condswin's, in a namespace that others use too.
OTHERS = [TASK["matchLabels"], *({"app.kubernetes.io/name": name} for name in ("mlflow", "postgres", "backup"))]
QUANTITY = re.compile(r"\d+(\.\d+)?(m|[KMGT]i?)?")


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, f"{path}.{key}")
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each, f"{path}[]")
    else:
        yield path, value


# Rules: each names what breaks it.


def unknown_to_kubernetes(objects: list[Object]) -> Iterator[str]:
    for each in objects:
        if each["kind"] not in CUSTOM:
            try:
                kubernetes_validate.validate(each, "1.37", strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"{each['kind']}/{each['metadata']['name']}: {error.message}"


def no_digest(objects: list[Object]) -> Iterator[str]:
    yield from (name for name, each in containers(objects) if not DIGEST.fullmatch(each["image"]))


def unlimited(objects: list[Object]) -> Iterator[str]:
    for name, each in containers(objects):
        for kind in ("requests", "limits"):
            if not {"cpu", "memory", "ephemeral-storage"} <= each.get("resources", {}).get(kind, {}).keys():
                yield f"{name}: {kind}"


def number_as_quantity(objects: list[Object]) -> Iterator[str]:
    """Some tools make 0.1 of 100m, and a quota of 010 an octal number, unless quantities are texts."""
    for each in objects:
        for path, value in leaves(each):
            asked = re.search(r"\.(requests|limits|hard|default|defaultRequest)\.|\.sizeLimit$", path)
            if asked and not (isinstance(value, str) and QUANTITY.fullmatch(value)):
                yield f"{path}: {value!r}"


def privileged(objects: list[Object]) -> Iterator[str]:
    for name, template in pods(objects):
        security = template["spec"].get("securityContext", {})
        if name == ROOT_JOB:
            (only,) = template["spec"]["containers"]
            if only["command"] != GIVES_GROUP or [each["name"] for each in template["spec"]["volumes"]] != [
                "checkpoints"
            ]:
                yield f"{name}: does more, as root, than give the claim to a group"
        elif not (
            security.get("runAsNonRoot") and security.get("runAsUser", 0) > 0 and security.get("runAsGroup", 0) > 0
        ):
            yield f"{name}: root"
        if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{name}: seccomp"
        if template["spec"].get("automountServiceAccountToken") is not False:
            yield f"{name}: gets a token"
        if {"hostNetwork", "hostPID", "hostIPC"} & template["spec"].keys():
            yield f"{name}: is the host"
        yield from (f"{name}: hostPath" for each in template["spec"].get("volumes", ()) if "hostPath" in each)
    for name, each in containers(objects):
        added = {"add": ["CHOWN", "FOWNER"]} if name == f"{ROOT_JOB}/group" else {}
        if each.get("securityContext") != {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], **added},
        }:
            yield f"{name}: may do more than it needs"


def literal_secret(objects: list[Object]) -> Iterator[str]:
    yield from (f"Secret/{each['metadata']['name']}" for each in of(objects, "Secret"))
    word = re.compile(r"password|secret|token|key|database_uri|database-uri|store_uri", re.IGNORECASE)
    for name, each in containers(objects):
        for variable in each.get("env", ()):
            value = variable.get("value", "")
            if word.search(variable["name"]) and value and not value.startswith(("/", "$(")):
                yield f"{name}: {variable['name']}"
    for each in of(objects, "ConfigMap"):
        for key, value in each["data"].items():
            if word.search(key) or re.search(r"://[^/\s]+:[^/\s]+@", value):
                yield f"ConfigMap/{each['metadata']['name']}: {key}"


def unnamed_reference(objects: list[Object]) -> Iterator[str]:
    """ConfigMaps, accounts, claims and services that nobody makes; Secrets that the page does not."""
    page = (ROOT / "docs/how-to/cluster.md").read_text()
    made = {kind: {each["metadata"]["name"] for each in of(objects, kind)} for kind in ("ConfigMap", "ServiceAccount")}
    secrets: set[str] = set()
    for name, template in pods(objects):
        spec = template["spec"]
        if spec.get("serviceAccountName") not in made["ServiceAccount"]:
            yield f"{name}: account"
        for path, value in leaves(spec):
            named = path.endswith(("configMapRef.name", "configMap.name", "configMapKeyRef.name"))
            if named and value not in made["ConfigMap"]:
                yield f"{name}: ConfigMap {value}"
            if path.endswith(("secretKeyRef.name", "secret.secretName")):
                secrets.add(value)
    secrets |= {each["spec"]["tls"][0]["secretName"] for each in of(objects, "Ingress")}
    secrets |= {each["name"] for one in of(objects, "ServiceAccount") for each in one["imagePullSecrets"]}
    yield from (f"Secret {name}: the cluster page does not make it" for name in secrets if f" {name} " not in page)


def unwatched(objects: list[Object]) -> Iterator[str]:
    """Pods that no NetworkPolicy names, or one that says nothing of a direction."""
    policies = of(objects, "NetworkPolicy")
    for policy in policies:
        if sorted(policy["spec"]["policyTypes"]) != ["Egress", "Ingress"] or not policy["spec"]["podSelector"]:
            yield f"NetworkPolicy/{policy['metadata']['name']}"
    for name, template in pods(objects):
        labels = template["metadata"]["labels"].items()
        if not any(each["spec"]["podSelector"].get("matchLabels", {"": ""}).items() <= labels for each in policies):
            yield name


def unprobed(objects: list[Object]) -> Iterator[str]:
    for each in (*of(objects, "Deployment"), *of(objects, "StatefulSet")):
        for container in each["spec"]["template"]["spec"]["containers"]:
            if not {"readinessProbe", "livenessProbe"} <= container.keys():
                yield f"{each['kind']}/{each['metadata']['name']}"


def selects(selector: Object, labels: dict[str, str]) -> bool:
    there = all(each["operator"] == "Exists" and each["key"] in labels for each in selector.get("matchExpressions", ()))
    return there and selector["matchLabels"].items() <= labels.items()


def of_others(objects: list[Object]) -> Iterator[str]:
    """Policies, ways into them, and services that hold for pods of others in the same namespace."""
    for each in (*of(objects, "NetworkPolicy"), *of(objects, "Service")):
        spec = each["spec"]
        peers = [
            peer["podSelector"] for way in spec.get("ingress", ()) for peer in way["from"] if "podSelector" in peer
        ]
        own = spec.get("podSelector") or {"matchLabels": spec["selector"]}
        if any(selects(selector, labels) for selector in (own, *peers) for labels in OTHERS):
            yield each["metadata"]["name"]


def selects_nothing(objects: list[Object]) -> Iterator[str]:
    """Services, budgets and peers of policies by whose labels no pod goes."""
    labels = [template["metadata"]["labels"] for _, template in pods(objects)]
    # Of Kubeflow's runs, and of Jobs that people start (docs/how-to/cluster.md).
    labels += [{**TASK["matchLabels"], LABEL: "gpu"}, {"app.kubernetes.io/name": "condswin-promoter"}]
    for each in objects:
        wanted = [{"matchLabels": each["spec"]["selector"]}] if each["kind"] == "Service" else []
        wanted += [each["spec"]["selector"]] if each["kind"] == "PodDisruptionBudget" else []
        if each["kind"] == "NetworkPolicy":
            peers = [*each["spec"].get("ingress", ()), *each["spec"].get("egress", ())]
            inner = [one for peer in peers for one in (*peer.get("from", ()), *peer.get("to", ()))]
            wanted += [one["podSelector"] for one in inner if "podSelector" in one]
        for selector in wanted:
            if not any(selects(selector, one) for one in labels):
                yield f"{each['kind']}/{each['metadata']['name']}: {selector}"


def too_mighty(objects: list[Object]) -> Iterator[str]:
    for each in (*of(objects, "Role"), *of(objects, "ClusterRole")):
        for rule in each["rules"]:
            if "*" in {*rule["verbs"], *rule["resources"], *rule["apiGroups"]} or each["kind"] == "ClusterRole":
                yield each["metadata"]["name"]
            if "secrets" in rule["resources"] and (rule["verbs"] != ["get"] or not rule.get("resourceNames")):
                yield f"{each['metadata']['name']}: secrets"


def open_server(objects: list[Object]) -> Iterator[str]:
    """MLflow without users, without a list of names, or with jobs; an Ingress without a certificate."""
    (mlflow,) = [each for name, each in containers(objects) if name == "Deployment/mlflow/mlflow"]
    values = {each["name"]: each.get("value", "") for each in mlflow["env"]}
    if "basic-auth" not in mlflow["args"]:
        yield "users"
    if values.get("MLFLOW_SERVER_ENABLE_JOB_EXECUTION") != "false":
        yield "jobs"
    if not values.get("MLFLOW_SERVER_ALLOWED_HOSTS") or "*" in values["MLFLOW_SERVER_ALLOWED_HOSTS"]:
        yield "hosts"
    for each in of(objects, "Ingress"):
        hosts = {rule["host"] for rule in each["spec"]["rules"]}
        if "replaced" in hosts or hosts != {host for tls in each["spec"]["tls"] for host in tls["hosts"]}:
            yield "certificate"


def with_a_proxy(objects: list[Object]) -> Iterator[str]:
    """Pods that Istio would put a proxy into, beside which a Job never ends."""
    for name, template in pods(objects):
        if template["metadata"]["labels"].get("sidecar.istio.io/inject") != "false":
            yield name


def of_kubeflow(objects: list[Object]) -> Iterator[str]:
    """Objects that would be merged into Kubeflow's own."""
    names = ((each["kind"], each["metadata"]["name"]) for each in objects)
    yield from (f"{kind}/{name}" for kind, name in names if OF_KUBEFLOW.fullmatch(name))


def cut_off(objects: list[Object]) -> Iterator[str]:
    """Pods that find no names, wherever the cluster's DNS is, and runs without Kubeflow, its API or a database."""
    ways = {each["metadata"]["name"]: each["spec"]["egress"] for each in of(objects, "NetworkPolicy")}
    anywhere = {
        name: {port["port"] for way in found if "to" not in way for port in way["ports"]}
        for name, found in ways.items()
    }
    yield from (f"{name}: DNS" for name, found in ways.items() if found and 53 not in anywhere[name])
    yield from (f"runs: {port}" for port in {443, 5432, 6443, 8443} - anywhere["runs"])
    for way in ways["runs"]:
        if way.get("to", [{}])[0].get("namespaceSelector"):
            yield from (
                f"Kubeflow: {port}" for port in {8080, 8333, 8887, 8888, 9000} - {p["port"] for p in way["ports"]}
            )
    (database,) = one(objects, "NetworkPolicy", "postgres")["spec"]["ingress"]
    if {"podSelector": TASK} not in database["from"]:
        yield "postgres: runs"


def idle_priority(objects: list[Object]) -> Iterator[str]:
    """Priority classes that no pod has, and those of pods that nobody makes."""
    asked = {template["spec"].get("priorityClassName") for _, template in pods(objects)} - {None}
    yield from asked ^ {each["metadata"]["name"] for each in of(objects, "PriorityClass")}


RULES = [unknown_to_kubernetes, no_digest, unlimited, number_as_quantity, privileged, literal_secret,
         unnamed_reference, unwatched, unprobed, selects_nothing, too_mighty, open_server,
         with_a_proxy, of_kubeflow, of_others, cut_off, idle_priority]  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_every_object_keeps_the_rule(overlay: list[Object], rule: Callable[[list[Object]], Iterator[str]]) -> None:
    assert list(rule(overlay)) == []


def pod(objects: list[Object], name: str) -> Object:
    return dict(pods(objects))[name]["spec"]


BREAKS: list[tuple[Callable[..., Any], Callable[[list[Object]], Any]]] = [
    (unknown_to_kubernetes, lambda o: one(o, "Deployment", "mlflow")["spec"].update(replicaz=1)),
    (unknown_to_kubernetes, lambda o: one(o, "Deployment", "mlflow")["spec"].update(replicas="1")),
    (no_digest, lambda o: pod(o, "CronJob/backup")["initContainers"][0].update(image="postgres:17")),
    (unlimited, lambda o: pod(o, "CronJob/restore")["containers"][0]["resources"]["limits"].pop("memory")),
    (number_as_quantity, lambda o: one(o, "ResourceQuota", "condswin")["spec"]["hard"].update(pods=100)),
    (number_as_quantity, lambda o: pod(o, "CronJob/backup")["containers"][0]["resources"]["limits"].update(cpu=1)),
    (privileged, lambda o: pod(o, "StatefulSet/postgres")["securityContext"].update(runAsUser=0)),
    (privileged, lambda o: pod(o, "Deployment/mlflow")["containers"][0].pop("securityContext")),
    (privileged, lambda o: pod(o, "Deployment/mlflow").pop("automountServiceAccountToken")),
    (privileged, lambda o: pod(o, "Job/checkpoints")["containers"][0].update(command=["sh"])),
    (privileged, lambda o: pod(o, "Job/checkpoints")["volumes"].append({"name": "tmp", "emptyDir": {}})),
    (privileged, lambda o: pod(o, "Job/checkpoints")["containers"][0]["securityContext"]["capabilities"]["add"].append(
        "DAC_OVERRIDE")),
    (privileged, lambda o: pod(o, "CronJob/backup")["containers"][0]["securityContext"].update(
        capabilities={"drop": ["ALL"], "add": ["CHOWN", "FOWNER"]})),
    (literal_secret, lambda o: o.append({"kind": "Secret", "metadata": {"name": "s3"}})),
    (literal_secret, lambda o: pod(o, "Deployment/mlflow")["containers"][0]["env"].append(
        {"name": "MLFLOW_BACKEND_STORE_URI", "value": "postgresql://a:b@c"})),
    (literal_secret, lambda o: of(o, "ConfigMap")[0]["data"].update(X="postgresql://a:b@c/d")),
    (unnamed_reference, lambda o: pod(o, "Deployment/mlflow")["containers"][0]["env"].append(
        {"name": "X", "valueFrom": {"secretKeyRef": {"name": "nobody-makes-it", "key": "x"}}})),
    (unnamed_reference, lambda o: o.remove(next(each for each in of(o, "ConfigMap") if "storage.py" in each["data"]))),
    (unwatched, lambda o: o.remove(one(o, "NetworkPolicy", "backup"))),
    (unwatched, lambda o: one(o, "NetworkPolicy", "mlflow")["spec"].update(policyTypes=["Ingress"])),
    (unprobed, lambda o: pod(o, "Deployment/mlflow")["containers"][0].pop("readinessProbe")),
    (selects_nothing, lambda o: one(o, "Service", "mlflow")["spec"].update(selector={"app": "mlflow"})),
    (too_mighty, lambda o: one(o, "Role", "condswin-runner")["rules"][3].pop("resourceNames")),
    (too_mighty, lambda o: one(o, "Role", "condswin-promoter")["rules"][0].update(verbs=["*"])),
    (with_a_proxy, lambda o: dict(pods(o))["CronJob/backup"]["metadata"]["labels"].pop("sidecar.istio.io/inject")),
    (of_kubeflow, lambda o: one(o, "Service", "mlflow")["metadata"].update(name="seaweedfs")),
    (of_others, lambda o: one(o, "NetworkPolicy", "runs")["spec"].update(
        podSelector={"matchLabels": TASK["matchLabels"]})),
    (of_others, lambda o: one(o, "NetworkPolicy", "mlflow")["spec"]["ingress"][0]["from"].append(
        {"podSelector": {"matchLabels": TASK["matchLabels"]}})),
    (of_others, lambda o: one(o, "NetworkPolicy", "postgres")["spec"].update(
        podSelector={"matchLabels": {"app.kubernetes.io/name": "postgres"}})),
    (of_others, lambda o: one(o, "Service", "mlflow")["spec"].update(selector={"app.kubernetes.io/name": "mlflow"})),
    (cut_off, lambda o: one(o, "NetworkPolicy", "backup")["spec"]["egress"][0].update(to=[{"podSelector": {}}])),
    (cut_off, lambda o: one(o, "NetworkPolicy", "runs")["spec"]["egress"].pop(3)),
    (cut_off, lambda o: one(o, "NetworkPolicy", "runs")["spec"]["egress"][2]["ports"].pop()),
    (cut_off, lambda o: one(o, "NetworkPolicy", "postgres")["spec"]["ingress"][0]["from"].pop()),
    (idle_priority, lambda o: o.append({"kind": "PriorityClass", "metadata": {"name": "condswin-training"}})),
    (idle_priority, lambda o: o.remove(one(o, "PriorityClass", "condswin-service"))),
    (open_server, lambda o: pod(o, "Deployment/mlflow")["containers"][0]["args"].remove("basic-auth")),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "breaking"), BREAKS)
def test_the_rule_sees_what_breaks_it(
    overlay: list[Object], rule: Callable[[list[Object]], Iterator[str]], breaking: Callable[[list[Object]], Any]
) -> None:
    broken = copy.deepcopy(overlay)
    breaking(broken)
    assert list(rule(broken))


def test_what_is_committed_is_pinned_or_cannot_be_pulled() -> None:
    """A name without a digest would be whatever its `latest` is that day."""
    for name in ("laptop", "production"):
        for container, each in containers(render(ROOT / "infra/kustomize" / name)):
            assert DIGEST.fullmatch(each["image"]) or each["image"].startswith(UNPINNED), container


def test_the_recorded_images_are_those_of_the_manifests(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "infra/kustomize", tmp_path / "kustomize")
    shutil.copy(ROOT / "infra/images.yaml", tmp_path)
    component = tmp_path / "kustomize/images/kustomization.yaml"
    known = yaml.safe_load((tmp_path / "images.yaml").read_text())["images"]
    for called, image in known.items():
        record(called, Image(**image), tmp_path / "images.yaml")
    committed = yaml.safe_load((ROOT / "infra/kustomize/images/kustomization.yaml").read_text())
    assert yaml.safe_load(component.read_text())["images"] == committed["images"]


def test_production_has_a_budget_two_servers_and_its_name_in_one_place(production: list[Object]) -> None:
    (ingress,) = of(production, "Ingress")
    assert one(production, "Deployment", "mlflow")["spec"]["replicas"] == 2
    assert of(production, "PodDisruptionBudget")[0]["spec"]["maxUnavailable"] == 1
    (settings,) = [each["data"] for each in of(production, "ConfigMap") if "PUBLIC_HOST" in each["data"]]
    assert ingress["spec"]["rules"][0]["host"] == settings["PUBLIC_HOST"]


def test_what_is_old_is_told_and_what_never_was_too(production: list[Object]) -> None:
    """A metric of a CronJob is not there before it ends well for the first time."""
    (rules,) = of(production, "PrometheusRule")
    asked = {rule["expr"]: rule for rule in rules["spec"]["groups"][0]["rules"]}
    metrics = {name: f'kube_cronjob_status_last_successful_time{{namespace="condswin", cronjob="{name}"}}'
               for name in ("backup", "champion-age")}  # fmt: skip
    for metric in metrics.values():
        assert asked[f"absent({metric})"]["for"] == "2d"
        assert f"time() - max({metric}) > 2 * 86400" in asked
    assert sum("cronjob=" in expression for expression in asked) == 2 * len(metrics)


def test_champions_that_are_looked_at_are_in_the_settings(overlay: list[Object]) -> None:
    (settings,) = [each for each in of(overlay, "ConfigMap") if "PUBLIC_HOST" in each["data"]]
    assert settings["data"]["MODELS"] == "condswin-reconstruction"
    assert float(settings["data"]["MAX_DAYS"]) == 90
    (look,) = pod(overlay, "CronJob/champion-age")["containers"]
    assert look["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}]
    assert not {"MODELS", "MAX_DAYS"} & {each["name"] for each in look["env"]}


def test_alerts_and_dashboard_ask_for_what_is_there(production: list[Object]) -> None:
    (rules,) = of(production, "PrometheusRule")
    names = {each["metadata"]["name"] for each in production}
    asked = []
    (group,) = rules["spec"]["groups"]
    for rule in group["rules"]:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["annotations"].keys() == {"summary", "mend"}
        assert rule["labels"]["severity"] in ("warning", "critical")
        asked.append(rule["expr"])
    (board,) = [each for each in of(production, "ConfigMap") if "dashboard.json" in each["data"]]
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    panels = json.loads(board["data"]["dashboard.json"])["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    asked += [target["expr"] for panel in panels for target in panel["targets"]]
    for expression in asked:
        for left, right in ("()", "{}", "[]"):
            assert expression.count(left) == expression.count(right), expression
        assert 'namespace="condswin"' in expression
        for name in re.findall(r'(?:cronjob|deployment)="([^"]+)"', expression):
            assert name in names, expression

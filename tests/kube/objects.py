"""Objects of infra/ and of pipelines as this server (1.20) takes them, and what a cluster has beside them."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.infra.rendering import OVERLAYS, Object, render, with_images

#: Of kinds that came later: what they were before, and keys that they did not have. All else is applied as it is.
LATER = {
    ("batch/v1", "CronJob"): ("batch/v1beta1", ("timeZone",)),
    ("policy/v1", "PodDisruptionBudget"): ("policy/v1beta1", ()),
}
#: Kinds that others bring, which are stored here and do nothing: group, version, kind, plural.
BROUGHT = [
    ("monitoring.coreos.com", "v1", "PrometheusRule", "prometheusrules"),
    ("trainer.kubeflow.org", "v1alpha1", "TrainingRuntime", "trainingruntimes"),
    ("trainer.kubeflow.org", "v1alpha1", "TrainJob", "trainjobs"),
    ("argoproj.io", "v1alpha1", "WorkflowTaskResult", "workflowtaskresults"),
]


def overlays(folder: Path) -> dict[str, list[Object]]:
    """What is applied once every image is recorded, by overlay; `laptop` in a namespace of that name."""
    kustomize = with_images(folder)
    laptop = kustomize / "laptop/kustomization.yaml"
    laptop.write_text(laptop.read_text().replace("\nnamespace: condswin\n", "\nnamespace: laptop\n"))
    return {name: render(kustomize / name) for name in OVERLAYS}


def as_before(each: Object) -> Object:
    """An object as this server knows its kind."""
    if (now := (each["apiVersion"], each["kind"])) not in LATER:
        return each
    version, unknown = LATER[now]
    spec = {key: value for key, value in each["spec"].items() if key not in unknown}
    return {**each, "apiVersion": version, "spec": spec}


def definitions() -> Iterator[Object]:
    """Definitions of kinds that others bring; nothing is known here of their keys."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    for group, version, kind, plural in BROUGHT:
        known = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": anything}}
        yield {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural}.{group}"},
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
                "versions": [{**known, **({"subresources": {"status": {}}} if kind == "TrainJob" else {})}],
            },
        }


def job_from(cronjob: Object, name: str, uid: str) -> Object:
    """What `kubectl create job NAME --from=cronjob/...` makes of a CronJob that has this id."""
    template = cronjob["spec"]["jobTemplate"]
    version, _ = LATER["batch/v1", "CronJob"]
    owner = {"apiVersion": version, "kind": "CronJob", "name": cronjob["metadata"]["name"], "uid": uid}
    metadata = {
        **template.get("metadata", {}),
        "name": name,
        "namespace": cronjob["metadata"]["namespace"],
        "annotations": {"cronjob.kubernetes.io/instantiate": "manual"},
        "ownerReferences": [{**owner, "controller": True}],
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": copy.deepcopy(template["spec"])}


def node(
    name: str, capacity: Mapping[str, str], labels: Mapping[str, str] = {}, taints: list[dict[str, str]] | None = None
) -> Object:
    """A node as its kubelet tells of it."""
    room = {"pods": "110", "ephemeral-storage": "400Gi", **capacity}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}},
        "spec": {"taints": taints or []},
        "status": {
            "capacity": room,
            "allocatable": room,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        },
    }


def volume(name: str, claim: Object) -> Object:
    """A volume that a claim is bound to; nothing mounts it."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "accessModes": claim["spec"]["accessModes"],
            "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
            "claimRef": {"name": claim["metadata"]["name"], "namespace": claim["metadata"]["namespace"]},
            "nfs": {"server": "storage.invalid", "path": f"/{name}"},
        },
    }


def pod_of_task(spec: Mapping[str, Any], platform: Mapping[str, Any], executor: str, name: str, account: str) -> Object:
    """The pod of a task, as Kubeflow's driver and Argo make it.

    What the pool says comes as `initPodSpecPatch` (`backend/src/v2/driver/driver.go` at f595a7b9) and
    `extendPodSpecPatch` (`k8s.go` beside it, at 008dcd63) have it; Argo adds the containers `init` and `wait`, which
    ask for nothing.
    """
    given = spec["deploymentSpec"]["executors"][executor]["container"]
    asked = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].get(executor, {})
    wanted = given.get("resources", {})
    resources: dict[str, dict[str, str]] = {"requests": {}, "limits": {}}
    for amount in ("Cpu", "Memory"):
        for kind, part in (("requests", "Request"), ("limits", "Limit")):
            if value := wanted.get(f"resource{amount}{part}"):
                resources[kind][amount.lower()] = value
    if accelerator := wanted.get("accelerator"):
        resources["limits"][accelerator["resourceType"]] = accelerator["resourceCount"]
    volumes = [
        {"name": each["volumeName"], "emptyDir": _known(medium=each.get("medium"), sizeLimit=each.get("sizeLimit"))}
        for each in asked.get("emptyDirMounts", ())
    ]
    mounts = [{"name": each["volumeName"], "mountPath": each["mountPath"]} for each in asked.get("emptyDirMounts", ())]
    for each in asked.get("pvcMount", ()):
        claim = each["pvcNameParameter"]["runtimeValue"]["constant"]
        volumes.append({"name": claim, "persistentVolumeClaim": {"claimName": claim}})
        mounts.append({"name": claim, "mountPath": each["mountPath"]})
    env = [*copy.deepcopy(given.get("env", []))]
    for secret in asked.get("secretAsEnv", ()):
        reference = secret["secretNameParameter"]["runtimeValue"]["constant"]
        for key in secret["keyToEnv"]:
            value = {"secretKeyRef": {"name": reference, "key": key["secretKey"]}}
            env.append({"name": key["envVar"], "valueFrom": value})
    main = {"name": "main", "image": given["image"], "command": ["launcher"], "env": env,
            "resources": resources, "volumeMounts": mounts}  # fmt: skip
    argo = [{"name": each, "image": "argoexec"} for each in ("init", "wait")]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"pipelines.kubeflow.org/v2_component": "true", **asked.get("podMetadata", {}).get("labels", {})},
        },
        "spec": _known(
            serviceAccountName=account,
            restartPolicy="Never",
            initContainers=argo[:1],
            containers=[main, *argo[1:]],
            volumes=volumes,
            nodeSelector=asked.get("nodeSelector", {}).get("labels"),
            tolerations=asked.get("tolerations"),
            affinity=_affinity(asked.get("nodeAffinity", [])),
            activeDeadlineSeconds=int(asked["activeDeadlineSeconds"]),
        ),
    }


def _affinity(terms: list[dict[str, Any]]) -> dict[str, Any]:
    musts = [{"matchExpressions": each["matchExpressions"]} for each in terms if "weight" not in each]
    wishes = [
        {"weight": int(each["weight"]), "preference": {"matchExpressions": each["matchExpressions"]}}
        for each in terms
        if "weight" in each
    ]
    found = _known(
        requiredDuringSchedulingIgnoredDuringExecution=_known(nodeSelectorTerms=musts),
        preferredDuringSchedulingIgnoredDuringExecution=wishes,
    )
    return {"nodeAffinity": found} if found else {}


def _known(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}

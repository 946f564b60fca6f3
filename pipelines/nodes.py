"""A training of several machines, as Kubeflow Trainer is asked for it: its pool as a TrainJob."""

from typing import Any

from condswin.config.names import TaskName
from condswin.config.pools import Pool, Pools
from condswin.config.root import Config
from condswin.errors import ConfigError
from pipelines.placing import CHECKPOINTS, LABEL, environment

#: The TrainingRuntime that jobs are made of (`infra/kustomize/trainer`), and its job and container.
RUNTIME, NODE = "condswin", "node"
_MANAGER = "condswin"


def train_job(config: Config, pools: Pools, name: TaskName, variant: str) -> dict[str, Any]:
    """The TrainJob of a training in its pool, but for its name, its image and what it is given.

    Raises:
        ConfigError: The parameters ask for other processes than the pool has accelerators.
    """
    pool, train = pools.of("train"), config.task(name).train
    processes = pool.accelerator.count if pool.accelerator else train.processes or 1
    if train.processes not in (None, processes):
        raise ConfigError(
            f"{name}.train.processes: {train.processes}, but each node of the pool of train has {processes} "
            "accelerators; set null, or as many"
        )
    template = {"metadata": {"labels": {LABEL: pools.name_of("train")}}, "spec": _pod(pool, name, variant)}
    jobs = [{"name": NODE, "template": {"spec": {"template": template}}}]
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"labels": {"app.kubernetes.io/part-of": "condswin"}},
        "spec": {
            "runtimeRef": {"apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": RUNTIME},
            "activeDeadlineSeconds": pool.timeout,
            "trainer": {
                "numNodes": pool.nodes,
                "numProcPerNode": processes,
                "env": _environment(config),
                "resourcesPerNode": _resources(pool),
            },
            "runtimePatches": [
                {"manager": _MANAGER, "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": jobs}}}}
            ],
        },
    }


def _environment(config: Config) -> list[dict[str, Any]]:
    known: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in environment(config).items()]
    return known + [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
        for secret, variables in config.cluster.secrets.items()
        for key, variable in variables.items()
    ]


def _resources(pool: Pool) -> dict[str, Any]:
    whole = {pool.accelerator.type: str(pool.accelerator.count)} if pool.accelerator else {}
    return {
        kind: {"cpu": getattr(pool.cpu, part), "memory": getattr(pool.memory, part), **whole}
        for kind, part in (("requests", "request"), ("limits", "limit"))
    }


def _pod(pool: Pool, name: TaskName, variant: str) -> dict[str, Any]:
    assert pool.checkpoints
    # The runtime has the same volumes, by name.
    volumes: list[dict[str, Any]] = [
        {"name": "checkpoints", "persistentVolumeClaim": {"claimName": pool.checkpoints.name(name, variant)}}
    ]
    if pool.shm:
        volumes.append({"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": pool.shm}})
    if pool.scratch:
        volumes.append({"name": "scratch", "emptyDir": {"sizeLimit": pool.scratch}})
    spec: dict[str, Any] = {
        "volumes": volumes,
        "containers": [{"name": NODE, "volumeMounts": [{"name": "checkpoints", "mountPath": CHECKPOINTS}]}],
    }
    if pool.selector:
        spec["nodeSelector"] = dict(pool.selector)
    if pool.tolerations:
        spec["tolerations"] = [
            {key: value for key, value in taint.model_dump().items() if value} for taint in pool.tolerations
        ]
    if affinity := _affinity(pool):
        spec["affinity"] = {"nodeAffinity": affinity}
    return spec


def _affinity(pool: Pool) -> dict[str, Any]:
    terms = [
        (wish.weight, {"key": wish.key, "operator": wish.operator, **({"values": wish.values} if wish.values else {})})
        for wish in pool.affinity
    ]
    found: dict[str, Any] = {}
    # All that nodes must have in one term: Kubernetes takes a node that fits any of several.
    if musts := [term for weight, term in terms if weight is None]:
        found["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": [{"matchExpressions": musts}]}
    if wishes := [
        {"weight": weight, "preference": {"matchExpressions": [term]}} for weight, term in terms if weight is not None
    ]:
        found["preferredDuringSchedulingIgnoredDuringExecution"] = wishes
    return found

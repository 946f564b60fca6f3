"""What the Kubeflow backend does with a compiled pipeline, as far as its source says so; read at the commits named."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

#: What tasks would write is not run: by task, what makes their outputs differ from run to run.
Outputs = Mapping[str, str]
#: Bytes of a parameter's value: `MaxParameterBytes` in `backend/src/common/util/consts.go` at 153b958f; twice as many
#: in later versions (kubeflow/pipelines#12519).
LARGEST_PARAMETER = 10_000
#: Where `localPathForURI` in `backend/src/v2/component/launcher_v2.go` at 74886eef finds a folder for; for any other
#: scheme it ends the task. `container.go` in `backend/src/v2/compiler/argocompiler` at 00f7b52b mounts these for users
#: who are not root.
SCHEMES = {"gs://": "/gcs/", "s3://": "/s3/", "minio://": "/minio/"}
#: What each run has another of; `ResolveInputParameter` in `backend/src/v2/driver/resolver/parameters.go` at 9eb4cfe9
#: puts it in the place of these.
OF_A_RUN = ("{{$.pipeline_job_uuid}}", "{{$.pipeline_job_resource_name}}", "{{$.pipeline_task_uuid}}")
#: Seconds that a task must be left for all its tries: a week.
LONGEST_TRAINING = 7 * 24 * 3600


def tasks_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Tasks that run in pods, by name: those of the root, and those within the exit handler that may be around all."""
    tasks: dict[str, Any] = dict(spec["root"]["dag"]["tasks"])
    for name in [name for name, task in tasks.items() if "dag" in spec["components"][task["componentRef"]["name"]]]:
        within = spec["components"][tasks.pop(name)["componentRef"]["name"]]
        assert "inputDefinitions" not in within, "tasks of a nested pipeline that are given inputs"
        tasks |= within["dag"]["tasks"]
    return tasks


def is_exit(task: Mapping[str, Any]) -> bool:
    """Whether a task runs after all others, however they ended."""
    return task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"


def tasks_in_order(spec: Mapping[str, Any]) -> list[str]:
    """Tasks that run in pods, each after those that it needs; without the exit handler's."""
    tasks, done = {name: task for name, task in tasks_of(spec).items() if not is_exit(task)}, list[str]()
    while len(done) < len(tasks):
        ready = [
            name
            for name, task in tasks.items()
            if name not in done and set(task.get("dependentTasks", ())) <= set(done)
        ]
        assert ready, "tasks need each other"
        done += sorted(ready)
    return done


class Backend:
    """Runs pipelines as far as the cache goes: which tasks would start a pod, and which take an earlier one's outputs.

    Every execution gives its output artifacts new names, by which the inputs of tasks enter their keys
    (`backend/src/v2/metadata/converter.go`, `backend/src/v2/cacheutils/cache.go` at 0139b8da).
    """

    def __init__(self) -> None:
        self._cache: dict[str, dict[str, str]] = {}
        self._executions = 0

    def run(self, spec: Mapping[str, Any], outputs: Outputs) -> list[str]:
        """The tasks that run.

        Args:
            spec: The compiled pipeline.
            outputs: By the beginning of a task's name, the value of its parameter outputs.
        """
        artifacts: dict[str, dict[str, str]] = {}
        ran = []
        for name in tasks_in_order(spec):
            task = tasks_of(spec)[name]
            value = next((value for start, value in outputs.items() if name.startswith(start)), "")
            key = self._key(spec, task, artifacts, outputs)
            known = self._cache.get(key) if task["cachingOptions"].get("enableCache") else None
            if known is None:
                ran.append(name)
                self._executions += 1
                known = {"": f"execution {self._executions}", "value": value}
                self._cache[key] = known
            artifacts[name] = known
        return ran

    def _key(self, spec: Mapping[str, Any], task: Mapping[str, Any], done: Mapping[str, Any], outputs: Outputs) -> str:
        component = spec["components"][task["componentRef"]["name"]]
        container = spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        inputs = task.get("inputs", {})
        values = {
            name: given["runtimeValue"]["constant"]
            if "runtimeValue" in given
            else done[given["taskOutputParameter"]["producerTask"]]["value"]
            for name, given in inputs.get("parameters", {}).items()
        }
        names = {
            name: done[given["taskOutputArtifact"]["producerTask"]][""]
            for name, given in inputs.get("artifacts", {}).items()
        }
        # Environment is part of it in `cache.go` as named above, and was not in earlier versions.
        parts = [container["image"], container["command"], container["args"], container.get("env", []), values, names]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def violations(spec: Mapping[str, Any]) -> Iterator[str]:
    """What the backend would stumble over, in words."""
    executors, root = spec["deploymentSpec"]["executors"], spec["root"]
    # Where outputs lie is the cluster's to say: its address has an endpoint and a region, which a root in the pipeline
    # replaces (kubeflow/pipelines#12525).
    place = spec.get("defaultPipelineRoot", "s3://")
    if not place.startswith(tuple(SCHEMES)) or "?" in place:
        yield f"{place}: a root that the launcher has no folder for, or that says how it is reached"
    known = set(root.get("inputDefinitions", {}).get("parameters", {}))
    for name, task in tasks_of(spec).items():
        component = spec["components"][task["componentRef"]["name"]]
        inputs, definitions = task.get("inputs", {}), component.get("inputDefinitions", {})
        if importer := executors[component["executorLabel"]].get("importer"):
            # `backend/src/v2/component/importer_launcher.go` at 7b70c7b9 looks into the inputs of the DAG around it.
            given = inputs.get("parameters", {}).get(importer["artifactUri"].get("runtimeParameter"), {})
            if "constant" not in importer["artifactUri"] and given.get("componentInputParameter") not in known:
                yield f"{name}: an importer whose address is another task's output"
            continue
        # `backend/src/v2/compiler/argocompiler/dag.go` at 008dcd63 hangs such a task on each task before it, as what
        # Argo runs when that one ends: only an exit handler's is meant so.
        if is_exit(task) and not any("taskFinalStatus" in given for given in inputs["parameters"].values()):
            yield f"{name}: goes on after failures, and is no exit handler's"
        # `backend/src/v2/component/launcher_v2.go` tells one DAG above a task how it ended (kubeflow/pipelines#11979).
        if "condition" in task.get("triggerPolicy", {}):
            yield f"{name}: below a condition, of which no exit handler is told"
        container = executors[component["executorLabel"]]["container"]
        # `backend/src/v2/component/launcher_v2.go` at 74886eef tells paths of artifacts by this argument alone.
        if "--executor_input" not in container["args"] or "{{$}}" not in container["args"]:
            yield f"{name}: is not told where its inputs and outputs are"
        resources = container.get("resources", {})
        for amount in ("Cpu", "Memory"):
            for kind in ("Request", "Limit"):
                # `backend/src/v2/driver/driver.go` at f595a7b9 takes them from texts; quotas refuse pods without.
                if not isinstance(resources.get(f"resource{amount}{kind}"), str):
                    yield f"{name}: no {kind.lower()} of {amount.lower()}, as a text"
        for parameter, given in inputs.get("parameters", {}).items():
            value = given.get("runtimeValue", {}).get("constant")
            # `resolve.go` in `backend/src/v2/driver` at f4fe1ab3, and `resolver/parameters.go` beside it at 9eb4cfe9,
            # replace what is a placeholder and nothing else.
            if isinstance(value, str) and "{{$" in value and not re.fullmatch(r"\{\{\$[.\w]*\}\}", value):
                yield f"{name}: {parameter} has a placeholder in a text, which stays as it is"
            # `backend/src/v2/cacheutils/cache.go` at 0139b8da has parameters in its key as they are.
            if value in OF_A_RUN and task["cachingOptions"].get("enableCache"):
                yield f"{name}: {parameter} is another in each run, of which the cache knows none"
            if isinstance(value, str) and len(value.encode()) > LARGEST_PARAMETER:
                yield f"{name}: {parameter} is larger than {LARGEST_PARAMETER} bytes"
        # `resolver/parameters.go` and `resolver/artifacts.go` in `backend/src/v2/driver` at 9eb4cfe9 and 3be92f4d hand
        # on what a task is given, and defaults; what else is not optional, the component misses in its pod.
        for kind in ("parameters", "artifacts"):
            for wanted, definition in definitions.get(kind, {}).items():
                if wanted not in inputs.get(kind, {}) and not definition.get("isOptional"):
                    yield f"{name}: {wanted} is given no value and is not optional"
        # `getTaskRetryParametersWithValues` in `backend/src/v2/compiler/argocompiler/container.go` at 00f7b52b gives
        # Argo what is set; without a duration its default is none.
        policy = task.get("retryPolicy", {})
        if policy.get("maxRetryCount") and policy.get("backoffDuration", "0s") == "0s":
            yield f"{name}: tried again at once"
        # It becomes Argo's limit on all tries together, from the start of the first, and ends a pod that is running
        # (kubeflow/pipelines#14245, #13452).
        if policy.get("maxRetryCount") and int(policy["backoffMaxDuration"].removesuffix("s")) < LONGEST_TRAINING:
            yield f"{name}: ended by its retry policy after {policy['backoffMaxDuration']}"
        # `backend/src/v2/compiler/argocompiler/dag.go` at 74886eef makes it the name of Argo's task, which is in that
        # of the pod and in labels, of which Kubernetes takes 63.
        if len(name) > 63:
            yield f"{name}: a name of more than 63 characters"
    # `iteratorTask` in `backend/src/v2/compiler/argocompiler/dag.go` at 74886eef; of artifacts it takes none.
    if any("iterator" in key.lower() for task in tasks_of(spec).values() for key in task):
        yield "a loop, which an exit handler breaks (kubeflow/pipelines#12390) and is not told of (#13321)"


def platform_violations(executors: Mapping[str, Any]) -> Iterator[str]:
    """What the backend would stumble over, or take otherwise than meant, in what Kubernetes is asked for.

    As `extendPodSpecPatch` in `backend/src/v2/driver/k8s.go` at 008dcd63 reads it.
    """
    for name, asked in executors.items():
        for mount in asked.get("emptyDirMounts", []):
            # `MustParse` ends the driver where it does not understand.
            if not re.fullmatch(r"[0-9.]+([KMGTPE]i?|m)?", mount.get("sizeLimit", "0")):
                yield f"{name}: {mount['sizeLimit']!r} is no quantity"
        volumes = [mount["volumeName"] for mount in asked.get("emptyDirMounts", [])]
        volumes += [mount["constant"] for mount in asked.get("pvcMount", [])]
        if len(set(volumes)) < len(volumes):
            yield f"{name}: two volumes of one name"
        # Each becomes a NodeSelectorTerm, and Kubernetes takes a node that fits one of them.
        if sum("weight" not in term for term in asked.get("nodeAffinity", [])) > 1:
            yield f"{name}: what nodes must have, in several terms, of which one is enough"
        for toleration in asked.get("tolerations", []):
            if "key" not in toleration and toleration.get("operator") != "Exists":
                yield f"{name}: a toleration without a key that does not tolerate everything"
        for secret in asked.get("secretAsEnv", []):
            if not (secret.get("secretName") or "secretNameParameter" in secret):
                yield f"{name}: a Secret without a name"

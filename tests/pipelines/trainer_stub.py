"""A Kubernetes API on loopback with TrainJobs and pods, made from the official client and the models of Trainer's SDK.

Each request is held against them: a path or parameter that the client does not have, or a key or type that the models
would drop or refuse, is answered with 400 and kept in `problems`. What the Roles of `infra/` do not allow is forbidden.
"""

import inspect
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml
from kubernetes import client

from tests.infra.rendering import ROOT
from tests.pipelines import kfp_stub
from tests.pipelines.kfp_stub import Fault, RefusedError
from tests.pipelines.trainer_models import problems_of

NAMESPACE = "condswin"
#: Of each operation that is known: its verb and resource, as a Role names them.
RULES = {
    "create_namespaced_custom_object": ("create", "trainjobs"),
    "get_namespaced_custom_object": ("get", "trainjobs"),
    "delete_namespaced_custom_object": ("delete", "trainjobs"),
    "list_namespaced_pod": ("list", "pods"),
    "read_namespaced_pod_log": ("get", "pods/log"),
}
WHEN = "2026-01-01T00:00:00Z"


@dataclass(frozen=True)
class Operation:
    name: str
    method: str
    path: re.Pattern[str]
    query: frozenset[str]


@cache
def operations() -> list[Operation]:
    """What the client can ask for, read off its own code."""
    found = []
    for name in RULES:
        api = client.CustomObjectsApi if name.endswith("custom_object") else client.CoreV1Api
        source = inspect.getsource(getattr(api, f"{name}_with_http_info"))
        path, method = re.search(r"'(/apis?/[^']+)', '([A-Z]+)'", source).groups()
        query = frozenset(re.findall(r"query_params\.append\(\('([\w.]+)'", source))
        pattern = re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(path)))
        found.append(Operation(name, method, pattern, query))
    return found


@cache
def allowed() -> set[tuple[str, str]]:
    """What the account of runs may do, by the Roles that are bound to it."""
    files = [ROOT / "infra/kustomize" / name for name in ("base/access.yaml", "trainer/access.yaml")]
    objects = [each for file in files for each in yaml.safe_load_all(file.read_text())]
    bound = {each["roleRef"]["name"] for each in objects if each["kind"] == "RoleBinding"
             and any(subject["name"] == "condswin-runner" for subject in each["subjects"])}  # fmt: skip
    rules = [rule for each in objects if each["kind"] == "Role" and each["metadata"]["name"] in bound
             for rule in each["rules"] if "resourceNames" not in rule]  # fmt: skip
    return {(verb, resource) for rule in rules for verb in rule["verbs"] for resource in rule["resources"]}


def ended(kind: str, reason: str, message: str) -> dict[str, Any]:
    """The status of a job that is at an end: `Complete` or `Failed`."""
    condition = {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": WHEN}
    return {"conditions": [condition]}


def active(ready: int) -> dict[str, Any]:
    counts = {"active": 1, "ready": ready, "failed": 0, "succeeded": 0, "suspended": 0}
    return {"jobsStatus": [{"name": "node", **counts}]}


COMPLETE = ended("Complete", "AllJobsCompleted", "jobset completed successfully")
FAILED = ended("Failed", "FailedJobs", "jobset failed due to one or more job failures")


@dataclass
class Stub:
    """Kubernetes' state; `requests` are operations in order, `problems` what was wrong about them."""

    url: str = ""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: States that a job has one after another, each time that it is asked for; the last one stays.
    course: list[dict[str, Any]] = field(default_factory=lambda: [active(0), active(1), COMPLETE])
    #: Lines by pod, each with its stamp.
    pods: dict[str, list[str]] = field(default_factory=dict)
    #: How often a job is still seen after its deletion.
    lingers: int = 0
    #: What the machines of a job do, in place of `course`; returns the last state.
    machines: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    denied: set[tuple[str, str]] = field(default_factory=set)
    created: list[dict[str, Any]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    faults: dict[str, Iterator[Fault]] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)

    def plan(self, operation: str, *faults: Fault) -> None:
        self.faults[operation] = iter(faults)

    def count(self, operation: str) -> int:
        return self.requests.count(operation)

    def create_namespaced_custom_object(self, _: Any, body: dict[str, Any]) -> Any:
        name = body["metadata"]["name"]
        if name in self.jobs:
            raise RefusedError(409, f'trainjobs.trainer.kubeflow.org "{name}" already exists')
        job = {**body, "metadata": {**body["metadata"], "namespace": NAMESPACE, "uid": "u", "creationTimestamp": WHEN}}
        self.jobs[name] = job
        self.created.append(body)
        if self.machines:
            threading.Thread(target=lambda: job.update(status=self.machines(job)), daemon=True).start()
        return job

    def get_namespaced_custom_object(self, ids: dict[str, str], _: Any) -> Any:
        job = self._job(ids["name"])
        if "deletionTimestamp" in job["metadata"]:
            if not self.lingers:
                del self.jobs[ids["name"]]
                return self._job(ids["name"])
            self.lingers -= 1
        elif not self.machines and self.course:
            job["status"] = self.course.pop(0) if len(self.course) > 1 else self.course[0]
        return job

    def delete_namespaced_custom_object(self, ids: dict[str, str], body: dict[str, Any]) -> Any:
        assert body == {"propagationPolicy": "Foreground"}
        self._job(ids["name"])["metadata"]["deletionTimestamp"] = WHEN
        if not self.lingers:
            del self.jobs[ids["name"]]
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def list_namespaced_pod(self, ids: dict[str, str], _: Any) -> Any:
        selected = re.fullmatch(
            r"jobset\.sigs\.k8s\.io/jobset-name=([\w-]+),batch\.kubernetes\.io/job-completion-index=0",
            ids["labelSelector"],
        )
        assert selected
        items = [{"metadata": {"name": name, "creationTimestamp": f"2026-01-01T00:00:0{number}Z"}}
                 for number, name in enumerate(self.pods)]  # fmt: skip
        return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}

    def read_namespaced_pod_log(self, ids: dict[str, str], _: Any) -> Any:
        if not self.pods[ids["name"]]:
            raise RefusedError(400, f'container "node" in pod "{ids["name"]}" is waiting to start: ContainerCreating')
        return "".join(f"{line}\n" for line in self.pods[ids["name"]]).encode()

    def _job(self, name: str) -> dict[str, Any]:
        if name not in self.jobs:
            raise RefusedError(404, f'trainjobs.trainer.kubeflow.org "{name}" not found')
        return self.jobs[name]


class Handler(kfp_stub.Handler):
    def handle_request(self) -> None:
        stub, parts = self.server.stub, urlsplit(self.path)
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for operation in operations():
            match = operation.path.fullmatch(parts.path)
            if match and operation.method == self.command:
                break
        else:
            stub.problems.append(f"{self.command} {parts.path}: no such operation")
            self.reply(404, _status(404, "the server could not find the requested resource"))
            return
        stub.requests.append(operation.name)
        query = dict(parse_qsl(parts.query))
        stub.queries.append(query)

        def act() -> None:
            self.act_on(operation, match.groupdict(), query, json.loads(content) if content else None)

        fault = next(stub.faults.get(operation.name, iter(())), None)
        fault(self, act) if fault else act()

    do_GET = do_POST = do_DELETE = handle_request  # noqa: N815

    def act_on(self, operation: Operation, ids: dict[str, str], query: dict[str, str], body: Any) -> None:
        stub, rule = self.server.stub, RULES[operation.name]
        found = [f"?{name}: no such parameter" for name in query if name not in operation.query]
        resource = (ids.get("group"), ids.get("version"), ids.get("plural"))
        if "group" in ids and resource != ("trainer.kubeflow.org", "v1alpha1", "trainjobs"):
            found.append(f"{resource}: no such resource")
        if ids["namespace"] != NAMESPACE:
            found.append(f"{ids['namespace']}: no such namespace")
        if operation.method == "POST":
            found += problems_of("TrainJob", body)
        elif operation.method == "DELETE":
            found += [f"{key}: no such key" for key in body if key not in client.V1DeleteOptions.attribute_map.values()]
        elif body is not None:
            found.append("a body, where none is taken")
        if found:
            stub.problems += [f"{operation.name}: {each}" for each in found]
            self.reply(400, _status(400, "; ".join(found)))
        elif rule not in allowed() - stub.denied:
            self.reply(403, _status(403, f"{rule[1]} is forbidden: User cannot {rule[0]} resource"))
        else:
            try:
                self.reply(200, getattr(stub, operation.name)({**ids, **query}, body))
            except RefusedError as error:
                self.reply(error.status, _status(error.status, error.message))


def _status(code: int, message: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}


def serve(**settings: Any) -> AbstractContextManager[Stub]:
    return kfp_stub.serve(Handler, Stub, **settings)

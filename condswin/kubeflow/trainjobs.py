"""TrainJobs of Kubeflow Trainer: started once, followed to their end, and deleted then.

A job that ended is deleted here, by whoever followed it: what else deletes only its pods, as a time to live does, makes
Trainer start a failed one again, from its first try (kubeflow/trainer#3779, #3737).
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from kubernetes import client, config
from urllib3.exceptions import HTTPError

from condswin.errors import ClusterError, ConfigError
from condswin.plain import plain

T = TypeVar("T")
#: Group, version and plural of the resource.
RESOURCE = {"group": "trainer.kubeflow.org", "version": "v1alpha1", "plural": "trainjobs"}
#: Container that Trainer knows the training by.
CONTAINER = "node"
#: Seconds for a connection, and without a byte of an answer.
TIMEOUT = (10, 30)
#: Seconds between two looks at a job.
EVERY = 15.0
#: Seconds without an answer after which a job is left alone: another try of the task finds it.
PATIENCE = 600.0
#: Seconds for deleting a job when this process is asked to terminate; Kubernetes kills it after 30.
GRACE = 20.0
#: Lines of a log that had begun before it was followed.
FIRST_LINES = 1000
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
# What may be gone the next time.
_PASSING = (401, 408, 429)


class _GoneError(Exception):
    """There is no such object."""


class _ThereError(Exception):
    """There is an object of this name."""


class Jobs:
    """TrainJobs of a namespace.

    Args:
        api: Kubernetes' API.
        namespace: Of jobs and their pods.

    Raises:
        ClusterError: From all methods.
    """

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self._objects, self._core, self._namespace = client.CustomObjectsApi(api), client.CoreV1Api(api), namespace
        self._where = {**RESOURCE, "namespace": namespace, "_request_timeout": TIMEOUT}
        self._lines: dict[str, str] = {}
        self._read_at = 0.0

    def run(self, job: Mapping[str, Any]) -> None:
        """Runs a job to its end, or goes on with the one of its name; says its states and its first machine's lines.

        A process that is asked to terminate meanwhile deletes the job, and ends with status 143.

        Args:
            job: The manifest.

        Raises:
            ClusterError: It failed, or vanished, or Kubernetes does not answer or refuses.
        """
        name = job["metadata"]["name"]
        with _termination() as ignored:
            try:
                self._start(job)
                failure = self._follow(name)
            except SystemExit:
                ignored()
                self._delete(name, GRACE)
                print(f"TrainJob {name}: deleted, since this task is asked to terminate", flush=True)
                raise
        self._delete(name, PATIENCE)
        if failure:
            raise ClusterError(f"TrainJob {name}: failed: {failure}; its lines are above")

    def _start(self, job: Mapping[str, Any]) -> None:
        name = job["metadata"]["name"]
        there = self._get(name)
        if there is not None and (_ended(there) or there["metadata"].get("deletionTimestamp")):
            # An earlier try was killed before it could delete it, or it is being deleted.
            self._delete(name, PATIENCE)
            self._wait_until_gone(name)
            there = None
        if there is not None or not self._create(job):
            print(f"TrainJob {name}: is there and is followed", flush=True)

    def _create(self, job: Mapping[str, Any]) -> bool:
        """Creates a job; whether it was not there, as it is where the answer to an earlier request was lost."""
        body = {**job, "metadata": {**job["metadata"], **_owner()}}
        try:
            self._ask(
                lambda: self._objects.create_namespaced_custom_object(body=body, **self._where),
                "create trainjobs",
                conflict=True,
            )
        except _GoneError:
            raise ClusterError(
                f"Kubernetes knows no TrainJobs in {self._namespace}: install Kubeflow Trainer (2.3 or newer)"
            ) from None
        except _ThereError:
            return False
        return True

    def _get(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._ask(
                lambda: self._objects.get_namespaced_custom_object(name=name, **self._where),
                "get trainjobs",
            )
        except _GoneError:
            return None
        return found

    def _delete(self, name: str, patience: float) -> None:
        with suppress(_GoneError):
            self._ask(
                lambda: self._objects.delete_namespaced_custom_object(
                    name=name,
                    # Its pods go before it does: no other job of its name writes beside them.
                    body=client.V1DeleteOptions(propagation_policy="Foreground"),
                    **self._where,
                ),
                "delete trainjobs",
                patience=patience,
            )

    def _wait_until_gone(self, name: str) -> None:
        until = time.monotonic() + PATIENCE
        while self._get(name) is not None:
            if time.monotonic() > until:
                raise ClusterError(f"TrainJob {name}: is being deleted for {PATIENCE:.0f} s; look at its pods")
            time.sleep(EVERY)

    def _follow(self, name: str) -> str:
        """Follows a job to its end; returns why it failed, an empty text if it did not."""
        said = ""
        while True:
            job = self._get(name)
            if job is None:
                raise ClusterError(f"TrainJob {name}: vanished; another try goes on from its last checkpoint")
            if (state := _state(job)) != said:
                said = state
                print(f"TrainJob {name}: {state}", flush=True)
            self._tell_lines(name)
            if ended := _ended(job):
                kind, why = ended
                return why if kind == "Failed" else ""
            time.sleep(EVERY)

    def _tell_lines(self, name: str) -> None:
        """Prints what the first machine wrote since the last time; a training does not fail for want of its log."""
        now = time.monotonic()
        chosen = f"jobset.sigs.k8s.io/jobset-name={name},batch.kubernetes.io/job-completion-index=0"
        since = {"since_seconds": int(now - self._read_at) + 60} if self._read_at else {"tail_lines": FIRST_LINES}
        try:
            found = self._core.list_namespaced_pod(
                self._namespace, label_selector=chosen, _request_timeout=TIMEOUT
            ).items
            for pod in sorted(found, key=lambda pod: str(pod.metadata.creation_timestamp)):
                self._tell_lines_of(pod.metadata.name, since)
        except (client.ApiException, HTTPError, HTTPException, OSError, ValueError) as error:
            # 400: the container has not started yet.
            if getattr(error, "status", 0) not in (400, 404):
                print(f"TrainJob {name}: its lines cannot be read now ({_why(error)})", flush=True)
            return
        if found:
            self._read_at = now

    def _tell_lines_of(self, pod: str, since: Mapping[str, int]) -> None:
        # As bytes: the client takes a log that looks like JSON for it.
        log = self._core.read_namespaced_pod_log(
            pod,
            self._namespace,
            container=CONTAINER,
            timestamps=True,
            _preload_content=False,
            _request_timeout=TIMEOUT,
            **since,
        ).data.decode(errors="replace")
        for line in log.splitlines():
            stamp, _, text = line.partition(" ")
            # Equal stamps are of one moment, in nanoseconds; a stamp is cut where the log ended amid a line.
            if stamp.endswith("Z") and stamp > self._lines.get(pod, ""):
                self._lines[pod] = stamp
                print(plain(text), flush=True)

    def _ask(self, ask: Callable[[], T], what: str, *, conflict: bool = False, patience: float | None = None) -> T:
        """Asks, again and again where there is no answer: each request may be sent twice, as names are given here."""
        until, pause = time.monotonic() + (PATIENCE if patience is None else patience), min(1.0, EVERY)
        while True:
            try:
                return ask()
            except client.ApiException as error:
                if error.status == 404:
                    raise _GoneError from None
                if error.status == 409 and conflict:
                    raise _ThereError from None
                if error.status and error.status < 500 and error.status not in _PASSING:
                    raise ClusterError(f"Kubernetes refuses to {what} in {self._namespace}: {_why(error)}") from None
                reason = _why(error)
            except (HTTPError, HTTPException, OSError) as error:
                reason = _why(error)
            if time.monotonic() + pause > until:
                raise ClusterError(f"Kubernetes does not {what} in {self._namespace}: {reason}") from None
            time.sleep(pause)
            pause = min(2 * pause, EVERY)


def of_this_cluster() -> Jobs:
    """TrainJobs of the namespace that this pod is in.

    Raises:
        ConfigError: This is no pod of Kubernetes.
    """
    settings = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=settings)
        namespace = _NAMESPACE.read_text().strip()
    except (config.ConfigException, OSError):
        raise ConfigError(
            "cluster.pools: the pool of train has several nodes, which Kubernetes starts, and this is no pod of it; "
            "set nodes: 1"
        ) from None
    settings.retries = False  # urllib3's own would send a creation again
    return Jobs(client.ApiClient(settings), namespace)


@contextmanager
def _termination() -> Iterator[Callable[[], None]]:
    """Makes SIGTERM end the block by SystemExit; yields what makes further ones do nothing."""
    here = threading.current_thread() is threading.main_thread()

    def leave(_: int, __: FrameType | None) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    def ignore() -> None:
        if here:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    before = signal.signal(signal.SIGTERM, leave) if here else None
    try:
        yield ignore
    finally:
        if here:
            signal.signal(signal.SIGTERM, before)


def _owner() -> dict[str, Any]:
    """Lets a job go with the pod of this task: where that was killed, nobody else deletes the job."""
    name, uid = (os.environ.get(f"KFP_POD_{part}", "") for part in ("NAME", "UID"))
    if not (name and uid):
        return {}
    return {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}]}


def _ended(job: Mapping[str, Any]) -> tuple[str, str] | None:
    """Which of its two ends a job came to, and what is said of it."""
    for each in job.get("status", {}).get("conditions") or ():
        if each["type"] in ("Complete", "Failed") and each["status"] == "True":
            return each["type"], plain(f"{each.get('reason', '')}: {each.get('message', '')}", 300)
    return None


def _state(job: Mapping[str, Any]) -> str:
    if ended := _ended(job):
        return ended[0]
    counts = [f"{each['name']} {each['active']} active, {each['ready']} ready, {each['failed']} failed"
              for each in job.get("status", {}).get("jobsStatus") or ()]  # fmt: skip
    return plain("; ".join(counts) or "waits for its pods", 200)


def _why(error: Exception) -> str:
    if not isinstance(error, client.ApiException) or not error.status:
        return type(error).__name__
    return plain(f"{error.status} {error.reason}: {error.body or ''}", 300)

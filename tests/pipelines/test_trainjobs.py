"""TrainJobs on a stub of Kubernetes' API: started once, followed, deleted, whatever becomes of requests."""

import copy
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from condswin.errors import ClusterError, ConfigError
from condswin.kubeflow import trainjobs
from condswin.kubeflow.trainjobs import Jobs, of_this_cluster
from tests.pipelines import trainer_stub
from tests.pipelines.kfp_stub import Fault, reset, slow, status
from tests.pipelines.test_trainer_models import asked, job_of, pools_of
from tests.pipelines.trainer_stub import COMPLETE, FAILED, NAMESPACE, Stub, active

CREATE, GET, DELETE = (f"{verb}_namespaced_custom_object" for verb in ("create", "get", "delete"))
PODS, LOG = "list_namespaced_pod", "read_namespaced_pod_log"


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setattr(trainjobs, "EVERY", 0.01)
    monkeypatch.setattr(trainjobs, "TIMEOUT", (1, 0.3))
    for name in ("KFP_POD_NAME", "KFP_POD_UID"):
        monkeypatch.delenv(name, raising=False)
    with trainer_stub.serve() as served:
        yield served
    assert not served.problems


def jobs_at(stub: Stub) -> Jobs:
    settings = client.Configuration(host=stub.url)
    settings.retries = False
    return Jobs(client.ApiClient(settings), NAMESPACE)


@pytest.fixture
def job(tmp_path: Path) -> dict[str, Any]:
    made = job_of(asked(pools_of(tmp_path)))
    return {**made, "metadata": {**made["metadata"], "name": "train-0123"}}


def test_a_job_is_made_followed_and_deleted(
    stub: Stub, job: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    stub.course = [active(0), active(1), active(1), COMPLETE]
    stub.pods["train-0123-node-0-0-abcde"] = [
        "2026-01-01T00:00:01.1Z epoch 1", "2026-01-01T00:00:02.1Z {\"epoch\": 2}", "2026-01-01T00:00:03.1Z \x1b[31mred"
    ]  # fmt: skip
    jobs_at(stub).run(job)
    assert capsys.readouterr().out.splitlines() == [
        "TrainJob train-0123: node 1 active, 0 ready, 0 failed",
        "epoch 1",
        '{"epoch": 2}',
        "\\x1b[31mred",
        "TrainJob train-0123: node 1 active, 1 ready, 0 failed",
        "TrainJob train-0123: Complete",
    ]
    assert stub.created == [job]
    assert not stub.jobs
    assert (stub.count(CREATE), stub.count(DELETE)) == (1, 1)


def test_a_job_that_is_there_is_followed_and_no_other_made(
    stub: Stub, job: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    stub.jobs["train-0123"] = {**copy.deepcopy(job), "status": active(1)}
    jobs_at(stub).run(job)
    assert stub.count(CREATE) == 0
    assert "TrainJob train-0123: is there and is followed" in capsys.readouterr().out
    assert not stub.jobs


@pytest.mark.parametrize("state", [FAILED, COMPLETE])
def test_one_that_ended_and_was_not_deleted_is_made_anew(stub: Stub, job: dict[str, Any], state: dict) -> None:
    """As where the task was killed before it could delete it; the new one waits for the old one's pods."""
    stub.jobs["train-0123"] = {**copy.deepcopy(job), "status": state}
    stub.course, stub.lingers = [state, active(1), COMPLETE], 3
    jobs_at(stub).run(job)
    assert stub.requests.index(DELETE) < stub.requests.index(CREATE)
    assert stub.requests[: stub.requests.index(CREATE)].count(GET) >= 4
    assert not stub.jobs or "deletionTimestamp" in stub.jobs["train-0123"]["metadata"]


def test_one_that_is_being_deleted_is_waited_for(stub: Stub, job: dict[str, Any]) -> None:
    stub.jobs["train-0123"] = {**job, "metadata": {**job["metadata"], "deletionTimestamp": trainer_stub.WHEN}}
    stub.lingers = 3
    jobs_at(stub).run(job)
    assert stub.count(CREATE) == 1


def test_a_job_that_fails_is_one_line_and_deleted(stub: Stub, job: dict[str, Any]) -> None:
    stub.course = [active(1), FAILED]
    with pytest.raises(ClusterError) as caught:
        jobs_at(stub).run(job)
    assert str(caught.value) == (
        "TrainJob train-0123: failed: FailedJobs: jobset failed due to one or more job failures; its lines are above"
    )
    assert not stub.jobs


def test_a_job_that_vanishes_is_one_line(stub: Stub, job: dict[str, Any]) -> None:
    stub.course = [active(1)]

    def gone(handler: Any, _: Any) -> None:
        stub.jobs.clear()
        handler.reply(404, {"message": "not found"})

    stub.plan(GET, *[lambda _, act: act()] * 3, gone)
    with pytest.raises(ClusterError, match="TrainJob train-0123: vanished; another try goes on from its last"):
        jobs_at(stub).run(job)


@pytest.mark.parametrize("fault", [status(500), status(503), status(429), reset(), slow(then=False)])
@pytest.mark.parametrize("operation", [CREATE, GET, DELETE])
def test_what_gets_no_answer_is_asked_again(stub: Stub, job: dict[str, Any], operation: str, fault: Fault) -> None:
    stub.plan(operation, fault, fault)
    jobs_at(stub).run(job)
    assert len(stub.created) == 1
    assert not stub.jobs


@pytest.mark.parametrize("fault", [status(500, after=True), reset(after=True), slow(then=True)])
def test_what_was_done_and_not_answered_is_not_done_twice(stub: Stub, job: dict[str, Any], fault: Fault) -> None:
    """A second creation meets the first one's job, and a second deletion nothing."""
    stub.plan(CREATE, fault)
    stub.plan(DELETE, fault)
    jobs_at(stub).run(job)
    assert len(stub.created) == 1
    assert not stub.jobs


def test_an_outage_leaves_the_job_to_the_next_try(
    stub: Stub, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainjobs, "PATIENCE", 0.1)
    stub.course = [active(1)]
    stub.plan(GET, *[lambda _, act: act()] * 3, *[reset()] * 200)
    with pytest.raises(ClusterError, match="Kubernetes does not get trainjobs in condswin: "):
        jobs_at(stub).run(job)
    assert "train-0123" in stub.jobs
    assert stub.count(DELETE) == 0
    monkeypatch.setattr(trainjobs, "PATIENCE", 10)
    stub.plan(GET)
    stub.course = [active(1), COMPLETE]
    jobs_at(stub).run(job)
    assert stub.count(CREATE) == 1
    assert not stub.jobs


@pytest.mark.parametrize("fault", [status(500), reset(), status(403), slow(then=False)])
@pytest.mark.parametrize("operation", [PODS, LOG])
def test_a_log_that_cannot_be_read_fails_nothing(
    stub: Stub, job: dict[str, Any], operation: str, fault: Fault, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.pods["pod"] = ["2026-01-01T00:00:01.1Z epoch 1"]
    stub.course = [active(1), active(1), active(1), COMPLETE]
    stub.plan(operation, fault)
    jobs_at(stub).run(job)
    said = capsys.readouterr().out
    assert "its lines cannot be read now" in said
    assert said.count("epoch 1\n") == 1


def test_lines_are_told_once_also_of_pods_that_are_started_again(
    stub: Stub, job: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The end of a pod's log is read before the job's end is taken for one."""
    stub.course = [active(1)] * 6 + [COMPLETE]
    stub.pods["one"] = []

    def grows(handler: Any, act: Any) -> None:
        read = stub.count(PODS)
        if read == 2:
            stub.pods["one"] = ["2026-01-01T00:00:01.1Z first"]
        elif read == 3:
            stub.pods["one"].append("2026-01-01T00:00:01.2Z second")
        elif read == 4:
            stub.pods["two"] = ["2026-01-01T00:00:05.0Z third"]
        elif stub.count(GET) == 8:
            stub.pods["two"].append("2026-01-01T00:00:09.0Z last")
        act()

    stub.plan(PODS, *[grows] * 20)
    jobs_at(stub).run(job)
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("TrainJob")]
    assert lines == ["first", "second", "third", "last"]
    read = [query for name, query in zip(stub.requests, stub.queries, strict=True) if name == LOG]
    assert {"container": "node", "timestamps": "True", "tailLines": "1000"} in read
    assert all(int(query["sinceSeconds"]) >= 60 for query in read[-3:])


def test_a_task_that_is_asked_to_terminate_deletes_its_job(stub: Stub, job: dict[str, Any]) -> None:
    """Cancelling a run does that; so does a node that is drained, after which the next try goes on."""
    stub.course = [active(1)]
    before = signal.getsignal(signal.SIGTERM)

    def cancelled(_: Any, act: Any) -> None:
        act()
        os.kill(os.getpid(), signal.SIGTERM)

    stub.plan(GET, *[lambda _, act: act()] * 4, cancelled)
    stub.plan(DELETE, status(500), reset())
    with pytest.raises(SystemExit) as caught:
        jobs_at(stub).run(job)
    assert caught.value.code == 143
    assert not stub.jobs
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (("create", "trainjobs"), "Kubernetes refuses to create trainjobs in condswin: 403 Forbidden: "),
        (("get", "trainjobs"), "Kubernetes refuses to get trainjobs in condswin: 403 Forbidden: "),
    ],
)
def test_what_the_account_may_not_is_one_line(stub: Stub, job: dict[str, Any], rule: Any, said: str) -> None:
    stub.denied = {rule}
    with pytest.raises(ClusterError) as caught:
        jobs_at(stub).run(job)
    assert str(caught.value).startswith(said)
    assert str(caught.value).isprintable()
    assert len(stub.requests) <= 2


def test_the_roles_allow_no_more_than_is_asked_for() -> None:
    asked_for = set(trainer_stub.RULES.values())
    assert asked_for <= trainer_stub.allowed()
    assert {rule for rule in trainer_stub.allowed() if rule[1] == "trainjobs" or "log" in rule[1]} <= asked_for


def test_where_there_is_no_trainer_that_is_said(stub: Stub, job: dict[str, Any]) -> None:
    stub.plan(CREATE, status(404))
    with pytest.raises(ClusterError, match=r"knows no TrainJobs in condswin: install Kubeflow Trainer"):
        jobs_at(stub).run(job)


def test_keys_that_the_models_drop_would_be_noticed(stub: Stub, job: dict[str, Any]) -> None:
    with pytest.raises(ClusterError, match=r"refuses to create trainjobs .*spec\.nodes: no such key"):
        jobs_at(stub).run({**job, "spec": {**job["spec"], "nodes": 2}})
    assert stub.problems.pop() == "create_namespaced_custom_object: TrainJob.spec.nodes: no such key"


def test_a_job_goes_with_the_pod_of_its_task(stub: Stub, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_POD_NAME", "run-1")
    monkeypatch.setenv("KFP_POD_UID", "0f3a")
    jobs_at(stub).run(job)
    (owner,) = stub.created[0]["metadata"]["ownerReferences"]
    assert owner == {"apiVersion": "v1", "kind": "Pod", "name": "run-1", "uid": "0f3a"}


def test_outside_kubernetes_that_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigError, match=r"cluster\.pools: .*this is no pod of it; set nodes: 1"):
        of_this_cluster()


def test_a_manifest_is_json(job: dict[str, Any]) -> None:
    assert json.loads(json.dumps(job)) == job

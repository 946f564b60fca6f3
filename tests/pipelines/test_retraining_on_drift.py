"""The schedule that a drift of the data starts, by the API that a pod asks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

import components
from condswin.config.parts import part
from condswin.config.profiles import compose
from condswin.errors import CondswinError
from pipelines import api, starting
from pipelines.evaluation import drift
from tests.pipelines.kfp_stub import Fault, Handler, Stub, login, reset, serve, slow, status

IN_POD = (starting.HOST, starting.TOKEN)
CREATE, LIST = "run_service_create_run", "recurring_run_service_list_recurring_runs"
SPEC = {"pipelineInfo": {}, "root": {}, "deploymentSpec": {}, "components": {}, "schemaVersion": "2.1.0"}


@pytest.fixture(autouse=True)
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod that is told nothing, and a client without patience."""
    monkeypatch.setattr(api, "PAUSES", (0.05, 0.1, 0.2))
    monkeypatch.setattr(api, "TIMEOUT", (0.3, 0.3))
    monkeypatch.setattr(starting, "TOKEN", tmp_path / "none")
    for name in ("KFP_HOST", "KFP_TOKEN", "KFP_NAMESPACE", "KFP_EXPERIMENT", "KF_PIPELINES_SA_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


def a_backend(stub: Stub, monkeypatch: pytest.MonkeyPatch, *schedules: str) -> None:
    monkeypatch.setenv("KFP_HOST", stub.url)
    stub.experiments["e"] = {"experiment_id": "e", "display_name": "condswin"}
    for name in schedules:
        stub.recurring[name] = {
            "recurring_run_id": name,
            "display_name": name,
            "experiment_id": "e",
            "pipeline_spec": SPEC,
            "runtime_config": {"parameters": {"seed": 7}},
            "service_account": "condswin-runner",
        }


def retrain(task: str, folder: Path, *, exceeded: bool | None, version: str = "v1", schedule: str = "weekly") -> str:
    """Runs the component on a card."""
    config = compose(["demo"], [f"{task}.drift.schedule={schedule}"] if schedule else [])
    if exceeded is not None:
        (folder / "card.json").write_text(json.dumps({"drift": {"exceeded": exceeded}}))
    params = json.dumps(part(config, "retrain", task))
    told: str = components.retrain.python_func(
        params=params, task=task, version=version, card=dsl.Artifact(uri=str(folder))
    )
    return told


@pytest.mark.parametrize("task", ["reconstruction", "segmentation"])
def test_drift_starts_its_schedule_once_for_a_version(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve() as stub:
        a_backend(stub, monkeypatch, "weekly", "other")
        names = [retrain(task, tmp_path, exceeded=True) for _ in range(2)]
        assert names == [f"weekly: {task} v1 drifted"] * 2
        (run,) = stub.runs.values()
        assert (run["display_name"], run["pipeline_spec"], run["service_account"]) == (
            names[0],
            SPEC,
            "condswin-runner",
        )
        assert (run["experiment_id"], run["runtime_config"]) == ("e", {"parameters": {"seed": 7}})
        retrain(task, tmp_path, exceeded=True, version="v2")
        assert len(stub.runs) == 2
        assert not stub.problems


@pytest.mark.parametrize(
    "became", [{"state": "SUCCEEDED"}, {"state": "FAILED"}, {"state": "CANCELED"}, {"storage_state": "ARCHIVED"}]
)
def test_a_run_is_not_started_again_whatever_became_of_it(
    became: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve() as stub:
        a_backend(stub, monkeypatch, "weekly")
        name = retrain("segmentation", tmp_path, exceeded=True)
        next(iter(stub.runs.values())).update(became)
        assert retrain("segmentation", tmp_path, exceeded=True) == name
        assert stub.count(CREATE) == 1
    assert capsys.readouterr().out == f"{name}\n{name}: a run was started before\n"


def test_a_schedule_of_a_later_page_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(page=1) as stub:
        a_backend(stub, monkeypatch, "daily", "monthly", "weekly")
        assert retrain("segmentation", tmp_path, exceeded=True)
        assert stub.count(LIST) == 3
        assert len(stub.runs) == 1


@pytest.mark.parametrize("fault", [status(500, after=True), reset(after=True), slow(then=True)])
def test_a_start_whose_answer_is_lost_is_found_and_not_doubled(
    fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve() as stub:
        a_backend(stub, monkeypatch, "weekly")
        stub.plan(LIST, status(503))
        stub.plan(CREATE, fault)
        assert retrain("segmentation", tmp_path, exceeded=True)
        assert (stub.count(LIST), stub.count(CREATE), len(stub.runs)) == (2, 1, 1)


@pytest.mark.parametrize(("exceeded", "schedule"), [(False, "weekly"), (None, "weekly"), (True, "")])
def test_nothing_is_asked_without_drift_or_schedule(
    exceeded: bool | None, schedule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve() as stub:
        a_backend(stub, monkeypatch, "weekly")
        assert retrain("segmentation", tmp_path, exceeded=exceeded, schedule=schedule) == ""
        assert not stub.requests


def test_a_schedule_or_server_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as stub:
        a_backend(stub, monkeypatch, "other")
        with pytest.raises(CondswinError, match="no recurring run 'weekly' in the experiment 'condswin'") as caught:
            retrain("segmentation", tmp_path, exceeded=True)
        assert "\n" not in str(caught.value)
        assert not stub.runs
    with pytest.raises(CondswinError, match=r"no connection \(NewConnectionError\), 4 times; check KFP_HOST") as caught:
        retrain("segmentation", tmp_path, exceeded=True)
    assert "\n" not in str(caught.value)
    with serve() as stub:
        monkeypatch.setenv("KFP_HOST", stub.url)
        monkeypatch.setenv("KFP_EXPERIMENT", "other")
        with pytest.raises(CondswinError, match="no recurring run 'weekly' in the experiment 'other'"):
            retrain("segmentation", tmp_path, exceeded=True)
        assert not stub.experiments
        stub.plan("experiment_service_list_experiments", login)
        with pytest.raises(CondswinError, match="what answers is not the API of Kubeflow Pipelines"):
            retrain("segmentation", tmp_path, exceeded=True)


Given = Callable[[pytest.MonkeyPatch, Path], None]
TOKENS: dict[str, Given] = {
    "named": lambda patch, file: patch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(file)),
    "mounted": lambda patch, file: patch.setattr(starting, "TOKEN", file),
    "given": lambda patch, file: patch.setenv("KFP_TOKEN", file.read_text()),
}


@pytest.mark.parametrize("given", TOKENS)
def test_the_token_of_the_pod_is_sent(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("Sesame\n")
    TOKENS[given](monkeypatch, tmp_path / "token")
    with serve(token="Sesame") as stub:
        a_backend(stub, monkeypatch, "weekly")
        assert retrain("segmentation", tmp_path, exceeded=True)
        assert len(stub.runs) == 1


def test_a_pod_that_is_told_nothing_asks_its_own_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host, token = IN_POD
    assert host == "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
    assert token == Path("/var/run/secrets/kubeflow/pipelines/token")
    with serve() as stub:
        a_backend(stub, monkeypatch, "weekly")
        monkeypatch.delenv("KFP_HOST")
        monkeypatch.setattr(starting, "HOST", stub.url)
        assert retrain("segmentation", tmp_path, exceeded=True)
        assert len(stub.runs) == 1


def test_a_token_is_not_sent_in_the_clear_nor_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_TOKEN", "Sesame")
    monkeypatch.setenv("KFP_HOST", "http://kubeflow.example.org")
    with pytest.raises(CondswinError, match="would get the token in the clear") as caught:
        retrain("segmentation", tmp_path, exceeded=True)
    assert "Sesame" not in str(caught.value)

    with serve() as elsewhere, serve() as stub:

        def moved(handler: Handler, _: Callable[[], None]) -> None:
            handler.send_response(302)
            handler.send_header("Location", elsewhere.url + handler.path)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        a_backend(stub, monkeypatch, "weekly")
        stub.plan("experiment_service_list_experiments", moved)
        with pytest.raises(CondswinError, match="answers 302"):
            retrain("segmentation", tmp_path, exceeded=True)
        assert not elsewhere.requests


def test_a_token_that_is_named_and_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(CondswinError, match="token: not readable: FileNotFoundError") as caught:
        retrain("segmentation", tmp_path, exceeded=True)
    assert "\n" not in str(caught.value)


def test_the_pipeline_has_the_task_where_a_schedule_is_named() -> None:
    def names(*settings: str) -> list[str]:
        config = compose(["demo"], list(settings))
        made = drift(config, config.present).pipeline_spec
        return [name for name in made.root.dag.tasks if name.startswith("retrain")]

    assert names() == []
    assert len(names("segmentation.drift.schedule=weekly")) == 1

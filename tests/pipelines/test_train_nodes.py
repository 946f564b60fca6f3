"""The component that has several machines train: what it shares with them, and what it makes of what they leave.

The test that trains takes half a minute: `pytest -m chaos tests/pipelines/test_train_nodes.py`.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl
from kubernetes import client

import components
from condswin import kubeflow
from condswin.config.parts import part
from condswin.config.root import Config
from condswin.errors import ClusterError, ImageError, StoppedError
from condswin.files import PARTIAL, read_json, write_json
from condswin.kubeflow import node, nodes, trainjobs
from condswin.kubeflow.node import GIVEN, OUTCOME
from condswin.networks.saving import load_model
from condswin.steps.prepare import prepare
from tests.components.test_contract import ingested
from tests.pipelines import trainer_stub
from tests.pipelines.test_trainer_models import asked, job_of, pools_of
from tests.pipelines.trainer_stub import COMPLETE, FAILED, NAMESPACE, Stub

TASK, VARIANT = "reconstruction", "swin"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, tiny: Config) -> Path:
    folder = tmp_path_factory.mktemp("data")
    prepare(tiny, TASK, ingested=Path(ingested(tiny, TASK, folder / "ingested").path), out=folder / "prepared")
    return folder / "prepared"


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setattr(trainjobs, "EVERY", 0.05)
    monkeypatch.setattr(nodes, "DELAY", 0.1)
    with trainer_stub.serve() as served:
        settings = client.Configuration(host=served.url)
        settings.retries = False
        jobs = trainjobs.Jobs(client.ApiClient(settings), NAMESPACE)
        monkeypatch.setattr(trainjobs, "of_this_cluster", lambda: jobs)
        yield served
    assert not served.problems


@pytest.fixture
def train(tiny: Config, prepared: Path, tmp_path: Path, stub: Stub) -> Callable[..., str]:
    """The component on a folder that stands for the volume; returns its outcome."""
    (tmp_path / "pools").mkdir()
    job = json.dumps(job_of(asked(pools_of(tmp_path / "pools", accelerator=None, image="condswin:big"))))

    def run(place: str = "model", **other: str) -> str:
        given = {
            "params": json.dumps(part(tiny, "train_nodes", TASK, VARIANT)),
            "task": TASK,
            "code": kubeflow.code_of("train_nodes", TASK),
            "variant": VARIANT,
            "image": "condswin@sha256:0",
            "job": job,
            "checkpoints": str(tmp_path / "volume"),
        }
        outcome: str = components.train_nodes.python_func(
            **{**given, **other}, prepared=dsl.Dataset(uri=str(prepared)), model=dsl.Model(uri=str(tmp_path / place))
        )
        return outcome

    return run


def folder_of(job: dict[str, Any]) -> Path:
    (folder,) = job["spec"]["trainer"]["args"]
    assert Path(folder).name == job["metadata"]["name"]
    return Path(folder)


def leaves(outcome: str | None, state: dict[str, Any] = COMPLETE) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Machines that leave an outcome and, where that is well, a network; or nothing."""

    def machines(job: dict[str, Any]) -> dict[str, Any]:
        folder = folder_of(job)
        if outcome == "":
            (folder / "model").mkdir()
            (folder / "model" / "weights").write_text("these")
        if outcome is not None:
            write_json(folder / OUTCOME, {"outcome": outcome})
        return state

    return machines


def shared(tmp_path: Path) -> list[str]:
    place = tmp_path / "volume" / "nodes"
    return sorted(path.name for path in place.iterdir()) if place.is_dir() else []


@pytest.mark.chaos
def test_two_machines_train_as_trainer_starts_them(
    train: Callable[..., str], stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each by torchrun with the variables that Trainer's plugin for torch sets; MLflow has one run."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")

    def machines(job: dict[str, Any]) -> dict[str, Any]:
        trainer = job["spec"]["trainer"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        places = {"PET_NNODES": trainer["numNodes"], "PET_NPROC_PER_NODE": trainer["numProcPerNode"],
                  "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": port}  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in places.items()}}
        torchrun = [sys.executable, "-m", "torch.distributed.run", "-m", "condswin.kubeflow.node", *trainer["args"]]
        with (tmp_path / "log").open("w") as log:
            started = [
                subprocess.Popen(torchrun, env={**environment, "PET_NODE_RANK": str(rank)}, cwd=tmp_path,
                                 stdout=log, stderr=subprocess.STDOUT)
                for rank in range(2)
            ]  # fmt: skip
            return COMPLETE if [each.wait(timeout=300) for each in started] == [0, 0] else FAILED

    stub.machines = machines
    try:
        assert train() == ""
    except ClusterError:
        pytest.fail((tmp_path / "log").read_text()[-6000:])
    _, spec = load_model(tmp_path / "model")
    assert (spec.task, spec.variant) == (TASK, VARIANT)
    assert (tmp_path / "model" / "history.csv").is_file()
    assert (tmp_path / "log").read_text().count("2 processes") == 1
    assert not shared(tmp_path)
    assert not stub.jobs
    assert [path.name for path in (tmp_path / "volume" / TASK).iterdir()] == [VARIANT]


def test_what_machines_tell_is_the_outcome(train: Callable[..., str], stub: Stub, tmp_path: Path) -> None:
    stub.machines = leaves("train reconstruction swin: its loss is not finite")
    outcome = train()
    assert outcome == "train reconstruction swin: its loss is not finite"
    with pytest.raises(StoppedError, match="not finite"):
        components.verdict.python_func(outcome_1=outcome)
    assert not shared(tmp_path)
    assert not (tmp_path / "model").exists()


def test_it_is_so_where_another_machine_fails_for_want_of_the_first(train: Callable[..., str], stub: Stub) -> None:
    stub.machines = leaves("train reconstruction swin: its loss is not finite", FAILED)
    assert train() == "train reconstruction swin: its loss is not finite"


def test_a_job_that_fails_is_tried_again_with_the_same_name_and_data(
    train: Callable[..., str], stub: Stub, tmp_path: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.machines = leaves(None, FAILED)
    with pytest.raises(ClusterError, match="failed: FailedJobs"):
        train()
    (name,) = shared(tmp_path)
    there = tmp_path / "volume" / "nodes" / name / "prepared"
    assert (there / "manifest.json").read_bytes() == (prepared / "manifest.json").read_bytes()
    monkeypatch.setattr(nodes.shutil, "copytree", None)
    with pytest.raises(ClusterError):
        train()
    monkeypatch.undo()
    assert [each["metadata"]["name"] for each in stub.created] == [name, name]


def test_after_its_end_a_task_that_was_killed_brings_the_result(
    train: Callable[..., str], stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is trained for it, and no cluster asked."""
    stub.machines = leaves("")
    with monkeypatch.context() as killed:
        killed.setattr(nodes, "_remove", None)
        with pytest.raises(TypeError):
            train()
    (tmp_path / "model" / "weights").unlink()
    assert train() == ""
    assert (tmp_path / "model" / "weights").read_text() == "these"
    assert len(stub.created) == 1
    assert not shared(tmp_path)


def test_what_a_removal_leaves_is_no_data(
    train: Callable[..., str], stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(folder: Path, **_: bool) -> None:
        (folder / OUTCOME).unlink()
        raise KeyboardInterrupt

    stub.machines = leaves("")
    with monkeypatch.context() as killed:
        killed.setattr(nodes.shutil, "rmtree", break_off)
        with pytest.raises(KeyboardInterrupt):
            train()
    (left,) = shared(tmp_path)
    assert left.startswith(PARTIAL)
    assert train() == ""
    assert shared(tmp_path) == [left]


def test_one_that_leaves_nothing_is_said(train: Callable[..., str], stub: Stub) -> None:
    stub.machines = leaves(None)
    with pytest.raises(ClusterError, match=r"left no outcome\.json in .*; does its runtime mount the same volume\?"):
        train()


def test_other_images_and_nodes_are_other_jobs(train: Callable[..., str], stub: Stub) -> None:
    stub.machines = leaves("")
    train()
    train(image="condswin@sha256:1")
    first, second = (each["metadata"]["name"] for each in stub.created)
    assert first != second
    assert [each["spec"]["trainer"]["image"] for each in stub.created] == ["condswin@sha256:0", "condswin@sha256:1"]
    assert len(first) <= 63 - len("-node-0-0")


def test_runs_have_jobs_of_their_own(train: Callable[..., str], stub: Stub) -> None:
    stub.machines = leaves("")
    train("run-1")
    train("run-2")
    assert len({each["metadata"]["name"] for each in stub.created}) == 2


def test_other_code_is_refused(train: Callable[..., str], stub: Stub) -> None:
    with pytest.raises(ImageError, match="train_nodes reconstruction: this image holds other code"):
        train(code="0")
    assert not stub.requests


@pytest.mark.parametrize(
    ("rank", "outcome", "left"), [("0", "", ""), ("1", "", None), ("1", "bad data", "bad data"), ("0", "bad", "bad")]
)
def test_the_first_process_says_that_all_is_well_and_any_that_it_is_not(
    rank: str, outcome: str, left: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(node, "train", lambda **_: outcome)
    write_json(tmp_path / GIVEN, {})
    node.run(tmp_path)
    assert (tmp_path / OUTCOME).exists() == (left is not None)
    if left is not None:
        assert read_json(tmp_path / OUTCOME) == {"outcome": left}
        monkeypatch.setattr(node, "train", None)
        node.run(tmp_path)

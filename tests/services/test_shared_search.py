"""One search by several processes, whose study is in PostgreSQL."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pytest
from kfp import local
from mlflow import MlflowClient

from condswin.config.profiles import write_config
from condswin.config.reading import load_config
from condswin.config.root import Config, TrackingConfig
from condswin.steps.demo_data import demo_data
from condswin.steps.ingest import ingest
from condswin.steps.prepare import prepare
from pipelines.search import search

pytest_plugins = ["tests.registry.fixtures"]
pytestmark = pytest.mark.services

TASK = "reconstruction"
SPACE = "{pruner: none, space: {train.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}}}"
# With other leases than a cluster's, which a test would have to wait for.
COMMAND = """
import sys
from condswin import trials
trials.BEAT, trials.LEASE = 1, 4
from condswin.cli import main
main()
"""


@pytest.fixture
def database(postgres: str, request: pytest.FixtureRequest) -> str:
    """An empty one, as a user writes its address."""
    name = f"search_{abs(hash(request.node.name))}"
    connection = psycopg2.connect(postgres.replace("+psycopg2", ""))
    connection.autocommit = True
    connection.cursor().execute(f"create database {name}")
    connection.close()
    return postgres.replace("+psycopg2", "").rpartition("/")[0] + f"/{name}"


@pytest.fixture
def work(tiny: Config, tmp_path: Path, empty_database: Path) -> Path:
    section = tiny.reconstruction
    train = section.train.model_copy(update={"epochs": 8, "batch_size": 1})
    section = section.model_copy(update={"source": str(tmp_path / "raw"), "train": train})
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    tracking = TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db")
    config = tiny.model_copy(update={TASK: section, "tracking": tracking})
    demo_data(config, TASK, out=tmp_path / "raw")
    ingest(config, TASK, source=str(tmp_path / "raw"), out=tmp_path / "ingested")
    prepare(config, TASK, ingested=tmp_path / "ingested", out=tmp_path / "data/prepared" / TASK)
    write_config(config, tmp_path / "params.yaml", comment="")
    (tmp_path / "space.yaml").write_text(SPACE)
    return tmp_path


class Pod:
    """A process that searches in a folder of its own."""

    def __init__(self, work: Path, name: str, database: str, trials: int) -> None:
        self.out = work / name
        self.log = work / f"{name}.log"
        command = [sys.executable, "-c", COMMAND, "tune", TASK, "swin", "--search", "space.yaml"]
        command += ["--trials", str(trials), "--storage", database, "--out", name]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=work, stdout=log, stderr=log)

    def wait(self, code: int = 0) -> None:
        assert self.process.wait(300) == code, self.log.read_text()[-3000:]

    def results(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / "trials.json").read_text())
        return found

    def models(self) -> list[str]:
        return sorted(path.parents[2].name for path in self.out.glob("trials/*/*/model/model.safetensors"))

    def kill_within(self, trial: int) -> None:
        deadline = time.monotonic() + 200
        while not list(self.out.glob(f"trials/{trial:04}/*/checkpoints/*/epoch-00*-batch-000000.ckpt")):
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def test_two_processes_make_the_trials_of_one_study(work: Path, database: str) -> None:
    pods = [Pod(work, name, database, 5) for name in ("a", "b")]
    for pod in pods:
        pod.wait()
    last = max(pods, key=lambda pod: (pod.out / "trials.json").stat().st_mtime)
    rows = last.results()["trials"]
    assert sorted(row["trial"] for row in rows) == [0, 1, 2, 3, 4]
    assert {row["state"] for row in rows} == {"complete"}
    assert len({row["params"]["train.learning_rate"] for row in rows}) == 5
    made = [pod.models() for pod in pods]
    assert sorted(made[0] + made[1]) == ["0000", "0001", "0002", "0003", "0004"]
    assert all(made)
    client = MlflowClient(f"sqlite:///{work}/mlflow.db")
    experiments = [each.experiment_id for each in client.search_experiments()]
    runs = client.search_runs(experiments)
    (parent,) = (run for run in runs if run.data.tags["step"] == "tune")
    assert [run.data.tags.get("mlflow.parentRunId") for run in runs if run is not parent] == [parent.info.run_id] * 5
    assert {run.info.status for run in runs} == {"FINISHED"}
    password = urlsplit(database).password or "-"
    assert not any(password in pod.log.read_text() for pod in pods)

    # A third has nothing to do.
    Pod(work, "c", database, 5).wait()
    assert "nothing to do" in (work / "c.log").read_text()


def test_the_trial_of_a_dead_process_is_done_by_another_or_by_its_successor(work: Path, database: str) -> None:
    dead = Pod(work, "dead", database, 2)
    dead.kill_within(0)
    Pod(work, "other", database, 2).wait()
    rows = json.loads((work / "other" / "trials.json").read_text())["trials"]
    assert sorted((row["trial"], row["state"]) for row in rows) == [(0, "complete"), (1, "complete")]

    dead = Pod(work, "dead", database, 3)
    dead.kill_within(2)
    successor = Pod(work, "dead", database, 3)
    successor.wait()
    rows = successor.results()["trials"]
    assert sorted((row["trial"], row["state"]) for row in rows) == [(n, "complete") for n in range(3)]
    assert "goes on after" in successor.log.read_text()


def test_trials_are_tasks_of_a_pipeline(
    work: Path, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Kubeflow's local runner, one after another; then again, when nothing is left to do."""
    config = load_config(work / "params.yaml", ["reconstruction.train.epochs=1"])
    run = config.cluster.search.model_copy(
        update={"search": str(work / "space.yaml"), "trials": 3, "at_once": 2, "variant": "swin"}
    )
    config = config.model_copy(update={"cluster": config.cluster.model_copy(update={"search": run})})
    environment = {"CONDSWIN_STORAGE": database, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for times in (1, 2):
        outputs = tmp_path / f"outputs-{times}"
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(outputs), raise_on_error=True)
        search(config, (TASK,))()
        found = [json.loads(path.read_text()) for path in outputs.glob("*/tune*/results/trials.json")]
        assert len(found) == 3
        assert max(len(each["trials"]) for each in found) == 3
        assert sum(bool(each["trained"]) for each in found) == (3 if times == 1 else 0)
        complete = next(each for each in found if len(each["trials"]) == 3)
        assert {row["state"] for row in complete["trials"]} == {"complete"}
    client = MlflowClient(config.tracking.uri)
    (experiment,) = client.search_experiments(filter_string="name = 'condswin'")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 4  # the search's, and one for each trial
    assert {one.info.status for one in runs} == {"FINISHED"}

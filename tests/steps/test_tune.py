"""Searches with a training that is a formula, and one with real trainings that is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient

from condswin.config.profiles import write_config
from condswin.config.reading import parse_config, replaced
from condswin.config.root import Config, TrackingConfig
from condswin.config.search import Search, settings
from condswin.errors import CheckpointError, DivergedError, StudyError
from condswin.steps import tune as step
from condswin.steps.demo_data import demo_data
from condswin.steps.ingest import ingest
from condswin.steps.prepare import prepare
from condswin.steps.train import train
from condswin.steps.tune import tune
from condswin.training.ownership import owned

pytest_plugins = ["tests.registry.fixtures"]

TASK = "reconstruction"
RATE = "train.learning_rate"
STEM = "variants.swin.overrides.stem_channels"
SPACE = {RATE: {"low": 1e-4, "high": 1e-1, "log": True}, STEM: {"low": 8, "high": 32, "step": 8}}


@pytest.fixture(scope="module")
def prepared(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    section = tiny.reconstruction.model_copy(update={"source": str(folder / "raw")})
    config = tiny.model_copy(update={TASK: section})
    demo_data(config, TASK, out=folder / "raw")
    ingest(config, TASK, source=str(folder / "raw"), out=folder / "ingested")
    prepare(config, TASK, ingested=folder / "ingested", out=folder / "prepared")
    return folder / "prepared"


@pytest.fixture
def no_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares MLflow."""

    @contextmanager
    def run(*_: object, **__: object) -> Iterator[Any]:
        yield SimpleNamespace(id="run", finish=lambda *_: None)

    monkeypatch.setattr(step, "training_run", run)
    monkeypatch.setattr(step, "send_rest", lambda *_: None)


def longer(config: Config, epochs: int) -> Config:
    section = config.reconstruction
    train = section.train.model_copy(update={"epochs": epochs})
    return config.model_copy(update={TASK: section.model_copy(update={"train": train})})


def formula(config: Config) -> list[float]:
    """Scores by epoch, best at a learning rate of 0.01 and many channels, a little other for each seed."""
    section = config.reconstruction
    off = abs(section.train.learning_rate - 0.01) * 100
    top = 20 - off + int(section.variants["swin"].overrides["stem_channels"]) / 32 + config.seed / 1000
    return [top * (epoch + 1) / section.train.epochs for epoch in range(section.train.epochs)]


class Trainer:
    """Counts the trainings, whose scores are a formula's."""

    def __init__(self, scores: Callable[[Config], list[float]] = formula) -> None:
        self.scores, self.trained = scores, 0
        self.folders: list[Path] = []

    def __call__(self, config: Config, *_: object, watch: Callable[[Any], None], out: Path, **__: object) -> Any:
        self.trained += 1
        self.folders.append(out)
        rows: list[dict[str, float]] = []
        for epoch, score in enumerate(self.scores(config)):
            rows.append({"epoch": epoch, "val/volume_psnr": score})
            watch(rows)
        return SimpleNamespace(history=rows)


def searched(config: Config, prepared: Path, out: Path, trainer: Any, trials: int, **more: Any) -> dict[str, Any]:
    space = {"space": SPACE, "pruner": "none"} | more.pop("search", {})
    arguments = {"prepared": prepared, "out": out, "train": trainer, "trials": trials, "seeds": 1} | more
    found = tune(config, TASK, "swin", Search.model_validate(space), **arguments)
    assert json.loads((out / "trials.json").read_text()) == found
    return found


def tried(found: dict[str, Any]) -> list[Any]:
    rows = sorted(found["trials"], key=lambda row: row["trial"])
    return [(row["trial"], row["state"], row["params"], row["value"], row["epochs"]) for row in rows]


@pytest.mark.usefixtures("no_runs")
def test_equal_searches_try_the_same_however_often_they_are_stopped(
    tiny: Config, prepared: Path, tmp_path: Path
) -> None:
    whole = searched(tiny, prepared, tmp_path / "whole", Trainer(), 13)
    values = [row["value"] for row in whole["trials"]]
    assert values == sorted(values, reverse=True)
    assert [row["trial"] for row in sorted(whole["trials"], key=lambda row: row["trial"])] == list(range(13))
    best = whole["best"]
    assert best["settings"] == settings(TASK, best["params"])
    # Draws are whole where they must be, and what is learned from ten trials is used.
    assert all(row["params"][STEM] in (8, 16, 24, 32) for row in whole["trials"])
    assert best["trial"] >= 10
    assert whole["importances"][RATE] > whole["importances"][STEM]
    assert sum(whole["importances"].values()) == pytest.approx(1)

    trainer = Trainer()
    searched(tiny, prepared, tmp_path / "parts", trainer, 5)

    def stopped(config: Config) -> list[float]:
        raise SystemExit(143)

    for _ in range(4):  # oftener than a trial may be killed: being asked to stop is not the trial's fault
        with pytest.raises(SystemExit, match="143"):
            searched(tiny, prepared, tmp_path / "parts", Trainer(stopped), 13)
    parts = searched(tiny, prepared, tmp_path / "parts", trainer, 13)
    assert tried(parts) == tried(whole)
    assert trainer.trained == 13
    assert len(set(trainer.folders)) == 13

    again = Trainer()
    assert searched(tiny, prepared, tmp_path / "parts", again, 13)["trained"] is False
    assert again.trained == 0
    other = searched(tiny.model_copy(update={"seed": 11}), prepared, tmp_path / "other", Trainer(), 2)
    assert tried(other)[0][2] != tried(whole)[0][2]


@pytest.mark.usefixtures("no_runs")
def test_a_search_that_is_killed_tries_the_same_trial_again_and_not_for_ever(
    tiny: Config, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = searched(tiny, prepared, tmp_path / "whole", Trainer(), 3)

    class KillError(BaseException):
        pass

    def killed(self: Any, trial: Any, objective: Any) -> None:
        self.values(trial)
        raise KillError

    for kills, state in ((1, "complete"), (3, "failed")):
        out = tmp_path / f"{kills}"
        searched(tiny, prepared, out, Trainer(), 1)
        for _ in range(kills):
            with monkeypatch.context() as patch:
                patch.setattr("condswin.trials.Trials.run", killed)
                with pytest.raises(KillError):
                    searched(tiny, prepared, out, Trainer(), 3)
        found = searched(tiny, prepared, out, Trainer(), 3)
        assert [row["trial"] for row in sorted(found["trials"], key=lambda row: row["trial"])] == [0, 1, 2]
        # The trial under way had the parameters that it has in an unbroken search.
        assert [row[2] for row in tried(found)] == [row[2] for row in tried(whole)]
        (second,) = (row for row in found["trials"] if row["trial"] == 1)
        assert second["state"] == state
        assert second["cause"] == (None if kills == 1 else "its process was killed each time")


@pytest.mark.usefixtures("no_runs")
@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_trials_that_fall_behind_are_given_up(pruner: str, tiny: Config, prepared: Path, tmp_path: Path) -> None:
    search = {"pruner": pruner, "startup_trials": 2, "startup_epochs": 3}
    found = searched(longer(tiny, 9), prepared, tmp_path / "out", Trainer(), 8, search=search)
    rows = [row for row in found["trials"] if row["same_as"] is None]
    states = {state: [row for row in rows if row["state"] == state] for state in ("complete", "pruned")}
    assert len(states["complete"]) >= 2
    assert states["pruned"]
    assert all(3 <= row["epochs"] < 9 for row in states["pruned"])
    assert all(row["epochs"] == 9 for row in states["complete"])
    assert {row["epochs"] for row in states["pruned"]} == {3}
    assert found["best"]["value"] >= max(row["value"] for row in states["pruned"])


@pytest.mark.usefixtures("no_runs")
def test_a_trials_value_is_the_best_epoch_averaged_over_seeds(tiny: Config, prepared: Path, tmp_path: Path) -> None:
    """Of each seed the best epoch so far, those without a score left out; the last epoch is worse."""

    def scores(config: Config) -> list[float]:
        return [float("nan"), config.seed + 0.5, float(config.seed)]

    (row,) = searched(longer(tiny, 3), prepared, tmp_path / "out", Trainer(scores), 1, seeds=3)["trials"]
    assert row["values"] == [10.5, 11.5, 12.5]
    assert row["value"] == 11.5
    assert row["epochs"] == 9


@pytest.mark.usefixtures("no_runs")
def test_what_was_tried_is_not_trained_again(tiny: Config, prepared: Path, tmp_path: Path) -> None:
    trainer = Trainer()
    space = {RATE: {"choices": [0.001, 0.01]}, STEM: {"choices": [16]}}
    found = searched(tiny, prepared, tmp_path / "out", trainer, 6, search={"space": space})
    assert trainer.trained == 2
    assert sum(row["same_as"] is not None for row in found["trials"]) == 4
    assert len({row["value"] for row in found["trials"]}) == 2


@pytest.mark.usefixtures("no_runs")
def test_lists_and_mappings_are_choices_too(tiny: Config, prepared: Path, tmp_path: Path) -> None:
    seen: list[Any] = []

    def scores(config: Config) -> list[float]:
        section = config.reconstruction
        seen.append((section.variants["swin"].overrides["heads"], section.train.schedule.name))
        return [1.0]

    heads = {"choices": [[2, 2], [2, 4]]}
    schedule = {"choices": [{"name": "step"}, {"name": "constant"}]}
    space = {"variants.swin.overrides.heads": heads, "train.schedule": schedule}
    found = searched(tiny, prepared, tmp_path / "out", Trainer(scores), 6, search={"space": space})
    assert set(map(str, seen)) <= {str((h, s)) for h in ([2, 2], [2, 4]) for s in ("step", "constant")}
    assert all(row["params"]["train.schedule"] in schedule["choices"] for row in found["trials"])


@pytest.mark.usefixtures("no_runs")
def test_failed_trials_end_no_search_unless_all_are(
    tiny: Config, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainings: list[Config] = []

    def some(config: Config) -> list[float]:
        trainings.append(config)
        if len(trainings) == 2:
            raise DivergedError("the loss became nan")
        if len(trainings) == 3:
            raise RuntimeError("out of memory: 80 GiB wanted\nmore lines")
        if len(trainings) == 4:
            return [float("nan")]
        return formula(config)

    found = searched(tiny, prepared, tmp_path / "some", Trainer(some), 5)
    assert [row[1] for row in tried(found)] == ["complete", "failed", "failed", "failed", "complete"]
    causes = {row["trial"]: row["cause"] for row in found["trials"] if row["cause"]}
    assert causes[1] == "the loss became nan"
    assert causes[2] == "out of memory: 80 GiB wanted"
    assert causes[3] == "volume_psnr of validation cases was never finite"
    assert "trial 1 of 5: failed: the loss became nan" in capsys.readouterr().err

    def none(config: Config) -> list[float]:
        raise DivergedError(f"diverged at {config.reconstruction.train.learning_rate}")

    with pytest.raises(StudyError, match=r"none of 3 trials ended well; the first: diverged at 0\.0"):
        searched(tiny, prepared, tmp_path / "none", Trainer(none), 3)

    def disk(config: Config) -> list[float]:
        raise CheckpointError("the disk is full")

    # What no parameter is the reason of ends the search, and the trial is done once that is mended.
    with pytest.raises(CheckpointError):
        searched(tiny, prepared, tmp_path / "disk", Trainer(disk), 2)
    assert [row[1] for row in tried(searched(tiny, prepared, tmp_path / "disk", Trainer(), 2))] == ["complete"] * 2


@pytest.mark.usefixtures("no_runs")
def test_a_study_of_others_is_refused_by_name(tiny: Config, prepared: Path, tmp_path: Path) -> None:
    searched(tiny, prepared, tmp_path / "out", Trainer(), 1)
    before = (tmp_path / "out" / "trials.json").read_bytes()
    for config, more, what in (
        (tiny.model_copy(update={"seed": 11}), {}, "seed"),
        (longer(tiny, 7), {}, "train"),
        (tiny, {"seeds": 2}, "seeds"),
        (tiny, {"search": {"pruner": "median"}}, "search"),
    ):
        with pytest.raises(StudyError, match=rf"has trials of others: parameters changed: {what}; go back") as refused:
            searched(config, prepared, tmp_path / "out", Trainer(), 2, **more)
        assert str(tmp_path / "out" / "study.db") in str(refused.value)
    with owned(tmp_path / "out"), pytest.raises(CheckpointError, match=f"process {os.getpid()}"):
        searched(tiny, prepared, tmp_path / "out", Trainer(), 2)
    assert (tmp_path / "out" / "trials.json").read_bytes() == before


REAL = {"space": {RATE: SPACE[RATE]}, "pruner": "none"}


def test_a_killed_search_goes_on_from_the_checkpoint_of_its_trial(
    tiny: Config, prepared: Path, tmp_path: Path, empty_database: Path
) -> None:
    """SIGKILL within the second of two trials, each with the training that `condswin train` runs."""
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    section = longer(tiny, 8).reconstruction
    tracking = TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db")
    config = tiny.model_copy(update={TASK: section, "tracking": tracking})
    whole = searched(config, prepared, tmp_path / "whole", train, 2, search=REAL)

    write_config(config, tmp_path / "params.yaml", comment="")
    (tmp_path / "space.yaml").write_text(json.dumps(REAL))
    out = tmp_path / "out"
    command = [sys.executable, "-c", "from condswin.cli import main; main()", "tune", TASK, "swin", "--trials", "2",
               "--search", "space.yaml", "--prepared", str(prepared), "--out", str(out)]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 120
    while not list(out.glob("trials/0001/*/checkpoints/*/epoch-00[01]*-batch-000000.ckpt")):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (out / "trials" / "0000").rename(out / "trials" / "done")  # nobody needs it any more

    found = searched(config, prepared, out, train, 2, search=REAL)
    assert tried(found) == tried(whole)
    assert not (out / "trials" / "0000").exists()
    assert not list(out.rglob("*.ckpt"))
    # A trial is what `condswin train` makes of the settings that the search ends with.
    folder = out / "trials" / f"{found['best']['trial']:04}" / "seed-10"
    chosen = parse_config(replaced(config.values(), found["best"]["settings"]), origin="best")
    assert train(
        chosen, TASK, "swin", prepared=prepared, checkpoints=folder / "checkpoints", out=folder / "model"
    ).done_before
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = (each for each in client.search_experiments() if each.name == config.tracking.experiment)
    runs = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    parent = json.loads((out / "run.json").read_text())["run_id"]
    assert runs[parent].data.tags["best_trial"] == str(found["best"]["trial"])
    children = [run for run in runs.values() if run.data.tags.get("mlflow.parentRunId") == parent]
    assert sorted(run.info.run_name for run in children) == ["trial 0", "trial 1"]
    for run in children:
        (row,) = (row for row in found["trials"] if str(row["trial"]) == run.data.tags["trial"])
        assert float(run.data.params["train/learning_rate"]) == row["params"][RATE]
        steps = [each.step for each in client.get_metric_history(run.info.run_id, "val/slice_psnr")]
        assert steps == list(range(8))
    # Both searches have a run of their own, and there are no others.
    assert len(runs) == 6

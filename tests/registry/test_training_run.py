"""Runs of trainings that are interrupted, in a real database."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow import MlflowClient

from condswin.errors import PrunedError
from condswin.files import read_json
from condswin.registry import training_run as module
from condswin.registry.tracking import TrackingError
from condswin.registry.training_run import PARENT, RUN, TrainingRun, send_rest, training_run
from tests.registry.toy import World

pytest_plugins = ["tests.registry.fixtures"]

ROWS = [{"epoch": epoch, "train/loss": 1.0 / (epoch + 1), "val/loss": float(epoch)} for epoch in range(4)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of the checkpoints of one training, beside those of others."""
    return tmp_path / "checkpoints" / "key"


def started(world: World, folder: Path, **arguments: Any) -> Any:
    return training_run(
        world.config,
        "train",
        **{"tags": {"step": "train"}, "parameters": {"a": {"b": 1}}, "folder": folder, **arguments},
    )


def losses(world: World, run_id: str) -> list[tuple[int, float]]:
    return [(each.step, each.value) for each in world.client.get_metric_history(run_id, "train/loss")]


def interrupted(world: World, folder: Path) -> None:
    with started(world, folder) as run:
        run.log(ROWS[:1])
        run.log(ROWS[:2])
        raise SystemExit(143)


WANTED = [(row["epoch"], row["train/loss"]) for row in ROWS]


def test_an_interrupted_training_goes_on_in_its_run(world: World, folder: Path) -> None:
    """The second start sends its whole history, as a resumed training does; every epoch is there once."""
    with pytest.raises(SystemExit):
        interrupted(world, folder)
    run_id = read_json(folder / RUN)["run_id"]
    first = world.client.get_run(run_id)
    assert (first.info.status, first.data.params, first.data.tags["step"]) == ("KILLED", {"a/b": "1"}, "train")
    with started(world, folder) as again:
        assert again.id == run_id
        assert world.client.get_run(run_id).info.status == "RUNNING"
        again.log(ROWS[:3])
        again.finish(ROWS)
    assert world.client.get_run(run_id).info.status == "FINISHED"
    assert losses(world, run_id) == WANTED
    assert read_json(folder / RUN) == {"run_id": run_id, "ended": True}


def test_an_error_is_a_failed_run(world: World, folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), started(world, folder) as run:
        raise ZeroDivisionError
    assert world.client.get_run(run.id).info.status == "FAILED"


def test_a_training_that_a_search_gives_up_was_stopped_and_did_not_fail(world: World, folder: Path) -> None:
    with pytest.raises(PrunedError), started(world, folder) as run:
        raise PrunedError
    assert world.client.get_run(run.id).info.status == "KILLED"


def test_a_run_that_was_deleted_is_replaced(world: World, folder: Path) -> None:
    with started(world, folder) as run:
        run.log(ROWS[:2])
    world.client.delete_run(run.id)
    with started(world, folder) as other:
        other.finish(ROWS)
    assert other.id != run.id
    assert losses(world, other.id) == WANTED


def test_a_run_of_another_server_is_left_to_it(world: World, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / RUN).write_text('{"run_id": "0123456789abcdef0123456789abcdef", "ended": false}')
    with started(world, folder) as run:
        run.finish(ROWS)
    assert losses(world, run.id) == WANTED


def test_a_run_given_by_the_environment_wins(world: World, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = world.client.create_run("0", run_name="their name").info
    monkeypatch.setenv("MLFLOW_RUN_ID", given.run_id)
    with started(world, folder) as run:
        run.finish(ROWS)
    assert run.id == given.run_id
    assert world.client.get_run(run.id).info.run_name == "their name"
    # That of a search, whose trials have theirs within it.
    with started(world, folder.with_name("trial"), tags={PARENT: run.id}) as trial:
        trial.finish(ROWS)
    assert trial.id != run.id
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(TrackingError, match="0000"), started(world, folder):
        pass


def test_runs_that_killed_trainings_left_open_are_closed(world: World, folder: Path) -> None:
    """A kill leaves RUNNING behind; another training of the same variant, of other settings, begins."""
    killed, settled = folder / "a", folder / "b"
    with started(world, killed) as left:
        left.log(ROWS[:1])
    with started(world, settled) as done:
        done.finish(ROWS)
    assert world.client.get_run(left.id).info.status == "KILLED"
    assert world.client.get_run(done.id).info.status == "FINISHED"
    # It may still go on one day.
    with started(world, killed) as again:
        again.finish(ROWS)
    assert again.id == left.id
    assert losses(world, left.id) == WANTED


class Away:
    """A client whose server is gone while `gone`; with `deaf`, what is sent arrives but no answer comes back."""

    def __init__(self, client: MlflowClient, *, deaf: bool) -> None:
        self._client, self._deaf, self.gone = client, deaf, True

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def request(*arguments: Any, **more: Any) -> Any:
            if self.gone and not (self._deaf and name == "log_batch"):
                raise requests.ConnectionError("gone")
            result = getattr(self._client, name)(*arguments, **more)
            if self.gone:
                raise requests.ReadTimeout("no answer")
            return result

        return request


@pytest.mark.parametrize("deaf", [False, True])
def test_a_server_that_is_away_for_some_epochs_has_all_in_the_end(
    deaf: bool,
    world: World,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "RETRY_AFTER", 0.0)
    with started(world, folder) as run:
        run.log(ROWS[:1])
        away = Away(world.client, deaf=deaf)
        run._client = away
        run.log(ROWS[:2])
        assert "does not take epoch 1 (" in capsys.readouterr().err
        run.log(ROWS[:3])
        away.gone = False
        run.finish(ROWS)
    assert losses(world, run.id) == WANTED


def test_a_server_that_is_gone_for_good_ends_no_training(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "WAIT_AT_END", 0.0)
    with started(world, folder) as run:
        run.log(ROWS[:2])
        run._client = Away(world.client, deaf=False)
        run.finish(ROWS)
    said = capsys.readouterr().err
    assert run.id in said
    assert "the same command again trains nothing and sends them" in said
    assert losses(world, run.id) == WANTED[:2]
    send_rest(world.config, folder, ROWS)
    assert losses(world, run.id) == WANTED
    assert world.client.get_run(run.id).info.status == "FINISHED"
    capsys.readouterr()
    send_rest(world.config, folder, ROWS)
    assert losses(world, run.id) == WANTED


def test_a_server_that_is_away_is_not_asked_after_every_epoch(
    world: World, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asking takes seconds, and an epoch may take less."""
    run = TrainingRun(Away(world.client, deaf=False), "http://nowhere", "id", folder / RUN)  # type: ignore[arg-type]
    for count in range(1, 5):
        run.log(ROWS[:count])
    assert capsys.readouterr().err.count("does not take") == 1

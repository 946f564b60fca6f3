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


#: What a run is tagged with at its end.
LEFT = {"weights_sha256": "a" * 64}
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
        assert "does not take all of epoch 1 (" in capsys.readouterr().err
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
        run.finish(ROWS, LEFT)
    said = capsys.readouterr().err
    assert run.id in said
    assert "weights_sha256" not in world.client.get_run(run.id).data.tags
    assert "the same command again trains nothing and sends them" in said
    assert losses(world, run.id) == WANTED[:2]
    send_rest(world.config, folder, LEFT)
    assert losses(world, run.id) == WANTED
    sent = world.client.get_run(run.id)
    assert (sent.info.status, sent.data.tags["weights_sha256"]) == ("FINISHED", "a" * 64)
    capsys.readouterr()
    send_rest(world.config, folder, LEFT)
    assert losses(world, run.id) == WANTED


def test_a_server_that_is_away_is_not_asked_after_every_epoch(
    world: World, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asking takes seconds, and an epoch may take less."""
    run = TrainingRun(Away(world.client, deaf=False), "http://nowhere", "id", folder / RUN)  # type: ignore[arg-type]
    for count in range(1, 5):
        run.log(ROWS[:count])
    assert capsys.readouterr().err.count("does not take") == 1


def pictures(folder: Path, epochs: int) -> None:
    """What a training has drawn after so many epochs."""
    for epoch in range(epochs):
        path = folder / f"pictures/epoch-{epoch:04}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"picture of %d" % epoch)
    (folder / "training.png").write_bytes(b"curves of %d" % epochs)


def artifacts(world: World, run_id: str, place: str = "pictures") -> list[str]:
    return [entry.path for entry in world.client.list_artifacts(run_id, place)]


def curves(world: World, run_id: str, to: Path) -> bytes:
    return Path(world.client.download_artifacts(run_id, "training.png", str(to))).read_bytes()


def test_pictures_are_sent_once_and_curves_as_they_grow(
    world: World, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    log = MlflowClient.log_artifact

    def noted(self: MlflowClient, run_id: str, path: str, *arguments: Any) -> None:
        sent.append(Path(path).name)
        log(self, run_id, path, *arguments)

    monkeypatch.setattr(MlflowClient, "log_artifact", noted)

    def killed() -> None:
        with started(world, folder) as run:
            for count in (1, 2):
                pictures(folder, count)
                (folder / "pictures/.partial-of-a-kill.png").touch()
                run.log(ROWS[:count])
            assert curves(world, run.id, tmp_path) == b"curves of 2"
            raise SystemExit(143)

    with pytest.raises(SystemExit):
        killed()
    with started(world, folder) as run:
        pictures(folder, 4)
        run.finish(ROWS)
    assert artifacts(world, run.id) == [f"pictures/epoch-{epoch:04}.png" for epoch in range(4)]
    assert curves(world, run.id, tmp_path) == b"curves of 4"
    assert [name for name in sent if name != "training.png"] == [f"epoch-{epoch:04}.png" for epoch in range(4)]
    assert sent.count("training.png") == 3


@pytest.mark.parametrize("deaf", [False, True])
def test_pictures_wait_for_a_server_that_is_away(
    deaf: bool, world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAIT_AT_END", 0.0)
    with started(world, folder) as run:
        pictures(folder, 1)
        run.log(ROWS[:1])
        run._client = Away(world.client, deaf=deaf)
        pictures(folder, 4)
        run.finish(ROWS)
    assert artifacts(world, run.id) == ["pictures/epoch-0000.png"]
    send_rest(world.config, folder, LEFT)
    assert artifacts(world, run.id) == [f"pictures/epoch-{epoch:04}.png" for epoch in range(4)]
    assert losses(world, run.id) == WANTED


def test_a_store_that_takes_no_pictures_keeps_no_epoch_back(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Artifacts may lie elsewhere than metrics, and the training have no right to write there."""

    def refused(*_: Any) -> None:
        raise PermissionError("read-only store of http://me:hush@host/mlflow")

    pictures(folder, 4)
    with monkeypatch.context() as patch, started(world, folder) as run:
        patch.setattr(MlflowClient, "log_artifact", refused)
        for count in (2, 3):
            run.log(ROWS[:count])
        run.finish(ROWS)
    said = capsys.readouterr().err
    assert f"{folder / 'pictures/epoch-0000.png'}: MLflow's artifact store does not take it (PermissionError: " in said
    assert "http://***@host" in said
    assert "hush" not in said
    assert said.count("read-only store") == 2  # asked again at the end only, since asking may take long
    assert losses(world, run.id) == WANTED
    assert world.client.get_run(run.id).info.status == "FINISHED"
    send_rest(world.config, folder, LEFT)
    assert len(artifacts(world, run.id)) == 4
    assert read_json(folder / RUN)["ended"]


def test_an_epoch_may_have_more_numbers_than_one_request_takes(world: World, folder: Path) -> None:
    """Unrolled networks have hundreds of routers."""
    many = {f"router/{number}": float(number) for number in range(2100)}
    with started(world, folder) as run:
        run.finish([{**ROWS[0], **many}])
    metrics = world.client.get_run(run.id).data.metrics
    assert metrics == {**many, "train/loss": 1.0, "val/loss": 0.0}

"""The registry and the promotion on what a team runs: MLflow on PostgreSQL, artifacts behind it in S3."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest
import requests

from condswin.errors import GateError
from condswin.files import read_json
from condswin.registry import lock, tracking
from condswin.registry import training_run as training_run_module
from condswin.registry.aliases import CHALLENGER, CHAMPION, LAST_CHAMPION, PREVIOUS, move_champion
from condswin.registry.lock import PREFIX, promotion_lock
from condswin.registry.package import Logged, load_registered
from condswin.registry.tracking import TrackingError
from condswin.registry.training_run import send_rest, training_run
from condswin.steps import promote as module
from condswin.steps.approve import approve, freeze, history
from condswin.steps.promote import rollback
from condswin.steps.register import log_package
from tests.registry.race import promote_at_once
from tests.registry.toy import NAME, World, plain_tags
from tests.services.conftest import Bucket, MlflowServer

pytest_plugins = ["tests.registry.fixtures", "tests.services.team"]
pytestmark = pytest.mark.services

RACER = """
import sys, time
from pathlib import Path
import pytest
from condswin.errors import GateError
from condswin.registry.smoke import Smoke
from condswin.steps import promote as module
from condswin.steps.approve import approve, freeze, history
from tests.registry.toy import install, make_config
install(pytest.MonkeyPatch())
uri, registered, prepared, me, other = sys.argv[1:]
module.smoke = lambda *_, **__: Smoke([], 1.0)
real = module.evaluate_split
def together(*arguments):
    rows = real(*arguments)
    Path(me + ".ready").touch()
    while not Path(other + ".ready").exists():
        time.sleep(0.01)
    return rows
module.evaluate_split = together
try:
    paths = (Path(registered), Path(prepared), Path(me + ".json"))
    print(module.promote(make_config(uri), "reconstruction", *paths).champion)
except GateError as error:
    print(error)
    sys.exit(3)
"""


def test_register_promote_load_and_roll_back(team: World, s3: Bucket, mlflow_server: MlflowServer) -> None:
    first = team.register(0.5)
    assert team.promote(first)[0]  # with the clean process, which has no keys either
    team.register(0.5)
    better = team.register(0.9)
    assert read_json(better)["version"] == "2"  # registering the first again made no version
    promoted, record = team.promote(better)
    assert (promoted, record["champion"], record["previous"]) == (True, "2", "1")
    assert team.aliases() == {CHALLENGER: "2", CHAMPION: "2", PREVIOUS: "1"}
    written = (team.folder / "promotion.json").read_bytes()
    assert team.promote(better)[0]
    assert (team.folder / "promotion.json").read_bytes() == written
    model, _ = load_registered(f"models:/{NAME}@{CHAMPION}", team.config)
    assert model.projection[-2].bias[0].item() == pytest.approx(0.9)
    assert rollback(team.config, "reconstruction").champion == "1"
    model, _ = load_registered(f"models:/{NAME}@{CHAMPION}", team.config)
    assert model.projection[-2].bias[0].item() == pytest.approx(0.5)

    keys = [entry["Key"] for entry in s3.client().list_objects_v2(Bucket=s3.name)["Contents"]]
    assert [key for key in keys if key.endswith("model.safetensors")]
    assert not [key for key in keys if key.endswith((".pkl", ".pickle", ".pth", ".pt"))]
    # Nobody reads the bucket without its keys.
    assert requests.get(f"{s3.endpoint}/{s3.name}/{keys[0]}", timeout=10).status_code == 403


def test_a_challenger_is_held_approved_and_frozen(team: World, quick_smoke: None) -> None:
    assert team.promote(team.register(0.5))[1]["outcome"] == "promoted"
    team.provenance = {"params_sha256": "f" * 64}  # the same weights by another training
    equal = team.promote(team.register(0.5))[1]
    assert (equal["version"], equal["outcome"]) == ("2", "refused")
    assert "gain +0 (the same of each)" in equal["reasons"][0]
    best = team.register(0.95)
    assert team.promote(best, patients=99)[1]["outcome"] == "undecided"
    assert team.promote(best, hold=True)[1]["outcome"] == "held"
    freeze(team.config, "reconstruction", by="Jane", why="audit")
    with pytest.raises(GateError, match="frozen since"):
        approve(team.config, "reconstruction", "3", by="Jane", why="fine")
    freeze(team.config, "reconstruction", by="Jane", why="audit passed", lift=True)
    assert [approve(team.config, "reconstruction", "3", by="Jane", why="fine").changed for _ in "12"] == [True, False]
    assert team.aliases() == {CHALLENGER: "3", CHAMPION: "3", PREVIOUS: "1"}
    events = [(event["version"], event["event"]) for event in history(team.config, "reconstruction")]
    assert [event for event in events if event[1] != "registered"].count(("3", "promoted")) == 1
    assert {("2", "refused"), ("", "frozen"), ("", "lifted")} <= set(events)


def test_two_promotions_race_and_one_wins(team: World, quick_smoke: None, mlflow_server: MlflowServer) -> None:
    team.promote(team.register(0.5))
    rivals = {version: team.register(bias) for version, bias in (("2", 0.7), ("3", 0.9))}
    command = [sys.executable, "-c", RACER, mlflow_server.uri]
    marks = {version: str(team.folder / f"racer-{version}") for version in rivals}
    racers = {
        version: subprocess.Popen(
            [*command, str(path), str(team.prepared), marks[version], marks["3" if version == "2" else "2"]],
            stdout=subprocess.PIPE,
            text=True,
        )
        for version, path in rivals.items()
    }
    outputs = {version: racer.communicate(timeout=180)[0] for version, racer in racers.items()}
    assert sorted(racer.returncode for racer in racers.values()) == [0, 3], outputs
    winner, loser = ("2", "3") if racers["2"].returncode == 0 else ("3", "2")
    assert team.aliases() == {CHALLENGER: "3", CHAMPION: winner, PREVIOUS: "1"}
    assert read_json(Path(f"{marks[winner]}.json"))["promoted"] is True
    assert not Path(f"{marks[loser]}.json").exists()
    assert f"moved from version 1 to version {winner} while version {loser}" in outputs[loser]


def test_the_lock_works_through_the_server(team: World, monkeypatch: pytest.MonkeyPatch) -> None:
    team.register(0.5)
    monkeypatch.setattr(lock, "WAIT_AT_MOST", 0.5)
    refused = pytest.raises(GateError, match="other processes have been changing it")
    with promotion_lock(team.client, NAME), refused, promotion_lock(team.client, NAME):
        raise AssertionError("entered twice")
    with promotion_lock(team.client, NAME):
        pass


def test_one_of_six_promoters_wins_beside_dead_ones(team: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LEASE", 8.0)
    client = team.client
    team.register(0.5)
    source = client.get_model_version(NAME, "1").source
    copies = [mlflow.register_model(source, NAME) for _ in range(6)]
    move_champion(client, NAME, "1", expected=None, record={})
    for dead in ("0" * 32, "f" * 32):
        client.set_registered_model_tag(NAME, f"{PREFIX}{dead}.1", "")
    (winner,) = promote_at_once(lambda: team.client, [str(copy.version) for copy in copies], "1")
    assert team.aliases() == {CHALLENGER: "1", CHAMPION: winner, PREVIOUS: "1"}
    assert plain_tags(client) == {LAST_CHAMPION: winner}


def test_a_server_that_stops_midway(
    team: World, quick_smoke: None, mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "PATIENCE", 8.0)
    team.promote(team.register(0.5))
    registered = team.register(0.9)
    before = team.aliases()
    (team.folder / "promotion.json").unlink()
    real = module.evaluate_split

    def server_dies(*arguments: Any) -> Any:
        rows = real(*arguments)
        mlflow_server.stop()
        return rows

    try:
        with monkeypatch.context() as patch:
            patch.setattr(module, "evaluate_split", server_dies)
            with pytest.raises(TrackingError, match=mlflow_server.uri):
                team.promote(registered)
        started = time.monotonic()
        with pytest.raises(TrackingError, match="cannot be reached"):
            team.register(0.7)
        assert time.monotonic() - started < 15
        assert not (team.folder / "promotion.json").exists()
        assert not (team.folder / "registered-0.7.json").exists()
        assert not list(team.folder.glob(".partial*"))
    finally:
        mlflow_server.start()
    assert team.aliases() == before
    promoted, record = team.promote(registered)
    assert (promoted, record["champion"], record["previous"]) == (True, "2", "1")


def test_a_server_that_stops_while_a_network_is_logged(
    team: World, mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "PATIENCE", 8.0)

    def server_dies(*arguments: Any) -> Logged:
        logged = log_package(*arguments)
        mlflow_server.stop()
        return logged

    try:
        with monkeypatch.context() as patch:
            patch.setattr("condswin.steps.register.log_package", server_dies)
            with pytest.raises(TrackingError, match=mlflow_server.uri):
                team.register(0.5)
    finally:
        mlflow_server.start()
    assert not (team.folder / "registered-0.5.json").exists()
    assert team.client.search_registered_models() == []
    team.register(0.5)
    assert team.aliases() == {CHALLENGER: "1"}


def test_a_server_that_is_away_while_a_network_is_trained(
    team: World, mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every epoch arrives once; gone for good, the training ends well within a minute and says how to send the rest."""
    monkeypatch.setattr(training_run_module, "RETRY_AFTER", 0.0)
    monkeypatch.setattr(training_run_module, "WAIT_AT_END", 3.0)
    monkeypatch.setattr(tracking, "PATIENCE", 8.0)
    folder = team.folder / "checkpoints" / "key"
    rows = [{"epoch": epoch, "train/loss": 1.0 + epoch} for epoch in range(4)]

    def sent() -> list[int]:
        return [each.step for each in team.client.get_metric_history(run.id, "train/loss")]

    try:
        with training_run(team.config, "train", tags={}, parameters={}, folder=folder) as run:
            run.log(rows[:1])
            mlflow_server.stop()
            run.log(rows[:2])
            assert "does not take all of epoch 1" in capsys.readouterr().err
            mlflow_server.start()
            run.log(rows[:3])
            assert sent() == [0, 1, 2]
            mlflow_server.stop()
            started = time.monotonic()
            run.finish(rows)
            assert time.monotonic() - started < 60
        assert "the same command again trains nothing" in capsys.readouterr().err
    finally:
        mlflow_server.start()
    send_rest(team.config, folder, {"weights_sha256": "a" * 64})
    assert sent() == [0, 1, 2, 3]
    assert team.client.get_run(run.id).info.status == "FINISHED"

"""What MLflow has of a training beside its epochs."""

import json
from pathlib import Path

import pytest
import requests
from mlflow import MlflowClient

from condswin.files import read_json, write_json
from condswin.registry.linked import send_evaluations, send_report, training_of
from condswin.registry.training_run import training_run
from tests.registry.toy import World

pytest_plugins = ["tests.registry.fixtures"]

KEYS = {"params_sha256": "1" * 64, "data_sha256": "2" * 64}


def trained(world: World, name: str, weights: str | None) -> str:
    folder = world.folder / "checkpoints" / name
    tags = {"step": "train", **KEYS}
    with training_run(world.config, "train", tags=tags, parameters={}, folder=folder) as run:
        run.finish([{"epoch": 0, "train/loss": 1.0}], {"weights_sha256": weights, "device": "cpu"} if weights else {})
    return str(run.id)


def test_the_run_of_a_network_is_the_one_that_left_its_weights(world: World) -> None:
    assert training_of(world.client, **KEYS, weights_sha256="a") is None
    silent = trained(world, "cut off", None)
    right, _ = trained(world, "first", "a"), trained(world, "second", "b")
    found = training_of(world.client, **KEYS, weights_sha256="a")
    assert found is not None
    assert (found.run_id, found.device) == (right, "cpu")
    assert found.hours is not None
    assert 0 <= found.hours < 0.1
    other = training_of(world.client, **KEYS, weights_sha256="c")
    assert other is not None
    assert (other.run_id, other.device) == (silent, "unknown")  # not one that left other weights
    assert (found.certain, other.certain) == (True, False)
    assert training_of(world.client, **{**KEYS, "data_sha256": "3"}, weights_sha256="a") is None


def evaluation(world: World, name: str, **facts: str) -> Path:
    summary = {"mean": 20.5, "std": 1.0, "low": 19.0, "high": 22.0, "cases": 3}
    values = {"task": "reconstruction", **KEYS, **facts, "val": {"psnr": summary}, "test": {"psnr": summary}}
    write_json(world.folder / "evaluation" / name / "metrics.json", values)
    return world.folder / "evaluation"


@pytest.mark.parametrize("duplicates", [[], [["Jane", "Jane again"]]])
def test_scores_pictures_and_data_card_are_on_the_run_of_each_network_once(
    duplicates: list[list[str]], world: World
) -> None:
    runs = [trained(world, name, weights) for name, weights in (("swin", "a"), ("light", "b"))]
    evaluation(world, "light", weights_sha256="b")
    evaluation(world, "old", weights_sha256="b", data_sha256="9" * 64)
    evaluation(world, "classic", params_sha256="")  # a reference method
    folder = evaluation(world, "swin", weights_sha256="a")
    card = world.folder / "card"
    write_json(card / "card.json", {"cases": 3, "duplicates": duplicates})
    (card / "card.html").write_text("<html>")

    def send() -> list[str]:
        return send_evaluations(world.client, folder, KEYS["data_sha256"], card, lambda _: {"worst.png": b"png"})

    assert sorted(send()) == sorted(runs)
    assert send() == []  # nothing is new
    for run_id in runs:
        run = world.client.get_run(run_id)
        ends = {f"{split}_psnr{end}" for split in ("val", "test") for end in ("", "_low", "_high")}
        assert set(run.data.metrics) == {*ends, "train/loss"}
        assert run.data.metrics["test_psnr_low"] == 19.0
        (given,) = run.inputs.dataset_inputs
        assert json.loads(given.dataset.source)["data_sha256"] == KEYS["data_sha256"]
        assert given.tags[0].value == "evaluation"
        kept = [entry.path for entry in world.client.list_artifacts(run_id, "evaluation")]
        assert sorted(kept) == ["evaluation/metrics.json", "evaluation/worst.png"]
        pages = {entry.path for entry in world.client.list_artifacts(run_id, "data-card")}
        assert pages == (set() if duplicates else {"data-card/card.html", "data-card/card.json"})
    values = read_json(folder / "swin" / "metrics.json")
    write_json(folder / "swin" / "metrics.json", {**values, "val": {}})
    assert send() == runs[:1]


def test_a_run_that_does_not_say_which_weights_it_left_gets_no_scores(world: World) -> None:
    silent = trained(world, "cut off", None)
    folder = evaluation(world, "swin", weights_sha256="a")
    assert send_evaluations(world.client, folder, KEYS["data_sha256"], world.folder / "card", lambda _: {}) == []
    assert set(world.client.get_run(silent).data.metrics) == {"train/loss"}


def test_a_report_that_does_not_arrive_tells_no_password(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object) -> None:
        raise requests.HTTPError("401 Client Error for url: http://me:hush@127.0.0.1:5000/api")

    monkeypatch.setattr(MlflowClient, "log_artifact", refused)
    write_json(world.folder / "registered.json", {"run_id": "a"})
    send_report(world.config, world.folder / "registered.json", world.folder / "report.html")
    said = capsys.readouterr().err
    assert "http://***@127.0.0.1:5000/api" in said
    assert "hush" not in said

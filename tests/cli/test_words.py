"""What people say about a champion, as commands that may be repeated."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from condswin.config.profiles import compose, write_config
from condswin.registry.tracking import tracking_uri
from tests.registry.toy import World
from tests.test_cli import condswin

pytest_plugins = ["tests.registry.fixtures"]


def test_each_word_is_said_once_and_told_as_json(
    world: World, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    write_config(compose(["demo"]), folder / "params.yaml", comment="demo")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(world.config))
    person = ("--by", "Jane", "--why", "audit")

    def told(*command: str) -> list[tuple[bool, str]]:
        answers = [json.loads(condswin(*command, "--json", cwd=folder)) for _ in range(2)]
        assert [answer["champion"] for answer in answers] == [None, None]
        return [(answer["changed"], answer["text"].split(" at 2")[0].split(" since 2")[0]) for answer in answers]

    task = "reconstruction"
    assert told("freeze", task, *person) == [
        (True, "the champion is frozen"), (False, "nothing to do, the champion is frozen"),
    ]  # fmt: skip
    assert told("freeze", task, "--lift", *person) == [
        (True, "the champion moves again"), (False, "nothing to do, the champion is not frozen"),
    ]  # fmt: skip
    assert told("reject", task, "2", *person) == [
        (True, "version 2 is rejected"), (False, "nothing to do, version 2 was rejected"),
    ]  # fmt: skip
    assert condswin("freeze", task, *person, cwd=folder) == "the champion is frozen\n"
    assert "champion is none" in condswin("rollback", task, "--json", cwd=folder, code=1)

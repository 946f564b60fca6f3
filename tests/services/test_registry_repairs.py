"""What goes wrong at a registry on PostgreSQL and S3: processes that are killed, and what others do to it."""

import re
import shutil
import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow import MlflowClient
from sqlalchemy import create_engine, text

from condswin.errors import GateError
from condswin.files import read_json
from condswin.registry.aliases import APPROVAL, CHALLENGER, CHAMPION, PREVIOUS, freeze
from condswin.registry.events import events
from condswin.registry.package import PACKAGE
from condswin.registry.smoke import Smoke
from condswin.steps.approve import history
from condswin.steps.promote import rollback
from tests.registry.toy import (
    NAME,
    World,
    install,
    leave_out_code,
    make_config,
    make_prepared,
    plain_tags,
)
from tests.services.children import COMMANDS, Child, forget_leases
from tests.services.conftest import MlflowServer

pytest_plugins = ["tests.registry.fixtures", "tests.services.team"]
pytestmark = [pytest.mark.services, pytest.mark.usefixtures("few_files")]

#: What tells two runs of one command apart: times, checksums of packages that name their runs, and the checkout.
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00")
OWN = (PACKAGE, "registered_by_commit")  # a commit may be made while this runs
#: The state of a registry that a command begins with; see `states`.
BEGIN_WITH = {
    "register": "champion",
    "roll back": "promoted",
    "freeze": "champion",
    "lift": "frozen",
    "approve": "held",
    "reject": "held",
}

#: How many writes each command makes on a database file.
WRITES = {
    "register": 16,
    "promote": 9,
    "refuse": 3,
    "hold": 3,
    "approve": 9,
    "reject": 3,
    "roll back": 7,
    "freeze": 4,
    "lift": 4,
    "hold approved": 9,
}


def told(world: World) -> dict[str, Any]:
    """All that a registry tells people of a model, but for times."""
    client = world.client
    facts = ("event", "version", "previous", "by", "why")
    versions = {}
    for entry in client.search_model_versions(f"name = '{NAME}'"):
        tags = {key: TIME.sub("then", value) for key, value in entry.tags.items() if key not in OWN}
        ended = client.get_run(entry.run_id).info.status
        versions[str(entry.version)] = (entry.status, ended, TIME.sub("then", entry.description), tags)
    return {
        "description": client.get_registered_model(NAME).description,
        "aliases": world.aliases(),
        "tags": {key: TIME.sub("then", value) for key, value in plain_tags(client).items()},
        "events": [[each.get(fact) for fact in facts] for each in events(client, NAME)],
        "versions": versions,
    }


def killed_at_each_write(command: str, fresh: Callable[[], World], *, wait_at: int = 0) -> int:
    """Kills a command before each of its writes in turn, and has the same command run again; returns their number.

    Args:
        command: Of `COMMANDS`.
        fresh: Makes a registry in the state that the command begins with.
        wait_at: The write at which the lease of the process that was killed is left to run out.
    """
    world = fresh()
    undisturbed = Child(command, world).ended()["answer"]
    expected = told(world)
    for number in count(1):
        world = fresh()
        child = Child(command, world, end_before=number)
        ended = child.ended()
        if "answer" in ended:
            return number - 1
        assert child.process.exitcode == -signal.SIGKILL, (number, ended)
        assert world.aliases()[CHAMPION] in {"1", "2"}
        if number != wait_at:
            forget_leases(world)
        ended = Child(command, world).ended()
        assert told(world) == expected, (number, ended)
        if command in ("register", "promote", "refuse", "hold"):
            assert ended == {"answer": undisturbed}
    raise AssertionError


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> dict[str, World]:
    """A registry on a database file in its states, the files of all in one folder."""
    folder = tmp_path_factory.mktemp("states")
    make_prepared(folder / "prepared")
    begun: dict[str, World] = {}
    with pytest.MonkeyPatch.context() as patch:
        install(patch)
        leave_out_code(patch)
        patch.setattr("condswin.steps.promote.smoke", lambda *_, **__: Smoke([], 1.0))
        world = World(folder, make_config(f"sqlite:///{folder}/mlflow.db"))
        shutil.copyfile(empty_database, world.database)

        def keep(name: str) -> None:
            copy = folder / f"{name.replace(' ', '-')}.db"
            shutil.copyfile(world.database, copy)
            begun[name] = World(folder, make_config(f"sqlite:///{copy}"))

        world.promote(world.register(0.5))
        keep("champion")
        registered = world.register(0.9)
        keep("registered")
        world.promote(registered, hold=True)
        keep("held")
        world.client.set_model_version_tag(NAME, "2", APPROVAL, "approved by Jane: fine")
        keep("approved")
        world.promote(registered, hold=True)
        keep("promoted")
        freeze(world.client, NAME, by="Jane", why="audit")
        keep("frozen")
    return begun


@pytest.mark.parametrize("command", [*COMMANDS, "hold approved"])
def test_a_command_that_is_killed_between_any_two_writes_is_repaired_by_the_next_run(
    command: str, states: dict[str, World], tmp_path: Path
) -> None:
    begun = states["approved" if command == "hold approved" else BEGIN_WITH.get(command, "registered")]
    copies = count()

    def fresh() -> World:
        copy = tmp_path / f"{next(copies)}.db"
        shutil.copyfile(begun.database, copy)
        return World(begun.folder, make_config(f"sqlite:///{copy}"))

    writes = killed_at_each_write(command.partition(" approved")[0], fresh, wait_at=4 if command == "promote" else 0)
    assert writes == WRITES[command]


def test_a_promotion_that_is_killed_between_any_two_requests_is_repaired_by_the_next_run(
    team: World, quick_smoke: None
) -> None:
    team.promote(team.register(0.5))
    team.register(0.9)
    client = team.client
    model = client.get_registered_model(NAME)
    versions = sorted(client.search_model_versions(f"name = '{NAME}'"), key=lambda entry: int(entry.version))

    def fresh() -> World:
        client.delete_registered_model(NAME)
        client.create_registered_model(NAME, model.tags, model.description)
        for entry in versions:
            known = {"tags": entry.tags, "description": entry.description}
            model_id = entry.source.removeprefix("models:/")
            client.create_model_version(NAME, entry.source, entry.run_id, model_id=model_id, **known)
        for alias, version in model.aliases.items():
            client.set_registered_model_alias(NAME, alias, version)
        return team

    assert killed_at_each_write("promote", fresh) >= 9


def test_a_champion_that_is_deleted_through_the_server(
    team: World,
    mlflow_server: MlflowServer,
    quick_smoke: None,
) -> None:
    team.promote(team.register(0.5))
    team.promote(team.register(0.7))
    better = team.register(0.9)
    address = f"{mlflow_server.uri}/api/2.0/mlflow/model-versions/delete"
    assert requests.delete(address, json={"name": NAME, "version": "2"}, timeout=30).ok
    with pytest.raises(GateError, match="champion version 2 was deleted, so there is nothing to compare with"):
        team.promote(better)
    assert [rollback(team.config, "reconstruction").changed for _ in range(2)] == [True, False]
    assert team.promote(better)[1]["previous"] == "1"


def test_an_alias_that_points_nowhere_is_an_error(
    team: World,
    mlflow_server: MlflowServer,
    quick_smoke: None,
) -> None:
    team.promote(team.register(0.5))
    better = team.register(0.9)
    engine = create_engine(mlflow_server.database)
    with engine.begin() as database:
        database.execute(text("update registered_model_aliases set version = 99 where alias = 'champion'"))
    engine.dispose()
    with pytest.raises(GateError, match="the alias 'champion' points at version 99, which does not exist"):
        team.promote(better)
    team.client.set_registered_model_alias(NAME, CHAMPION, "1")
    assert team.promote(better)[0]


def test_aliases_that_a_search_leaves_out_are_not_missed(
    team: World,
    quick_smoke: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = MlflowClient.search_model_versions

    def forgetful(*arguments: Any, **options: Any) -> Any:
        found = real(*arguments, **options)
        for version in found:
            version._aliases = []
        return found

    monkeypatch.setattr(MlflowClient, "search_model_versions", forgetful)
    team.promote(team.register(0.5))
    team.promote(team.register(0.9))
    assert team.aliases() == {CHALLENGER: "2", CHAMPION: "2", PREVIOUS: "1"}
    assert read_json(team.register(0.9))["version"] == "2"
    assert rollback(team.config, "reconstruction").champion == "1"
    happened = history(team.config, "reconstruction")
    assert ("2", "rolled back") in {(event["version"], event["event"]) for event in happened}

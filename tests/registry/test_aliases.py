import json
import sqlite3
from functools import partial

import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from condswin.errors import GateError
from condswin.registry.aliases import (
    CHAMPION,
    LAST_CHAMPION,
    PREVIOUS,
    PREVIOUS_CHAMPION,
    PROMOTED_AT,
    RECORD,
    REJECTED,
    ROLLED_BACK,
    aliased,
    current_champion,
    move_champion,
    note_rejection,
    reject,
    roll_back,
)
from condswin.registry.lock import PREFIX
from condswin.registry.tracking import tracking_uri
from tests.registry.race import race
from tests.registry.toy import NAME, World, die_at, plain_tags

pytest_plugins = ["tests.registry.fixtures"]

RACER = """
import condswin.registry
from mlflow import MlflowClient
from condswin.errors import GateError
from condswin.registry.aliases import move_champion

uri, version = arguments
client = MlflowClient(uri, registry_uri=uri)
client.get_registered_model("condswin-reconstruction")
line_up()
try:
    move_champion(client, "condswin-reconstruction", version, expected="1", record={})
except GateError as error:
    print(error)
    sys.exit(3)
"""


def state(client: MlflowClient) -> tuple[str | None, str | None]:
    return aliased(client, NAME, CHAMPION), aliased(client, NAME, PREVIOUS)


def crown(client: MlflowClient, *versions: str) -> None:
    for version in versions:
        move_champion(client, NAME, version, expected=aliased(client, NAME, CHAMPION), record={"promoted": True})


def test_moving_the_champion_is_journaled(client: MlflowClient) -> None:
    assert current_champion(client, NAME) is None
    crown(client, "1")
    assert state(client) == ("1", None)
    crown(client, "2")
    assert state(client) == ("2", "1")
    tags = client.get_model_version(NAME, "2").tags
    assert tags[PREVIOUS_CHAMPION] == "1"
    assert tags[PROMOTED_AT].endswith("+00:00")
    assert json.loads(tags[RECORD]) == {"promoted": True}
    assert plain_tags(client) == {LAST_CHAMPION: "2"}  # and no lease


def test_a_champion_that_moved_meanwhile_stops_the_promotion(client: MlflowClient) -> None:
    crown(client, "1", "2")
    with pytest.raises(GateError, match="moved from version 1 to version 2 while version 3"):
        move_champion(client, NAME, "3", expected="1", record={})
    assert state(client) == ("2", "1")
    assert RECORD not in client.get_model_version(NAME, "3").tags
    move_champion(client, NAME, "2", expected="1", record={})  # the same promotion twice at once
    assert state(client) == ("2", "1")


def test_a_version_that_was_rejected_or_rolled_back_while_it_was_judged_stays_out(client: MlflowClient) -> None:
    crown(client, "1")
    reject(client, NAME, "2", by="Jane", why="smooths tears")
    with pytest.raises(
        GateError, match=r"nothing was changed: version 2 was rejected at 20.* by Jane \(smooths tears\)"
    ):
        crown(client, "2")
    crown(client, "3")
    roll_back(client, NAME, lambda _: None)
    with pytest.raises(GateError, match="nothing was changed: version 3 was rolled back at 20"):
        crown(client, "3")
    assert state(client) == ("1", None)
    assert RECORD not in client.get_model_version(NAME, "2").tags
    client.delete_model_version_tag(NAME, "2", REJECTED)
    client.delete_model_version_tag(NAME, "3", ROLLED_BACK)
    crown(client, "2", "3")
    assert state(client) == ("3", "2")


def test_a_rejection_does_not_replace_the_record_of_a_champion(client: MlflowClient) -> None:
    note_rejection(client, NAME, "1", {"promoted": False})
    assert json.loads(client.get_model_version(NAME, "1").tags[RECORD]) == {"promoted": False}
    crown(client, "1")
    with pytest.raises(GateError, match="version 1 became champion while it was judged and rejected"):
        note_rejection(client, NAME, "1", {"promoted": False})
    assert json.loads(client.get_model_version(NAME, "1").tags[RECORD]) == {"promoted": True}


@pytest.mark.parametrize("promoted", [True, False])
def test_no_record_is_written_after_others_have_taken_over(
    promoted: bool, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    crown(client, "1")
    write = partial(move_champion, expected="1", record={}) if promoted else partial(note_rejection, record={})

    def taken_over(name: str, _: str) -> ModelVersion:
        for tag in client.get_registered_model(NAME).tags:
            if tag.startswith(PREFIX):
                client.delete_registered_model_tag(NAME, tag)
        return client.get_model_version(name, "1")

    monkeypatch.setattr(client, "get_model_version_by_alias", taken_over)
    with pytest.raises(GateError, match="another one took over"):
        write(client, NAME, "2")
    assert RECORD not in client.get_model_version(NAME, "2").tags


def test_an_alias_that_another_program_sets_is_noticed(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    crown(client, "1")
    real = MlflowClient.set_registered_model_alias

    def interfere(self: MlflowClient, name: str, alias: str, version: str) -> None:
        real(self, name, alias, "4" if alias == CHAMPION else version)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", interfere)
    with pytest.raises(GateError, match="set to version 2, but is version 4"):
        crown(client, "2")


def test_two_processes_race_and_one_wins(world: World, client: MlflowClient) -> None:
    crown(client, "1")
    ended = race(RACER, [[tracking_uri(world.config), version] for version in ("2", "3")], world.folder)
    assert sorted(racer.returncode for racer in ended) == [0, 3], ended
    winner = "2" if ended[0].returncode == 0 else "3"
    assert state(client) == (winner, "1")
    assert f"moved from version 1 to version {winner}" in "".join(racer.stdout for racer in ended)


def test_rolling_back_twice_goes_back_once_and_further_where_it_is_asked_for(client: MlflowClient) -> None:
    crown(client, "1", "2", "4")
    tried: list[str] = []
    assert roll_back(client, NAME, tried.append) == (True, "2", "champion is version 2 again")
    assert (state(client), tried) == (("2", "1"), ["2"])
    assert json.loads(client.get_model_version(NAME, "4").tags[ROLLED_BACK])["to"] == "2"
    said = "nothing to do, champion is version 2 since version 4 was rolled back; `--from 2` leaves that, too"
    for leaving in (None, "4"):
        assert roll_back(client, NAME, tried.append, leaving=leaving) == (False, "2", said)
    assert (state(client), tried) == (("2", "1"), ["2"])
    with pytest.raises(GateError, match="champion is version 2, not version 1; nothing was changed"):
        roll_back(client, NAME, tried.append, leaving="1")
    assert roll_back(client, NAME, tried.append, leaving="2") == (True, "1", "champion is version 1 again")
    assert state(client) == ("1", None)
    with pytest.raises(GateError, match="champion is version 1, and there is no champion before it"):
        roll_back(client, NAME, tried.append, leaving="1")


def test_what_was_promoted_again_after_a_roll_back_to_it_is_rolled_back(client: MlflowClient) -> None:
    crown(client, "1", "2", "3")
    roll_back(client, NAME, lambda _: None)
    roll_back(client, NAME, lambda _: None, leaving="2")
    client.delete_model_version_tag(NAME, "2", ROLLED_BACK)
    move_champion(client, NAME, "2", expected="1", record={"promoted": True, "decided_at": "2999-01-01T00:00:00+00:00"})
    assert roll_back(client, NAME, lambda _: None) == (True, "1", "champion is version 1 again")


@pytest.mark.parametrize("year", ["1999", "2999"])
def test_rolling_back_twice_goes_back_once_whatever_clocks_say(
    year: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decisions are of another machine than the roll-back, and its clock is wrong."""
    for number, version in enumerate(("1", "2", "3"), start=1):
        record = {"promoted": True, "decided_at": f"{year}-01-01T00:00:0{number}+00:00"}
        move_champion(client, NAME, version, expected=aliased(client, NAME, CHAMPION), record=record)
    for changed in (True, False, False):
        answer = roll_back(client, NAME, lambda _: None)
        assert (answer.changed, answer.champion) == (changed, "2")
        assert state(client) == ("2", "1")
    # The same where nobody noted on a version that it was left, since it is gone.
    client.delete_model_version(NAME, "2")
    for changed in (True, False):
        assert roll_back(client, NAME, lambda _: None)[:2] == (changed, "1")
    client.delete_model_version_tag(NAME, "3", ROLLED_BACK)
    for version in ("3", "1"):
        record = {"promoted": True, "decided_at": f"{year}-02-02T00:00:0{version}+00:00"}
        move_champion(client, NAME, version, expected=aliased(client, NAME, CHAMPION), record=record)
    assert roll_back(client, NAME, lambda _: None)[:2] == (True, "3")  # promoted anew since


def test_nothing_changes_if_the_predecessor_does_not_work(client: MlflowClient) -> None:
    crown(client, "1", "2")

    def broken(version: str) -> None:
        raise GateError(f"version {version} is broken")

    with pytest.raises(GateError, match="version 1 is broken"):
        roll_back(client, NAME, broken)
    assert state(client) == ("2", "1")
    assert ROLLED_BACK not in client.get_model_version(NAME, "2").tags


def test_a_roll_back_gives_way_to_a_promotion(client: MlflowClient) -> None:
    crown(client, "1", "2")
    with pytest.raises(GateError, match="moved while version 1 was tried out"):
        roll_back(client, NAME, lambda _: crown(client, "3"))
    assert state(client) == ("3", "2")


@pytest.mark.parametrize("fails_at", range(1, 4))
def test_an_interrupted_roll_back_is_completed(
    fails_at: int, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    crown(client, "1", "2", "3")
    with monkeypatch.context() as patch:
        die_at(fails_at, patch)
        with pytest.raises(KeyboardInterrupt):
            roll_back(client, NAME, lambda _: None)
    assert aliased(client, NAME, CHAMPION) == "3"
    for changed in (True, False):
        assert roll_back(client, NAME, lambda _: None)[:2] == (changed, "2")
        assert state(client) == ("2", "1")


def test_a_promotion_interrupted_between_its_aliases(client: MlflowClient) -> None:
    crown(client, "1", "2")
    client.set_registered_model_alias(NAME, PREVIOUS, "2")  # and then the process died
    assert roll_back(client, NAME, lambda _: None)[:2] == (True, "1")
    assert state(client) == ("1", None)


def test_a_deleted_champion_is_told_from_none(client: MlflowClient) -> None:
    crown(client, "1", "2")
    client.delete_model_version(NAME, "2")
    with pytest.raises(GateError, match="champion version 2 was deleted"):
        current_champion(client, NAME)
    assert roll_back(client, NAME, lambda _: None)[:2] == (True, "1")
    again = roll_back(client, NAME, lambda _: None)
    assert (again.changed, again.champion) == (False, "1")
    assert "since the one before it was deleted" in again.text
    assert current_champion(client, NAME) == "1"
    client.delete_registered_model_alias(NAME, CHAMPION)  # on purpose
    assert current_champion(client, NAME) is None


def test_an_alias_that_points_nowhere_is_an_error_and_not_no_champion(world: World, client: MlflowClient) -> None:
    crown(client, "1", "2")
    with sqlite3.connect(world.database) as database:
        database.execute("update registered_model_aliases set version = 99 where alias = 'champion'")
    database.close()
    nowhere = pytest.raises(GateError, match="the alias 'champion' points at version 99, which does not exist")
    with nowhere:
        current_champion(client, NAME)
    with nowhere:
        crown(client, "3")
    with nowhere:
        roll_back(client, NAME, lambda _: None)
    client.delete_registered_model_alias(NAME, CHAMPION)
    assert roll_back(client, NAME, lambda _: None)[:2] == (True, "1")

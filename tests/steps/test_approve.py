import json
from typing import Any

import pytest

from condswin.errors import GateError
from condswin.registry.aliases import APPROVAL, CHALLENGER, CHAMPION, FROZEN, PREVIOUS, RECORD
from condswin.registry.events import EVENT
from condswin.registry.smoke import Smoke
from condswin.steps.approve import approve, freeze, history, reject
from condswin.steps.promote import promote, rollback
from tests.registry.toy import NAME, World, psnr_rules

pytest_plugins = ["tests.registry.fixtures"]

TASK = "reconstruction"


def test_a_held_challenger_waits_for_a_person(world: World, quick_smoke: None) -> None:
    world.promote(world.register(0.5))
    registered = world.register(0.9)
    promoted, record = world.promote(registered, hold=True)
    assert (promoted, record["outcome"], record["promoted"]) == (False, "held", False)
    assert world.aliases() == {CHALLENGER: "2", CHAMPION: "1"}
    assert world.promote(registered, hold=True)[1] == record  # decided already
    approve(world.config, TASK, "2", by="Jane", why="read twenty cases")
    assert world.aliases() == {CHALLENGER: "2", CHAMPION: "2", PREVIOUS: "1"}
    kept = json.loads(world.tags("2")[RECORD])
    assert (kept["promoted"], kept["approved_by"], kept["why"]) == (True, "Jane", "read twenty cases")
    assert world.promote(registered, hold=True)[0]
    with pytest.raises(GateError, match="version 2 is not held for approval \\(promoted\\)"):
        approve(world.config, TASK, "2", by="Jane", why="again")


def test_holding_can_be_asked_for_in_one_run(world: World, quick_smoke: None) -> None:
    registered, out = world.register(0.5), world.folder / "held.json"
    assert promote(world.config, TASK, registered, world.prepared, out, hold=True).record["outcome"] == "held"
    assert promote(world.config, TASK, registered, world.prepared, out).record["outcome"] == "held"
    assert CHAMPION not in world.aliases()


def test_what_the_gate_did_not_let_through_is_not_approved(world: World, quick_smoke: None) -> None:
    registered = world.register(0.5)
    with pytest.raises(GateError, match="never judged"):
        approve(world.config, TASK, "1", by="Jane", why="")
    world.promote(registered, hold=True, rules=psnr_rules(floor=99.0))
    with pytest.raises(GateError, match=r"not held for approval \(refused\)"):
        approve(world.config, TASK, "1", by="Jane", why="")
    with pytest.raises(GateError, match="has no version 7"):
        approve(world.config, TASK, "7", by="Jane", why="")


def test_an_approval_of_what_was_compared_with_another_champion_changes_nothing(
    world: World, quick_smoke: None
) -> None:
    world.promote(world.register(0.5))
    world.promote(world.register(0.8), hold=True)
    world.promote(world.register(0.9))
    with pytest.raises(GateError, match="moved from version 1 to version 3 while version 2 was compared"):
        approve(world.config, TASK, "2", by="Jane", why="late")
    assert world.aliases()[CHAMPION] == "3"


def test_no_approval_of_what_cannot_be_loaded(world: World, quick_smoke: None) -> None:
    world.promote(world.register(0.5), hold=True)
    world.weights_of("1").unlink()
    with pytest.raises(GateError, match="cannot approve, nothing was changed"):
        approve(world.config, TASK, "1", by="Jane", why="")
    assert CHAMPION not in world.aliases()


def test_a_rejected_version_stays_out(world: World, quick_smoke: None) -> None:
    registered = world.register(0.5)
    world.promote(registered, hold=True)
    reject(world.config, TASK, "1", by="Jane", why="smooths tears")
    promoted, record = world.promote(registered)
    assert (promoted, record["outcome"]) == (False, "refused")
    assert "version 1 was rejected at 20" in record["reasons"][0]
    assert "by Jane (smooths tears)" in record["reasons"][0]
    with pytest.raises(GateError, match="not held"):
        approve(world.config, TASK, "1", by="Jane", why="")
    world.client.delete_model_version_tag(NAME, "1", "condswin.rejected")
    assert world.promote(registered)[1]["outcome"] == "promoted"
    with pytest.raises(GateError, match="version 1 is champion"):
        reject(world.config, TASK, "1", by="Jane", why="")


def test_nothing_moves_while_the_champion_is_frozen(world: World, quick_smoke: None) -> None:
    world.promote(world.register(0.5))
    world.promote(world.register(0.7))
    world.promote(world.register(0.8), hold=True)
    better = world.register(0.9)
    before = world.aliases()
    freeze(world.config, TASK, by="Jane", why="audit")
    promoted, record = world.promote(better)
    assert (promoted, record["outcome"]) == (False, "held")
    assert record["reasons"][0].startswith("the champion is frozen since 20")
    assert record["reasons"][0].endswith("by Jane: audit")
    with pytest.raises(GateError, match=r"frozen since .* by Jane: audit; nothing was changed"):
        rollback(world.config, TASK)
    with pytest.raises(GateError, match="frozen since"):
        approve(world.config, TASK, "3", by="Jane", why="")
    with pytest.raises(GateError, match=r"frozen since .*; nothing to do"):
        freeze(world.config, TASK, by="Joe", why="too")
    assert world.aliases() == before
    freeze(world.config, TASK, by="Jane", why="audit passed", lift=True)
    with pytest.raises(GateError, match="is not frozen; nothing to do"):
        freeze(world.config, TASK, by="Jane", why="", lift=True)
    assert world.promote(better)[0]
    tags = world.client.get_registered_model(NAME).tags
    assert FROZEN not in tags
    assert any(key.startswith(EVENT) for key in tags)


def test_the_history_of_a_model(world: World, quick_smoke: None) -> None:
    world.promote(world.register(0.5))
    world.promote(world.register(0.4))
    world.promote(world.register(0.7), hold=True)
    approve(world.config, TASK, "3", by="Jane", why="fine")
    rollback(world.config, TASK)
    reject(world.config, TASK, "2", by="Joe", why="worse")
    freeze(world.config, TASK, by="Jane", why="audit")
    events = history(world.config, TASK)
    assert sorted((event["version"], event["event"]) for event in events) == sorted([
        ("1", "registered"), ("1", "promoted"), ("2", "registered"), ("2", "refused"), ("2", "rejected"),
        ("3", "registered"), ("3", "promoted"), ("3", "rolled back"), ("", "frozen"),
    ])  # fmt: skip
    assert [event["at"] for event in events] == sorted(event["at"] for event in events)
    by = {(event["version"], event["event"]): (event["by"], event["why"]) for event in events}
    assert by["1", "promoted"] == ("gate", "the first")
    assert by["3", "promoted"] == ("Jane", "after version 1; fine")
    assert by["3", "rolled back"] == ("", "to version 1")
    assert by["2", "rejected"] == ("Joe", "worse")
    assert by["2", "refused"][1].startswith("psnr superior to champion: gain -")
    assert "case" not in by["2", "refused"][1].replace("cases", "")


def test_a_tag_that_somebody_sets_in_mlflow_approves_what_was_held(world: World, quick_smoke: None) -> None:
    registered = world.register(0.5)
    world.client.set_model_version_tag(NAME, "1", APPROVAL, "approved by Joe")  # before anything was judged
    assert world.promote(registered, hold=True)[1]["outcome"] == "held"
    assert APPROVAL not in world.tags("1")
    assert world.promote(registered, hold=True)[1]["outcome"] == "held"
    world.client.set_model_version_tag(NAME, "1", APPROVAL, "fine")
    with pytest.raises(GateError, match="says 'fine', not `approved by NAME`"):
        world.promote(registered, hold=True)
    world.client.set_model_version_tag(NAME, "1", APPROVAL, "Approved by Jane Doe: read twenty cases")
    promoted, record = world.promote(registered, hold=True)
    assert (promoted, record["approved_by"], record["why"]) == (True, "Jane Doe", "read twenty cases")
    assert world.aliases()["champion"] == "1"
    assert world.promote(registered, hold=True) == (True, record)  # nothing to do
    (event,) = [event for event in history(world.config, TASK) if event["event"] == "promoted"]
    assert (event["by"], event["why"]) == ("Jane Doe", "the first; read twenty cases")


def test_a_tag_approves_nothing_that_was_refused(world: World, quick_smoke: None) -> None:
    registered = world.register(0.5)
    world.promote(registered, rules=psnr_rules(floor=99.0))
    world.client.set_model_version_tag(NAME, "1", APPROVAL, "approved by Jane")
    assert world.promote(registered, rules=psnr_rules(floor=99.0))[1]["outcome"] == "refused"
    assert "champion" not in world.aliases()


def test_a_tag_set_while_a_version_is_judged_is_no_yes_to_the_decision(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered = world.register(0.5)

    def meanwhile(*_: Any, **__: Any) -> Smoke:
        world.client.set_model_version_tag(NAME, "1", APPROVAL, "approved by Jane")
        return Smoke([], 1.0)

    monkeypatch.setattr("condswin.steps.promote.smoke", meanwhile)
    for _ in range(2):
        assert world.promote(registered, hold=True)[1]["outcome"] == "held"
    assert APPROVAL not in world.tags("1")
    assert CHAMPION not in world.aliases()

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from condswin.errors import GateError
from condswin.registry.aliases import APPROVAL, CHALLENGER, CHAMPION, FROZEN, PREVIOUS, RECORD, ROLLED_BACK
from condswin.registry.approval import decision_in
from condswin.registry.events import EVENT
from condswin.registry.smoke import Smoke
from condswin.steps.approve import approve, freeze, history, reject
from condswin.steps.lineage import lineage
from condswin.steps.promote import promote, rollback
from tests.registry.toy import NAME, World, die_at, psnr_rules

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
    again = approve(world.config, TASK, "2", by="Joe", why="again")
    assert again == (False, "2", "nothing to do, champion is version 2 already")
    assert json.loads(world.tags("2")[RECORD]) == kept
    world.promote(world.register(0.95))
    with pytest.raises(GateError, match="version 2 is not held for approval \\(promoted\\)"):
        approve(world.config, TASK, "2", by="Jane", why="back to it")


def test_holding_can_be_asked_for_in_one_run(world: World, quick_smoke: None) -> None:
    registered, out = world.register(0.5), world.folder / "held.json"
    assert promote(world.config, TASK, registered, world.prepared, out, hold=True).record["outcome"] == "held"
    assert promote(world.config, TASK, registered, world.prepared, out).record["outcome"] == "held"
    assert CHAMPION not in world.aliases()


def test_what_the_gate_did_not_let_through_is_not_approved(world: World, quick_smoke: None) -> None:
    registered = world.register(0.5)
    with pytest.raises(GateError, match="never judged"):
        approve(world.config, TASK, "1", by="Jane", why="fine")
    world.promote(registered, hold=True, rules=psnr_rules(floor=99.0))
    with pytest.raises(GateError, match=r"not held for approval \(refused\)"):
        approve(world.config, TASK, "1", by="Jane", why="fine")
    with pytest.raises(GateError, match="has no version 7"):
        approve(world.config, TASK, "7", by="Jane", why="fine")


def test_what_an_older_condswin_held_without_looking_for_leaks_is_judged_again(world: World, quick_smoke: None) -> None:
    registered = world.register(0.5)
    world.promote(registered, hold=True)
    record = json.loads(world.tags("1")[RECORD])
    del record["untold"]
    record["code_sha256"] = "of an older condswin"
    world.client.set_model_version_tag(NAME, "1", RECORD, json.dumps(record))
    with pytest.raises(GateError, match=r"judged by an older condswin, .* promote again, then approve"):
        approve(world.config, TASK, "1", by="Jane", why="fine")
    assert CHAMPION not in world.aliases()
    world.promote(registered, hold=True)
    assert approve(world.config, TASK, "1", by="Jane", why="fine").champion == "1"


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
        approve(world.config, TASK, "1", by="Jane", why="fine")
    assert CHAMPION not in world.aliases()


def test_a_rejected_version_stays_out(world: World, quick_smoke: None) -> None:
    registered = world.register(0.5)
    world.promote(registered, hold=True)
    assert reject(world.config, TASK, "1", by="Jane", why="smooths tears") == (True, None, "version 1 is rejected")
    again = reject(world.config, TASK, "1", by="Joe", why="too")
    assert not again.changed
    assert again.text.startswith("nothing to do, version 1 was rejected at 20")
    assert again.text.endswith("by Jane (smooths tears)")
    promoted, record = world.promote(registered)
    assert (promoted, record["outcome"]) == (False, "refused")
    assert "version 1 was rejected at 20" in record["reasons"][0]
    assert "by Jane (smooths tears)" in record["reasons"][0]
    with pytest.raises(GateError, match="not held"):
        approve(world.config, TASK, "1", by="Jane", why="fine")
    world.client.delete_model_version_tag(NAME, "1", "condswin.rejected")
    assert world.promote(registered)[1]["outcome"] == "promoted"
    with pytest.raises(GateError, match="version 1 is champion"):
        reject(world.config, TASK, "1", by="Jane", why="fine")


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
        approve(world.config, TASK, "3", by="Jane", why="fine")
    again = freeze(world.config, TASK, by="Joe", why="too")
    assert (again.changed, again.champion) == (False, "2")
    assert again.text.startswith("nothing to do, the champion is frozen since 20")
    assert again.text.endswith("by Jane: audit")
    assert world.aliases() == before
    lifted = [freeze(world.config, TASK, by="Jane", why="audit passed", lift=True) for _ in range(2)]
    assert lifted == [
        (True, "2", "the champion moves again"), (False, "2", "nothing to do, the champion is not frozen"),
    ]  # fmt: skip
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


@pytest.mark.parametrize("last", [2, 3])
def test_an_approval_that_is_interrupted_before_the_champion_moves_is_completed_by_the_next(
    last: int, world: World, quick_smoke: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.promote(world.register(0.5))
    registered = world.register(0.9)
    world.promote(registered, hold=True)
    with monkeypatch.context() as patch:
        die_at(last, patch)
        with pytest.raises(KeyboardInterrupt):
            approve(world.config, TASK, "2", by="Jane", why="fine")
    assert (world.aliases()[CHAMPION], json.loads(world.tags("2")[RECORD])["promoted"]) == ("1", True)
    if last == 2:
        approve(world.config, TASK, "2", by="Jane", why="fine")
    else:  # by the tag that was set on MLflow's page
        world.client.set_model_version_tag(NAME, "2", APPROVAL, "approved by Jane: fine")
        assert world.promote(registered, hold=True)[1]["outcome"] == "promoted"
    assert world.aliases() == {CHALLENGER: "2", CHAMPION: "2", PREVIOUS: "1"}
    promoted = [event for event in history(world.config, TASK) if event["event"] == "promoted"]
    assert [(event["version"], event["by"]) for event in promoted] == [("1", "gate"), ("2", "Jane")]


def test_an_approval_that_never_came_about_is_told_of_as_held(
    world: World, quick_smoke: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.promote(world.register(0.5))
    world.promote(world.register(0.8), hold=True)
    with monkeypatch.context() as patch:
        die_at(2, patch)
        with pytest.raises(KeyboardInterrupt):
            approve(world.config, TASK, "2", by="Jane", why="fine")
    assert world.promote(world.register(0.9))[0]
    assert json.loads(world.tags("2")[RECORD])["outcome"] == "promoted"
    happened = [(each["version"], each["event"], each["by"]) for each in history(world.config, TASK)]
    decisions = [each for each in happened if each[1] != "registered"]
    assert sorted(decisions) == [("1", "promoted", "gate"), ("2", "held", "gate"), ("3", "promoted", "gate")]
    links = {each.name: each.text for each in lineage(world.config, f"models:/{NAME}/2", prepared=Path)}
    assert links["decision"].startswith("held 20")
    assert "Jane" not in links["decision"]


@pytest.mark.parametrize("decided_at", ["2001-02-03T04:05:06+00:00", "2999-02-03T04:05:06+00:00"])
@pytest.mark.parametrize("killed", [False, True])
def test_no_clock_says_whether_an_approval_came_about(
    decided_at: str, killed: bool, world: World, quick_smoke: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine that judged is ahead of the one that approved, or behind it."""
    world.promote(world.register(0.5))
    registered = world.register(0.9)
    assert world.promote(registered)[0]  # a promotion of the version that was taken back is another one
    rollback(world.config, TASK)
    world.client.delete_model_version_tag(NAME, "2", ROLLED_BACK)
    assert world.promote(registered, hold=True)[1]["outcome"] == "held"
    record = {**json.loads(world.tags("2")[RECORD]), "decided_at": decided_at}
    world.client.set_model_version_tag(NAME, "2", RECORD, json.dumps(record))
    with monkeypatch.context() as patch:
        die_at(3 if killed else 99, patch)
        with pytest.raises(KeyboardInterrupt) if killed else nullcontext():
            approve(world.config, TASK, "2", by="Jane", why="fine")
    world.client.set_registered_model_alias(NAME, CHAMPION, "1")
    said = decision_in(world.client, NAME, "2", world.tags("2"))
    assert said["outcome"] == ("held" if killed else "promoted")


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


@pytest.mark.parametrize(
    ("by", "why", "said"),
    [
        ("", "because", "--by: says nothing"),
        ("Jane", " \n", "--why: says nothing"),
        ("Jane", "x" * 4000, r"--by and --why: 4012 characters as MLflow keeps them, of at most 4000; say less"),
        ("Jane", "漢" * 700, r"--by and --why: 4212 characters"),  # each is six in JSON
    ],
)
def test_who_decides_and_why_is_said_and_fits_where_it_is_kept(
    by: str, why: str, said: str, world: World, quick_smoke: None, few_files: None
) -> None:
    registered = world.register(0.9)
    world.promote(registered, hold=True)
    if by and why.strip():  # as on MLflow's page
        world.client.set_model_version_tag(NAME, "1", APPROVAL, f"approved by {by}: {why}")
        with pytest.raises(GateError, match=said):
            world.promote(registered, hold=True)
    with pytest.raises(GateError, match=said):
        approve(world.config, TASK, "1", by=by, why=why)
    with pytest.raises(GateError, match=said):
        reject(world.config, TASK, "1", by=by, why=why)
    with pytest.raises(GateError, match=said):
        freeze(world.config, TASK, by=by, why=why)
    assert world.aliases() == {CHALLENGER: "1"}
    assert [event["event"] for event in history(world.config, TASK)] == ["registered", "held"]

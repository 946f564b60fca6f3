"""What `promote` makes of test cases that a network was trained on."""

import pytest

from condswin.errors import BadDataError
from condswin.manifest import TRAINED_ON, Manifest
from condswin.registry.aliases import CHAMPION, RECORD
from condswin.reporting.decision import remarks
from tests.registry.toy import NAME, World

pytest_plugins = ["tests.registry.fixtures"]


def keys(world: World, *cases: int) -> list[str]:
    """What test cases are known by."""
    records = Manifest.read(world.prepared, "reconstruction").cases
    return [key for number in cases for key in records[number].known_by()]


def test_a_challenger_that_was_trained_on_a_test_case_is_refused(world: World, quick_smoke: None) -> None:
    told = {"train": keys(world, 2, 4), "val": keys(world, 1)}
    for bias, provenance in ((0.5, {TRAINED_ON: told}), (0.6, {"initial": {TRAINED_ON: told}})):
        world.provenance = provenance
        with pytest.raises(BadDataError, match=r"swin was trained on 3 of 6 test cases.*\(case1, case2, case4\)"):
            world.promote(world.register(bias))
    assert CHAMPION not in world.aliases()
    assert not any(RECORD in world.tags(version) for version in "12")
    assert not (world.folder / "promotion.json").exists()


def test_cases_that_the_champion_was_trained_on_are_not_compared_on(world: World, quick_smoke: None) -> None:
    """Data grew, and somebody whom the champion was trained on is in the test set since."""
    world.provenance = {TRAINED_ON: {"train": keys(world, 3), "val": []}}
    world.register(0.5)
    world.client.set_registered_model_alias(NAME, CHAMPION, "1")
    world.provenance = {}
    better = world.register(0.9)
    promoted, record = world.promote(better)
    assert (promoted, record["outcome"], record["left_out"]) == (False, "undecided", 1)
    assert [rule["patients"] for rule in record["rules"]] == [6, 6, 5]
    assert "fewer than 6 patients decide nothing" in record["reasons"][0]
    assert remarks(record)[-1] == "left out of comparisons with the champion, which was trained on them: 1 test cases"
    assert world.promote(better, patients=5)[0]


def test_who_does_not_say_what_it_was_trained_on_is_not_promoted_and_may_be_replaced(
    world: World, quick_smoke: None
) -> None:
    world.provenance = {TRAINED_ON: None}
    promoted, record = world.promote(world.register(0.5))
    assert (promoted, record["outcome"], record["untold"]) == (False, "undecided", ["challenger"])
    assert record["reasons"] == [
        "the challenger was trained on no test case: its description does not say which cases it was trained on; "
        "train it again"
    ]
    world.client.set_registered_model_alias(NAME, CHAMPION, "1")
    world.provenance = {}
    promoted, record = world.promote(world.register(0.9))
    assert (promoted, record["untold"], record["left_out"]) == (True, ["champion"], 0)
    assert remarks(record)[-1] == (
        "the champion does not say which cases it was trained on: test cases may be among them"
    )

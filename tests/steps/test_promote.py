import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from condswin.config.gate import RuleConfig
from condswin.config.root import Config
from condswin.errors import BadDataError, BadFileError, ConfigError, GateError
from condswin.evaluation.results import write_rows
from condswin.files import read_json, write_json
from condswin.manifest import Manifest
from condswin.outputs import WRITTEN_BY
from condswin.registry.aliases import CHALLENGER, CHAMPION, PREVIOUS, PROMOTED_AT, RECORD, ROLLED_BACK
from condswin.registry.package import load_registered
from condswin.reporting.decision import remarks
from condswin.steps import promote as module
from condswin.steps.promote import promote, rollback
from condswin.tasks.facts import Row
from tests.registry.toy import CASES, NAME, ToyPrediction, World, die_at, make_config, make_prepared, psnr_rules

pytest_plugins = ["tests.registry.fixtures"]


def test_the_first_challenger_is_promoted_and_again_changes_nothing(world: World) -> None:
    registered = world.register(0.5)
    promoted, record = world.promote(registered)
    assert promoted
    assert [reason.split(": ")[0] for reason in record["reasons"]] == [
        "psnr at least 1",
        "psnr superior to zero-filled",
    ]
    assert (record["promoted"], record["outcome"], record["champion"]) == (True, "promoted", "1")
    assert record["previous"] is None
    assert record["rules"][0]["estimate"] == pytest.approx(6.02, abs=0.1)
    assert (record["patients"], record["cases"]) == (CASES, CASES)
    assert record["latency_ms"] > 0
    assert record["megabytes"] == pytest.approx(4e-6 * record["parameters"])
    assert world.aliases() == {CHALLENGER: "1", CHAMPION: "1"}
    tags = world.tags("1")
    assert json.loads(tags[RECORD]) == record
    # Names of cases may lead to patients: they stay out of the registry.
    assert not any("case0" in value for value in tags.values())

    written, updated = (world.folder / "promotion.json").read_bytes(), tags[PROMOTED_AT]
    assert world.promote(registered, rules=psnr_rules(floor=99.0))[0]  # no second trial for the champion
    assert (world.folder / "promotion.json").read_bytes() == written
    assert world.tags("1")[PROMOTED_AT] == updated
    assert sorted(path.name for path in world.folder.glob(".partial*")) == []


def test_better_challengers_are_promoted_and_worse_rejected(world: World, quick_smoke: None) -> None:
    world.promote(world.register(0.5))
    promoted, record = world.promote(world.register(0.9), rules=psnr_rules(champion=10.0))
    assert promoted
    assert (record["champion"], record["previous"]) == ("2", "1")
    assert record["rules"][2]["estimate"] == pytest.approx(14, abs=0.2)
    assert world.aliases() == {CHALLENGER: "2", CHAMPION: "2", PREVIOUS: "1"}

    before = world.tags("2")
    promoted, record = world.promote(world.register(0.8))
    assert not promoted
    assert (record["promoted"], record["champion"], record["previous"]) == (False, "2", "1")
    assert len(record["reasons"]) == 1
    assert record["reasons"][0].startswith("psnr superior to champion: gain -6.")
    assert len(set(record["rules"][2]["worst"])) == 3
    assert set(record["rules"][2]["worst"]) < {f"case{number}" for number in range(CASES)}
    # Not in the registry, where names of cases would be read by more people.
    kept = json.loads(world.tags("3")[RECORD])
    assert [f"case{place}" for place in kept["rules"][2]["worst"]] == record["rules"][2]["worst"]
    assert "case" not in world.tags("3")[RECORD].replace('"cases"', "").replace("(6 cases)", "")
    assert world.aliases() == {CHALLENGER: "3", CHAMPION: "2", PREVIOUS: "1"}
    assert world.tags("2") == before
    assert PROMOTED_AT not in world.tags("3")
    model, spec = load_registered(f"models:/{NAME}@champion", world.config)
    assert (model.projection[-2].bias[0].item(), spec.variant) == (pytest.approx(0.9), "swin")


def test_floor_and_reference_method_reject(world: World, quick_smoke: None) -> None:
    promoted, record = world.promote(world.register(0.5), rules=psnr_rules(floor=30.0, baseline=8.0))
    assert not promoted
    assert [reason.split(":")[0] for reason in record["reasons"]] == [
        "psnr at least 30",
        "psnr superior to zero-filled by more than 8",
    ]
    assert CHAMPION not in world.aliases()
    promoted, _ = world.promote(world.register(0.5))  # the same version, with other thresholds
    assert promoted


def test_a_network_that_yields_nan_is_rejected(world: World) -> None:
    promoted, record = world.promote(world.register(float("nan")))
    assert not promoted
    assert record["reasons"] == ["smoke test: 8192 of 8192 output values are not finite"]
    assert (record["outcome"], "rules" in record) == ("refused", False)
    assert CHAMPION not in world.aliases()


def test_nan_in_a_result_is_rejected(world: World, quick_smoke: None, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.evaluate_split

    def one_case_lost(*arguments: Any) -> list[dict[str, Any]]:
        rows = real(*arguments)
        return [{**rows[0], "psnr": float("nan")}, *rows[1:]]

    monkeypatch.setattr(module, "evaluate_split", one_case_lost)
    promoted, record = world.promote(world.register(0.5))
    assert not promoted
    lost = "1 of 6 cases have no value, for which another method has one"
    assert record["reasons"] == [f"psnr at least 1: {lost}", f"psnr superior to zero-filled: {lost}"]
    assert record["rules"][0]["worst"] == ["case0"]


def test_a_champion_that_moves_during_the_comparison(
    world: World, quick_smoke: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.promote(world.register(0.5))
    other = read_json(world.register(0.7))["version"]
    registered = world.register(0.9)
    (world.folder / "promotion.json").unlink()
    real = module.evaluate_split

    def meanwhile(*arguments: Any) -> Any:
        world.client.set_registered_model_alias(NAME, CHAMPION, other)
        return real(*arguments)

    monkeypatch.setattr(module, "evaluate_split", meanwhile)
    with pytest.raises(GateError, match="moved from version 1 to version 2 while version 3"):
        world.promote(registered)
    assert world.aliases() == {CHALLENGER: "3", CHAMPION: "2"}
    assert not (world.folder / "promotion.json").exists()
    assert RECORD not in world.tags("3")


def test_a_challenger_that_becomes_champion_during_its_rejection(
    world: World, quick_smoke: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered = world.register(0.5)
    real = module.evaluate_split

    def meanwhile(*arguments: Any) -> Any:
        monkeypatch.setattr(module, "evaluate_split", real)
        assert world.promote(registered)[0]
        return real(*arguments)

    monkeypatch.setattr(module, "evaluate_split", meanwhile)
    with pytest.raises(GateError, match="version 1 became champion"):
        world.promote(registered, rules=psnr_rules(floor=99.0))
    assert json.loads(world.tags("1")[RECORD])["promoted"] is True


@pytest.mark.parametrize("fails_at", range(1, 6))
def test_an_interrupted_promotion_is_completed(
    fails_at: int, world: World, quick_smoke: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.promote(world.register(0.5))
    registered = world.register(0.9)
    with monkeypatch.context() as patch:
        die_at(fails_at, patch)
        with pytest.raises(KeyboardInterrupt):
            world.promote(registered)
    assert world.aliases()[CHAMPION] == ("1" if fails_at <= 3 else "2")
    promoted, record = world.promote(registered)
    assert promoted
    assert (record["champion"], record["previous"]) == ("2", "1")
    assert world.aliases() == {CHALLENGER: "2", CHAMPION: "2", PREVIOUS: "1"}
    assert {RECORD, PROMOTED_AT, "condswin.previous_champion"} <= set(world.tags("2"))


def test_rolling_back_and_no_way_back_in_by_itself(world: World, quick_smoke: None) -> None:
    world.promote(world.register(0.5))
    registered = world.register(0.9)
    world.promote(registered)
    assert rollback(world.config, "reconstruction").champion == "1"
    assert world.aliases() == {CHALLENGER: "2", CHAMPION: "1"}
    # The next run of the pipeline registers and promotes the same network: it must stay out.
    promoted, record = world.promote(world.register(0.9))
    assert not promoted
    assert "version 2 was rolled back at 20" in record["reasons"][0]
    assert ROLLED_BACK in record["reasons"][0]
    world.client.delete_model_version_tag(NAME, "2", ROLLED_BACK)
    assert world.promote(registered)[0]
    assert world.aliases()[CHAMPION] == "2"


def test_no_roll_back_to_a_network_that_cannot_be_loaded(world: World, quick_smoke: None) -> None:
    with pytest.raises(GateError, match="champion is none"):
        rollback(world.config, "reconstruction")
    world.promote(world.register(0.5))
    world.promote(world.register(0.9))
    world.weights_of("1").unlink()
    with pytest.raises(
        GateError, match=r"cannot roll back, nothing was changed: .*/1: its files are not those that were registered"
    ):
        rollback(world.config, "reconstruction")
    assert world.aliases() == {CHALLENGER: "2", CHAMPION: "2", PREVIOUS: "1"}


def test_a_champion_that_is_gone_stops_the_promotion(world: World, quick_smoke: None) -> None:
    world.promote(world.register(0.5))
    world.promote(world.register(0.6))
    better = world.register(0.9)
    shutil.rmtree(world.weights_of("2").parent)
    with pytest.raises(
        GateError, match=r"the champion cannot be loaded, nothing was changed: .*/2: .*condswin rollback"
    ):
        world.promote(better)
    assert world.aliases() == {CHALLENGER: "3", CHAMPION: "2", PREVIOUS: "1"}
    world.client.delete_model_version(NAME, "2")
    with pytest.raises(GateError, match="champion version 2 was deleted"):
        world.promote(better)
    assert rollback(world.config, "reconstruction").champion == "1"
    assert world.promote(better)[0]
    assert world.aliases() == {CHALLENGER: "3", CHAMPION: "3", PREVIOUS: "1"}


def test_a_challenger_that_is_gone(world: World, quick_smoke: None) -> None:
    registered = world.register(0.5)
    shutil.rmtree(world.package_of("1"))
    with pytest.raises(
        GateError, match=r"the challenger cannot be loaded.* cannot be fetched .*\); run register again"
    ):
        world.promote(registered)
    assert read_json(world.register(0.5))["version"] == "2"
    assert world.promote(registered)[0]


def test_a_challenger_without_its_weights_is_superseded(
    world: World, quick_smoke: None, capsys: pytest.CaptureFixture[str]
) -> None:
    registered = world.register(0.5)
    world.weights_of("1").unlink()
    with pytest.raises(GateError, match=r"/1: its files are not those that were registered .*; run register again"):
        world.promote(registered)
    capsys.readouterr()
    again = world.register(0.5)
    assert "/1: its files are not those that were registered" in capsys.readouterr().err
    assert (read_json(again)["version"], world.tags("2")["condswin.supersedes"]) == ("2", "1")
    assert world.aliases() == {CHALLENGER: "2"}
    assert read_json(world.register(0.5))["version"] == "2"
    assert world.promote(again)[0]


def test_a_challenger_that_was_deleted(world: World) -> None:
    registered = world.register(0.5)
    world.client.delete_model_version(NAME, "1")
    with pytest.raises(GateError, match="has no version 1"):
        world.promote(registered)


def test_no_other_network_is_judged_in_a_registry_that_was_replaced(world: World, quick_smoke: None) -> None:
    registered = world.register(0.5)
    world.client.delete_registered_model(NAME)
    world.register(0.9)
    with pytest.raises(GateError, match=rf"{registered}: {NAME} version 1 is another network now; run register again"):
        world.promote(registered)
    assert world.aliases() == {CHALLENGER: "1"}


def test_a_champion_made_by_hand_is_left_alone(world: World, quick_smoke: None) -> None:
    registered = world.register(0.5)
    world.promote(registered, rules=psnr_rules(floor=99.0))
    world.client.set_registered_model_alias(NAME, CHAMPION, "1")
    promoted, record = world.promote(registered)
    assert promoted
    assert record["reasons"] == ["version 1 is champion already, but not by the gate"]


def test_bad_input_is_named(world: World) -> None:
    registered, out = world.folder / "registered.json", world.folder / "promotion.json"
    for content, reason in (
        ({}, "not written by register"),
        ({"name": NAME, "version": 3, "key": "k"}, "not written by register"),
        ({"name": NAME, "version": "3"}, "not written by register"),
        (
            {"name": "condswin-segmentation", "version": "1", "key": "k"},
            f"names the model condswin-segmentation, expected {NAME}",
        ),
    ):
        write_json(registered, content)
        with pytest.raises(BadFileError, match=reason):
            promote(world.config, "reconstruction", registered, world.prepared, out)
    write_json(registered, {"name": NAME, "version": "1", "key": "k"})
    with pytest.raises(GateError, match="has no version 1"):
        promote(world.config, "reconstruction", registered, world.prepared, out)
    with pytest.raises(ConfigError, match="no metric 'dice'"):
        world.promote(registered, rules=[RuleConfig(metric="dice", floor=0.0)])
    assert not out.exists()


def test_a_rejection_is_not_decided_again_until_something_changed(
    world: World, quick_smoke: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.promote(world.register(0.8))
    registered, out = world.register(0.5), world.folder / "promotion.json"
    evaluated: list[str] = []
    real = module.evaluate_split

    def counting(*arguments: Any) -> Any:
        evaluated.append(arguments[-1].name)
        return real(*arguments)

    monkeypatch.setattr(module, "evaluate_split", counting)

    def decide(config: Config = world.config) -> tuple[bool, bool, list[str]]:
        evaluated.clear()
        decided = promote(config, "reconstruction", registered, world.prepared, out)
        assert read_json(out) == {WRITTEN_BY: "condswin promote", **decided.record}
        return decided.champion, decided.known, list(evaluated)

    both = ["challenger", "champion"]
    assert decide() == (False, False, both)
    written = out.read_bytes()
    out.unlink()
    assert decide() == (False, True, [])
    assert out.read_bytes() == written
    # Other parameters, code, thresholds, test cases, another champion: each is another question.
    monkeypatch.setattr(ToyPrediction, "parameters", lambda _: {"window": 32})
    assert [decide(), decide()] == [(False, False, both), (False, True, [])]
    monkeypatch.setattr(module, "closure", lambda *_: {"condswin/mri/metrics.py": "edited"})
    assert [decide(), decide()] == [(False, False, both), (False, True, [])]
    strict = make_config(world.config.tracking.uri, rules=psnr_rules(champion=99.0))
    assert [decide(strict), decide(strict)] == [(False, False, both), (False, True, [])]
    make_prepared(world.prepared, CASES + 1)
    assert [decide(strict), decide(strict)] == [(False, False, both), (False, True, [])]
    world.client.delete_registered_model_alias(NAME, CHAMPION)
    assert decide() == (True, False, ["challenger"])
    assert decide() == (True, True, [])


def scored(world: World, psnr: float, data: str | None = None) -> Path:
    """An evaluation of the reference method."""
    folder = world.folder / "classic"
    rows: list[Row] = [{"case": f"case{i}", "psnr": psnr + 0.1 * i, "mse": 0.1} for i in range(CASES)]
    folder.mkdir(exist_ok=True)
    write_rows(folder / "test-cases.csv", rows)
    digest = data or Manifest.read(world.prepared, "reconstruction").fingerprint()
    write_json(folder / "metrics.json", {"data_sha256": digest})
    return folder


def test_a_reference_method_must_be_beaten_on_these_cases(world: World, quick_smoke: None) -> None:
    registered, rules = world.register(0.5), [RuleConfig(metric="psnr", superior_to="baselines")]
    promoted, record = world.promote(registered, rules=rules)
    missing = "there are no scores of classic; run `condswin baseline` for reconstruction"
    assert (promoted, record["outcome"]) == (False, "undecided")
    assert record["reasons"] == [f"psnr superior to classic: {missing}"]
    _, record = world.promote(registered, scored(world, 3.0, data="d" * 64), rules=rules)
    assert "the scores of classic are of other data" in record["reasons"][0]
    _, record = world.promote(registered, scored(world, 9.0), rules=rules)
    assert record["outcome"] == "refused"
    assert record["reasons"][0].startswith("psnr superior to classic: gain -3.")
    assert CHAMPION not in world.aliases()
    assert world.promote(registered, scored(world, 3.0), rules=rules)[0]


def test_scans_of_one_person_do_not_make_more_patients(world: World, quick_smoke: None) -> None:
    make_prepared(world.prepared, 6, each=2)
    registered = world.register(0.5)
    promoted, record = world.promote(registered)
    assert (promoted, record["outcome"], record["patients"], record["cases"]) == (False, "undecided", 3, 6)
    assert record["reasons"][0] == "3 patients are in the test set, and fewer than 6 decide nothing"
    # The same files, of more people.
    make_prepared(world.prepared)
    assert world.promote(registered)[0]


def test_a_test_set_that_was_changed_decides_nothing(world: World, quick_smoke: None) -> None:
    registered = world.register(0.5)
    with (world.prepared / "test" / "case2.npy").open("ab") as file:
        file.write(b"more")
    with pytest.raises(BadDataError, match=r"case2\.npy: content differs from manifest\.json"):
        world.promote(registered)
    assert RECORD not in world.tags("1")


def test_what_was_generated_follows_a_network_and_replaces_nothing_real(world: World, quick_smoke: None) -> None:
    world.provenance = {"generated": "none"}
    assert world.promote(world.register(0.5))[0]
    world.provenance = {"generated": "all"}
    make_prepared(world.prepared, generated=True)
    registered = world.register(0.9)
    promoted, record = world.promote(registered)
    assert (promoted, record["outcome"]) == (False, "refused")
    assert record["reasons"][0].startswith("real data is not replaced by generated data: the challenger was trained on")
    assert record["generated"] == {"challenger": "all", "champion": "none", "test": "all"}
    assert [world.tags(version)["generated"] for version in ("1", "2")] == ["none", "all"]
    assert remarks(record)[-2:] == [
        "all test cases are generated",
        "the challenger was trained on generated data alone",
    ]
    assert world.promote(registered, generated_over_real=True)[0]

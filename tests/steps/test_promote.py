import json
import shutil
from typing import Any

import numpy as np
import pytest

from condswin.config.root import Config
from condswin.errors import BadFileError, ConfigError, GateError
from condswin.files import read_json, write_json
from condswin.outputs import WRITTEN_BY
from condswin.registry.aliases import CHALLENGER, CHAMPION, PREVIOUS, PROMOTED_AT, RECORD, ROLLED_BACK
from condswin.registry.package import load_registered
from condswin.steps import promote as module
from condswin.steps.promote import promote, rollback
from tests.registry.toy import NAME, ToyPrediction, World, die_at, make_config

pytest_plugins = ["tests.registry.fixtures"]


def test_the_first_challenger_is_promoted_and_again_changes_nothing(world: World) -> None:
    registered = world.register(0.5)
    promoted, record = world.promote(registered)
    assert promoted
    assert [reason.split(": ")[0] for reason in record["reasons"]] == ["psnr", "gain in psnr over the zero-filled"]
    assert (record["promoted"], record["champion"], record["previous"]) == (True, "1", None)
    assert record["metrics"]["challenger"]["mean"] == pytest.approx(6.02, abs=0.1)
    assert record["latency_ms"] > 0
    assert world.aliases() == {CHALLENGER: "1", CHAMPION: "1"}
    tags = world.tags("1")
    assert json.loads(tags[RECORD]) == record
    # Names of cases may lead to patients: they stay out of the registry.
    assert not any("case0" in value for value in tags.values())

    written, updated = (world.folder / "promotion.json").read_bytes(), tags[PROMOTED_AT]
    assert world.promote(registered, floor=99.0)[0]  # no second trial for the champion
    assert (world.folder / "promotion.json").read_bytes() == written
    assert world.tags("1")[PROMOTED_AT] == updated
    assert sorted(path.name for path in world.folder.glob(".partial*")) == []


def test_better_challengers_are_promoted_and_worse_rejected(world: World, quick_smoke: None) -> None:
    world.promote(world.register(0.5))
    promoted, record = world.promote(world.register(0.9), min_gain=10.0)
    assert promoted
    assert (record["champion"], record["previous"]) == ("2", "1")
    assert record["metrics"]["gain_over_champion"]["mean"] == pytest.approx(14, abs=0.2)
    assert world.aliases() == {CHALLENGER: "2", CHAMPION: "2", PREVIOUS: "1"}

    before = world.tags("2")
    promoted, record = world.promote(world.register(0.8))
    assert not promoted
    assert (record["promoted"], record["champion"], record["previous"]) == (False, "2", "1")
    assert len(record["reasons"]) == 1
    assert record["reasons"][0].startswith("gain in psnr over the champion: -6.")
    assert world.aliases() == {CHALLENGER: "3", CHAMPION: "2", PREVIOUS: "1"}
    assert world.tags("2") == before
    assert PROMOTED_AT not in world.tags("3")
    model, spec = load_registered(f"models:/{NAME}@champion", world.config)
    assert (model.projection[-2].bias[0].item(), spec.variant) == (pytest.approx(0.9), "swin")


def test_floor_and_reference_method_reject(world: World, quick_smoke: None) -> None:
    promoted, record = world.promote(world.register(0.5), floor=30.0, baseline_gain=8.0)
    assert not promoted
    assert [reason.split(":")[0] for reason in record["reasons"]] == ["psnr", "gain in psnr over the zero-filled"]
    assert CHAMPION not in world.aliases()
    promoted, _ = world.promote(world.register(0.5))  # the same version, with other thresholds
    assert promoted


def test_a_network_that_yields_nan_is_rejected(world: World) -> None:
    promoted, record = world.promote(world.register(float("nan")))
    assert not promoted
    assert record["reasons"] == ["smoke test: 8192 of 8192 output values are not finite"]
    assert record["metrics"] == {}
    assert CHAMPION not in world.aliases()


def test_nan_in_a_result_is_rejected(world: World, quick_smoke: None, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.evaluate_split

    def one_case_lost(*arguments: Any) -> list[dict[str, Any]]:
        rows = real(*arguments)
        return [{**rows[0], "psnr": float("nan")}, *rows[1:]]

    monkeypatch.setattr(module, "evaluate_split", one_case_lost)
    promoted, record = world.promote(world.register(0.5))
    assert not promoted
    assert record["reasons"] == ["psnr has no value for 1 of 3 cases that the zero-filled has one for"]


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
        world.promote(registered, floor=99.0)
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
    assert rollback(world.config, "reconstruction") == "1"
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
    assert rollback(world.config, "reconstruction") == "1"
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


def test_a_challenger_without_its_weights(world: World, quick_smoke: None) -> None:
    registered = world.register(0.5)
    world.weights_of("1").unlink()
    assert read_json(world.register(0.5))["version"] == "1"  # so registering again is no remedy
    with pytest.raises(GateError, match=r"after deleting the version in MLflow, run register again"):
        world.promote(registered)
    world.client.delete_model_version(NAME, "1")
    assert world.promote(world.register(0.5))[0]


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
    world.promote(registered, floor=99.0)
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
        world.promote(registered, metric="dice")
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
    strict = make_config(world.config.tracking.uri, min_gain=99.0)
    assert [decide(strict), decide(strict)] == [(False, False, both), (False, True, [])]
    np.save(world.prepared / "test" / "case3.npy", np.ones((2, 16, 20), np.float32))
    assert [decide(strict), decide(strict)] == [(False, False, both), (False, True, [])]
    world.client.delete_registered_model_alias(NAME, CHAMPION)
    assert decide() == (True, False, ["challenger"])
    assert decide() == (True, True, [])

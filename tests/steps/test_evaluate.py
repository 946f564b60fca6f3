from pathlib import Path
from typing import Any

import pytest

from condswin.errors import BadDataError
from condswin.manifest import TRAINED_ON, CaseRecord, FileRecord, Manifest
from condswin.steps import evaluate as module
from condswin.steps.evaluate import evaluate
from tests.registry.toy import World

pytest_plugins = ["tests.registry.fixtures"]


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Output folders of what got as far as being scored."""
    found: list[Path] = []

    def write(*_: Any, output: Any, **more: Any) -> dict[str, Any]:
        found.append(output.folder)
        return {}

    monkeypatch.setattr(module, "write_evaluation", write)
    return found


def run(world: World, told: Any, out: str = "evaluation") -> None:
    model = world.network(0.5, **{TRAINED_ON: told})
    evaluate(world.config, "reconstruction", model=model, prepared=world.prepared, out=world.folder / out)


def known_by(world: World, case: str) -> list[str]:
    cases = Manifest.read(world.prepared, "reconstruction").cases
    return [key for each in cases if each.name == case for key in each.known_by()]


def test_other_data_is_scored_and_training_cases_are_not(world: World, scored: list[Path]) -> None:
    run(world, {"train": ["0" * 16], "val": ["1" * 16]})
    assert scored == [world.folder / "evaluation"]
    for part in ("train", "val"):
        told = {"train": [], "val": [], part: known_by(world, "case3")}
        with pytest.raises(BadDataError, match=r"prepared: swin was trained on 1 of 6 test cases.*\(case3\)"):
            run(world, told, "other")
    assert len(scored) == 1
    assert not (world.folder / "other").exists()


def test_validation_cases_may_not_have_trained_either(world: World, scored: list[Path]) -> None:
    (world.prepared / "val").mkdir()
    (world.prepared / "val" / "v.npy").write_bytes(b"a volume")
    manifest = Manifest.read(world.prepared, "reconstruction")
    record = CaseRecord("v", "val", "x", {"image": FileRecord.of(world.prepared, "val/v.npy")}, {})
    Manifest("reconstruction", [*manifest.cases, record], {}, []).write(world.prepared)
    keys = known_by(world, "v")
    run(world, {"train": [], "val": keys})  # the epoch was chosen on it, as variants are
    with pytest.raises(BadDataError, match=r"swin was trained on 1 of 1 val cases.*\(v\)"):
        run(world, {"train": keys, "val": []}, "other")
    assert len(scored) == 1


def test_a_network_that_does_not_say_what_it_was_trained_on_is_scored_and_named(
    world: World, scored: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run(world, None)
    assert len(scored) == 1
    assert "model-0.5: does not say which cases it was trained on" in capsys.readouterr().err

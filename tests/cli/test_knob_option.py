import pytest
import typer

from condswin.cli.learning import _combinations

TASK = "reconstruction"


def test_knobs_are_settings_of_the_training() -> None:
    assert _combinations(TASK, []) == {"": []}
    assert _combinations(TASK, ["workers=0,1", "precision=32-true"]) == {
        "workers=0, precision=32-true": [f"{TASK}.train.workers=0", f"{TASK}.train.precision=32-true"],
        "workers=1, precision=32-true": [f"{TASK}.train.workers=1", f"{TASK}.train.precision=32-true"],
    }


@pytest.mark.parametrize("wrong", ["workers", "workers=", "workers=1,", "=1"])
def test_a_knob_that_is_none_is_named(wrong: str) -> None:
    with pytest.raises(typer.BadParameter, match=f"--knob {wrong}: give a setting of {TASK}.train"):
        _combinations(TASK, [wrong])

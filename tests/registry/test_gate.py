import math

import pytest

from condswin.config.task import GateConfig
from condswin.errors import ConfigError
from condswin.registry.gate import Decision, decide
from condswin.tasks.facts import Row
from tests.registry.toy import ToyFacts


class NoBaseline(ToyFacts):
    baselines = {}  # noqa: RUF012


def rows(*values: float, metric: str = "psnr", baseline: float = 0.0) -> list[Row]:
    return [{"case": f"c{i}", metric: value, f"zero_filled_{metric}": baseline} for i, value in enumerate(values)]


def gate(challenger: list[Row], champion: list[Row] | None = None, **settings: float) -> Decision:
    return decide(ToyFacts, GateConfig(metric="psnr", **{"floor": 10.0, **settings}), challenger, champion)


def test_first_champion_needs_the_floor_only() -> None:
    assert gate(rows(10, 10)).promoted
    rejected = gate(rows(9, 10))
    assert rejected.failed == ["psnr: 9.5, needed at least 10"]
    assert rejected.metrics["challenger"]["mean"] == 9.5


def test_gain_over_the_reference_method_is_the_mean_over_cases() -> None:
    challenger = rows(30, 32, baseline=28)
    assert gate(challenger, baseline_gain=3.0).promoted
    assert gate(challenger, baseline_gain=3.5).failed == ["gain in psnr over the zero-filled: 3, needed 3.5"]


def test_a_challenger_must_gain_on_the_champion_case_by_case() -> None:
    champion = rows(20, 30)
    assert gate(rows(21, 30), champion, min_gain=0.5).promoted
    assert gate(rows(20, 30), champion).promoted
    worse = gate(rows(20, 29), champion)
    assert worse.failed == ["gain in psnr over the champion: -0.5, needed 0"]
    assert worse.metrics["gain_over_champion"]["mean"] == -0.5


def test_direction_of_the_metric() -> None:
    settings = GateConfig(metric="mse", floor=0.5, baseline_gain=0.1, min_gain=0.1)
    champion = rows(0.4, 0.4, metric="mse", baseline=0.9)
    better = decide(ToyFacts, settings, rows(0.2, 0.2, metric="mse", baseline=0.9), champion)
    assert better.promoted
    assert better.metrics["gain_over_champion"]["mean"] == pytest.approx(0.2)
    assert better.metrics["gain_over_champion"]["low"] <= better.metrics["gain_over_champion"]["high"]
    assert len(decide(ToyFacts, settings, rows(0.6, 0.6, metric="mse", baseline=0.6), champion).failed) == 3


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_fails(value: float) -> None:
    assert not gate(rows(value, value)).promoted
    # One bad case must not vanish from the mean.
    assert any("1 of 2 cases" in reason for reason in gate(rows(50, value)).failed)
    settings = GateConfig(metric="psnr", floor=10.0)
    assert any(
        "that the champion has" in reason
        for reason in decide(NoBaseline, settings, rows(50, value), rows(20, 20)).failed
    )


def test_a_case_without_a_value_for_anybody_is_left_out() -> None:
    settings = GateConfig(metric="psnr", floor=10.0)
    assert decide(NoBaseline, settings, rows(50, math.nan), rows(20, math.nan)).promoted


def test_missing_columns_and_cases_fail() -> None:
    assert gate([]).failed == ["psnr is missing in the challenger's results (0 cases)"]
    assert not gate([{"case": "a", "mse": 1.0}]).promoted
    assert gate([{"case": "a", "psnr": 20.0}]).failed == ["zero_filled_psnr is missing in the results"]
    assert "same cases" in gate(rows(20, 20), rows(20)).failed[0]
    assert "same cases" in gate(rows(20), [{"case": "c0", "mse": 1.0}]).failed[0]


def test_an_unknown_metric_is_a_mistake_in_the_parameters() -> None:
    with pytest.raises(ConfigError, match=r"reconstruction\.gate\.metric: no metric 'dice'; there are: psnr, mse"):
        decide(ToyFacts, GateConfig(metric="dice", floor=0.0), rows(1), None)

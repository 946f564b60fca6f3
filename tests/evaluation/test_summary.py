import math

import numpy as np
import pytest

from condswin.evaluation.summary import paired_gain, summarise


def test_summaries_are_over_cases_and_leave_undefined_ones_out() -> None:
    rows = [{"case": str(number), "dice": value} for number, value in enumerate((0.5, 0.7, math.nan, 0.9))]
    summary = summarise(rows, ["dice"])["dice"]
    assert summary["cases"] == 3
    assert summary["mean"] == pytest.approx(0.7)
    assert summary["std"] == pytest.approx(np.std([0.5, 0.7, 0.9], ddof=1))
    assert summary["low"] < summary["mean"] < summary["high"]


def test_a_metric_without_values_is_null_not_nan() -> None:
    summary = summarise([{"case": "a", "dice": math.nan}], ["dice"])["dice"]
    assert summary == {"mean": None, "std": None, "low": None, "high": None, "cases": 0}


def test_the_interval_covers_the_mean_of_the_population_as_often_as_it_says() -> None:
    draw = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        rows = [{"case": str(number), "psnr": float(value)} for number, value in enumerate(draw.normal(30, 2, 40))]
        summary = summarise(rows, ["psnr"])["psnr"]
        covered += summary["low"] <= 30 <= summary["high"]
    assert covered >= 88


@pytest.mark.parametrize("values", [[0.7], [0.7, 0.7, 0.7]])
def test_one_case_and_equal_cases_have_an_interval_of_no_width(values: list[float]) -> None:
    rows = [{"case": str(number), "dice": value} for number, value in enumerate(values)]
    summary = summarise(rows, ["dice"])["dice"]
    assert summary["std"] == pytest.approx(0)
    assert summary["low"] == summary["mean"] == summary["high"] == pytest.approx(0.7)


def test_the_interval_is_that_of_resampled_means_and_the_same_every_time() -> None:
    values = np.random.default_rng(2).normal(30, 2, 12)
    rows = [{"case": str(number), "psnr": float(value)} for number, value in enumerate(values)]
    resampled = np.random.default_rng(3).choice(values, (200_000, 12)).mean(axis=1)
    summary = summarise(rows, ["psnr"])["psnr"]
    assert (summary["low"], summary["high"]) == pytest.approx(np.percentile(resampled, [2.5, 97.5]), abs=0.1)
    assert summary == summarise(rows, ["psnr"])["psnr"]


def test_gains_are_paired_by_case() -> None:
    ours = [{"case": "b", "psnr": 31.0}, {"case": "a", "psnr": 22.0}, {"case": "c", "psnr": 1.0}]
    theirs = [{"case": "a", "psnr": 20.0}, {"case": "b", "psnr": 30.0}]
    gain = paired_gain(ours, theirs, "psnr")
    assert gain["mean"] == pytest.approx(1.5)
    assert gain["cases"] == 2

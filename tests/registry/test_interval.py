import math

import numpy as np
import pytest
from scipy import stats

from condswin.registry.interval import interval, patients_needed
from tests.registry.coverage import METHODS, POPULATIONS


def test_it_is_symmetric_for_mirrored_values_and_the_same_every_time() -> None:
    values = np.array([0.1, 0.4, -0.2, 0.9, 0.3, 0.25, 0.7, 0.05])
    found, mirrored = interval(values), interval(-values)
    assert found == interval(values)
    assert found.low < found.mean < found.high
    assert (found.mean, found.std) == (pytest.approx(values.mean()), pytest.approx(values.std(ddof=1)))
    assert (-mirrored.high, -mirrored.low) == (pytest.approx(found.low, abs=0.01), pytest.approx(found.high, abs=0.01))


def test_for_many_values_it_is_students() -> None:
    values = np.random.default_rng(0).normal(3, 2, 200)
    found, half = interval(values), stats.sem(values) * stats.t.ppf(0.975, 199)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)


def test_the_smallest_samples() -> None:
    assert interval(np.array([2.0]))[:3] == (2.0, -math.inf, math.inf)
    assert interval(np.full(5, 0.7))[:3] == pytest.approx((0.7, 0.7, 0.7))
    assert interval(np.zeros(5))[:3] == (0.0, 0.0, 0.0)
    # In one of nine resamples of three there is one value alone: nothing can be said.
    assert interval(np.array([1.0, 1.1, 1.2])).low == -math.inf


def test_patients_needed_decide_as_often_as_it_says() -> None:
    draw = np.random.default_rng(3)
    needed = patients_needed(interval(draw.normal(0.5, 1.0, 4000)))
    assert needed is not None
    means = [interval(draw.normal(0.5, 1.0, needed)).low for _ in range(300)]
    assert 0.7 < np.mean(np.array(means) > 0) < 0.9
    assert patients_needed(interval(draw.normal(-0.5, 1.0, 40))) is None
    assert patients_needed(interval(np.array([1.0]))) is None


def test_percentiles_promote_what_is_not_better_more_often_than_ours() -> None:
    """The reason for the choice: a few patients in whom a network does much worse, who are often not in the sample."""
    samples = POPULATIONS["skewed left"](np.random.default_rng(0), (400, 12))
    wrong = {name: float(np.mean(bounds(samples, 500)[0] > 0)) for name, bounds in METHODS.items()}
    assert wrong["bootstrap-t"] < 0.07
    assert min(wrong["percentile"], wrong["BCa"], wrong["Student's t"]) > wrong["bootstrap-t"]

"""Distances of data cards, and what of them is chance."""

from math import comb
from typing import Any

import numpy as np
import pytest

from condswin.drift import drift, limit_of, noise_floor


def card(values: Any, counts: dict[str, int] | None = None) -> dict[str, Any]:
    return {
        "cases": len(values),
        "statistics": {"size": list(values)},
        "compared": ["kind"],
        "counts": {"kind": counts or {"a": len(values)}},
    }


def test_of_numbers_it_is_the_largest_distance_of_the_cumulative_distributions() -> None:
    draw = np.random.default_rng(0)
    one, other = draw.normal(0, 1, 23).round(1), draw.normal(0.5, 1, 17).round(1)  # with ties
    expected = max(abs(np.mean(one <= value) - np.mean(other <= value)) for value in (*one, *other))
    assert drift(card(one), card(other))["size"] == pytest.approx(expected, abs=1e-15)


def test_of_facts_it_is_the_largest_difference_of_shares() -> None:
    one, other = card(range(8), {"a": 4, "b": 2, "c": 2}), card(range(4), {"b": 1, "d": 3})
    assert drift(one, other)["kind"] == drift(other, one)["kind"] == 0.75


@pytest.mark.parametrize(("cases", "others"), [(4, 4), (5, 40), (30, 7)])
def test_chance_exceeds_the_limit_at_most_as_often_as_said(cases: int, others: int) -> None:
    """All ways to deal values, or many of them, instead of a formula."""
    draw, beyond = np.random.default_rng(1), 0
    limit = noise_floor(cases, others, 1)
    for _ in range(2000):
        values = draw.permutation(cases + others)
        beyond += drift(card(values[:cases]), card(values[cases:]))["size"] > limit
    assert 0 < beyond / 2000 < 0.05 + 0.01


def test_more_comparisons_need_more_distance_and_more_volumes_less() -> None:
    assert noise_floor(20, 60, 1) < noise_floor(20, 60, 18) < noise_floor(10, 30, 18)
    assert noise_floor(20, 60, 18) == noise_floor(60, 20, 18)


def test_so_few_volumes_prove_nothing() -> None:
    # Complete separation of 2 from n comes by chance in 2 of so many ways.
    few, enough = 7, 8
    assert 2 / comb(few + 2, 2) > 0.05 >= 2 / comb(enough + 2, 2)
    assert noise_floor(2, few, 1) == 1
    assert noise_floor(2, enough, 1) < 1


def test_the_threshold_holds_where_chance_does_less() -> None:
    many = card(range(500))
    assert limit_of(many, many, 0.3) == 0.3
    assert limit_of(many, many, 0.0) == noise_floor(500, 500, 2) < 0.3

"""Means over cases with spread, from per-case rows."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from condswin.tasks.facts import Row

#: Resamples of the cases for a bootstrap interval.
RESAMPLES = 2000


class Summary(TypedDict):
    """One metric over cases; `low` and `high` bound the 95 % bootstrap interval of the mean. NaN cases are left out."""

    mean: float | None
    std: float | None
    low: float | None
    high: float | None
    cases: int


def summarise(rows: Sequence[Row], metrics: Sequence[str]) -> dict[str, Summary]:
    """Summary per metric column; a metric without any finite value has null statistics and zero cases."""
    return {metric: _summary(_column(rows, metric)) for metric in metrics}


def paired_gain(rows: Sequence[Row], reference: Sequence[Row], metric: str) -> Summary:
    """Summary of `rows` minus `reference`, case by case; cases missing in either, or NaN in either, are left out."""
    others = {row["case"]: float(row[metric]) for row in reference}
    differences = [float(row[metric]) - others[row["case"]] for row in rows if row["case"] in others]
    return _summary(np.array(differences, dtype=np.float64))


def _column(rows: Sequence[Row], metric: str) -> np.ndarray:
    return np.array([float(row[metric]) for row in rows], dtype=np.float64)


def _summary(values: np.ndarray) -> Summary:
    values = values[np.isfinite(values)]
    if not values.size:
        return Summary(mean=None, std=None, low=None, high=None, cases=0)
    resampled = np.random.default_rng(0).choice(values, (RESAMPLES, values.size)).mean(axis=1)
    low, high = np.percentile(resampled, [2.5, 97.5])
    std = float(values.std(ddof=1)) if values.size > 1 else 0.0
    return Summary(mean=float(values.mean()), std=std, low=float(low), high=float(high), cases=int(values.size))

"""Means over cases with spread, from per-case rows."""

from collections.abc import Mapping, Sequence
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


def paired_gain(
    rows: Sequence[Mapping[str, float | str]], reference: Sequence[Mapping[str, float | str]], metric: str
) -> Summary:
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
    mean = float(values.mean())
    if values.size == 1:
        return Summary(mean=mean, std=0.0, low=mean, high=mean, cases=1)
    # Imported here, since it takes a second, and not everybody who has rows summarises them.
    from scipy.stats import bootstrap

    # Percentiles of the means: BCa intervals are undefined where all values are equal.
    interval = bootstrap((values,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0))
    low, high = (float(bound) for bound in interval.confidence_interval)
    return Summary(mean=mean, std=float(values.std(ddof=1)), low=low, high=high, cases=int(values.size))

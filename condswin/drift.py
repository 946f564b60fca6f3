"""Whether two datasets are alike, by their data cards."""

import warnings
from bisect import bisect_left
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from scipy.stats import ks_2samp

#: Of `card.json`; raised when what a card holds changes.
FORMAT = 2
#: How often equal populations may be taken for different ones, by any of the distances.
FALSE_ALARMS = 0.05


def drift(card: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, float]:
    """How far two datasets are apart, 0 (alike) to 1, by statistic and by fact.

    For numbers the largest difference of their cumulative distributions (Kolmogorov-Smirnov), for facts the largest
    difference of a value's shares. Of few volumes it is noise: see `noise_floor`.

    Args:
        card: What `card.json` holds.
        reference: The same of other data of the task.
    """
    distances = {}
    for name, values in card["statistics"].items():
        # The statistic alone is taken, which is the same by any method; this one is quick.
        distances[name] = float(ks_2samp(values, reference["statistics"][name], method="asymp").statistic)
    for fact in card["compared"]:
        counts = [one["counts"][fact] for one in (card, reference)]
        totals = [sum(each.values()) for each in counts]
        distances[fact] = max(
            abs(counts[0].get(value, 0) / totals[0] - counts[1].get(value, 0) / totals[1])
            for value in {*counts[0], *counts[1]}
        )
    return distances


def limit_of(card: Mapping[str, Any], reference: Mapping[str, Any], threshold: float) -> float:
    """The distance above which two datasets differ: the threshold, or what chance does to so few cases if more."""
    comparisons = len(card["statistics"]) + len(card["compared"])
    return max(threshold, noise_floor(card["cases"], reference["cases"], comparisons))


@cache
def noise_floor(cases: int, others: int, comparisons: int) -> float:
    """A distance that equal populations exceed in any of several comparisons at most once in twenty times.

    By the exact distribution of the two-sample Kolmogorov-Smirnov statistic, and Bonferroni's bound. Values that occur
    twice, and shares, make alarms rarer. It is 1, which no distance exceeds, where so few cases prove nothing.

    Args:
        cases: Of the one dataset.
        others: Of the other.
        comparisons: How many distances there are.
    """
    smaller, larger = sorted((cases, others))

    def is_rare(place: int) -> bool:
        # So many of the larger sample below all else: the distance is place / larger.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of very large samples, whose limit is used instead
            chance = float(ks_2samp(np.arange(larger) >= place, np.ones(smaller)).pvalue)
        return chance <= FALSE_ALARMS / comparisons

    first = bisect_left(range(larger + 1), True, key=is_rare)
    # Distances come as differences of rounded shares.
    return min(first / larger - 1e-9, 1.0) if first <= larger else 1.0

"""What few patients say of a mean: its interval, and how many more it would take to decide."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Values = NDArray[np.float64]

#: How often an interval holds the true mean; a bound alone errs half as often as it does not.
LEVEL = 0.95
#: How often as many patients as `patients_needed` says decide, if the mean and the spread are as they were seen.
POWER = 0.8
RESAMPLES = 10_000


class Interval(NamedTuple):
    """A mean over patients with its bounds, which are infinite for a single patient."""

    mean: float
    low: float
    high: float
    std: float
    patients: int


def interval(values: Values) -> Interval:
    """The studentised bootstrap interval of a mean (Efron and Tibshirani 1993, chapter 12), the same every time.

    Its lower bound is above the true mean less often than a percentile's or BCa's where patients are few or a few of
    them differ a lot: `python -m tests.registry.coverage`.

    Args:
        values: One per patient, finite, at least one.
    """
    count, mean = len(values), float(values.mean())
    if count == 1:
        return Interval(mean, -math.inf, math.inf, math.nan, 1)
    std = float(values.std(ddof=1))
    low, high = (float(bound[0]) for bound in studentised(values[None], RESAMPLES))
    return Interval(mean, low, high, std, count)


def studentised(samples: Values, resamples: int) -> tuple[Values, Values]:
    """Lower and upper bounds of the means of samples (S, n); those of equal values have no width."""
    count = samples.shape[1]
    means, errors = samples.mean(axis=1), samples.std(axis=1, ddof=1) / math.sqrt(count)
    drawn = samples[:, np.random.default_rng(0).integers(count, size=(resamples, count))]  # (S, resamples, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (drawn.mean(axis=2) - means[:, None]) / (drawn.std(axis=2, ddof=1) / math.sqrt(count))
    # A resample of one patient alone has no spread; its ratio is infinite, unless it is the mean.
    ratios[np.isnan(ratios)] = 0.0
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low, high = np.quantile(ratios, tails, axis=1, method="inverted_cdf")
    with np.errstate(invalid="ignore"):
        bounds = means - high * errors, means - low * errors
    equal = errors <= 1e-12 * np.abs(means)
    return np.where(equal, means, bounds[0]), np.where(equal, means, bounds[1])


def patients_needed(seen: Interval) -> int | None:
    """Patients with whom the lower bound would be above 0 in `POWER` of all cases.

    `((z(0.975) + z(0.8)) * std / mean)^2 + 2`, rounded up: the usual figure for a paired comparison, and two
    more since the spread is estimated. None where the mean is not above 0 itself, or nothing is known of the spread.
    """
    if not (seen.mean > 0 and math.isfinite(seen.std)):
        return None
    z = float(ndtri((1 + LEVEL) / 2) + ndtri(POWER))
    return math.ceil((z * seen.std / seen.mean) ** 2) + 2

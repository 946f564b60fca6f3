"""How often intervals of a mean miss it in few patients: `python -m tests.registry.coverage` prints the table of docs.

Differences between two networks are drawn, the same for all methods, from populations whose mean is known. What counts
for a gate is the share of lower bounds above the true mean: how often a network is promoted that is not better.
"""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from condswin.registry.interval import LEVEL, studentised

Values = NDArray[np.float64]
#: Bounds of the mean of each row of samples (R, n).
Method = Callable[[Values, int], tuple[Values, Values]]

PATIENTS = (5, 8, 12, 20, 50)
#: Mean 0, standard deviation 1. Skewed to the left: a few patients in whom the new network does much worse.
POPULATIONS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Values]] = {
    "normal": lambda draw, shape: draw.standard_normal(shape),
    "skewed right": lambda draw, shape: draw.exponential(size=shape) - 1,
    "skewed left": lambda draw, shape: 1 - draw.exponential(size=shape),
}


def scipys(method: str) -> Method:
    def bounds(samples: Values, resamples: int) -> tuple[Values, Values]:
        found = stats.bootstrap(
            (samples,), np.mean, axis=-1, n_resamples=resamples, batch=50, method=method, rng=np.random.default_rng(0)
        ).confidence_interval
        return found.low, found.high

    return bounds


def student(samples: Values, _: int) -> tuple[Values, Values]:
    mean, error, count = samples.mean(1), stats.sem(samples, axis=1), samples.shape[1]
    half = stats.t.ppf((1 + LEVEL) / 2, count - 1) * error
    return mean - half, mean + half


METHODS: dict[str, Method] = {
    "percentile": scipys("percentile"),
    "BCa": scipys("BCa"),
    "bootstrap-t": studentised,
    "Student's t": student,
}


def table(trials: int, resamples: int, seed: int) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield f"| population | method | {' | '.join(f'{count} patients' for count in PATIENTS)} |"
    yield "|---|---|" + "---|" * len(PATIENTS)
    for name, population in POPULATIONS.items():
        samples = {count: population(np.random.default_rng([seed, count]), (trials, count)) for count in PATIENTS}
        for method, bounds in METHODS.items():
            cells = []
            for values in samples.values():
                parts = [bounds(part, resamples) for part in np.array_split(values, max(trials // 50, 1))]
                low, high = (np.concatenate(side) for side in zip(*parts, strict=True))
                covered, above = np.mean((low <= 0) & (high >= 0)), np.mean(low > 0)
                width = np.median(high - low)
                cells.append(f"{covered:.1%}, {above:.1%}, {width:.2f}")
            yield f"| {name} | {method} | {' | '.join(cells)} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=4000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for line in table(arguments.trials, arguments.resamples, arguments.seed):
        print(line, flush=True)

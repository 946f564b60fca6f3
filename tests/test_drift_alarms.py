from typing import Any

import numpy as np
import pytest

from condswin.ct.card import SegmentationCard
from condswin.mri.card import ReconstructionCard
from condswin.tasks.card import DataCard
from tests.drift_alarms import false_alarms, found


def card(part: type[DataCard], seed: int, offset: float = 0.0, cases: int = 60) -> dict[str, Any]:
    """Statistics of one population that have nothing to do with each other, the case with the most alarms."""
    generator = np.random.default_rng(seed)
    (fact,) = part.compared
    statistics = {name: generator.normal(size=cases).tolist() for name in part.statistics}
    first = next(iter(statistics))
    statistics[first] = [value + offset for value in statistics[first]]
    kinds = {"a": cases - cases // 3, "b": cases // 3}
    return {"cases": cases, "compared": [fact], "counts": {fact: kinds}, "statistics": statistics}


@pytest.mark.parametrize("part", [ReconstructionCard, SegmentationCard])
def test_chance_seldom_counts_as_drift(part: type[DataCard]) -> None:
    # Of so few splits, 5 % may look like 9 %.
    assert false_alarms(card(part, 1), 0.5, count=100) <= 0.09
    assert false_alarms(card(part, 1), 0.1, count=100) <= 0.09


@pytest.mark.parametrize("part", [ReconstructionCard, SegmentationCard])
def test_drift_of_one_statistic_among_many_is_found(part: type[DataCard]) -> None:
    volumes, share, names = found(card(part, 1), card(part, 2, offset=3, cases=20), count=20)
    assert (volumes, share, names) == (15, 1.0, [next(iter(part.statistics))])

import numpy as np

from condswin.mri.card import STATISTICS

from .drift_alarms import false_alarms


def test_chance_seldom_counts_as_drift() -> None:
    """Statistics of one population that have nothing to do with each other, the case with the most alarms."""
    generator = np.random.default_rng(1)
    statistics = {name: generator.normal(size=60).tolist() for name in STATISTICS}
    card = {"cases": 60, "acquisitions": {"CORPD_FBK": 40, "CORPDFS_FBK": 20}, "statistics": statistics}
    assert false_alarms(card, 0.5, splits=100) <= 0.05

"""How often drift is found where there is none: `python -m tests.mri.drift_alarms card.json`.

The volumes of a data card are dealt into two heaps at random, which are compared as new data is with a champion's. The
heaps are of one population, so whatever exceeds the limit is a false alarm.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from condswin.mri.card import STATISTICS, drift, noise_floor

SHARES = (0.5, 0.25, 0.1)
SPLITS = 2000


def false_alarms(card: dict[str, Any], share: float, *, splits: int = SPLITS, threshold: float = 0.0) -> float:
    """Share of random splits that count as drift.

    Args:
        card: What `card.json` holds. Acquisitions are dealt apart from the statistics, which it does not tie to them.
        share: Of the volumes that are the smaller heap.
        splits: How many.
        threshold: As `reconstruction.drift.threshold`; 0 for the bound of chance alone.
    """
    generator, cases = np.random.default_rng(0), card["cases"]
    kinds = [kind for kind, count in card["acquisitions"].items() for _ in range(count)]
    first = round(cases * share)
    limit, alarms = max(threshold, noise_floor(first, cases - first)), 0
    for _ in range(splits):
        order, shuffled = generator.permutation(cases), generator.permutation(cases)
        heaps = [
            {
                "cases": len(places),
                "acquisitions": dict(Counter(kinds[place] for place in others)),
                "statistics": {name: [card["statistics"][name][place] for place in places] for name in STATISTICS},
            }
            for places, others in ((order[:first], shuffled[:first]), (order[first:], shuffled[first:]))
        ]
        alarms += max(drift(*heaps).values()) > limit
    return alarms / splits


def main(path: str) -> None:
    card = json.loads(Path(path).read_text())
    for share in SHARES:
        rate = false_alarms(card, share)
        spread = 1.96 * np.sqrt(rate * (1 - rate) / SPLITS)
        print(f"{share:.0%} of {card['cases']} volumes against the rest: {rate:.1%} ± {spread:.1%} false alarms")


if __name__ == "__main__":
    main(*sys.argv[1:])

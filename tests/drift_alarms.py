"""How often drift is found where there is none, and where there is: `python -m tests.drift_alarms CARD [CARD ...]`.

The volumes of the first data card are dealt into two heaps at random, which are compared as new data is with a
champion's. The heaps are of one population, so whatever exceeds the limit is a false alarm. Of further cards, of data
that differs (`tests.drift_shifts` writes some), as many volumes as there are, up to a
quarter of the first card's, are compared with three quarters of the first card's: there an alarm is right.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from condswin.drift import drift, limit_of

SHARES = (0.5, 0.25, 0.1)
SPLITS = 2000
#: Of data that differs.
DRAWS = 200

Card = dict[str, Any]


def heap(card: Card, places: Sequence[int], others: Sequence[int]) -> Card:
    """Some volumes of a card. Facts are dealt apart from the statistics, which the card does not tie to them."""
    counts = {}
    for fact in card["compared"]:
        kinds = [kind for kind, count in card["counts"][fact].items() for _ in range(count)]
        counts[fact] = dict(Counter(kinds[place] for place in others))
    statistics = {name: [values[place] for place in places] for name, values in card["statistics"].items()}
    return {"cases": len(places), "compared": card["compared"], "counts": counts, "statistics": statistics}


def splits(card: Card, share: float, count: int) -> Iterator[tuple[Card, Card]]:
    """Random pairs of heaps, the first with a share of the volumes."""
    generator, cases = np.random.default_rng(0), card["cases"]
    first = round(cases * share)
    for _ in range(count):
        order, shuffled = generator.permutation(cases), generator.permutation(cases)
        yield heap(card, order[:first], shuffled[:first]), heap(card, order[first:], shuffled[first:])


def false_alarms(card: Card, share: float, *, count: int = SPLITS, threshold: float = 0.0) -> float:
    """Share of random splits that count as drift.

    Args:
        card: What `card.json` holds.
        share: Of the volumes that are the smaller heap.
        count: How many splits.
        threshold: As `drift.threshold` of a task; 0 for what chance does alone.
    """
    return float(
        np.mean([max(drift(*pair).values()) > limit_of(*pair, threshold) for pair in splits(card, share, count)])
    )


def found(card: Card, other: Card, *, count: int = DRAWS) -> tuple[int, float, list[str]]:
    """Volumes of another card, the share of draws of them that count as drift, and what differs in most draws."""
    generator, volumes, alarms = np.random.default_rng(1), min(other["cases"], card["cases"] // 4), 0
    differing: Counter[str] = Counter()
    for _, known in splits(card, 0.25, count):
        drawn = generator.permutation(other["cases"])[:volumes]
        new = heap(other, drawn, drawn)
        limit = limit_of(new, known, 0.0)
        beyond = [name for name, distance in drift(new, known).items() if distance > limit]
        alarms += bool(beyond)
        differing.update(beyond)
    return volumes, alarms / count, [name for name, times in differing.most_common() if times > count / 2]


def main(first: str, *others: str) -> None:
    card = json.loads(Path(first).read_text())
    print("| data | volumes, against | drift found | by, in most draws |\n|---|---:|---:|---|")
    for share in SHARES:
        rate = false_alarms(card, share)
        spread = 1.96 * np.sqrt(rate * (1 - rate) / SPLITS)
        volumes = round(card["cases"] * share)
        print(f"| the same | {volumes}, {card['cases'] - volumes} | {rate:.1%} ± {spread:.1%} | (false alarms) |")
    for path in map(Path, others):
        volumes, rate, names = found(card, json.loads(path.read_text()))
        known = card["cases"] - round(card["cases"] * 0.25)
        print(f"| {path.parent.name} | {volumes}, {known} | {rate:.0%} | {', '.join(names[:5])} |")


if __name__ == "__main__":
    main(*sys.argv[1:])

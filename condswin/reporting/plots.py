"""Tables that `dvc plots` draws: a row per point, so that one template serves any number of variants."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from condswin.files import atomic_file
from condswin.reporting.scores import Scores
from condswin.tasks.facts import Facts

Table = list[dict[str, str | float]]


def curve_rows(histories: Mapping[str, Sequence[Mapping[str, str]]], facts: Facts) -> Table:
    """`epoch`, `variant`, `measure` and `value`: the loss, and the score that picks the best epoch."""
    return [
        {"epoch": int(row["epoch"]) + 1, "variant": variant, "measure": column, "value": float(row[column])}
        for column in ("train/loss", f"val/{facts.monitor[0]}")
        for variant, rows in histories.items()
        for row in rows
        if row.get(column)
    ]


def score_rows(scores: Scores) -> Table:
    """`method`, `metric`, `mean`, `low` and `high` of the task's metrics over the test patients."""
    return [
        {"method": method, "metric": metric, "mean": mean.mean, **_ends(mean.low, mean.high, mean.mean)}
        for metric in scores.facts.metrics
        for method in scores.methods
        if (mean := scores.mean(method, metric)) is not None
    ]


def gain_rows(scores: Scores) -> Table:
    """`against`, `metric`, `gain`, `low` and `high` of what the best variant gains case by case; positive is better."""
    return [
        {"against": method, "metric": metric, "gain": gain.mean, **_ends(gain.low, gain.high, gain.mean)}
        for metric in scores.facts.metrics
        for method in list(scores.methods)[1:]
        if (gain := scores.gain(method, metric)) is not None
    ]


def write_table(path: Path, rows: Table) -> None:
    """Writes a table as CSV, atomically; one without rows is empty."""
    with atomic_file(path) as temporary, temporary.open("w", newline="") as file:
        if rows:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def _ends(low: float, high: float, mean: float) -> dict[str, str | float]:
    """The ends of an interval; the mean's own place where there is none, since a plot has no infinity."""
    return {"low": low if math.isfinite(low) else mean, "high": high if math.isfinite(high) else mean}

"""What the test cases say: means and paired gains over patients, by method, metric and kind of case."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from condswin.registry.interval import Interval, interval
from condswin.tasks.facts import Facts, Row

#: Kinds of cases that a trait is divided into, if it has more values.
GROUPS = 3


@dataclass(frozen=True)
class Scores:
    """The test cases of a task by every method.

    Attributes:
        facts: The task's.
        patients: Key of the person by case.
        methods: Rows by method, the best variant first, then reference methods, then the other variants.
        references: Which of them are no networks of the comparison.
    """

    facts: Facts
    patients: Mapping[str, str]
    methods: Mapping[str, Sequence[Row]]
    references: Sequence[str]

    @property
    def best(self) -> str:
        """The best variant."""
        return next(iter(self.methods))

    @property
    def better(self) -> dict[str, bool]:
        """All columns that are better or worse, in order, and whether a higher value is better."""
        return {**self.facts.metrics, **self.facts.further, **dict.fromkeys(self.facts.ceilings, False)}

    def columns(self) -> list[str]:
        """Those of `better` that any method has a value of."""
        return [name for name in self.better if any(self.values(method, name) for method in self.methods)]

    def values(self, method: str, column: str) -> dict[str, float]:
        """Finite values by case."""
        found = {str(row["case"]): float(row.get(column, math.nan)) for row in self.methods[method]}
        return {case: value for case, value in found.items() if math.isfinite(value)}

    def mean(self, method: str, column: str, cases: Sequence[str] | None = None) -> Interval | None:
        """Mean over patients with its interval, of some cases or of all."""
        values = self.values(method, column)
        chosen = self._by_patient({case: values[case] for case in values if cases is None or case in cases})
        return self._interval(column, list(chosen.values()), least=0.0)

    def gains(self, other: str, column: str, cases: Sequence[str] | None = None) -> dict[str, float]:
        """By patient, what the best variant gains on another method: positive where it is better."""
        sign = 1.0 if self.better[column] else -1.0
        ours, theirs = self.values(self.best, column), self.values(other, column)
        both = [case for case in ours if case in theirs and (cases is None or case in cases)]
        return self._by_patient({case: sign * (ours[case] - theirs[case]) for case in both})

    def gain(self, other: str, column: str, cases: Sequence[str] | None = None) -> Interval | None:
        """Mean of `gains` with its interval."""
        return self._interval(column, list(self.gains(other, column, cases).values()), least=-1.0)

    def kinds(self) -> dict[str, dict[str, list[str]]]:
        """By trait that differs among the cases, the cases by its value, or by the third of the values they are in."""
        found = {}
        for trait, kind in self.facts.traits.items():
            rows = [row for row in self.methods[self.best] if trait in row]
            values = {str(row["case"]): row[trait] for row in rows}
            groups = _by_text(values) if kind is str else _by_number(values)
            if len(groups) > 1:
                found[trait] = groups
        return found

    def metric_for(self, trait: str) -> str:
        """The metric that a trait is set against: one of the same structure (tumours by their size), else the first."""
        names = list(self.facts.metrics)
        return next((name for name in names if name.split("_")[0] == trait.split("_")[0]), names[0])

    def _by_patient(self, values: Mapping[str, float]) -> dict[str, float]:
        grouped: dict[str, list[float]] = {}
        for case in sorted(values):
            grouped.setdefault(self.patients[case], []).append(values[case])
        return {patient: float(np.mean(group)) for patient, group in grouped.items()}

    def _interval(self, column: str, values: Sequence[float], *, least: float) -> Interval | None:
        if not values:
            return None
        found = interval(np.array(values))
        if column not in self.facts.shares:
            return found
        return found._replace(low=max(found.low, least), high=min(found.high, 1.0))


class Verdict(NamedTuple):
    """Methods by what the interval of the gain on them says."""

    beaten: list[str]
    open: list[str]
    ahead: list[str]


def verdict(scores: Scores, metric: str) -> Verdict:
    """Which methods the best variant is better than, which it cannot be told from, and which are better."""
    found = Verdict([], [], [])
    for method in list(scores.methods)[1:]:
        if (gain := scores.gain(method, metric)) is not None:
            (found.beaten if gain.low > 0 else found.ahead if gain.high < 0 else found.open).append(method)
    return found


def _by_text(values: Mapping[str, float | str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for case, value in sorted(values.items(), key=lambda item: (str(item[1]), item[0])):
        if value:
            groups.setdefault(str(value), []).append(case)
    return groups


def _by_number(values: Mapping[str, float | str]) -> dict[str, list[str]]:
    """Groups of equal values if these are few, else `GROUPS` of about as many cases, from the lowest values on."""
    known = {case: float(value) for case, value in values.items() if math.isfinite(float(value))}
    ordered = sorted(known, key=lambda case: (known[case], case))
    if len(different := sorted(set(known.values()))) <= GROUPS:
        return {f"{value:.4g}": [case for case in ordered if known[case] == value] for value in different}
    parts = [part.tolist() for part in np.array_split(np.array(ordered), GROUPS)]
    ends = [(f"{known[part[0]]:.4g}", f"{known[part[-1]]:.4g}") for part in parts]
    return {low if low == high else f"{low} to {high}": part for (low, high), part in zip(ends, parts, strict=True)}

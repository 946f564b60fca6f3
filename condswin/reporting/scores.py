"""What the test cases say: means and paired gains over patients, by method, metric and kind of case."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from condswin.registry.interval import Interval, interval
from condswin.tasks.facts import Facts, Row

#: Kinds of cases, at most, that a trait is divided into if it has more values.
GROUPS = 3
#: Parts of a case, in the order of its slices.
THIRDS = ("first", "middle", "last")


@dataclass(frozen=True)
class Scores:
    """The test cases of a task by every method.

    Attributes:
        facts: The task's.
        patients: Key of the person by case.
        methods: Rows by method, the best variant first, then reference methods, then the other variants.
        references: Which of them are no networks of the comparison.
        qualities: Columns of the best variant's rows, numbers, that describe a case beside `facts.traits`.
        slices: The first metric of every slice by method and case, as `Judging.by_slice` gives it.
        least: Patients from which on anything is said of who is better, the gate's.
    """

    facts: Facts
    patients: Mapping[str, str]
    methods: Mapping[str, Sequence[Row]]
    references: Sequence[str]
    qualities: Sequence[str] = ()
    slices: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    least: int = 8

    @property
    def best(self) -> str:
        """The best variant."""
        return next(iter(self.methods))

    @property
    def better(self) -> dict[str, bool]:
        """All columns that are better or worse, in order, and whether a higher value is better."""
        return {**self.facts.metrics, **self.facts.further, **dict.fromkeys(self.facts.ceilings, False)}

    def sign(self, column: str) -> int:
        """What a value is multiplied with so that more is better: 1 or -1."""
        return 1 if self.better[column] else -1

    @property
    def traits(self) -> dict[str, type]:
        """Columns that describe a case: `str` or `float`."""
        return {**self.facts.traits, **dict.fromkeys(self.qualities, float)}

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
        return self._interval(column, list(chosen.values()))

    def by_case(self, other: str, column: str, method: str = "") -> dict[str, float]:
        """By case, what a method, by default the best variant, gains on another: positive where it is better."""
        sign = self.sign(column)
        ours, theirs = self.values(method or self.best, column), self.values(other, column)
        return {case: sign * (ours[case] - theirs[case]) for case in ours if case in theirs}

    def gains(self, other: str, column: str, method: str = "") -> dict[str, float]:
        """By patient, the means of `by_case`."""
        return self._by_patient(self.by_case(other, column, method))

    def gain(self, other: str, column: str, method: str = "") -> Interval | None:
        """Mean of `gains` with its interval."""
        return self._interval(column, list(self.gains(other, column, method).values()), gain=True)

    def third(self, method: str, place: int) -> Interval | None:
        """Mean over patients of the first metric of the slices in one of the `THIRDS` of each case."""
        metric = next(iter(self.facts.metrics))
        values = {}
        for case, slices in self.slices.get(method, {}).items():
            known = np.array([value for value in slices if math.isfinite(value)])
            part = np.array_split(known, len(THIRDS))[place]
            if part.size:
                values[case] = float(part.mean())
        return self._interval(metric, list(self._by_patient(values).values()))

    def kinds(self) -> dict[str, dict[str, list[str]]]:
        """By trait that differs among the cases, the cases by its value, or by the part of the values they are in.

        A number with many values is divided into parts of at least `least` patients. One that scatters around a
        nominal value says nothing that the nominal one does not.
        """
        found = {}
        parts = min(GROUPS, len({*self.patients.values()}) // self.least)
        for trait, kind in self.traits.items():
            rows = [row for row in self.methods[self.best] if trait in row]
            values = {str(row["case"]): row[trait] for row in rows}
            groups = {} if self.nominal(trait) else _by_text(values) if kind is str else _by_number(values, parts)
            if len(groups) > 1:
                found[trait] = groups
        return found

    def nominal(self, trait: str) -> str:
        """The trait that gives the nominal value of another; empty without one."""
        name = f"nominal_{trait}"
        return name if name in self.traits and self.values(self.best, name) else ""

    def metric_for(self, trait: str) -> str:
        """The metric that a trait is set against: one of the same structure (tumours by their size), else the first."""
        names = list(self.facts.metrics)
        return next((name for name in names if name.split("_")[0] == trait.split("_")[0]), names[0])

    def _by_patient(self, values: Mapping[str, float]) -> dict[str, float]:
        grouped: dict[str, list[float]] = {}
        for case in sorted(values):
            grouped.setdefault(self.patients[case], []).append(values[case])
        return {patient: float(np.mean(group)) for patient, group in grouped.items()}

    def _interval(self, column: str, values: Sequence[float], *, gain: bool = False) -> Interval | None:
        return within(self.facts, column, interval(np.array(values)), gain=gain) if values else None


def within(facts: Facts, column: str, found: Interval, *, gain: bool) -> Interval:
    """An interval without what no mean, or no gain, of a column can be; one without ends stays without."""
    least, most = facts.ranges.get(column, (-math.inf, math.inf))
    if gain:
        least, most = least - most, most - least
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return found
    return found._replace(low=max(found.low, least), high=min(found.high, most))


class Verdict(NamedTuple):
    """Methods by what the interval of the gain on them says."""

    beaten: list[str]
    open: list[str]
    ahead: list[str]


def verdict(scores: Scores, metric: str) -> Verdict:
    """Which methods the best variant is better than, which it cannot be told from, and which are better.

    Of fewer patients than decide anything it can be told from none.
    """
    found = Verdict([], [], [])
    for method in list(scores.methods)[1:]:
        if (gain := scores.gain(method, metric)) is not None:
            sign = told(gain, scores.least)
            (found.beaten if sign > 0 else found.ahead if sign < 0 else found.open).append(method)
    return found


def routed(networks: Mapping[str, str]) -> dict[str, str]:
    """By variant with routers the variant that is the same network without; those that have one.

    Args:
        networks: Kind of network by variant.
    """
    variants = {network: variant for variant, network in reversed([*networks.items()])}
    plain = {variant: re.sub(r"conditional-\w+$", "swin", network) for variant, network in networks.items()}
    return {
        variant: variants[network]
        for variant, network in plain.items()
        if network != networks[variant] and network in variants
    }


def told(gain: Interval, least: int) -> int:
    """1 if a gain is above zero with its whole interval, -1 if below, 0 if that is not known, as of few patients."""
    return 0 if gain.patients < least else int(gain.low > 0) - int(gain.high < 0)


def _by_text(values: Mapping[str, float | str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for case, value in sorted(values.items(), key=lambda item: (str(item[1]), item[0])):
        if value:
            groups.setdefault(str(value), []).append(case)
    return groups


def _by_number(values: Mapping[str, float | str], parts: int) -> dict[str, list[str]]:
    """Groups of equal values if these are few, else so many of about as many cases, from the lowest values on."""
    known = {case: float(value) for case, value in values.items() if math.isfinite(float(value))}
    ordered = sorted(known, key=lambda case: (known[case], case))
    if len(different := sorted(set(known.values()))) <= GROUPS:
        return {f"{value:.4g}": [case for case in ordered if known[case] == value] for value in different}
    if parts < 2:
        return {}
    groups = [part.tolist() for part in np.array_split(np.array(ordered), parts)]
    ends = [(f"{known[group[0]]:.4g}", f"{known[group[-1]]:.4g}") for group in groups]
    return {low if low == high else f"{low} to {high}": group for (low, high), group in zip(ends, groups, strict=True)}

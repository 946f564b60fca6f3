"""Whether a challenger may become champion, decided from per-case rows and a few figures of the network alone.

Each rule asks whether a mean over patients is far enough from a limit. The cases of one person are one draw: their
values are averaged first. All rules must hold, so several of them need no correction: a challenger that breaks one is
let through at most as often as that rule alone errs (an intersection-union test, Berger 1982).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from condswin.config.gate import BASELINES, CHAMPION, FIGURES, GateConfig, RuleConfig, gate_problems, reference_methods
from condswin.errors import ConfigError
from condswin.plain import span
from condswin.registry.interval import interval, patients_needed
from condswin.tasks.facts import Facts, Row

Outcome = Literal["promoted", "refused", "undecided"]

#: Cases that a rule names which does not hold.
WORST = 3


@dataclass(frozen=True)
class Evidence:
    """What a challenger is judged by.

    Attributes:
        rows: Its scores of the test cases.
        patients: Key of the person by case.
        references: Rows of the same cases by reference method; a sentence where there are none.
        champion: The champion's rows of the same cases; None if there is no champion.
        figures: Of the network, by name.
        generated: Which cases a network saw in training were generated, `all`, `some`, `none` or `unknown`; of the
            `challenger` and, if there is one, of the `champion`.
        left_out: Test cases that the champion was trained on: no comparison with it has them.
        untold: Those of `challenger` and `champion` that do not say which cases they were trained on.
    """

    rows: Sequence[Row]
    patients: Mapping[str, str]
    references: Mapping[str, Sequence[Row] | str] = field(default_factory=dict)
    champion: Sequence[Row] | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    generated: Mapping[str, str] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    untold: Sequence[str] = ()


@dataclass(frozen=True)
class Ruling:
    """What became of a rule.

    Attributes:
        rule: The rule in words.
        outcome: It holds, it does not, nobody can tell yet, or there is nothing to apply it to.
        text: Why, in words.
        estimate: What the rule is about: a mean, a gain (positive is better), a worst case, a figure.
        low: Lower bound of the estimate's interval.
        high: Upper one.
        needed: What the bound or the estimate had to reach.
        patients: How many it was estimated from.
        cases: Their cases.
        enough: Patients that would decide; see `patients_needed`.
        worst: Places of the worst cases among the sorted names of all test cases. Names may lead to patients, and
            rulings are kept in the registry.
    """

    rule: str
    outcome: Literal["holds", "broken", "undecided", "not applicable"]
    text: str
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    needed: float | None = None
    patients: int = 0
    cases: int = 0
    enough: int | None = None
    worst: list[int] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """JSON-able."""
        values = asdict(self)
        return {name: value for name, value in values.items() if value not in (None, [])}


@dataclass(frozen=True)
class Decision:
    """Outcome of the gate.

    Attributes:
        rulings: One per rule, and per reference method where a rule names several.
        patients: In the test set.
        required: At least.
    """

    rulings: Sequence[Ruling]
    patients: int
    required: int

    @property
    def outcome(self) -> Outcome:
        """Promoted if all rules hold, refused if one is broken, else undecided."""
        outcomes = {ruling.outcome for ruling in self.rulings}
        if "broken" in outcomes:
            return "refused"
        decided = "holds" in outcomes and "undecided" not in outcomes and self.patients >= self.required
        return "promoted" if decided else "undecided"

    @property
    def reasons(self) -> list[str]:
        """What made it so, in sentences."""
        deciding = {"promoted": "holds", "refused": "broken", "undecided": "undecided"}[self.outcome]
        sentences = [f"{each.rule}: {each.text}" for each in self.rulings if each.outcome == deciding]
        if self.outcome == "undecided" and self.patients < self.required:
            few = f"{self.patients} patients are in the test set, and fewer than {self.required} decide nothing"
            sentences.insert(0, few)
        return sentences or ["no rule applies: there is no champion and no other rule"]


def check_gate(task: Facts | type[Facts], gate: GateConfig) -> None:
    """Refuses a gate that names what the task does not have.

    Raises:
        ConfigError: It does.
    """
    if problems := gate_problems(gate, task):
        raise ConfigError("\n".join(f"{task.name}.gate.{key}: {sentence}" for key, sentence in problems))


def decide(task: Facts | type[Facts], gate: GateConfig, evidence: Evidence) -> Decision:
    """Applies the gate.

    Undefined values (NaN: tumour Dice where there is no tumour) are left out; but a case breaks a rule if the
    challenger has no value for it and the champion or a reference method has one.

    Args:
        task: Gives directions and reference methods.
        gate: The rules.
        evidence: Of the challenger.

    Raises:
        ConfigError: The gate names what the task does not have.
    """
    check_gate(task, gate)
    judge = _Judge(task, gate, evidence)
    rulings = [ruling for rule in gate.rules for ruling in judge.apply(rule)]
    rulings += [*judge.origin(), *judge.ceilings()]
    return Decision(rulings, len({evidence.patients[str(row["case"])] for row in evidence.rows}),
                    gate.patients)  # fmt: skip


class _Judge:
    def __init__(self, task: Facts | type[Facts], gate: GateConfig, evidence: Evidence) -> None:
        self.task, self.gate, self.evidence = task, gate, evidence
        self.better = {**task.metrics, **task.further}
        self.places = {case: place for place, case in enumerate(sorted(str(row["case"]) for row in evidence.rows))}

    def apply(self, rule: RuleConfig) -> Iterator[Ruling]:
        others = reference_methods(self.task) if rule.other == BASELINES else [rule.other]
        for other in others:
            sentence = rule.sentence(other)
            yield self._figure(rule, sentence) if rule.metric in FIGURES else self._cases(rule, sentence, other)
        if not others:
            yield Ruling(rule.sentence(), "not applicable", "the task has no reference method")

    def origin(self) -> Iterator[Ruling]:
        """Whether what the networks were trained on allows one to replace the other."""
        ours, theirs = (self.evidence.generated.get(role) for role in ("challenger", CHAMPION))
        if ours == "all" and theirs not in (None, "all") and not self.gate.generated_over_real:
            yield Ruling(
                "real data is not replaced by generated data",
                "broken",
                "the challenger was trained on generated data alone, the champion was not "
                "(gate.generated_over_real allows it)",
            )
        if "challenger" in self.evidence.untold:
            yield Ruling(
                "the challenger was trained on no test case",
                "undecided",
                "its description does not say which cases it was trained on; train it again",
            )

    def ceilings(self) -> Iterator[Ruling]:
        """Whether what no model may exceed is exceeded."""
        for column, most in self.task.ceilings.items():
            values = [float(row.get(column, math.nan)) for row in self.evidence.rows]
            mean = float(np.mean([value for value in values if math.isfinite(value)] or [0.0]))
            if mean > most:
                yield Ruling(f"{column} at most {most:g}", "broken", f"its mean is {mean:.6g}", mean, needed=most)

    def _figure(self, rule: RuleConfig, sentence: str) -> Ruling:
        value = self.evidence.figures.get(rule.metric, math.nan)
        limit, sign = _limit(rule)
        return Ruling(
            sentence,
            "holds" if sign * (value - limit) >= 0 else "broken",
            f"it is {value:.6g}" if math.isfinite(value) else "it has no value",
            estimate=value if math.isfinite(value) else None,
            needed=limit,
        )

    def _cases(self, rule: RuleConfig, sentence: str, other: str) -> Ruling:
        reference = self._reference(other, rule.metric) if other else {}
        if other == CHAMPION and self.evidence.champion is None:
            return Ruling(sentence, "not applicable", "there is no champion")
        if isinstance(reference, str):
            return Ruling(sentence, "undecided", reference)
        if absent := [
            name for name in (rule.metric, *rule.where) if any(name not in row for row in self.evidence.rows)
        ]:
            return Ruling(sentence, "broken", f"{absent[0]} is missing in the challenger's results")
        if other and set(reference) != set(self.places):
            return Ruling(sentence, "broken", f"{other} and the challenger were not scored on the same cases")
        rows = [row for row in self.evidence.rows if rule.applies_to(row, self.task.traits)]
        if not rows:
            return Ruling(sentence, "undecided", "no test case is one of these")
        if other == CHAMPION:
            rows = [row for row in rows if str(row["case"]) not in self.evidence.left_out]
            if not rows:
                return Ruling(sentence, "undecided", "the champion was trained on all of these test cases; give others")
        ours = {str(row["case"]): float(row[rule.metric]) for row in rows}
        if lost := self._lost(rule.metric, ours):
            text = f"{len(lost)} of {len(ours)} cases have no value, for which another method has one"
            return Ruling(sentence, "broken", text, cases=len(ours), worst=self._worst(dict.fromkeys(lost, 0.0)))
        return self._means(rule, sentence, other, ours, reference)

    def _means(
        self, rule: RuleConfig, sentence: str, other: str, ours: Mapping[str, float], theirs: Mapping[str, float]
    ) -> Ruling:
        """Decides by what is left after the limit or the margin: it must not be negative."""
        if other:
            sign = 1.0 if self.better[rule.metric] else -1.0
            side = 1.0 if rule.superior_to else -1.0
            margins = {case: side * (rule.margin + rule.margin_percent / 100 * abs(theirs[case])) for case in ours}
            values = {case: sign * (value - theirs[case]) for case, value in ours.items()}
            rest = {case: values[case] - margins[case] for case in ours}
        else:
            limit, sign = _limit(rule)
            margins = dict.fromkeys(ours, limit)
            values, rest = dict(ours), {case: sign * (value - limit) for case, value in ours.items()}
        finite = [case for case in rest if math.isfinite(rest[case])]
        if not finite:
            return Ruling(sentence, "undecided", f"{rule.metric} has no value for any of {len(ours)} cases")
        if rule.of == "every_case":
            return self._every_case(rule, sentence, {case: rest[case] for case in finite}, values)
        left, needed = self._by_patient(rest, finite), float(self._by_patient(margins, finite).mean())
        seen, enough_patients = interval(left), len(left) >= self.gate.patients
        if rule.of == "mean":
            holds, broken = seen.mean >= 0, seen.mean < 0
        else:
            holds = seen.low > 0 if rule.superior_to else seen.low >= 0
            broken = seen.high <= 0 if rule.superior_to else seen.high < 0
        outcome = "undecided" if not enough_patients else "holds" if holds else "broken" if broken else "undecided"
        # What is left is counted from the limit; a gain is positive where it is better, a mean is in its own direction.
        turn = 1.0 if other else sign
        mean = turn * seen.mean + needed
        down, up = sorted((turn * seen.low + needed, turn * seen.high + needed))
        enough = None
        if outcome != "holds" and rule.of == "bound" and (wanted := patients_needed(seen)) is not None:
            enough = max(wanted, self.gate.patients)
        text = self._spoken(rule, mean, down, up, needed, seen.patients, len(finite))
        if outcome != "holds":
            text += f"; about {enough} patients would decide" if enough else ""
            text += "" if enough_patients else self._few()
            if not enough and rule.of == "bound" and seen.mean <= 0:
                text += "; the mean itself falls short"
        return Ruling(
            sentence,
            outcome,  # type: ignore[arg-type]
            text,
            estimate=mean,
            low=down if math.isfinite(down) else None,
            high=up if math.isfinite(up) else None,
            needed=needed,
            patients=seen.patients,
            cases=len(finite),
            enough=enough,
            worst=[] if holds else self._worst({case: rest[case] for case in finite}),
        )

    def _every_case(
        self, rule: RuleConfig, sentence: str, rest: Mapping[str, float], values: Mapping[str, float]
    ) -> Ruling:
        below = {case: left for case, left in rest.items() if left < 0}
        worst = min(rest, key=lambda case: rest[case])
        patients = len({self.evidence.patients[case] for case in rest})
        few = patients < self.gate.patients
        text = f"{len(below)} of {len(rest)} cases are beyond it" if below else f"it holds in {len(rest)} cases"
        return Ruling(
            sentence,
            "broken" if below else "undecided" if few else "holds",
            f"{text}, the worst has {values[worst]:.4g}" + (self._few() if few and not below else ""),
            estimate=values[worst],
            needed=_limit(rule)[0],
            patients=patients,
            cases=len(rest),
            worst=self._worst(below),
        )

    def _few(self) -> str:
        return f"; fewer than {self.gate.patients} patients decide nothing"

    def _spoken(
        self, rule: RuleConfig, mean: float, low: float, high: float, needed: float, patients: int, cases: int
    ) -> str:
        people = f"{patients} patients" + (f" ({cases} cases)" if cases != patients else "")
        if rule.of == "mean":
            return f"it is {mean:.4g} over {people}"
        sign = "+" if rule.other else ""
        bounds = f"95 % interval {span(low, high, 4, sign)}" if math.isfinite(low) else "no interval"
        if low == high:
            bounds = "the same of each"
        better = "" if not rule.other or self.better[rule.metric] else ", lower is better"
        wanted = f"more than {needed:+.4g}" if rule.other else f"{needed:.4g}"
        what = "gain" if rule.other else "mean"
        return f"{what} {mean:{sign}.4g} ({bounds}{better}) over {people}, needed {wanted}"

    def _reference(self, other: str, metric: str) -> dict[str, float] | str:
        """A metric's value by case of what the challenger is compared with; a sentence where there is none."""
        if (prefix := self.task.baselines.get(other)) is not None:
            column = prefix + metric
            rows: Sequence[Row] | str = self.evidence.rows
        else:
            column = metric
            rows = self.evidence.champion or [] if other == CHAMPION else self.evidence.references.get(
                other, f"there are no scores of {other}")  # fmt: skip
        if isinstance(rows, str):
            return rows
        if any(column not in row for row in rows):
            return f"{column} is missing in the results of {other}"
        return {str(row["case"]): float(row[column]) for row in rows}

    def _lost(self, metric: str, ours: Mapping[str, float]) -> list[str]:
        """Cases without a value that the champion or a reference method has one for."""
        lost = set()
        for other in (CHAMPION, *reference_methods(self.task)):
            values = self._reference(other, metric)
            if not isinstance(values, str):
                lost |= {case for case in ours if math.isfinite(values.get(case, math.nan))}
        return sorted(case for case in lost if not math.isfinite(ours[case]))

    def _by_patient(self, values: Mapping[str, float], cases: Sequence[str]) -> np.ndarray:
        """Means over each person's cases."""
        grouped: dict[str, list[float]] = {}
        for case in sorted(cases):
            grouped.setdefault(self.evidence.patients[case], []).append(values[case])
        return np.array([np.mean(group) for group in grouped.values()], dtype=np.float64)

    def _worst(self, rest: Mapping[str, float]) -> list[int]:
        ranked = sorted(rest, key=lambda case: (rest[case], case))
        return [self.places[case] for case in ranked[:WORST]]


def _limit(rule: RuleConfig) -> tuple[float, float]:
    """A floor or a ceiling, and the sign that makes values beyond it negative."""
    return (rule.floor, 1.0) if rule.floor is not None else (rule.ceiling or 0.0, -1.0)

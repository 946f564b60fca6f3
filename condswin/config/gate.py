"""When a challenger becomes champion: rules on scores of test cases and on what a network costs."""

import operator
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from condswin.config.section import Positive, Section
from condswin.suggest import unknown

#: What rules may name beside scores of cases: figures of the network, which have a floor or a ceiling alone.
FIGURES = {
    "latency_ms": "median milliseconds for two images of 64 x 64 in a clean process, on the CPU",
    "parameters": "numbers that were trained",
    "megabytes": "size of its weights",
}
CHAMPION = "champion"
#: All reference methods of a task.
BASELINES = "baselines"

_CONDITION = re.compile(r"(<=|>=|<|>|=)\s*(-?[0-9]+(?:\.[0-9]+)?)")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
}

Margin = Annotated[float, Field(ge=0)]


class Scores(Protocol):
    """What a gate has to know of a task: its section, or its facts."""

    @property
    def metrics(self) -> Mapping[str, bool]:
        """Reported metrics and whether a higher value is better."""

    @property
    def further(self) -> Mapping[str, bool]:
        """The same of other scores of cases."""

    @property
    def traits(self) -> Mapping[str, type]:
        """Columns that describe cases: `str` or `float`."""

    @property
    def baselines(self) -> Mapping[str, str]:
        """Reference methods whose scores are in a network's own rows, with the prefix of their columns."""

    @property
    def reference_method(self) -> str:
        """The one that the step `baseline` evaluates, or nothing."""


class RuleConfig(Section):
    """One thing that a challenger must show. Give one of `floor`, `ceiling`, `superior_to` and `not_inferior_to`.

    Attributes:
        metric: A metric of the task, another score of its cases (`lesions_false`), or a figure of the network:
            `latency_ms`, `parameters`, `megabytes`.
        floor: Least value.
        ceiling: Greatest value.
        of: What `floor` or `ceiling` holds for: the near bound of the mean's 95 % interval, the mean, or every case.
        superior_to: The challenger must gain more than the margin on this: `champion`, the name of a reference method,
            or `baselines` for each of them.
        not_inferior_to: It must not lose as much as the margin to this.
        margin: In the metric's units.
        margin_percent: Instead, in percent of the other's value.
        where: Only cases with these values, by column: `{acquisition: CORPD_FBK}`, `{tumour_ml: "> 0, <= 5"}`.
    """

    metric: str
    floor: float | None = None
    ceiling: float | None = None
    of: Literal["bound", "mean", "every_case"] = "bound"
    superior_to: str = ""
    not_inferior_to: str = ""
    margin: Margin = 0.0
    margin_percent: Margin = 0.0
    where: dict[str, str] = {}

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        given = [self.floor is not None, self.ceiling is not None, self.superior_to, self.not_inferior_to]
        if sum(map(bool, given)) != 1:
            raise ValueError("give one of floor, ceiling, superior_to and not_inferior_to")
        if self.margin and self.margin_percent:
            raise ValueError("give margin or margin_percent, not both")
        if not self.other and (self.margin or self.margin_percent):
            raise ValueError("a margin belongs to superior_to or not_inferior_to")
        if self.other and self.of != "bound":
            raise ValueError("`of` belongs to floor or ceiling; gains are decided by their interval")
        if self.not_inferior_to and not (self.margin or self.margin_percent):
            raise ValueError("not_inferior_to needs a margin: how much may be lost")
        return self

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        return {name: value for name, value in handler(self).items() if getattr(self, name) != fields[name].default}

    @property
    def other(self) -> str:
        """What the challenger is compared with; empty for a floor or a ceiling."""
        return self.superior_to or self.not_inferior_to

    def sentence(self, other: str = "") -> str:
        """The rule in words, for one of the things that it compares with: "psnr superior to zero-filled"."""
        margin = f"{self.margin:g}" if self.margin else f"{self.margin_percent:g} %" if self.margin_percent else ""
        if self.superior_to:
            text = f"superior to {other or self.superior_to}" + (f" by more than {margin}" if margin else "")
        elif self.not_inferior_to:
            text = f"not inferior to {other or self.not_inferior_to} by {margin}"
        else:
            limit = f"at least {self.floor:g}" if self.floor is not None else f"at most {self.ceiling:g}"
            text = limit + {"bound": "", "mean": " on average", "every_case": " in every case"}[self.of]
        where = " and ".join(f"{column} {value}" for column, value in self.where.items())
        return f"{self.metric} {text}" + (f" where {where}" if where else "")

    def applies_to(self, row: Mapping[str, float | str], traits: Mapping[str, type]) -> bool:
        """Whether a case has what `where` asks for; a number that is unknown (NaN) has nothing."""
        for column, wanted in self.where.items():
            if traits[column] is str:
                if str(row[column]) != wanted:
                    return False
            elif not all(_COMPARE[sign](float(row[column]), float(number)) for sign, number in _conditions(wanted)):
                return False
        return True


#: What a challenger must show.
Rules = Annotated[list[RuleConfig], Field(min_length=1)]


class GateConfig(Section):
    """When a challenger becomes champion: if every rule holds.

    Attributes:
        rules: What it must show.
        patients: Fewer in a rule's test cases decide nothing.
        hold: Leave a challenger that passed for `condswin approve` or `condswin reject`.
        generated_over_real: A network trained on generated data alone may replace one that saw real data.
        note: What to say with every decision.
    """

    rules: Rules
    patients: Positive = 12
    hold: bool = False
    generated_over_real: bool = False
    note: str = ""


def reference_methods(scores: Scores) -> list[str]:
    """All that networks of a task are compared with beside each other."""
    return [*scores.baselines, *([scores.reference_method] if scores.reference_method else [])]


def gate_problems(gate: GateConfig, scores: Scores) -> list[tuple[str, str]]:
    """What a gate names that its task does not have: keys below `gate` and sentences."""
    problems = []
    metrics = [*scores.metrics, *scores.further, *FIGURES]
    others = [CHAMPION, BASELINES, *reference_methods(scores)]
    for number, rule in enumerate(gate.rules):
        key = f"rules.{number}"
        if rule.metric not in metrics:
            problems.append((f"{key}.metric", unknown("metric", rule.metric, metrics)))
        elif rule.metric in FIGURES and (rule.other or rule.where or rule.of != "bound"):
            problems.append((f"{key}.metric", f"{rule.metric} is of the network: it has a floor or a ceiling alone"))
        if rule.other and rule.other not in others:
            kind = "superior_to" if rule.superior_to else "not_inferior_to"
            problems.append((f"{key}.{kind}", unknown("reference method", rule.other, others)))
        for column, wanted in rule.where.items():
            if column not in scores.traits:
                problems.append((f"{key}.where.{column}", unknown("column", column, scores.traits)))
            elif scores.traits[column] is float and not _conditions(wanted):
                problems.append(
                    (f"{key}.where.{column}", f'{wanted!r} is no condition on a number; e.g. "> 0" or "> 0, <= 5"')
                )
    return problems


def _conditions(text: str) -> list[tuple[str, str]]:
    """Signs and numbers of a condition; none if it is not one."""
    found = [_CONDITION.fullmatch(part.strip()) for part in text.split(",")]
    return [(match[1], match[2]) for match in found if match] if all(found) else []

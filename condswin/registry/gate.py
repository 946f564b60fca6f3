"""Whether a challenger may become champion, decided from per-case rows alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from condswin.config.task import GateConfig
from condswin.errors import ConfigError
from condswin.evaluation.summary import Summary, paired_gain, summarise
from condswin.tasks.facts import Facts, Row


@dataclass
class Decision:
    """Outcome of the gate.

    Attributes:
        failed: Checks that were not passed, as sentences with numbers.
        passed: Checks that were.
        metrics: Summaries by name: `challenger`, `champion`, `gain_over_champion`, `gain_over_<reference method>`.
    """

    failed: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    metrics: dict[str, Summary] = field(default_factory=dict)

    @property
    def promoted(self) -> bool:
        """Every check was passed."""
        return not self.failed


def check_metric(task: Facts | type[Facts], gate: GateConfig) -> None:
    """Refuses a gate on a metric that the task does not have.

    Raises:
        ConfigError: There is no such metric.
    """
    if gate.metric not in task.metrics:
        raise ConfigError(f"{task.name}.gate.metric: no metric {gate.metric!r}; there are: {', '.join(task.metrics)}")


def decide(
    task: Facts | type[Facts], gate: GateConfig, challenger: Sequence[Row], champion: Sequence[Row] | None
) -> Decision:
    """Applies the gate; a value that is missing or not a number fails.

    Where lower is better, the floor is a ceiling and a gain is a decrease. A metric may be undefined for a case (tumour
    Dice without a tumour); a case counts against the challenger only if the champion or the reference method has a
    value for it.

    Args:
        task: Gives direction and reference methods.
        gate: Thresholds.
        challenger: Rows of the test set.
        champion: Rows of the same cases; None if there is no champion.
    """
    metric = gate.metric
    check_metric(task, gate)
    sign = 1.0 if task.metrics[metric] else -1.0
    decision = Decision()

    def check(sentence: str, reached: bool) -> None:
        (decision.passed if reached else decision.failed).append(sentence)

    def check_gain(name: str, reference: Sequence[Row], needed: float) -> None:
        if lost := _without_value(challenger, reference, metric):
            check(f"{metric} has no value for {lost} of {len(reference)} cases that the {name} has one for", False)
        gain = _signed(paired_gain(challenger, reference, metric), sign)
        decision.metrics[f"gain_over_{name}"] = gain
        mean = gain["mean"]
        check(
            f"gain in {metric} over the {name}: {_spoken(mean)}, needed {needed:.6g}",
            mean is not None and mean >= needed,
        )

    if not challenger or any(metric not in row for row in challenger):
        check(f"{metric} is missing in the challenger's results ({len(challenger)} cases)", False)
        return decision
    decision.metrics["challenger"] = summarise(challenger, [metric])[metric]
    mean = decision.metrics["challenger"]["mean"]
    bound = "at least" if sign > 0 else "at most"
    check(
        f"{metric}: {_spoken(mean)}, needed {bound} {gate.floor:.6g}",
        mean is not None and sign * mean >= sign * gate.floor,
    )
    for label, prefix in task.baselines.items():
        column = prefix + metric
        if any(column not in row for row in challenger):
            check(f"{column} is missing in the results", False)
            continue
        check_gain(label, [{"case": row["case"], metric: row[column]} for row in challenger], gate.baseline_gain)
    if champion is not None:
        cases = {row["case"] for row in challenger}
        if {row["case"] for row in champion} != cases or any(metric not in row for row in champion):
            check(f"champion and challenger were not scored on the same cases with {metric}", False)
            return decision
        decision.metrics["champion"] = summarise(champion, [metric])[metric]
        check_gain("champion", champion, gate.min_gain)
    return decision


def _without_value(rows: Sequence[Row], reference: Sequence[Row], metric: str) -> int:
    ours = {row["case"]: float(row[metric]) for row in rows}
    return sum(
        math.isfinite(float(row[metric])) and not math.isfinite(ours.get(row["case"], math.nan)) for row in reference
    )


def _spoken(value: float | None) -> str:
    return "no value" if value is None else f"{value:.6g}"


def _signed(gain: Summary, sign: float) -> Summary:
    """A difference as a gain: positive is better."""
    if sign > 0 or gain["mean"] is None or gain["low"] is None or gain["high"] is None:
        return gain
    return Summary(mean=-gain["mean"], std=gain["std"], low=-gain["high"], high=-gain["low"], cases=gain["cases"])

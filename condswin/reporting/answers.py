"""What a report says first: which network, by how much, how sure, what the gate says, and where it is weak."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from condswin.registry.interval import Interval
from condswin.reporting.data import people
from condswin.reporting.decision import remarks
from condswin.reporting.networks import Seen
from condswin.reporting.page import SHORT, WORST, rule_name, score
from condswin.reporting.scores import Scores, routed, told, verdict
from condswin.reporting.text import shown

_USE = {
    "promoted": "As champion: the gate promoted it.",
    "refused": "No: the gate refused it.",
    "undecided": "Not yet: the gate could not decide.",
    "held": "Not yet: a person has to approve it.",
}
_CARE = {
    "all": "Not on patients: all test cases are generated.",
    "some": "On patients with care: some test cases are generated.",
    "unknown": "On patients with care: the origin of the test cases is unknown.",
}
_TRIAL = "To try things out, as champion: the gate promoted it on generated data."
#: Test cases that are named as the worst.
_WORST = 3
#: The network whose costs others are set against.
_PLAIN = "swin"


def answers(
    scores: Scores,
    comparison: Mapping[str, Any],
    promotion: Mapping[str, Any] | None,
    generated: str,
    seen: Mapping[str, Seen],
    networks: Mapping[str, str],
    unfinished: Sequence[str] = (),
) -> dict[str, list[str]]:
    """Sentences by question; a question without an answer is left out.

    Args:
        scores: Of the test cases.
        comparison: What was compared; without `chosen_on` one network alone.
        promotion: What the gate decided, if it has.
        generated: Whether the test cases are generated, as `Manifest.generated` says it.
        seen: Costs by variant.
        networks: Kind of network by variant.
        unfinished: Variants whose last epoch was their best.
    """
    metric = comparison["metric"]
    name, unit = scores.facts.called(metric), scores.facts.units.get(metric, "")
    variants = [method for method in scores.methods if method not in scores.references]
    rival = max(variants[1:], key=lambda method: _signed(scores, method, metric), default=None)
    against = [*scores.references, *([rival] if rival else [])]
    split = {"val": "validation", "test": "test"}.get(comparison.get("chosen_on", ""))
    which = f"{scores.best}, chosen of {len(variants)} variants by {name} on {split} cases."
    found = {
        "Which?": [which if split else f"{scores.best} alone."],
        "By how much?": [
            f"{name} {score(metric, unit, scores.mean(scores.best, metric))}, mean over {people(generated)}.",
            *(f"Against {other}: {score(metric, unit, scores.gain(other, metric), sign='+')}"
              f"{_ahead(scores, other, metric)}." for other in against),
        ],
        "Sure?": list(_sure(scores, metric, generated, networks, unfinished)),
        "Gate": list(_gate(scores, promotion, decides=bool(split))),
        "Use it?": list(_use(scores, metric, promotion, generated)),
        "Where weak?": list(_weak(scores)),
        WORST: list(_worst(scores, metric)),
        "Does routing pay?": list(_conditional(scores, metric, seen, networks)),
        "Cost": list(_cost(scores.best, seen, networks)),
    }  # fmt: skip
    return {question: sentences for question, sentences in found.items() if sentences}


def _sure(
    scores: Scores, metric: str, generated: str, networks: Mapping[str, str], unfinished: Sequence[str]
) -> Iterator[str]:
    found, mean = verdict(scores, metric), scores.mean(scores.best, metric)
    count = mean.patients if mean else 0
    if count < scores.least:
        yield f"No: {count} {people(generated)} in the test set, and fewer than {scores.least} decide nothing."
    else:
        if found.beaten:
            yield f"Better than {', '.join(found.beaten)}: the whole interval of the gain is above zero."
        if found.ahead:
            yield f"Worse than {', '.join(found.ahead)}: the whole interval is below zero."
        gains = {method: gain for method in found.open if (gain := scores.gain(method, metric))}
        few = [method for method, gain in gains.items() if gain.patients < scores.least]
        if enough := [method for method in found.open if method not in few]:
            yield f"Not told apart from {', '.join(enough)}: the interval holds zero."
        if few:
            yield f"Not told apart from {', '.join(few)}: fewer than {scores.least} {people(generated)} have both."
        yield f"95 % intervals over {count} {people(generated)}."
    if len(networks) > 1:
        yield "One training per variant: another seed may order them otherwise."
    if unfinished:
        yield f"Still improving when training ended: {', '.join(unfinished)}; longer ones may order them otherwise."


def _gate(scores: Scores, promotion: Mapping[str, Any] | None, *, decides: bool) -> Iterator[str]:
    if promotion is None:
        if decides:
            yield "It has not decided yet: `condswin register` and `condswin promote` ask it, and it may refuse."
        return
    if not promotion.get("rules"):
        yield from _reasons(promotion)
        return
    rules = [rule for rule in promotion["rules"] if rule["outcome"] != "not applicable"]
    if rules:
        outcomes = [rule["outcome"] for rule in rules]
        words = {"holds": "hold", "broken": "broken", "undecided": "undecided"}
        counts = [f"{outcomes.count(outcome)} {word}" for outcome, word in words.items() if outcome in outcomes]
        unused = len(promotion["rules"]) - len(rules)
        yield (
            f"Every rule must hold, on at least {scores.least} patients. Of {len(rules)} rules: {', '.join(counts)}"
            + (f"; {unused} more do not apply." if unused else ".")
        )
    falling = [rule for rule in rules if SHORT in rule["text"]]
    for rule in falling:
        metric = rule["rule"].split()[0]
        yield f"{rule_name(rule, scores.facts)}: the mean falls short ({shown(metric, rule['estimate'])})."
    yield from _next(promotion["outcome"], rules, falling=bool(falling), least=scores.least)
    for remark in remarks(promotion):
        # What other lines say is not said again.
        if not any(part in remark for part in ("so not applied", "decide nothing", "test cases are generated")):
            yield _sentence(remark)


def _reasons(promotion: Mapping[str, Any]) -> Iterator[str]:
    """Why it was decided without rules: the champion is frozen, or a person decided."""
    for reason in promotion["reasons"]:
        yield _sentence(reason)


def _sentence(said: str) -> str:
    return f"{said[:1].upper()}{said[1:]}."


def _next(outcome: str, rules: Sequence[Mapping[str, Any]], *, falling: bool, least: int) -> Iterator[str]:
    if outcome == "undecided":
        measured = [rule for rule in rules if rule["outcome"] == "undecided" and rule.get("patients")]
        wanted = max((rule.get("enough") or least for rule in measured), default=0)
        more = any((rule.get("enough") or least) > rule["patients"] for rule in measured)
        if falling:
            yield f"Next: a better network{f', and at least {wanted} test patients' if more else ''}."
        elif measured:
            yield f"Next: more test patients{f': at least {wanted}' if more else ''}."
        else:
            yield "Next: what the rules lack, as they say below."
    elif outcome == "refused":
        yield "Next: a better network; more test patients do not mend it."
    elif outcome == "held":
        yield "Next: a person approves it with `condswin approve`."


def _weak(scores: Scores) -> Iterator[str]:
    facts = scores.facts
    for column in ("lesions_false", "lesions_missed"):
        if column in scores.better and (mean := scores.mean(scores.best, column)) is not None:
            yield f"{facts.called(column)}: {score(column, facts.units.get(column, ''), mean)}."
    yield from _nothing(scores)
    for column in facts.ceilings:
        values = scores.values(scores.best, column)
        if replaced := sum(value > 0 for value in values.values()):
            yield f"{facts.called(column)} on {replaced} of {len(values)} cases: another method made them."
    for metric in facts.metrics:
        lost = _lost(scores, metric)
        if lowered := [value for value in lost.values() if value > 0]:
            most = shown(metric, max(lowered))
            change = shown(metric, -sum(lost.values()) / len(lost))
            yield (
                f"Post-processing made {facts.called(metric)} worse on {len(lowered)} of {len(lost)} cases, by up to "
                f"{most}; on average it changed by {change}."
            )
    yield from _weakest(scores)


def _nothing(scores: Scores) -> Iterator[str]:
    """On how many cases a score is as bad as it can be, by the first score of each structure."""
    facts, found = scores.facts, dict[str, str]()
    for metric in facts.metrics:
        values = list(scores.values(scores.best, metric).values())
        lowest = facts.ranges.get(metric, (-math.inf, math.inf))[0 if scores.better[metric] else 1]
        if failed := values.count(lowest):
            found.setdefault(metric.split("_")[0], f"{facts.called(metric)} on {failed} of {len(values)} cases")
    if found:
        yield f"Nothing right, by {', by '.join(found.values())}."


def _weakest(scores: Scores) -> Iterator[str]:
    """The worst kind of case by each trait, and a better one that its interval is apart from."""
    enough = False
    for trait, groups in scores.kinds().items():
        metric = scores.metric_for(trait)
        sign = scores.sign(metric)
        means = {name: scores.mean(scores.best, metric, cases) for name, cases in groups.items()}
        known = {name: mean for name, mean in means.items() if mean is not None and mean.patients >= scores.least}
        if len(known) < 2:
            continue
        enough = True
        ordered = sorted(known, key=lambda name: sign * known[name].mean)
        apart = [pair for pair in combinations(ordered, 2) if _apart(*(known[name] for name in pair))]
        if apart:
            worst, best = max(apart, key=lambda pair: sign * (known[pair[1]].mean - known[pair[0]].mean))
            low, high = known[worst], known[best]
            unit = scores.facts.units.get(metric, "")
            kind = f"{scores.facts.called(trait)} {worst} {scores.facts.units.get(trait, '')}".strip()
            name = scores.facts.called(metric)
            yield f"{kind}: {name} {score(metric, unit, low)}; {best}: {score(metric, unit, high)}."
            return
    if enough:
        yield "No kind of case is told apart from the others by its interval."
    else:
        yield f"Not known by kind of case: that takes {scores.least} patients of each kind."


def _apart(one: Interval, other: Interval) -> bool:
    return one.high < other.low or other.high < one.low


def _lost(scores: Scores, metric: str) -> dict[str, float]:
    """By case, what post-processing cost the best variant; nothing where that is not told."""
    if not scores.facts.before:
        return {}
    before, after = scores.values(scores.best, f"{scores.facts.before}{metric}"), scores.values(scores.best, metric)
    sign = scores.sign(metric)
    return {case: sign * (before[case] - after[case]) for case in after if case in before}


def _worst(scores: Scores, metric: str) -> Iterator[str]:
    values, facts = scores.values(scores.best, metric), scores.facts
    sign, lost = scores.sign(metric), _lost(scores, metric)
    other = max(scores.references, key=lambda method: _signed(scores, method, metric), default="")
    theirs = scores.values(other, metric) if other else {}
    for case in sorted(values, key=lambda name: (sign * values[name], name))[:_WORST]:
        unit = f" {facts.units[metric]}" if metric in facts.units else ""
        beside = f"; {other} {shown(metric, theirs[case])}" if case in theirs else ""
        before = values[case] + sign * lost.get(case, 0.0)
        spoilt = f"; {shown(metric, before)} before post-processing" if lost.get(case, 0.0) > 0 else ""
        yield f"{case}: {facts.called(metric)} {shown(metric, values[case])}{unit}{beside}{spoilt}."


def _conditional(scores: Scores, metric: str, seen: Mapping[str, Seen], networks: Mapping[str, str]) -> Iterator[str]:
    """What each conditional variant gains on the plain one, and what it costs."""
    for variant, plain in routed(networks).items():
        gain = scores.gain(plain, metric, variant)
        if gain is None:
            continue
        word = {1: "better than", -1: "worse than", 0: "not told apart from"}[told(gain, scores.least)]
        said = score(metric, scores.facts.units.get(metric, ""), gain, sign="+")
        costs = ""
        if variant in seen and plain in seen:
            flops = seen[variant].flops.total / seen[plain].flops.total
            time = seen[variant].milliseconds / seen[plain].milliseconds
            costs = f", {flops:.2f} times the operations, {time:.1f} times the latency"
        if gain.patients < scores.least:
            yield f"{variant} against {plain}: {said}, which {gain.patients} people are too few to tell{costs}."
        else:
            yield f"{variant} is {word} {plain}: {said}{costs}."


def _cost(best: str, seen: Mapping[str, Seen], networks: Mapping[str, str]) -> Iterator[str]:
    if best in seen:
        plain = next((name for name, network in networks.items() if network == _PLAIN and name in seen), best)
        ours, theirs = seen[best], seen[plain]
        flops, times = ours.flops.total / theirs.flops.total, ours.milliseconds / theirs.milliseconds
        beside = f", {flops:.1f} times the operations and {times:.1f} times the latency of {plain}"
        if theirs.size != ours.size:
            beside += f" (a slice of {theirs.size[0]} x {theirs.size[1]})"
        rows, columns = ours.size
        yield (
            f"{ours.milliseconds:.0f} ms for a slice of {rows} x {columns} on a CPU"
            f"{beside if plain != best else ''}; {ours.parameters:,} parameters."
        )


def _use(scores: Scores, metric: str, promotion: Mapping[str, Any] | None, generated: str) -> Iterator[str]:
    """Whether to use it, as far as a page can tell."""
    if generated in _CARE:
        yield _CARE[generated]
    found = verdict(scores, metric)
    for method in scores.references:
        gain = scores.gain(method, metric)
        if gain is None or method in found.beaten:
            continue
        if gain.mean < 0:
            means = [scores.mean(name, metric) for name in (method, scores.best)]
            values = " against ".join(shown(metric, mean.mean) for mean in means if mean is not None)
            gains = scores.by_case(method, metric).values()
            cases = f"on {sum(value < 0 for value in gains)} of {len(gains)} cases"
            sure = "" if method in found.ahead else ", as far as few patients tell"
            yield f"{method} needs no training and is better{sure}: {values}, {cases}{_yet(scores, method)}."
        elif gain.patients >= scores.least:
            yield f"{method}, which needs no training, is not told apart from it."
    if promotion and not promotion.get("rules"):
        yield from _reasons(promotion)
    elif promotion and (said := _USE.get(promotion["outcome"])):
        yield _TRIAL if promotion["promoted"] and generated == "all" else said


def _yet(scores: Scores, method: str) -> str:
    """Which of the further columns the best variant is better at by most, where the method is better at the first."""
    found = {}
    for column in scores.facts.further:
        ours, theirs = scores.mean(scores.best, column), scores.mean(method, column)
        if ours and theirs and min(ours.mean, theirs.mean) > 0:
            factor = (ours.mean / theirs.mean) ** scores.sign(column)
            said = f"{shown(column, theirs.mean)} against {shown(column, ours.mean)}"
            found[factor] = f"; but {scores.facts.called(column)} {said}"
    return found[max(found)] if found and max(found) > 1 else ""


def _ahead(scores: Scores, other: str, metric: str) -> str:
    gains = scores.by_case(other, metric).values()
    return f", better on {sum(value > 0 for value in gains)} of {len(gains)} cases" if gains else ""


def _signed(scores: Scores, method: str, metric: str) -> float:
    mean = scores.mean(method, metric)
    return -math.inf if mean is None else scores.sign(metric) * mean.mean

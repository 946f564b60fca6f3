"""What the report says of a task, in words and tables."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from condswin.config.gate import CHAMPION, RuleConfig
from condswin.manifest import Manifest
from condswin.plain import plain
from condswin.registry.interval import Interval
from condswin.reporting.decision import headline
from condswin.reporting.figures import forest, scatter, svg
from condswin.reporting.networks import Seen
from condswin.reporting.scores import Scores, verdict
from condswin.reporting.text import shown, span
from condswin.tasks.facts import Facts

_ORIGIN = {
    "all": "Generated data, of no real patient",
    "some": "Real data, and generated data among it",
    "none": "Real data",
    "unknown": "Data of unknown origin",
}
#: Question and column whose answer names cases.
WORST = "worst"
#: What says that a value of a column is better.
_ARROWS = {True: "↑", False: "↓"}


#: Patients of a kind of cases from which on an interval is shown; that of fewer says nothing but that they are few.
FEW = 8


class Cell(NamedTuple):
    """A cell of a table: a text, a smaller one below it, and what rows are sorted by."""

    text: str
    below: str = ""
    sort: float | str = ""
    mark: str = ""


class Grid(NamedTuple):
    """A table: what it shows, its columns with what stands below their names, and rows."""

    caption: str
    columns: list[tuple[str, str]]
    rows: list[list[Cell]]

    def without(self, name: str) -> "Grid":
        """The table without a column."""
        kept = [place for place, (column, _) in enumerate(self.columns) if column != name]
        rows = [[row[place] for place in kept] for row in self.rows]
        return Grid(self.caption, [self.columns[place] for place in kept], rows)


def interval_text(metric: str, mean: Interval) -> str:
    """The bounds of a mean over patients, or why it has none."""
    if not math.isfinite(mean.low) or not math.isfinite(mean.high):
        return f"no interval of {mean.patients} patient{'s' * (mean.patients > 1)}"
    return span(metric, mean.low, mean.high) or f"equal in all {mean.patients} patients"


def score(metric: str, unit: str, mean: Interval | None, *, sign: str = "") -> str:
    """A mean with its unit and interval, for a sentence."""
    if mean is None:
        return "no value"
    plus = sign if mean.mean > 0 else ""
    return f"{plus}{shown(metric, mean.mean)}{f' {unit}' if unit else ''} ({interval_text(metric, mean)})"


def data_line(manifest: Manifest, source: str, code: Mapping[str, Any]) -> str:
    """What data this is: generated or real, from where, how much of it, and by which code it was learned from."""
    counts = manifest.counts()
    patients = len({case.patient for case in manifest.cases if case.split == "test"})
    made = str(code.get("git_commit", "unknown"))[:12]
    changed = " with uncommitted changes" if code.get("git_dirty") == "true" else ""
    return (
        f"{_ORIGIN[manifest.generated('train', 'val', 'test')]}: {plain(source, 80)}; {counts['train']} training, "
        f"{counts['val']} validation and {counts['test']} test cases, the latter of {patients} patients; "
        f"data {manifest.fingerprint()[:12]}, trained by commit {made}{changed}"
    )


def answers(scores: Scores, comparison: Mapping[str, Any], promotion: Mapping[str, Any] | None) -> dict[str, list[str]]:
    """Which, by how much, sure, safe: sentences by question."""
    metric, best = comparison["metric"], scores.best
    unit = scores.facts.units.get(metric, "")
    networks = len(scores.methods) - len(scores.references)
    others = [method for method in list(scores.methods)[1:] if method not in scores.references]
    rival = max(others, key=lambda method: _signed(scores, method, metric), default=None)
    against = [*scores.references, *([rival] if rival else [])]
    found = verdict(scores, metric)
    mean = scores.mean(best, metric)
    patients = mean.patients if mean else 0
    sure = [
        f"Better than {', '.join(found.beaten)}: the whole interval of the gain is above zero." if found.beaten else "",
        f"Worse than {', '.join(found.ahead)}: the whole interval is below zero." if found.ahead else "",
        f"Not told apart from {', '.join(found.open)}: the interval holds zero." if found.open else "",
        f"95 % intervals over {patients} test patients; cases of one patient count as one.",
    ]
    return {
        "Which?": [f"{best}: the best of {networks} variants by {metric} on the {_split(comparison)} cases."],
        "By how much?": [
            f"{metric} {score(metric, unit, mean)}.",
            *(f"Against {name}: {score(metric, unit, scores.gain(name, metric), sign='+')}." for name in against),
        ],
        "Sure?": list(filter(None, sure)),
        "Safe?": _safety(scores, promotion),
        WORST: _worst(scores, metric),
    }


def _worst(scores: Scores, metric: str) -> list[str]:
    values = scores.values(scores.best, metric)
    if not values:
        return []
    case = (min if scores.better[metric] else max)(values, key=lambda name: (values[name], name))
    return [f"{case}: {metric} {shown(metric, values[case])} {scores.facts.units.get(metric, '')}".strip() + "."]


def _safety(scores: Scores, promotion: Mapping[str, Any] | None) -> list[str]:
    found = []
    if promotion is None:
        found.append("The gate has not decided yet: run `condswin register` and `condswin promote`.")
    elif rules := promotion.get("rules", []):
        outcomes = [rule["outcome"] for rule in rules]
        words = {"holds": "hold", "broken": "broken", "undecided": "undecided", "not applicable": "not applicable"}
        counts = [f"{outcomes.count(name)} {word}" for name, word in words.items() if name in outcomes]
        found.append(f"The gate's {len(rules)} rules: {', '.join(counts)}.")
    for column in ("lesions_false", "lesions_missed", *scores.facts.ceilings):
        if column in scores.better and (mean := scores.mean(scores.best, column)) is not None:
            found.append(f"{column}: {score(column, scores.facts.units.get(column, ''), mean)}.")
    return found


def score_tables(scores: Scores, promotion: Mapping[str, Any] | None) -> list[Grid]:
    """Every method as a row: mean over patients and interval of what is reported or decides, and of the rest."""
    first = _reported(scores, promotion)
    rest = [name for name in scores.columns() if name not in first]
    return [
        _score_table(scores, caption, columns)
        for caption, columns in (("Test cases: means over patients", first), ("Further scores", rest))
        if columns
    ]


def _score_table(scores: Scores, caption: str, columns: Sequence[str]) -> Grid:
    rows = []
    for method in scores.methods:
        kind = "best" if method == scores.best else "reference method" if method in scores.references else "variant"
        cells = [Cell(method, kind, method, "best" if kind == "best" else "")]
        rows.append([*cells, *(_cell(column, scores.mean(method, column)) for column in columns)])
    return Grid(
        f"{caption}, with 95 % intervals",
        [("method", ""), *((name, _note(scores, name)) for name in columns)],
        rows,
    )


def gain_table(scores: Scores, promotion: Mapping[str, Any] | None) -> Grid:
    """What the best variant gains on every other method, by metric; positive is better."""
    metrics = _reported(scores, promotion)
    rows = []
    for method in [*list(scores.methods)[1:], *([CHAMPION] if _champion(promotion) else [])]:
        found = [_gain(scores, promotion, method, metric) for metric in metrics]
        cells = [_cell(metric, mean, sign=True) for metric, mean in zip(metrics, found, strict=True)]
        rows.append([Cell(method, "", method), *cells])
    units = [(name, scores.facts.units.get(name, "")) for name in metrics]
    return Grid(f"Gains of {scores.best}, case by case; positive is better", [("against", ""), *units], rows)


def forests(scores: Scores, promotion: Mapping[str, Any] | None) -> list[Markup]:
    """`gain_table` as figures, one per metric, every patient in them."""
    drawn = []
    for metric in _reported(scores, promotion):
        gains: dict[str, tuple[Sequence[float], Interval]] = {}
        for method in [*list(scores.methods)[1:], CHAMPION]:
            if (mean := _gain(scores, promotion, method, metric)) is not None:
                known = method in scores.methods
                gains[method] = (list(scores.gains(method, metric).values()) if known else [], mean)
        if gains:
            unit = scores.facts.units.get(metric, "")
            words = "; ".join(f"{name} {score(metric, unit, mean, sign='+')}" for name, (_, mean) in gains.items())
            said = f"Forest plot of what {scores.best} gains in {metric} against {words}. Positive is better."
            drawn.append(svg(forest(metric, unit, gains), said))
    return drawn


def group_tables(scores: Scores) -> list[Grid]:
    """For each trait of cases, the metric by kind of case and method."""
    tables = []
    for trait, groups in scores.kinds().items():
        metric = scores.metric_for(trait)
        rows = []
        for place, (name, cases) in enumerate(groups.items()):
            patients = len({scores.patients[case] for case in cases})
            means = [_cell(metric, scores.mean(method, metric, cases), few=FEW) for method in scores.methods]
            rows.append([Cell(name, f"{len(cases)} cases, {patients} patients", place), *means])
        unit = scores.facts.units.get(trait, "")
        caption = f"{metric} {_ARROWS[scores.better[metric]]} by {trait}{f' ({unit})' if unit else ''}"
        tables.append(Grid(caption, [(trait, unit), *((method, "") for method in scores.methods)], rows))
    return tables


def scatters(scores: Scores) -> list[Markup]:
    """For each trait that is a number, the metric of every case over it: where not to trust the best variant."""
    drawn = []
    for trait, kind in scores.facts.traits.items():
        metric = scores.metric_for(trait)
        places = {
            str(row["case"]): float(row[trait])
            for row in scores.methods[scores.best]
            if kind is float and trait in row and math.isfinite(float(row[trait]))
        }
        if len(set(places.values())) < 3:
            continue
        points = {}
        for method in (scores.best, *scores.references):
            values = scores.values(method, metric)
            pairs = sorted((places[case], values[case]) for case in values if case in places)
            if pairs:
                points[method] = pairs
        if scores.best in points:
            trend = _trend(points[scores.best], metric)
            said = f"{metric} of every test case over {trait} for {', '.join(points)}; {scores.best}: {trend}."
            drawn.append(svg(scatter(metric, trait, points), said))
    return drawn


def case_table(rows: Sequence[Mapping[str, str]], facts: Facts) -> Grid:
    """The best variant's cases, a row each, as `case_rows` gives them."""
    columns = [(name, facts.units.get(name, "")) for name in rows[0]]
    cells = [[Cell(text, "", _number(text)) for text in row.values()] for row in rows]
    return Grid("Every test case, worst first", columns, cells)


def cost_table(seen: Mapping[str, Seen], promotion: Mapping[str, Any] | None, best: str) -> Grid:
    """What the networks cost; the latency is the gate's, of the best one."""
    rows = []
    for variant, network in seen.items():
        flops = network.flops
        latency = (promotion or {}).get("latency_ms") if variant == best else None
        counts = (flops.total, flops.light, flops.heavy, flops.router)
        cells = [Cell(f"{count / 1e9:.3f}", "", count) for count in counts]
        timed = Cell("not measured") if latency is None else Cell(f"{latency:.1f}", "", latency)
        rows.append([Cell(variant), Cell(f"{network.parameters:,}", "", network.parameters), *cells, timed])
    size = " x ".join(map(str, next(iter(seen.values())).size))
    branches = [(name, "GFLOP") for name in ("one slice", "light branches", "heavy branches", "routers")]
    caption = f"Costs; a slice has {size} pixels, the latency is of two images of 64 x 64 on the CPU"
    return Grid(caption, [("variant", ""), ("parameters", "↓"), *branches, ("latency", "↓ ms")], rows)


def share_table(seen: Mapping[str, Seen]) -> Grid | None:
    """Which patches take the heavy branch, by variant."""
    rows = [
        [Cell(variant), Cell(by, "", by), *(Cell(f"{share:.0%}", "", share) for share in shares)]
        for variant, network in seen.items()
        for by, shares in network.shares.items()
    ]
    columns = [("variant", ""), ("patches by", ""), ("lowest third", ""), ("middle", ""), ("highest third", "")]
    return Grid("Share of patches that take the heavy branch", columns, rows) if rows else None


def rule_table(promotion: Mapping[str, Any]) -> Grid:
    """Every rule of the gate with its estimate, interval and what it had to reach."""
    rows = []
    for rule in promotion.get("rules", []):
        low, high, estimate = rule.get("low"), rule.get("high"), rule.get("estimate")
        cells = [f"{value:.4g}" if value is not None else "" for value in (estimate, rule.get("needed"))]
        ends = span("", low, high)
        # What the other cells say is not said again.
        why = rule["text"].split("; ")[1 if estimate is not None else 0 :]
        text, worst = "; ".join(why), ", ".join(rule.get("worst", []))
        people = rule.get("patients", 0)
        rows.append(
            [
                Cell(rule["rule"], "", rule["rule"]),
                Cell(rule["outcome"], "", rule["outcome"], rule["outcome"].replace(" ", "-")),
                Cell(cells[0], ends, estimate if estimate is not None else ""),
                Cell(cells[1], "", rule.get("needed", "")),
                Cell(f"{people}", f"{rule.get('cases', 0)} cases", people) if people else Cell(""),
                Cell(text, "", text),
                Cell(worst, "", worst),
            ]
        )
    columns = [
        ("rule", ""),
        ("outcome", ""),
        ("estimate", "95 % interval"),
        ("needed", ""),
        ("patients", ""),
        ("why", ""),
        (WORST, ""),
    ]
    return Grid(f"The gate: {headline(promotion)}", columns, rows)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _reported(scores: Scores, promotion: Mapping[str, Any] | None) -> list[str]:
    """The task's metrics, and what else decides."""
    deciding = [*scores.facts.metrics, *_gated(promotion), *scores.facts.ceilings]
    return [name for name in scores.columns() if name in deciding]


def _champion(promotion: Mapping[str, Any] | None) -> bool:
    return any(_ruled(promotion, metric) for metric in _gated(promotion))


def _gated(promotion: Mapping[str, Any] | None) -> list[str]:
    return [rule["metric"] for rule in (promotion or {}).get("gate", {}).get("rules", [])]


def _ruled(promotion: Mapping[str, Any] | None, metric: str) -> Interval | None:
    """What the gate found that the challenger gains on the champion."""
    rulings = {rule["rule"]: rule for rule in (promotion or {}).get("rules", [])}
    for values in (promotion or {}).get("gate", {}).get("rules", []):
        rule = RuleConfig.model_validate(values)
        ruling = rulings.get(rule.sentence(CHAMPION), {})
        if rule.metric == metric and rule.other == CHAMPION and not rule.where and "estimate" in ruling:
            low, high = ruling.get("low", -math.inf), ruling.get("high", math.inf)
            return Interval(ruling["estimate"], low, high, math.nan, ruling["patients"])
    return None


def _gain(scores: Scores, promotion: Mapping[str, Any] | None, method: str, metric: str) -> Interval | None:
    return scores.gain(method, metric) if method in scores.methods else _ruled(promotion, metric)


def _cell(metric: str, mean: Interval | None, *, sign: bool = False, few: int = 0) -> Cell:
    if mean is None:
        return Cell("none", "")
    if mean.patients < few:
        return Cell(shown(metric, mean.mean), "", mean.mean)
    plus = "+" if sign and mean.mean > 0 else ""
    mark = "" if not sign else "holds" if mean.low > 0 else "broken" if mean.high < 0 else ""
    return Cell(f"{plus}{shown(metric, mean.mean)}", interval_text(metric, mean), mean.mean, mark)


def _note(scores: Scores, column: str) -> str:
    unit = scores.facts.units.get(column, "")
    return f"{_ARROWS[scores.better[column]]} {unit}".strip()


def _signed(scores: Scores, method: str, metric: str) -> float:
    mean = scores.mean(method, metric)
    return -math.inf if mean is None else mean.mean if scores.better[metric] else -mean.mean


def _split(comparison: Mapping[str, Any]) -> str:
    return {"val": "validation", "test": "test"}[comparison["chosen_on"]]


def _trend(pairs: Sequence[tuple[float, float]], metric: str) -> str:
    half = len(pairs) // 2
    low, high = (sum(value for _, value in part) / len(part) for part in (pairs[:half], pairs[half:]))
    return f"on average {shown(metric, low)} in the lower half of the cases and {shown(metric, high)} in the upper"

"""What the report says of a task, in words and tables."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from condswin.config.gate import CHAMPION, RuleConfig
from condswin.registry.interval import Interval
from condswin.reporting.decision import headline
from condswin.reporting.figures import forest, scatter, svg
from condswin.reporting.scores import THIRDS, Scores, told, within
from condswin.reporting.text import ends, shown
from condswin.tasks.facts import Facts

#: Question and column whose answer names cases.
WORST = "worst"
#: What says that a value of a column is better.
_ARROWS = {True: "↑", False: "↓"}
#: What the gate says of a rule whose mean does not reach what is needed, and of one with few patients.
SHORT, _FEW = "the mean itself falls short", "decide nothing"


class Cell(NamedTuple):
    """A cell of a table: a text, a smaller one below it, and what rows are sorted by."""

    text: str
    below: str = ""
    sort: float | str = ""
    mark: str = ""


class Column(NamedTuple):
    """A column of a table: its name, a smaller text below it, and what it means in a sentence."""

    name: str
    note: str = ""
    meaning: str = ""


class Grid(NamedTuple):
    """A table: what it shows, its columns, rows, and whether it is shown folded."""

    caption: str
    columns: list[Column]
    rows: list[list[Cell]]
    folded: bool = False

    def without(self, name: str) -> "Grid":
        """The table without a column."""
        kept = [place for place, column in enumerate(self.columns) if column.name != name]
        rows = [[row[place] for place in kept] for row in self.rows]
        return self._replace(columns=[self.columns[place] for place in kept], rows=rows)


def interval_text(metric: str, mean: Interval) -> str:
    """The bounds of a mean over patients, or why it has none."""
    if not math.isfinite(mean.low) or not math.isfinite(mean.high):
        return f"no interval of {mean.patients} patient{'s' * (mean.patients > 1)}"
    return ends(metric, mean.low, mean.high) or f"equal in all {mean.patients} patients"


def score(metric: str, unit: str, mean: Interval | None, *, sign: str = "") -> str:
    """A mean with its unit and interval, for a sentence."""
    if mean is None:
        return "no value"
    plus = sign if mean.mean > 0 else ""
    return f"{plus}{shown(metric, mean.mean)}{f' {unit}' if unit else ''} ({interval_text(metric, mean)})"


def score_tables(
    scores: Scores, promotion: Mapping[str, Any] | None, *, label: str, chosen: Mapping[str, float]
) -> list[Grid]:
    """Every method as a row: mean over patients and interval of what is reported or decides, and of the rest.

    Args:
        scores: Of the test cases.
        promotion: What the gate decided, if it has.
        label: What the first method is.
        chosen: By variant the score on validation cases that the choice was made by.
    """
    first = _reported(scores, promotion)
    rest = [name for name in scores.columns() if name not in first]
    tables = [_score_table(scores, "Test cases: means over patients", first, label)]
    if chosen:
        for row in tables[0].rows:
            value = chosen.get(row[0].text)
            row.append(Cell("none") if value is None else Cell(shown(first[0], value), "", value))
        name = f"{scores.facts.called(first[0])}, validation"
        tables[0].columns.append(Column(name, _note(scores, first[0]), "Mean over validation cases: the choice."))
    if rest:
        tables.append(_score_table(scores, "Further scores", rest, label)._replace(folded=True))
    return tables


def _score_table(scores: Scores, caption: str, columns: Sequence[str], label: str) -> Grid:
    rows = []
    means = {column: {method: scores.mean(method, column) for method in scores.methods} for column in columns}
    tops = {}
    for column, found in means.items():
        texts = {method: shown(column, mean.mean) for method, mean in found.items() if mean is not None}
        best = (max if scores.better[column] else min)(texts, key=lambda method: float(texts[method]), default="")
        tops[column] = {method for method, text in texts.items() if len({*texts.values()}) > 1 and text == texts[best]}
    for method in scores.methods:
        kind = label if method == scores.best else "reference method" if method in scores.references else "variant"
        cells = [Cell(method, kind, method, "chosen" if method == scores.best else "")]
        for column in columns:
            cell = _cell(column, means[column][method])
            cells.append(cell._replace(mark="most") if method in tops[column] else cell)
        rows.append(cells)
    return Grid(
        f"{caption}, with 95 % intervals; the best value of a column is bold",
        [Column("method"), *(_column(scores.facts, name, _note(scores, name)) for name in columns)],
        rows,
    )


def gain_table(scores: Scores, promotion: Mapping[str, Any] | None) -> Grid:
    """What the best variant gains on every other method, by metric; positive is better."""
    metrics = _reported(scores, promotion)
    rows = []
    for method in [*list(scores.methods)[1:], *([CHAMPION] if _champion(promotion, scores.facts) else [])]:
        cells = []
        for metric in metrics:
            mean = _gain(scores, promotion, method, metric)
            sign = 0 if mean is None else told(mean, scores.least)
            plus = "+" if mean is not None and mean.mean > 0 else ""
            cell = _cell(metric, mean)
            cells.append(cell._replace(text=plus + cell.text, mark={1: "holds", -1: "broken"}.get(sign, "")))
        rows.append([Cell(method, "", method), *cells])
    columns = [_column(scores.facts, name, scores.facts.units.get(name, "")) for name in metrics]
    caption = f"Gains of {scores.best}, case by case; positive is better"
    return Grid(caption, [Column("against"), *columns], rows, folded=True)


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
            drawn.append(_forest(scores, metric, gains, f"{scores.best} gains in {{}} against"))
    return drawn


def routing_forests(scores: Scores, promotion: Mapping[str, Any] | None, pairs: Mapping[str, str]) -> list[Markup]:
    """What variants with routers gain on the same networks without, as figures, one per metric.

    Args:
        scores: Of the test cases.
        promotion: What the gate decided, if it has.
        pairs: As `routed` gives them.
    """
    drawn = []
    for metric in _reported(scores, promotion):
        gains: dict[str, tuple[Sequence[float], Interval]] = {}
        for variant, plain in pairs.items():
            if (mean := scores.gain(plain, metric, variant)) is not None:
                gains[variant] = list(scores.gains(plain, metric, variant).values()), mean
        if gains:
            drawn.append(_forest(scores, metric, gains, "routing gains in {}:"))
    return drawn


def _forest(scores: Scores, metric: str, gains: Mapping[str, tuple[Sequence[float], Interval]], about: str) -> Markup:
    unit, name = scores.facts.units.get(metric, ""), scores.facts.called(metric)
    words = "; ".join(f"{other} {score(metric, unit, mean, sign='+')}" for other, (_, mean) in gains.items())
    said = f"Forest plot of what {about.format(name)} {words}. Positive is better."
    return svg(forest(name, unit, gains, least=scores.least), said)


def group_tables(scores: Scores) -> list[Grid]:
    """For each trait of cases, the metric by kind of case and method; folded where a kind has few patients."""
    tables = []
    for trait, groups in scores.kinds().items():
        metric = scores.metric_for(trait)
        people = {name: len({scores.patients[case] for case in cases}) for name, cases in groups.items()}
        rows = []
        for place, (name, cases) in enumerate(groups.items()):
            means = [_cell(metric, scores.mean(method, metric, cases), few=scores.least) for method in scores.methods]
            rows.append([Cell(name, f"{len(cases)} cases, {people[name]} patients", place), *means])
        unit = scores.facts.units.get(trait, "")
        head = Column(scores.facts.called(trait), unit, scores.facts.meaning(trait))
        caption = f"{scores.facts.called(metric)} {_note(scores, metric)} by {head.name.lower()}"
        tables.append(_of_many(scores, caption, head, rows, min(people.values())))
    return tables


def position_table(scores: Scores, order: str) -> Grid | None:
    """The first metric of the slices of each third of the cases, by method; None where slices have no scores."""
    metric, methods = next(iter(scores.facts.metrics)), [name for name in scores.methods if name in scores.slices]
    means = [[scores.third(method, place) for method in methods] for place in range(len(THIRDS))]
    known = [mean.patients for row in means for mean in row if mean is not None]
    if not known:
        return None
    rows = [
        [Cell(f"{name} third", "", place), *(_cell(metric, mean, few=scores.least) for mean in means[place])]
        for place, name in enumerate(THIRDS)
    ]
    caption = f"{scores.facts.called(metric)} {_note(scores, metric)} of single slices by position; {order}"
    others = [method for method in scores.methods if method not in methods]
    grid = _of_many(scores, caption, Column("slices"), rows, min(known), without=others)
    return grid


def _of_many(
    scores: Scores, caption: str, head: Column, rows: list[list[Cell]], people: int, without: Sequence[str] = ()
) -> Grid:
    """A table of kinds by method, folded if one of them has few patients."""
    columns = [head, *(Column(method) for method in scores.methods if method not in without)]
    few = people < scores.least
    note = f"; kinds of fewer than {scores.least} patients tell nothing, and have no interval" if few else ""
    return Grid(caption + note, columns, rows, folded=few)


def scatters(scores: Scores) -> list[Markup]:
    """For each trait that is a number, the metric of every case over it: where not to trust the best variant."""
    drawn = []
    for trait, kind in scores.traits.items():
        metric, nominal = scores.metric_for(trait), scores.nominal(trait)
        places = {
            str(row["case"]): float(row[trait])
            for row in scores.methods[scores.best]
            if kind is float and trait in row and math.isfinite(float(row[trait]))
        }
        alike = nominal and len({*scores.values(scores.best, nominal).values()}) < 2
        if len(set(places.values())) < 3 or alike:
            continue
        points = {}
        for method in (scores.best, *scores.references):
            values = scores.values(method, metric)
            pairs = sorted((places[case], values[case]) for case in values if case in places)
            if pairs:
                points[method] = pairs
        if scores.best in points:
            up, across = (
                f"{scores.facts.called(name)}{f' ({unit})' if (unit := scores.facts.units.get(name, '')) else ''}"
                for name in (metric, trait)
            )
            trend = _trend(points[scores.best], metric)
            said = f"{up} of every test case over {across} for {', '.join(points)}; {scores.best}: {trend}."
            drawn.append(svg(scatter(up, across, points), said))
    return drawn


def case_table(rows: Sequence[Mapping[str, str]], facts: Facts, patients: Mapping[str, int]) -> Grid:
    """The best variant's cases, a row each, as `case_rows` gives them.

    Args:
        rows: The first cell is the case's name.
        facts: The task's.
        patients: Number of the patient by case.
    """
    first, *others = rows[0]
    columns = [Column(first), Column("patient", "number"), *(_column(facts, name, facts.units.get(name, ""))
                                                             for name in others)]  # fmt: skip
    cells = []
    for row in rows:
        name, *texts = row.values()
        number = patients[name]
        cells.append([Cell(name, "", name), Cell(f"{number}", "", number),
                      *(Cell(text, "", _number(text)) for text in texts)])  # fmt: skip
    return Grid("Every test case, worst first; a mean over them is not one over patients", columns, cells, folded=True)


def rule_table(promotion: Mapping[str, Any], facts: Facts) -> Grid:
    """Every rule of the gate that was applied, with its estimate, interval and what it had to reach."""
    rows = []
    for rule in promotion.get("rules", []):
        if rule["outcome"] == "not applicable":
            continue
        metric, estimate = rule["rule"].split()[0], rule.get("estimate")
        found = _estimated(rule, facts)
        bounds = "" if found is None else ends(metric, found.low, found.high)
        # What the other cells say is not said again.
        why = rule["text"].split("; ")[1 if estimate is not None else 0 :]
        text = "; ".join(part for part in why if part != SHORT and _FEW not in part)
        people, needed = rule.get("patients", 0), rule.get("needed")
        few = people < promotion.get("gate", {}).get("patients", 0)
        below = ", ".join([*["too few patients"] * few, *["the mean falls short"] * (SHORT in why)])
        rows.append(
            [
                Cell(rule_name(rule, facts), "", rule["rule"]),
                Cell(rule["outcome"], below, rule["outcome"], rule["outcome"].replace(" ", "-")),
                Cell("" if estimate is None else shown(metric, estimate), bounds, "" if estimate is None else estimate),
                Cell("" if needed is None else f"{needed:.4g}", "", "" if needed is None else needed),
                Cell(f"{people}", f"{rule.get('cases', 0)} cases", people) if people else Cell(""),
                Cell(text, "", text),
                Cell(", ".join(rule.get("worst", [])), "", ""),
            ]
        )
    names = {"rule": "", "outcome": "", "estimate": "95 % interval", "needed": "", "patients": "", "why": "", WORST: ""}
    grid = Grid(f"The gate: {headline(promotion)}", [Column(*name) for name in names.items()], rows)
    empty = [name for place, name in enumerate(names) if not any(row[place].text for row in rows)]
    for name in empty:
        grid = grid.without(name)
    return grid


def rule_name(rule: Mapping[str, Any], facts: Facts) -> str:
    """A rule's sentence with the metric's name for people."""
    metric, _, rest = rule["rule"].partition(" ")
    return f"{facts.called(metric)} {rest}"


def _estimated(rule: Mapping[str, Any], facts: Facts) -> Interval | None:
    """What the gate found of a rule, its interval cut at what the metric can be."""
    if rule.get("estimate") is None:
        return None
    low, high = rule.get("low"), rule.get("high")
    found = Interval(
        rule["estimate"],
        -math.inf if low is None else low,
        math.inf if high is None else high,
        math.nan,
        rule["patients"],
    )
    return within(facts, rule["rule"].split()[0], found, gain="erior to" in rule["rule"])


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _reported(scores: Scores, promotion: Mapping[str, Any] | None) -> list[str]:
    """The task's metrics, what else decides, and what must be seen beside them."""
    wanted = [*scores.facts.metrics, *_gated(promotion), *scores.facts.ceilings, *scores.facts.beside]
    return [name for name in scores.columns() if name in wanted]


def _champion(promotion: Mapping[str, Any] | None, facts: Facts) -> bool:
    return any(_ruled(promotion, metric, facts) for metric in _gated(promotion))


def _gated(promotion: Mapping[str, Any] | None) -> list[str]:
    return [rule["metric"] for rule in (promotion or {}).get("gate", {}).get("rules", [])]


def _ruled(promotion: Mapping[str, Any] | None, metric: str, facts: Facts) -> Interval | None:
    """What the gate found that the challenger gains on the champion."""
    rulings = {rule["rule"]: rule for rule in (promotion or {}).get("rules", [])}
    for values in (promotion or {}).get("gate", {}).get("rules", []):
        rule = RuleConfig.model_validate(values)
        ruling = rulings.get(rule.sentence(CHAMPION), {})
        if rule.metric == metric and rule.other == CHAMPION and not rule.where and "estimate" in ruling:
            return _estimated(ruling, facts)
    return None


def _gain(scores: Scores, promotion: Mapping[str, Any] | None, method: str, metric: str) -> Interval | None:
    return scores.gain(method, metric) if method in scores.methods else _ruled(promotion, metric, scores.facts)


def _cell(metric: str, mean: Interval | None, *, few: int = 0) -> Cell:
    if mean is None:
        return Cell("none", "")
    return Cell(shown(metric, mean.mean), interval_text(metric, mean) if mean.patients >= few else "", mean.mean)


def _column(facts: Facts, name: str, note: str) -> Column:
    return Column(facts.called(name), note, facts.meaning(name))


def _note(scores: Scores, column: str) -> str:
    unit = scores.facts.units.get(column, "")
    return f"{_ARROWS[scores.better[column]]} {unit}".strip()


def _trend(pairs: Sequence[tuple[float, float]], metric: str) -> str:
    half = len(pairs) // 2
    low, high = (sum(value for _, value in part) / len(part) for part in (pairs[:half], pairs[half:]))
    return f"on average {shown(metric, low)} in the lower half of the cases and {shown(metric, high)} in the upper"

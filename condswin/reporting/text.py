"""Tables in the terminal."""

import json
import math
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import stdev
from typing import Any

from rich.console import Console
from rich.table import Table

from condswin import layout
from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.plain import plain
from condswin.reporting.decision import decision_lines, headline
from condswin.tasks.facts import Facts
from condswin.tasks.loading import load

#: Decimals of a metric's value; others have three.
DECIMALS = {"psnr": 2}
#: Columns of a table that goes to a file.
LOG_WIDTH = 180
_TEXTS = ("case", "acquisition")
# Characters of an acquisition's name in a table.
_NAME = 60


def where_to_look(config: Config) -> dict[str, str | None]:
    """The last run's report, if it is there, and the MLflow that commands use here: their `report` and `mlflow`."""
    # Imported here, so that scoring files does not wait for MLflow.
    from condswin.registry.tracking import tracking_uri, without_password

    uri, page = without_password(tracking_uri(config)), layout.report()
    return {"report": str(page) if page.exists() else None, "mlflow": uri}


def print_tables(
    config: Config, comparisons: Mapping[TaskName, Mapping[str, Any]], further: Mapping[str, str | None]
) -> None:
    """Prints variants x metrics per task, the best first, and where to look further."""
    console = _console()
    for task_name, comparison in comparisons.items():
        task = load(Facts, task_name, config)
        cases = next(iter(comparison["variants"].values()))["test"][comparison["metric"]]["cases"]
        table = Table(title=f"{task_name}: {cases} test cases, mean ± standard deviation", title_justify="left")
        rows = table_rows(task, comparison)
        for name in rows[0]:
            # A narrow terminal folds numbers, never the names.
            width = max(len(plain(row[name])) for row in rows) if name == "variant" else None
            table.add_column(plain(name), justify="left" if name == "variant" else "right", min_width=width)
        for row in rows:
            table.add_row(*map(plain, row.values()))
        console.print(table)
        console.print(f"* best on the {comparison['chosen_on']} cases by {comparison['metric']}")
        for method, gains in comparison["gains"].items():
            words = ", ".join(f"{metric} {_gain(metric, gain)}" for metric, gain in gains.items())
            console.print(
                f"{comparison['best']} minus {method}, case by case, with 95 % interval: {words}", soft_wrap=True
            )
        if decision := comparison["promotion"]:
            for line in (headline(decision), *decision_lines(decision)):
                console.print(plain(line), soft_wrap=True)
        console.print()
    if further["report"]:
        console.print(f"report:    {further['report']}", soft_wrap=True)
    uri = str(further["mlflow"])
    served = uri.startswith(("http://", "https://"))
    # The program lies beside this Python's, which need not be on PATH.
    program = os.path.relpath(Path(sys.executable).with_name("mlflow"))
    command = uri if served else f"{program} ui --backend-store-uri {shlex.quote(uri)}"
    console.print(f"MLflow UI: {command}", soft_wrap=True)


def print_wide(tables: Iterable[Table]) -> None:
    """Prints tables of many columns, wider than a narrow terminal: names and figures stay whole."""
    console = _console()
    console.width = max(console.width, 140)
    for table in tables:
        console.print(table)


def _console() -> Console:
    """One that takes names as they are: `[/b]` is no markup, `:x:` no emoji.

    A log has no width of its own; what rich assumes would cut names and figures.
    """
    return Console(width=None if sys.stdout.isatty() else LOG_WIDTH, markup=False, emoji=False)


def print_summary(split: dict[str, Any]) -> None:
    """Prints the metrics of one evaluation, pooled and per acquisition, reference methods beside them."""
    parts = [("all", split), *split.get("acquisitions", {}).items()]
    baselines = [name for name, value in split.items() if "mean" not in value and name != "acquisitions"]
    table = Table()
    for column in ("cases", "metric", "mean", "std", "95 % interval", *baselines):
        table.add_column(column, justify="left" if column in ("cases", "metric") else "right")
    for part, summaries in parts:
        for name, value in summaries.items():
            if "mean" in value:
                interval = ends(name, value["low"], value["high"]) or "-"
                # Reference methods have no details.
                means = [summaries[baseline].get(name, {"mean": None})["mean"] for baseline in baselines]
                others = [shown(name, mean) for mean in means]
                cells = (shown(name, value["mean"]), shown(name, value["std"]), interval, *others)
                table.add_row(f"{plain(part, _NAME)} ({value['cases']})", name, *cells)
        table.add_section()
    _console().print(table)


def print_trials(results: Mapping[str, Any]) -> None:
    """Prints the trials of a search, the best one first, and how to train with its parameters."""
    console = _console()
    metric, best = results["metric"], results["best"]
    keys = list(dict.fromkeys(key for row in results["trials"] for key in row["params"]))
    seeds = len(best["values"]) if best else 1
    title = f"{results['task']} {results['variant']}: best {metric} on validation cases"
    table = Table(title=f"{title}, mean ± standard deviation over {seeds} seeds" if seeds > 1 else title)
    table.title_justify = "left"
    notes = [_note(row) for row in results["trials"]]
    for column in ("trial", metric, "epochs", "seconds", *keys):
        table.add_column(plain(column), justify="right")
    if any(notes):
        table.add_column("note")
    for row, note in zip(results["trials"], notes, strict=True):
        values = [value for value in row["values"] if value is not None]
        spread = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
        value = "-" if row["value"] is None else f"{row['value']:.4f}{spread}"
        params = [_given(row["params"].get(key)) for key in keys]
        cells = [f"{row['trial']}", value, f"{row['epochs']}", f"{row['seconds']:.1f}", *params]
        table.add_row(*map(plain, [*cells, note] if any(notes) else cells))
    console.print(table)
    if running := sum(row["state"] == "running" for row in results["trials"]):
        console.print(f"{running} under way in other processes; the same command shows them when they are done")
    if best is None:
        return
    console.print(f"trial {best['trial']} is the best; to train with its parameters:")
    chosen = " ".join(f"--set {shlex.quote(setting)}" for setting in best["settings"])
    console.print(f"  condswin train {results['task']} {results['variant']} {chosen}", soft_wrap=True)
    if results["importances"]:
        shares = ", ".join(f"{key} {share:.0%}" for key, share in results["importances"].items())
        console.print(f"what good trials differ in from others: {shares}", soft_wrap=True)


def _note(row: Mapping[str, Any]) -> str:
    """How a trial ended, if not well, or that it was one before."""
    state = "" if row["state"] == "complete" else str(row["state"])
    same = "" if row["same_as"] is None else f"as trial {row['same_as']}"
    return ": ".join(part for part in (f"{state} {same}".strip(), row["cause"]) if part)


def _given(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)


def print_history(events: Sequence[Mapping[str, str]]) -> None:
    """Prints what happened to registered versions, a row per event."""
    table = Table()
    for column in ("at", "version", "event", "by", "why"):
        table.add_column(column, overflow="fold", min_width=25 if column == "at" else None)
    for event in events:
        table.add_row(*(plain(event[column]) for column in ("at", "version", "event", "by", "why")))
    _console().print(table)


def table_rows(task: Facts, comparison: Mapping[str, Any]) -> list[dict[str, str]]:
    """Rows of the test table: a cell per metric; the best variant, reference methods beside it, then the others."""
    best, variants = comparison["best"], comparison["variants"]
    tested = {name: splits["test"] for name, splits in variants.items()}
    references = {name: splits["test"] for name, splits in comparison.get("reference_methods", {}).items()}
    for baseline in task.baselines:
        summaries = tested[best][baseline]
        if any(summaries[metric]["mean"] is not None for metric in task.metrics):
            references[baseline] = summaries
    others = {name: summaries for name, summaries in tested.items() if name != best}
    rows = {f"{best} *": tested[best], **references, **others}
    return [
        {"variant": name, **{metric: _cell(metric, summaries[metric]) for metric in task.metrics}}
        for name, summaries in rows.items()
    ]


def case_rows(task: Facts, rows: Sequence[Mapping[str, float | str]]) -> list[dict[str, str]]:
    """Cells of the per-case table: traits, metrics and details of each case, worst first by the first metric.

    Args:
        task: Names the columns.
        rows: As `read_rows` gives them; NaN is shown as `-` and sorted last.
    """
    metric, higher_is_better = next(iter(task.metrics.items()))
    values = [float(row[metric]) * (1 if higher_is_better else -1) for row in rows]
    cases = [str(row["case"]) for row in rows]
    order = sorted(range(len(rows)), key=lambda place: (math.isnan(values[place]), values[place], cases[place]))
    texts = {*_TEXTS, *(trait for trait, kind in task.traits.items() if kind is str)}
    wanted = dict.fromkeys((*_TEXTS, *task.traits, *task.metrics, *task.details))
    columns = [name for name in wanted if rows and name in rows[0]]
    return [
        {name: str(rows[place][name]) if name in texts else _case_cell(name, rows[place][name]) for name in columns}
        for place in order
    ]


def shown(metric: str, value: float | None) -> str:
    """A value with the decimals that the field gives; what these would hide (a scanner's units) with an exponent."""
    if value is None:
        return "-"
    return f"{value:.2e}" if 0 < abs(value) < 1e-3 else f"{value:.{DECIMALS.get(metric, 3)}f}"


def ends(metric: str, low: float | None, high: float | None) -> str:
    """An interval with as many decimals as its ends differ in; nothing if it has no ends, or they do not differ."""
    if low is None or high is None or not math.isfinite(low) or not math.isfinite(high):
        return ""
    texts = shown(metric, low), shown(metric, high)
    decimals = DECIMALS.get(metric, 3)
    while texts[0] == texts[1] and (decimals := decimals + 1) < 12:
        texts = f"{low:.{decimals}f}", f"{high:.{decimals}f}"
    return f"{texts[0]} to {texts[1]}" if texts[0] != texts[1] else ""


def _case_cell(column: str, given: float | str) -> str:
    value = float(given)
    return shown(column, None if math.isnan(value) else value)


def _gain(metric: str, gain: Mapping[str, Any]) -> str:
    bounds = ends(metric, gain["low"], gain["high"])
    return shown(metric, gain["mean"]) + (f" ({bounds})" if bounds else "")


def _cell(metric: str, summary: dict[str, Any]) -> str:
    if summary["mean"] is None:
        return "-"
    return f"{shown(metric, summary['mean'])} ± {shown(metric, summary['std'])}"


def shadow_line(record: Mapping[str, Any]) -> str:
    """A file that two networks predicted, in a line."""
    apart = ("input", "unlike", "error")
    measures = [
        f"{name} {'–' if value is None else f'{value:.4g}'}" for name, value in record.items() if name not in apart
    ]
    unlike = [f"{role} is unsure: {'; '.join(why)}" for role, why in record.get("unlike", {}).items()]
    return f"{record['input']}: " + "; ".join([", ".join(measures), *unlike] if measures else [str(record["error"])])


def print_lineage(links: Sequence[Mapping[str, Any]]) -> None:
    """Prints links as a tree, a line each: what it is, what is recorded of it, and what checking it found."""
    for place, link in enumerate(links):
        depth, later = link["depth"], [other["depth"] for other in links[place + 1 :]]
        branches = [_goes_on(later, level) for level in range(1, depth + 1)]
        stem = "".join("│  " if more else "   " for more in branches[:-1])
        head = stem + ("├─ " if branches[-1] else "└─ ") if branches else ""
        found = f"  [{link['held']}: {link['why']}]" if link["why"] else ""
        print(plain(f"{head}{link['name']}: {link['text']}{found}"))


def _goes_on(later: Sequence[int], level: int) -> bool:
    """Whether another link of a level follows before one of a lower level."""
    return next((depth == level for depth in later if depth <= level), False)

"""One HTML file with everything in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from condswin.files import atomic_file
from condswin.reporting.cases import ShownCase
from condswin.reporting.page import Grid


@dataclass(frozen=True)
class TaskReport:
    """A task's part of the report.

    Attributes:
        name: The task.
        best: Name of the best variant.
        metric: The metric that decides.
        data: What data this is.
        headline: What became of the best variant.
        outcome: The same in a word.
        answers: Sentences by question, the first that a reader has.
        rules: The gate's, if it has decided.
        remarks: What to know beside them.
        scores: Methods by metric; the first table has what is reported.
        forests: Gains as figures.
        gains: Gains in numbers.
        groups: Scores by kind of case.
        cases: The worst ones in pictures.
        every_case: All of them in numbers; None for a page that names none.
        maps: What routers chose, by variant.
        shares: Which patches they chose.
        trends: Scores of cases over what describes them.
        curves: Of the trainings.
        costs: Of the networks.
        rejected: Cases that ingestion left out, with reasons.
        facts: Lines of provenance by name.
    """

    name: str
    best: str
    metric: str
    data: str
    headline: str
    outcome: str
    answers: Mapping[str, list[str]]
    rules: Grid | None
    remarks: list[str]
    scores: list[Grid]
    forests: list[Markup]
    gains: Grid
    groups: list[Grid]
    cases: list[ShownCase]
    every_case: Grid | None
    maps: Mapping[str, Markup]
    shares: Grid | None
    trends: list[Markup]
    curves: list[Markup]
    costs: Grid | None
    rejected: list[dict[str, str]]
    facts: Mapping[str, str]


def write_report(path: Path, tasks: list[TaskReport]) -> None:
    """Renders the report atomically."""
    write_page(path, "report.html", tasks=tasks)


def write_page(path: Path, template: str, **values: Any) -> None:
    """Renders one of the templates beside this module atomically."""
    environment = Environment(
        loader=PackageLoader("condswin.reporting", "."),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template(template).render(**values)
    with atomic_file(path) as temporary:
        # Names of files need not be UTF-8.
        temporary.write_text(html, errors="backslashreplace")

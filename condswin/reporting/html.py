"""One HTML file with everything in it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from condswin.files import atomic_file
from condswin.reporting.cases import ShownCase
from condswin.reporting.page import Grid


@dataclass(frozen=True)
class TaskReport:
    """A task's part of the report.

    Attributes:
        name: The task.
        best: Name of the best variant.
        title: The task with what scans are made by.
        metric: Name of the metric that decides.
        data: What data this is.
        headline: What became of the best variant.
        outcome: The same in a word.
        caveat: What the verdict is worth; empty if all test cases are real.
        answers: Sentences by question, the first that a reader has.
        rules: The gate's that were applied, if it has decided.
        unused: Why others were not.
        least: Patients from which on anything is decided.
        scores: Methods by metric; the first table has what is reported.
        methods: What each method does.
        terms: Meanings by name of a score.
        forests: Gains as figures.
        gains: Gains in numbers.
        routed: Variants with routers, and the same networks without.
        routing: What the first gain on the second, as figures.
        groups: Scores by kind of case.
        cases: The worst ones in pictures.
        others: The command that shows any other case.
        every_case: All of them in numbers; None for a page that names none.
        maps: What routers chose, by variant.
        shares: Which patches they chose.
        trends: Scores of cases over what describes them.
        curves: Of the trainings.
        costs: Of the networks.
        training: How they were trained.
        about: What is known of the data, by name.
        rejected: Cases that ingestion left out, with reasons.
        facts: Lines of provenance by name.
    """

    name: str
    best: str
    title: str
    metric: str
    data: str
    headline: str
    outcome: str
    caveat: str
    answers: Mapping[str, list[str]]
    rules: Grid | None
    unused: list[str]
    least: int
    scores: list[Grid]
    methods: Mapping[str, str]
    terms: Mapping[str, str]
    forests: list[Markup]
    gains: Grid
    routed: Mapping[str, str]
    routing: list[Markup]
    groups: list[Grid]
    cases: list[ShownCase]
    others: str
    every_case: Grid | None
    maps: Mapping[str, Markup]
    shares: Grid | None
    trends: list[Markup]
    curves: list[Markup]
    costs: Grid | None
    training: Grid | None
    about: Mapping[str, str]
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
    environment.filters["commands"] = _commands
    html = environment.get_template(template).render(**values)
    with atomic_file(path) as temporary:
        # Names of files need not be UTF-8.
        temporary.write_text(html, errors="backslashreplace")


def _commands(text: str) -> Markup:
    """A sentence with what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))

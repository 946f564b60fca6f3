"""One HTML file with everything in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from condswin.files import atomic_file


@dataclass(frozen=True)
class TaskReport:
    """A task's part of the report.

    Attributes:
        name: The task.
        table: Rows of cells by column.
        best: Name of the best variant.
        metric: The metric that decides.
        chosen_on: The split that decided which is best.
        splits: Cases per split.
        rejected: Cases that ingestion left out, with reasons.
        figures: Data URIs by caption.
        cases: Rows of cells by column, the best variant's test cases, worst first.
        pictures: Data URIs by caption, of the best variant's cases.
        promotion: The gate's decision with a `headline` and `remarks`, or None if there is none yet.
        facts: Lines of provenance by name.
    """

    name: str
    table: list[dict[str, str]]
    best: str
    metric: str
    chosen_on: str
    splits: Mapping[str, int]
    rejected: list[dict[str, str]]
    figures: Mapping[str, str]
    cases: list[dict[str, str]]
    pictures: Mapping[str, str]
    promotion: Mapping[str, Any] | None
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

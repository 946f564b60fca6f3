"""Pages in Markdown, as Kubeflow's user interface shows them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.plain import cell
from condswin.reporting.decision import decision_lines, headline
from condswin.reporting.text import table_rows
from condswin.tasks.facts import Facts
from condswin.tasks.loading import load


class Result(Protocol):
    """What became of a file: see `condswin.steps.predict.Result`."""

    input: Path
    status: Any
    seconds: float


def comparison_page(config: Config, task: TaskName, comparison: dict[str, Any]) -> str:
    """The variants' test scores, the best first."""
    rows = table_rows(load(Facts, task, config), comparison)
    cases = next(iter(comparison["variants"].values()))["test"][comparison["metric"]]["cases"]
    lines = [
        f"# {task}: {cases} test cases, mean ± standard deviation",
        "",
        *_table([list(rows[0]), *(list(row.values()) for row in rows)]),
        "",
        f"\\* best on the {comparison['chosen_on']} cases by {comparison['metric']}",
    ]
    return "\n".join(lines) + "\n"


def decision_page(task: TaskName, record: Mapping[str, Any]) -> str:
    """What became of the challenger, and by which rules."""
    reasons = [f"- {cell(line.strip(), 400)}" for line in decision_lines(record)]
    return "\n".join([f"# {task}: {cell(headline(record), 400)}", "", *reasons]) + "\n"


def predictions_page(task: TaskName, results: Sequence[Result], folder: Path) -> str:
    """What became of each file of a folder, without its warnings."""
    rows = [[str(each.input.relative_to(folder)), each.status, f"{each.seconds:.1f}"] for each in results]
    return "\n".join([f"# {task}: {len(rows)} files", "", *_table([["file", "", "seconds"], *rows])]) + "\n"


def _table(rows: list[list[str]]) -> list[str]:
    head, *body = ([cell(text) for text in row] for row in rows)
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body)]

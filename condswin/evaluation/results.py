"""What an evaluation leaves on disk: a table of cases, pictures, and `metrics.json`."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from condswin.errors import BadFileError
from condswin.evaluation.summary import summarise
from condswin.files import atomic_file
from condswin.tasks.facts import Facts, Row
from condswin.tasks.pictures import Pictures

METRICS = "metrics.json"
#: Names of the pictures that may be drawn.
PICTURES = ("worst", "median", "best", "case")


def cases_file(split: str) -> str:
    """Name of the table of a split's cases."""
    return f"{split}-cases.csv"


def summaries(facts: Facts, rows: list[Row]) -> dict[str, Any]:
    """Summary per metric and, under their names, the reference methods'; also per acquisition if rows have several."""
    result = _summaries(facts, rows)
    kinds = sorted({str(row["acquisition"]) for row in rows if row.get("acquisition")})
    if len(kinds) > 1:
        by_kind = {kind: [row for row in rows if row["acquisition"] == kind] for kind in kinds}
        result["acquisitions"] = {kind: _summaries(facts, part) for kind, part in by_kind.items()}
    return result


def _summaries(facts: Facts, rows: list[Row]) -> dict[str, Any]:
    details = [name for name in facts.details if name in rows[0]]
    result: dict[str, Any] = dict(summarise(rows, [*facts.metrics, *details]))
    for baseline, prefix in facts.baselines.items():
        columns = summarise(rows, [f"{prefix}{metric}" for metric in facts.metrics])
        result[baseline] = {name.removeprefix(prefix): summary for name, summary in columns.items()}
    return result


def write_rows(path: Path, rows: list[Row]) -> None:
    """Writes one CSV line per case, atomically."""
    # Names of cases are those of files, which need not be UTF-8.
    with atomic_file(path) as temporary, temporary.open("w", newline="", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path, numbers: Iterable[str]) -> list[Row]:
    """Reads what `write_rows` wrote; these columns, where they are there, are numbers.

    Raises:
        BadFileError: The file is missing or has no number where one should be.
    """
    try:
        with path.open(newline="", errors="surrogateescape") as file:
            rows: list[Row] = [dict(row) for row in csv.DictReader(file)]
        return [{**row, **{name: float(row[name]) for name in numbers if name in row}} for row in rows]
    except (OSError, ValueError, TypeError) as error:
        raise BadFileError(path, f"no table of cases ({error}); run the step that writes it again") from None


def draw_pictures(
    facts: Facts, pictures: Pictures, rows: list[Row], targets: Path, predictions: Path, out: Path
) -> list[Path]:
    """Draws the worst, the median and the best case by the primary metric; returns the files."""
    metric, higher_is_better = next(iter(facts.metrics.items()))
    finite = [row for row in rows if float(row[metric]) == float(row[metric])]
    ranked = sorted(finite, key=lambda row: float(row[metric]), reverse=not higher_is_better)
    chosen = {len(ranked) // 2: "median", len(ranked) - 1: "best", 0: "worst"}
    if len(ranked) < 3:
        chosen = {1: "best", 0: "worst"} if len(ranked) == 2 else {0: "case"}
    drawn = []
    for place, name in chosen.items():
        if place < len(ranked):
            figure = pictures.picture(targets, predictions, str(ranked[place]["case"]))
            with atomic_file(out / f"{name}.png") as temporary:
                # No software version or date in the file: equal pictures are equal bytes.
                figure.savefig(temporary, dpi=100, metadata={"Software": None})
            drawn.append(out / f"{name}.png")
    return drawn

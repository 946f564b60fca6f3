"""The history of a training as a table: a row per epoch."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from condswin.files import atomic_file

#: What is logged of epochs, by name, and `epoch`, from 0.
Rows = Sequence[Mapping[str, float]]


def read_history(path: Path) -> list[dict[str, float]]:
    """Rows of a table; what an epoch lacks is left out."""
    with path.open(newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def write_history(path: Path, rows: Rows) -> None:
    """Writes a table atomically."""
    with atomic_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=sorted({name for row in rows for name in row}), restval="")
        writer.writeheader()
        writer.writerows(rows)

"""Figures of the report, as PNG data URIs."""

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from condswin.plain import label

Column = Sequence[float]


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file; none if there is no such file."""
    if not path.is_file():
        return []
    with path.open(newline="", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def data_uri(png: bytes) -> str:
    """A picture as an address that needs no second file."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def png(figure: Figure) -> bytes:
    """A figure drawn at screen resolution."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


def spread_figure(metric: str, values: Mapping[str, Column]) -> Figure:
    """Every case of every row as a dot, the mean as a bar, connected case by case between rows."""
    figure = Figure(figsize=(7, 3.2))
    axes = figure.subplots()
    names = list(values)
    for case in zip(*values.values(), strict=True):
        axes.plot(range(len(names)), case, color="#9ab", linewidth=0.6, zorder=1)
    for place, name in enumerate(names):
        points = [value for value in values[name] if value == value]
        axes.scatter([place] * len(points), points, s=14, color="#346", zorder=2)
        if points:
            mean = sum(points) / len(points)
            axes.hlines(mean, place - 0.22, place + 0.22, color="#c33", linewidth=2.2, zorder=3)
    axes.set_xticks(range(len(names)), [label(name).replace("-", "-\n") for name in names], fontsize=9)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylabel(metric)
    axes.set_title(f"{metric} per test case (dots, joined by case) and mean (bars)", fontsize=10)
    axes.grid(axis="y", alpha=0.3)
    return figure


def curves_figure(histories: Mapping[str, Sequence[Mapping[str, str]]], monitor: str) -> Figure:
    """Training loss and the validation score over epochs, a line per variant."""
    figure = Figure(figsize=(9, 3.2))
    panels = figure.subplots(1, 2)
    for axes, column in zip(panels, ("train/loss", monitor), strict=True):
        for variant, rows in histories.items():
            points = [(int(row["epoch"]) + 1, float(row[column])) for row in rows if row.get(column)]
            axes.plot(*zip(*points, strict=True), label=label(variant), linewidth=1.4) if points else None
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(column, fontsize=10)
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize=8)
    figure.tight_layout()
    return figure

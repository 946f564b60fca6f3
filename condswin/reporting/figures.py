"""Figures of pages: SVG in the page's own colours and letters, and PNG data URIs."""

import base64
import csv
import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle
from pathlib import Path

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from condswin.plain import label
from condswin.registry.interval import Interval

#: Colours that the colour-blind tell apart, of about the same contrast on white and on near-black; and markers.
COLOURS = ("#2f7fc1", "#c4621b", "#2a8c6b", "#b3579a", "#8a7a1d", "#777777")
MARKERS = ("o", "s", "^", "D", "v", "x")
#: What is drawn in the page's colour of text; matplotlib does not write that something is filled with black.
INK = "#010101"
#: Colours of errors: dark to light, read without colour too.
ERRORS = "magma"

# Values of a fact that are shown, the commonest first.
_MOST_VALUES = 8
# Axes in a row.
_ACROSS = 4
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
_NUMBERED = re.compile(r' id="[A-Za-z0-9.]+_\d+"')


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


def pixels_uri(pixels: NDArray[np.uint8], *, error: bool) -> str:
    """A picture (H, W) or (H, W, 3) pixel by pixel; grey levels of errors in the colours of `ERRORS`."""
    image = Image.fromarray(pixels)
    if error and pixels.ndim == 2:
        image.putpalette((matplotlib.colormaps[ERRORS](np.arange(256))[:, :3] * 255).astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return data_uri(buffer.getvalue())


def svg(figure: Figure, described: str) -> Markup:
    """A figure as an element of a page: black is the page's colour of text, letters are the page's.

    Args:
        figure: Drawn on nothing.
        described: What is to be seen, for those who do not see it.
    """
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    buffer = io.StringIO()
    # One salt: equal figures are equal text.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "condswin"}):
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    # Several figures of one page would have the same numbers; nothing refers to these.
    text = (
        _NUMBERED.sub("", _METADATA.sub("", text[text.index("<svg") :]))
        .replace("#000000", "currentColor")
        .replace(INK, "currentColor")
    )
    return Markup(text.replace("<svg ", f'<svg role="img" aria-label="{escape(described)}" ', 1))


def forest(metric: str, unit: str, gains: Mapping[str, tuple[Sequence[float], Interval]], *, least: int) -> Figure:
    """What the best variant gains on each other method: the mean with its interval, and every patient as a dot.

    Args:
        metric: Of which.
        unit: Of the metric.
        gains: By method: of the patients, where they are known, and over them; positive is better.
        least: Patients from which on colours tell who is better.
    """
    figure = Figure(figsize=(4.9, 0.75 + 0.42 * len(gains)))
    axes = figure.subplots()
    for place, (patients, mean) in enumerate(gains.values()):
        axes.scatter(patients, [place + 0.22] * len(patients), s=11, color="#888888", alpha=0.7, linewidths=0)
        tells = mean.patients >= least
        colour = COLOURS[0] if tells and mean.low > 0 else COLOURS[1] if tells and mean.high < 0 else INK
        if np.isfinite(mean.low):
            axes.plot([mean.low, mean.high], [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
        axes.plot([mean.mean], [place], marker="D", markersize=6, color=colour)
    axes.axvline(0, color=INK, linewidth=0.8, linestyle="dashed")
    # An interval of few patients may be so wide that nothing else is seen.
    seen = [value for patients, mean in gains.values() for value in (*patients, mean.mean, 0.0)]
    room = 0.6 * (max(seen) - min(seen)) or 1.0
    low = max(min(seen) - room, min([mean.low for _, mean in gains.values() if np.isfinite(mean.low)] + seen))
    high = min(max(seen) + room, max([mean.high for _, mean in gains.values() if np.isfinite(mean.high)] + seen))
    pad = 0.05 * (high - low) or 1.0
    axes.set_xlim(low - pad, high + pad)
    axes.set_yticks(range(len(gains)), [label(name, 26) for name in gains], fontsize=9)
    axes.set_ylim(len(gains) - 0.5, -0.6)
    axes.tick_params(labelsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel(f"worse  <  gain in {metric}{f' ({unit})' if unit else ''}  >  better", fontsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25)
    return figure


def scatter(metric: str, trait: str, points: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """A metric of each case over what describes it, by method."""
    figure = Figure(figsize=(4.9, 3.1))
    axes = figure.subplots()
    for (name, pairs), colour, marker in zip(points.items(), cycle(COLOURS), cycle(MARKERS), strict=False):
        across, up = zip(*pairs, strict=True)
        axes.scatter(across, up, s=26, color=colour, marker=marker, alpha=0.85, label=label(name, 26))
    axes.set_xlabel(trait, fontsize=9)
    axes.set_ylabel(metric, fontsize=9)
    axes.tick_params(labelsize=9)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=2, frameon=False)
    return figure


def curves_figure(histories: Mapping[str, Sequence[Mapping[str, str]]], column: str) -> Figure:
    """A column of trainings' histories over epochs, a line per variant."""
    figure = Figure(figsize=(4.9, 3.1))
    axes = figure.subplots()
    for (variant, rows), colour, marker in zip(histories.items(), cycle(COLOURS), cycle(MARKERS), strict=False):
        points = [(int(row["epoch"]) + 1, float(row[column])) for row in rows if row.get(column)]
        if points:
            epochs, values = zip(*points, strict=True)
            axes.plot(epochs, values, color=colour, marker=marker, markersize=4, label=label(variant, 26))
    axes.set_xlabel("epoch", fontsize=9)
    axes.set_ylabel(column, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=9)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.25), ncols=2, frameon=False)
    return figure


def colour_bar(title: str, low: float, high: float, *, error: bool) -> Figure:
    """What grey levels or colours of pictures mean."""
    figure = Figure(figsize=(2.9, 0.16))
    scale = ScalarMappable(Normalize(low, high), ERRORS if error else "gray")
    bar = figure.colorbar(scale, cax=figure.add_axes((0, 0, 1, 1)), orientation="horizontal")
    bar.set_label(title, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.set_ticks([low, (low + high) / 2, high], labels=[f"{value:.3g}" for value in (low, (low + high) / 2, high)])
    return figure


def grid(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with so many axes in rows of four, each row of this height in inches."""
    rows = -(-count // _ACROSS)
    figure = Figure(figsize=(11, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, _ACROSS, squeeze=False).flat)
    for axis in axes[count:]:
        axis.axis("off")
    return figure, axes[:count]


def histograms(
    statistics: Mapping[str, Sequence[float]],
    titles: Mapping[str, str],
    counts: Mapping[str, Mapping[str, int]],
    counted: Sequence[str],
) -> Figure:
    """How numbers and facts of cases are distributed, an axis each.

    Args:
        statistics: Numbers of all cases by name.
        titles: Of these, by name.
        counts: How many cases have which value, by fact.
        counted: The facts to show.
    """
    figure, axes = grid(len(titles) + len(counted), 2.3)
    for axis, (name, title) in zip(axes, titles.items(), strict=False):
        axis.hist(statistics[name], bins=20, color="#346")
        axis.set_title(title, fontsize=9)
        axis.tick_params(labelsize=8)
    for axis, fact in zip(axes[len(titles) :], counted, strict=True):
        shown = sorted(counts[fact].items(), key=lambda each: -each[1])[:_MOST_VALUES]
        names = [label(value, 24) for value, _ in shown]
        axis.barh(range(len(shown)), [count for _, count in shown], color="#346", tick_label=names)
        axis.set_title(fact, fontsize=9)
        axis.tick_params(labelsize=8)
    return figure

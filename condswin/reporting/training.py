"""Pictures of a training while it runs: its curves, what the network makes of some slices, and what its routers choose.

What draws decides nothing of a training. So the step does not know this module, and its result stays that of its code.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.files import atomic_file
from condswin.networks.watching import FEED_FORWARD, KEY_VALUE, QUERY, Decision
from condswin.plain import label
from condswin.progress import say
from condswin.tasks.loading import load
from condswin.tasks.pictures import Pictures
from condswin.training.history import Rows
from condswin.training.ranks import a_loader_died
from condswin.training.shown import Draw, Epoch

#: In the folder of a training's checkpoints.
CURVES = "training.png"
PICTURES = "pictures"

_KINDS = {QUERY: "weight of queries", KEY_VALUE: "keys attended to", FEED_FORWARD: "heavy feed-forward"}
_COLOURS = {QUERY: "#d55e00", KEY_VALUE: "#0072b2", FEED_FORWARD: "#009e73"}
_COLOUR = (1.0, 0.35, 0.1)
# Pixels of the longer side of a map, and between maps; inches of that side, and around all maps.
_TILE, _GAP = 192, 6
_SIDE, _LEFT, _EDGE = 1.7, 1.4, 0.45
_BLOCK = re.compile(r"(?:(regularisers\.\d+)\.)?(.+?)(?:\.blocks)?\.\d+")


def drawing(config: Config, task: TaskName) -> Draw:
    """What a training calls after each epoch: `training.png`, `pictures/epoch-0003.png`, `epoch-0003-routers-1.png`.

    A picture that cannot be drawn is named on standard error, and the training goes on.
    """

    def draw(epoch: Epoch, folder: Path) -> None:
        name = f"epoch-{int(epoch.rows[-1]['epoch']):04}"
        try:
            _write(folder / CURVES, curves(epoch.rows, epoch.monitor))
            figure = load(Pictures, task, config).slices(epoch.shown) if epoch.shown else None
            if figure is not None:
                _write(folder / PICTURES / f"{name}.png", figure)
            for number, (shown, decisions) in enumerate(zip(epoch.shown, epoch.decisions, strict=True), start=1):
                if decisions:
                    background = load(Pictures, task, config).background(shown.batch)
                    figure = router_maps(shown.name, background, decisions)
                    _write(folder / PICTURES / f"{name}-routers-{number}.png", figure)
        except Exception as error:  # hours of training are worth more than a picture
            if isinstance(error, RuntimeError) and a_loader_died(error):
                raise
            say(f"{folder}: the pictures of {name} are not drawn ({type(error).__name__}: {error})")

    return draw


def curves(rows: Rows, monitor: str | None) -> Figure:
    """Losses, scores, learning rate, gradient norms, and entropy and load of routers over epochs.

    Args:
        rows: The history.
        monitor: The score that picks the best epoch; the first of the scores.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    scores = [name for name in names if name.startswith("val/") and name != "val/loss"]
    panels = {
        "loss": ["train/loss", "val/loss"],
        "validation score": sorted(scores, key=lambda name: (name != monitor, name)),
        "learning rate at the end of the epoch": ["train/learning_rate"],
        "gradient norm before clipping": ["train/gradient_norm", "train/gradient_norm_max"],
        **{
            f"{measure} of routers": [name for name in names if re.fullmatch(f"router/.*/{measure}", name)]
            for measure in ("entropy", "load")
        },
    }
    shown = {title: found for title, lines in panels.items() if (found := [name for name in lines if name in names])}
    columns = 3 if len(shown) > 4 else 2
    figure = Figure(figsize=(4.2 * columns, 3.1 * -(-len(shown) // columns)))
    grid = figure.subplots(-(-len(shown) // columns), columns, squeeze=False).flat
    # Not arranged by matplotlib, which would draw it twice.
    figure.subplots_adjust(left=0.055, right=0.985, bottom=0.08, top=0.95, wspace=0.22, hspace=0.32)
    for axes, (title, lines) in zip(grid, shown.items(), strict=False):
        _plot(axes, rows, lines)
        axes.set_title(title, fontsize=10)
    for axes in list(figure.axes)[len(shown) :]:
        axes.axis("off")
    return figure


def _plot(axes: Axes, rows: Rows, lines: Sequence[str]) -> None:
    """A line per name; routers of one kind in one colour."""
    for name in lines:
        points = [(row["epoch"], row[name]) for row in rows if name in row]
        kind = name.split("/")[-2] if name.startswith("router/") else None
        style = {"color": _COLOURS[kind], "linewidth": 0.7, "alpha": 0.7} if kind else {"linewidth": 1.4}
        axes.plot(*zip(*points, strict=True), label=kind or label(name), marker=".", markersize=3, **style)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.legend(handles.values(), handles, fontsize=7)
    axes.set_xlabel("epoch", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)


def router_maps(name: str, background: NDArray[np.float32], decisions: Iterable[Decision]) -> Figure:
    """Which patches of a slice took the heavy branch: a map for each stage and kind of router.

    Colour is the share of a stage's blocks that chose the patch; for queries, the score relative to the map's highest.
    Unrolled networks have rows for each cascade.

    Args:
        name: Of the slice.
        background: (H, W), 0 to 1, the image that the network saw.
        decisions: On this slice, in the order of the network.
    """
    maps: dict[tuple[int, str], dict[str, list[NDArray[np.float32]]]] = {}
    calls: Counter[tuple[str, str]] = Counter()
    cascades: dict[tuple[str, int], int] = {}
    for decision in decisions:
        regulariser, stage = _parts(decision.block)
        # A regulariser that all cascades share comes once for each.
        call = calls[decision.block, decision.kind]
        calls[decision.block, decision.kind] += 1
        cascade = cascades.setdefault((regulariser, call), len(cascades))
        values = decision.scores if decision.chosen is None else decision.chosen
        row = maps.setdefault((cascade, decision.kind), {})
        row.setdefault(stage, []).append(values[0].numpy().astype(np.float32))
    order = sorted(maps, key=lambda key: (key[0], list(_KINDS).index(key[1])))
    stages = list(dict.fromkeys(stage for row in maps.values() for stage in row))
    height, width = background.shape
    scale = _TILE / max(height, width)
    tall, wide = round(height * scale), round(width * scale)
    largest = max(each.shape[0] for row in maps.values() for values in row.values() for each in values)
    canvas = np.ones((len(order) * (tall + _GAP), len(stages) * (wide + _GAP), 3), np.float32)
    rows, columns = (np.arange(tall) / scale).astype(int), (np.arange(wide) / scale).astype(int)
    grey = background[np.ix_(rows.clip(0, height - 1), columns.clip(0, width - 1))][..., None]
    for down, key in enumerate(order):
        for across, stage in enumerate(stages):
            if stage not in maps[key]:
                continue
            values = np.mean(maps[key][stage], axis=0)
            side = _side(height, largest, values.shape[0])
            shade = values[np.ix_(rows // side, columns // side)][..., None]
            shade = 0.75 * shade / max(float(values.max()), 1e-12)
            tile = (1 - shade) * grey + shade * np.array(_COLOUR, np.float32)
            top, left = down * (tall + _GAP), across * (wide + _GAP)
            canvas[top : top + tall, left : left + wide] = tile
    inches = _SIDE * canvas.shape[1] / _TILE, _SIDE * canvas.shape[0] / _TILE
    figure = Figure(figsize=(inches[0] + _LEFT, inches[1] + 2 * _EDGE))
    whole = figure.get_size_inches()
    axes = figure.add_axes((_LEFT / whole[0], _EDGE / whole[1], inches[0] / whole[0], inches[1] / whole[1]))
    axes.imshow(canvas, interpolation="nearest", aspect="auto")
    axes.set_xticks([(at + 0.5) * (wide + _GAP) for at in range(len(stages))], stages)
    several = len(cascades) > 1
    texts = [f"cascade {cascade + 1}\n" * several + _KINDS[kind] for cascade, kind in order]
    axes.set_yticks([(at + 0.5) * (tall + _GAP) for at in range(len(order))], texts)
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{label(Path(name).name)}\nbrighter: chosen by more of a stage's blocks", fontsize=8)
    return figure


def _parts(block: str) -> tuple[str, str]:
    """Regulariser, if any, and stage of a block."""
    found = _BLOCK.fullmatch(block)
    return (found[1] or "", found[2]) if found else ("", block)


def _side(height: int, largest: int, rows: int) -> int:
    """Pixels of a patch's side, of a map of so many rows: each stage halves them, rounded up."""
    stage: int = round(math.log2(largest / rows))
    return -(-height // largest) << stage


def _write(path: Path, figure: Figure) -> None:
    with atomic_file(path) as temporary:
        # Not cut to what is drawn, which would draw it twice.
        figure.savefig(temporary, format="png", dpi=100, metadata={"Software": None})

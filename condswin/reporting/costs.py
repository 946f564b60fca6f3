"""Tables of what networks cost, how they were trained, and which patches they choose."""

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from condswin.networks.saving import ModelSpec
from condswin.reporting.networks import ROUNDS, Seen
from condswin.reporting.page import Cell, Column, Grid
from condswin.reporting.text import shown


def cost_table(
    seen: Mapping[str, Seen], hours: Mapping[str, float | None], references: Sequence[str] = ()
) -> Grid | None:
    """What the networks cost.

    Args:
        seen: By variant.
        hours: Of their trainings; None where it is not known.
        references: Methods without a network, whose time is not measured.
    """
    if not seen:
        return None
    rows = []
    for variant, network in seen.items():
        flops = network.flops
        counts = (flops.total, flops.light, flops.heavy, flops.router, flops.rest)
        cells = [Cell(f"{count / 1e9:.3f}", "", count) for count in counts]
        cells.append(Cell(f"{network.milliseconds:.1f}", "", network.milliseconds))
        time = hours.get(variant)
        cells.append(Cell("unknown") if time is None else Cell(f"{60 * time:.1f}", "", time))
        cells.append(Cell(" x ".join(map(str, network.size))))
        rows.append([Cell(variant), Cell(f"{network.parameters:,}", "", network.parameters), *cells])
    for method in references:
        rows.append([Cell(method), Cell("0", "", 0), *[Cell("not measured")] * 6, Cell("0", "", 0), Cell("")])
    branches = [Column(name, "GFLOP") for name in ("one slice", "light branches", "heavy branches", "routers", "rest")]
    caption = (
        f"Costs of one slice; latency is the median of {ROUNDS}, one slice at a time, on the CPU that "
        f"wrote this page ({platform.machine()}, {torch.get_num_threads()} threads)"
    )
    timed = [Column("latency", "↓ ms"), Column("training", "↓ minutes"), Column("slice", "pixels")]
    return Grid(caption, [Column("variant"), Column("parameters", "↓"), *branches, *timed], rows)


def training_table(
    specs: Mapping[str, ModelSpec], histories: Mapping[str, Sequence[Mapping[str, str]]], monitor: tuple[str, bool]
) -> Grid | None:
    """How each network was trained, and which epoch was kept.

    Args:
        specs: By variant.
        histories: Rows by epoch, by variant.
        monitor: Validation score that picks the epoch, and whether a higher value is better.
    """
    rows = []
    for variant, spec in specs.items():
        scored, best = _scored(histories[variant], monitor)
        parameters: dict[str, Any] = spec.provenance.get("parameters", {})
        train = parameters.get("train", {})
        schedule = train.get("schedule", {})
        given = [train.get("batch_size"), train.get("learning_rate"), schedule.get("name"), parameters.get("seed")]
        rows.append(
            [
                Cell(variant, "", variant),
                Cell(f"{len(histories[variant])}" if histories[variant] else "unknown", "", len(histories[variant])),
                Cell(f"{best}" if best else "unknown", shown("", scored[best]) if best else "", best),
                Cell("yes" if best and best == max(scored) else "no" if best else "unknown"),
                *(
                    Cell("unknown" if value is None else f"{value}", "", "" if value is None else value)
                    for value in given
                ),
            ]
        )
    names = {"variant": "", "epochs": "", "kept epoch": monitor[0].replace("_", " "), "still better at the end": ""}
    names |= {"batch size": "", "learning rate": "", "schedule": "", "seed": ""}
    return Grid("Trainings, one per variant", [Column(*name) for name in names.items()], rows) if rows else None


def unfinished(histories: Mapping[str, Sequence[Mapping[str, str]]], monitor: tuple[str, bool]) -> list[str]:
    """Variants whose last epoch was their best; arguments as for `training_table`."""
    found = {variant: _scored(history, monitor) for variant, history in histories.items()}
    return [variant for variant, (scored, best) in found.items() if best and best == max(scored)]


def _scored(history: Sequence[Mapping[str, str]], monitor: tuple[str, bool]) -> tuple[dict[int, float], int]:
    """The monitor by epoch, which count from 1, and the first of its best epochs; 0 without any."""
    column, sign = f"val/{monitor[0]}", 1 if monitor[1] else -1
    scored = {int(row["epoch"]) + 1: float(row[column]) for row in history if row.get(column)}
    return scored, max(scored, key=lambda epoch: (sign * scored[epoch], -epoch), default=0)


def share_table(seen: Mapping[str, Seen]) -> Grid | None:
    """Which patches take the heavy branch, by variant."""
    rows = [
        [Cell(variant), Cell(by, "", by), *(Cell(f"{share:.0%}", "", share) for share in shares)]
        for variant, network in seen.items()
        for by, shares in network.shares.items()
    ]
    columns = [Column(name) for name in ("variant", "patches by", "lowest third", "middle", "highest third")]
    return Grid("Share of patches that take the heavy branch", columns, rows) if rows else None

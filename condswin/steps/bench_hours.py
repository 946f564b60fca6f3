"""Command: what a training costs on a card that is not at hand, by arithmetic alone."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from rich.table import Table

from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.networks.blocks import parameter_count
from condswin.networks.costs import count_flops
from condswin.networks.models import create_model
from condswin.outputs import write_result
from condswin.tasks.learning import Learning
from condswin.tasks.loading import load
from condswin.training.feeding import Card, training_passes


class Hours(NamedTuple):
    """What a training costs.

    Attributes:
        parameters: Trainable numbers.
        flops: Of one slice, forward.
        passes: What a training step costs, in forward passes.
        slices: In an epoch.
        epochs: Of the training.
        hours: On the card.
    """

    parameters: int
    flops: int
    passes: int
    slices: int
    epochs: int
    hours: float


def bench_hours(
    config: Config,
    task_name: TaskName,
    variants: Sequence[str],
    *,
    slices: int,
    size: tuple[int, int],
    card: Card,
    out: Path | None,
    show: Callable[[Table], None] = lambda table: None,
) -> dict[str, Hours]:
    """Counts a forward pass of each variant, multiplies, shows a table and writes JSON. Nothing is trained.

    Args:
        config: Parameters.
        task_name: Which task.
        variants: Labels of the parameters; all of them if empty.
        slices: Trained on in an epoch.
        size: Rows and columns of what the network sees of a slice: a crop, or k-space's columns.
        card: The device.
        out: JSON file; None for none.
        show: Called with each table.

    Raises:
        ConfigError: There is no such variant.
    """
    section, learning = config.task(task_name), load(Learning, task_name, config)
    train, found = section.train, {}
    passes = training_passes(train)
    for label in variants or section.variants:
        variant = section.variant(label)
        inside, outside = learning.channels(variant.network)
        network = create_model(
            variant.network, preset=variant.preset, in_channels=inside, out_channels=outside, **variant.overrides
        )
        flops = count_flops(network, torch.zeros(1, inside, *size)).total
        seconds = flops * passes * slices * train.epochs / (card.tflops * 1e12 * card.utilisation)
        found[label] = Hours(parameter_count(network), flops, passes, slices, train.epochs, seconds / 3600)
    show(_table(found, size, card))
    if out is not None:
        settings = {"card": card._asdict(), "size": list(size), "torch": torch.__version__}
        write_result(out, "bench", {**settings, "hours": {label: each._asdict() for label, each in found.items()}})
    return found


def _table(found: dict[str, Hours], size: tuple[int, int], card: Card) -> Table:
    title = (
        f"assumed: a card of {card.tflops:g} TFLOP/s, used at {card.utilisation:.0%}; {size[0]} x {size[1]} pixels; "
        "validation, loading and elementwise operations are not counted"
    )
    result = Table(title=title, title_justify="left")
    result.add_column("variant", no_wrap=True)
    for column in ("parameters", "GFLOP a slice", "passes", "slices an epoch", "epochs", "PFLOP", "hours"):
        result.add_column(column, justify="right")
    for label, each in found.items():
        total = each.flops * each.passes * each.slices * each.epochs
        result.add_row(
            label,
            f"{each.parameters:,}",
            f"{each.flops / 1e9:.2f}",
            str(each.passes),
            f"{each.slices:,}",
            str(each.epochs),
            f"{total / 1e15:,.0f}",
            f"{each.hours:.2f}",
        )
    return result

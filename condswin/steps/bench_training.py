"""Command: where the time of a training goes on this machine."""

import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.devices import device
from condswin.networks.models import create_model
from condswin.outputs import write_result
from condswin.tasks.learning import Learning
from condswin.tasks.loading import load
from condswin.tasks.slices import Batch
from condswin.training.loaders import raised, training_loader
from condswin.training.module import TrainingModule, make_optimizer
from condswin.training.ranks import Place, helped, how_many


class Phases(NamedTuple):
    """Median seconds of a batch.

    Attributes:
        wait: Until the loader has it.
        transfer: To the device.
        forward: Network and loss.
        backward: Gradients, and their exchange where several processes train.
        optimiser: Clipping and the step.
        slices: In a batch, of all processes.
    """

    wait: float
    transfer: float
    forward: float
    backward: float
    optimiser: float
    slices: int

    @property
    def seconds(self) -> float:
        """Of all phases."""
        return sum(self[:-1])


class _Job(NamedTuple):
    config: Config
    task: TaskName
    variant: str
    prepared: Path
    batches: int


def bench_training(
    config: Config, task_name: TaskName, variants: Sequence[str], *, prepared: Path, batches: int, out: Path | None
) -> dict[str, Phases]:
    """Trains each variant for some batches, which nothing is kept of; prints a table and writes JSON.

    Args:
        config: Parameters; processes, workers, precision and all else are the training's.
        task_name: Which task.
        variants: Labels of the parameters; all of them if empty.
        prepared: Output of the prepare step.
        batches: That are measured; two more come before.
        out: JSON file; None for none.

    Raises:
        ConfigError: There is no such variant, or there cannot be so many processes.
        RankError: One of the processes died.
    """
    section = config.task(task_name)
    ranks = how_many(section.train)
    measured = {}
    for label in variants or section.variants:
        section.variant(label)
        job = _Job(config, task_name, label, prepared, batches)
        with helped(ranks, _measure, job) as here:
            measured[label] = _measure(here, job)
    where = f"{device(section.train.device).type}, {ranks} processes, {section.train.workers} workers each"
    console = Console()
    console.width = max(console.width, 110)
    console.print(_table(measured, title=f"{task_name}, {where}, medians of {batches} batches, ms"))
    if out is not None:
        numbers = {label: {**phases._asdict(), "seconds": phases.seconds} for label, phases in measured.items()}
        settings = {"train": section.train.model_dump(mode="json"), "processes": ranks, "batches": batches}
        write_result(out, "bench", {**settings, "torch": torch.__version__, "phases": numbers})
    return measured


def _measure(here: Place, job: _Job) -> Phases:
    section, place = job.config.task(job.task), device(job.config.task(job.task).train.device)
    if place.type == "cuda":
        place = torch.device("cuda", here.local_rank)
    train, variant = section.train, section.variant(job.variant)
    learning = load(Learning, job.task, job.config)
    inputs, outputs = learning.channels(variant.network)
    network = create_model(
        variant.network, preset=variant.preset, in_channels=inputs, out_channels=outputs, **variant.overrides
    )
    slices = learning.dataset(job.prepared, "train", variant.network, training=True)
    trained = TrainingModule(network, learning, train, seed=job.config.seed, slices=slices).to(place)
    optimizer = make_optimizer(trained, train, here.ranks)
    module = DistributedDataParallel(trained, find_unused_parameters=True) if here.ranks > 1 else trained
    loader = training_loader(slices, train, seed=job.config.seed, rank=here.rank, ranks=here.ranks)
    autocast = torch.autocast(place.type, torch.float16 if train.precision == "16-mixed" else torch.bfloat16)
    taken: list[tuple[float, ...]] = []
    size, epochs = 0, iter(loader)
    for _ in range(job.batches + 2):
        times = [time.perf_counter()]

        def done(times: list[float] = times) -> None:
            if place.type == "cuda":
                torch.cuda.synchronize(place)
            times.append(time.perf_counter())

        found = next(epochs, None)
        if found is None:
            epochs = iter(loader)
            found = next(epochs)
        done()
        batch: Batch = {name: value.to(place, non_blocking=True) for name, value in raised(found).items()}
        done()
        with autocast if train.precision != "32-true" else torch.enable_grad():
            output = module(batch["image"])
        loss = learning.loss(output.float(), batch)
        done()
        loss.backward()  # type: ignore[no-untyped-call]
        done()
        if train.gradient_clip:
            nn.utils.clip_grad_norm_(module.parameters(), train.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()
        done()
        taken.append(tuple(after - before for before, after in pairwise(times)))
        size = max(size, len(batch["image"]))
    wait, transfer, forward, backward, optimiser = (statistics.median(phase) for phase in zip(*taken[2:], strict=True))
    return Phases(wait, transfer, forward, backward, optimiser, size * here.ranks)


def _table(measured: dict[str, Phases], *, title: str) -> Table:
    result = Table(title=title, title_justify="left")
    result.add_column("variant", no_wrap=True)
    for column in ("loader wait", "transfer", "forward", "backward", "optimiser", "waiting", "images/s"):
        result.add_column(column, justify="right")
    for label, phases in measured.items():
        result.add_row(
            label,
            *(f"{1e3 * seconds:.1f}" for seconds in phases[:-1]),
            f"{phases.wait / phases.seconds:.1%}",
            f"{phases.slices / phases.seconds:.1f}",
        )
    return result

"""Command: where the time of a training goes on this machine, and what its settings change."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from rich.table import Table
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.devices import compiling, device
from condswin.errors import CondswinError
from condswin.networks.costs import peak_memory
from condswin.networks.models import create_model
from condswin.outputs import write_result
from condswin.tasks.learning import Learning
from condswin.tasks.loading import load
from condswin.tasks.slices import Batch, Slices
from condswin.training.feeding import Card, Feeding, feeding
from condswin.training.loaders import raised, training_loader
from condswin.training.module import TrainingModule, make_optimizer
from condswin.training.ranks import Place, helped, how_many

#: How often each of several settings is measured.
TURNS = 3


class Phases(NamedTuple):
    """Median seconds of a batch.

    Attributes:
        wait: Until the loader has it.
        transfer: To the device, and what `transforms` leaves to that.
        forward: Network and loss.
        backward: Gradients, and their exchange where several processes train.
        optimiser: Clipping and the step.
        slices: In a batch, of all processes.
        memory: Peak bytes of tensors that a step makes on rank 0's device, beside weights and optimiser.
    """

    wait: float
    transfer: float
    forward: float
    backward: float
    optimiser: float
    slices: int
    memory: int

    @property
    def seconds(self) -> float:
        """Of all phases."""
        return sum(self[:5])

    @property
    def rate(self) -> float:
        """Slices per second."""
        return self.slices / self.seconds


class _Row(NamedTuple):
    """A variant under some settings."""

    label: str
    variant: str
    config: Config


class _Job(NamedTuple):
    task: TaskName
    rows: list[_Row]
    prepared: Path
    batches: int


def bench_training(
    configs: Mapping[str, Config],
    task_name: TaskName,
    variants: Sequence[str],
    *,
    prepared: Path,
    batches: int,
    out: Path | None,
    card: Card | None = None,
    show: Callable[[Table], None] = lambda table: None,
) -> tuple[dict[str, Phases], dict[str, Feeding]]:
    """Trains each variant for some batches, which nothing is kept of; shows tables and writes JSON.

    Several settings are measured in turns, so that what else the machine does meets all of them alike; but those of
    one number of processes after those of another.

    Args:
        configs: Parameters by what is said of them, nothing if there is one; processes, workers, precision and all else
            are the training's.
        task_name: Which task.
        variants: Labels of the parameters; all of them if empty.
        prepared: Output of the prepare step.
        batches: That are measured of each; some more come before.
        out: JSON file; None for none.
        show: Called with each table.
        card: Also say what it would take from loaders, and what these give.

    Returns:
        What was measured, by variant and what is said of the parameters; and by the same, what loaders give, if there
        is a card.

    Raises:
        ConfigError: There is no such variant, or there cannot be so many processes.
        RankError: One of the processes died.
        MachineError: What torch compiled is damaged.
    """
    section = next(iter(configs.values())).task(task_name)
    for label in variants:
        section.variant(label)
    rows = [
        _Row(", ".join(filter(None, (variant, said))), variant, config)
        for variant in variants or section.variants
        for said, config in configs.items()
    ]
    measured: dict[str, Phases] = {}

    def processes(row: _Row) -> int:
        return how_many(row.config.task(task_name).train)

    for ranks, alike in groupby(sorted(rows, key=processes), key=processes):
        job = _Job(task_name, list(alike), prepared, batches)
        with helped(ranks, _measure, job) as here, compiling():
            measured |= _measure(here, job)
    measured = {row.label: measured[row.label] for row in rows}
    where = f"{device(section.train.device).type}, {torch.get_num_threads()} threads"
    show(_table(measured, title=f"{task_name}, {where}, medians of {batches} batches, ms"))
    if len(configs) > 1:
        show(_ratios(measured, len(configs)))
    fed = {} if card is None else {row.label: _feeding(row, task_name, prepared, card, batches) for row in rows}
    if card is not None:
        show(_feeding_table(fed, card))
    if out is not None:
        numbers = {
            row.label: {
                **measured[row.label]._asdict(),
                "seconds": measured[row.label].seconds,
                "processes": processes(row),
                "train": row.config.task(task_name).train.model_dump(mode="json"),
            }
            for row in rows
        }
        settings = {"card": card and card._asdict(), "batches": batches, "torch": torch.__version__}
        feeds = {label: each._asdict() for label, each in fed.items()}
        write_result(out, "bench", {**settings, "phases": numbers, "feeding": feeds})
    return measured, fed


class _Trained:
    """A row's network under training.

    Args:
        here: This process among others.
        row: The row.
        job: Of which it is.
    """

    def __init__(self, here: Place, row: _Row, job: _Job) -> None:
        self.train, self._here, self._seed = row.config.task(job.task).train, here, row.config.seed
        self.place = device(self.train.device)
        if self.place.type == "cuda":
            self.place = torch.device("cuda", here.local_rank)
        self._learning, network, self._slices = _parts(row, job.task, job.prepared)
        trained = TrainingModule(network, self._learning, self.train, seed=self._seed, slices=self._slices)
        trained = trained.to(self.place)
        self._optimizer = make_optimizer(trained, self.train, here.ranks)
        self._module: nn.Module = trained
        if here.ranks > 1:
            self._module = DistributedDataParallel(trained, find_unused_parameters=True)
        self.taken: list[tuple[float, ...]] = []
        self.size = 0

    def turn(self, batches: int) -> None:
        """Trains for some batches, and one or two before that do not count."""
        train = self.train
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = train.tf32
        loaded = self._batches()
        taken = [self._step(loaded) for _ in range(batches + (1 if self.taken else 2))]
        self.taken += taken[-batches:]

    def memory(self) -> int:
        """Peak bytes of one more batch."""
        loaded = self._batches()
        return peak_memory(lambda: self._step(loaded), self.place)

    def _batches(self) -> Iterator[Batch | CondswinError]:
        loader = training_loader(
            self._slices, self.train, seed=self._seed, rank=self._here.rank, ranks=self._here.ranks
        )
        while True:
            yield from loader

    def _step(self, loaded: Iterator[Batch | CondswinError]) -> tuple[float, ...]:
        times = [time.perf_counter()]

        def done() -> None:
            if self.place.type == "cuda":
                torch.cuda.synchronize(self.place)
            times.append(time.perf_counter())

        found = next(loaded)
        done()
        batch: Batch = {name: value.to(self.place, non_blocking=True) for name, value in raised(found).items()}
        if self.train.transforms == "device":
            batch = self._slices.inputs(batch)
        done()
        rounded = torch.float16 if self.train.precision == "16-mixed" else torch.bfloat16
        with torch.autocast(self.place.type, rounded, enabled=self.train.precision != "32-true"):
            output = self._module(batch["image"])
        loss = self._learning.loss(output.float(), batch)
        done()
        loss.backward()  # type: ignore[no-untyped-call]
        done()
        if self.train.gradient_clip:
            nn.utils.clip_grad_norm_(self._module.parameters(), self.train.gradient_clip)
        self._optimizer.step()
        self._optimizer.zero_grad()
        done()
        self.size = max(self.size, len(batch["image"]))
        return tuple(after - before for before, after in pairwise(times))


def _measure(here: Place, job: _Job) -> dict[str, Phases]:
    trained = [_Trained(here, row, job) for row in job.rows]
    turns = TURNS if len(trained) > 1 else 1
    for _ in range(turns):
        for each in trained:
            each.turn(math.ceil(job.batches / turns))
    measured = {}
    for row, each in zip(job.rows, trained, strict=True):
        wait, transfer, forward, backward, optimiser = map(statistics.median, zip(*each.taken, strict=True))
        size = each.size * here.ranks
        measured[row.label] = Phases(wait, transfer, forward, backward, optimiser, size, each.memory())
    return measured


def _parts(row: _Row, task: TaskName, prepared: Path) -> tuple[Learning, nn.Module, Slices]:
    variant, learning = row.config.task(task).variant(row.variant), load(Learning, task, row.config)
    inputs, outputs = learning.channels(variant.network)
    network = create_model(
        variant.network, preset=variant.preset, in_channels=inputs, out_channels=outputs, **variant.overrides
    )
    return learning, network, learning.dataset(prepared, "train", variant.network, training=True)


def _feeding(row: _Row, task: TaskName, prepared: Path, card: Card, batches: int) -> Feeding:
    _, network, slices = _parts(row, task, prepared)
    return feeding(network, slices, row.config.task(task).train, card, batches=batches)


def _table(measured: Mapping[str, Phases], *, title: str) -> Table:
    result = Table(title=title, title_justify="left")
    result.add_column("variant", no_wrap=True)
    for column in ("loader wait", "transfer", "forward", "backward", "optimiser", "waiting", "images/s", "peak MiB"):
        result.add_column(column, justify="right")
    for label, phases in measured.items():
        result.add_row(
            label,
            *(f"{1e3 * seconds:.1f}" for seconds in phases[:5]),
            f"{phases.wait / phases.seconds:.1%}",
            f"{phases.rate:.1f}",
            f"{phases.memory / 2**20:.0f}",
        )
    return result


def _ratios(measured: Mapping[str, Phases], settings: int) -> Table:
    """Each variant's rows as multiples of its first."""
    result = Table(title="multiples of each variant's first", title_justify="left")
    result.add_column("variant", no_wrap=True)
    for column in ("images/s", "peak memory"):
        result.add_column(column, justify="right")
    rows = list(measured.items())
    for number, (label, phases) in enumerate(rows):
        first = rows[number - number % settings][1]
        if phases is not first:
            result.add_row(label, f"{phases.rate / first.rate:.2f}", f"{phases.memory / first.memory:.2f}")
    return result


def _feeding_table(fed: Mapping[str, Feeding], card: Card) -> Table:
    title = (
        f"assumed: a card of {card.tflops:g} TFLOP/s, used at {card.utilisation:.0%}; "
        "slices/s that it takes, and that loaders give"
    )
    result = Table(title=title, title_justify="left")
    result.add_column("variant", no_wrap=True)
    for column in ("GFLOP a slice", "passes", "card takes", "transforms", "by workers", "workers needed"):
        result.add_column(column, justify="right")
    for label, each in fed.items():
        for number, (transforms, given) in enumerate(each.given.items()):
            network = (label, f"{each.flops / 1e9:.2f}", str(each.passes), f"{each.taken:.0f}")
            result.add_row(
                *(("",) * len(network) if number else network),
                transforms,
                ", ".join(f"{workers}: {rate:.0f}" for workers, rate in given.items()),
                f"{each.workers(transforms):.1f}",
            )
    return result

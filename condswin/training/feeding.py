"""What loaders give, and what a faster device would take from them."""

import os
import time
from collections.abc import Iterator
from typing import NamedTuple

from torch import nn

from condswin.config.train import TrainConfig
from condswin.networks.costs import count_flops
from condswin.tasks.slices import Batch, Slices
from condswin.training.loaders import raised, training_loader


class Card(NamedTuple):
    """A device that is not at hand, by its data sheet.

    Attributes:
        tflops: Peak, 10^12 floating point operations per second, in the precision of the training.
        utilisation: Share of it that a training reaches.
    """

    tflops: float
    utilisation: float


class Feeding(NamedTuple):
    """What a network on a card takes, and what loaders give it.

    Attributes:
        flops: Of one slice, forward.
        passes: What a training step costs, in forward passes.
        taken: Slices per second that the card would take.
        given: Slices per second by `transforms` and `workers`.
    """

    flops: int
    passes: int
    taken: float
    given: dict[str, dict[int, float]]

    def workers(self, transforms: str) -> float:
        """How many workers would feed the card."""
        return self.taken / self.given[transforms][1]


def training_passes(train: TrainConfig) -> int:
    """What a training step costs, in forward passes: three, or four where activations are computed again."""
    return 4 if train.activation_checkpointing else 3


def feeding(network: nn.Module, slices: Slices, train: TrainConfig, card: Card, *, batches: int) -> Feeding:
    """Counts and measures.

    Transforms on the device are not counted.

    Args:
        network: On the CPU.
        slices: What it is trained on.
        train: Batch size, prefetching.
        card: The device.
        batches: That each loader gives, times its workers.
    """
    image = next(_batches(slices, train.model_copy(update={"batch_size": 1, "workers": 0, "transforms": "loader"})))
    flops, passes = count_flops(network, image["image"]), training_passes(train)
    counts = sorted({0, 1, len(os.sched_getaffinity(0)), train.workers})
    given: dict[str, dict[int, float]] = {}
    for transforms in ("loader", "device"):
        given[transforms] = {}
        for workers in counts:
            settings = train.model_copy(update={"workers": workers, "transforms": transforms})
            given[transforms][workers] = _rate(slices, settings, batches=batches * max(workers, 1))
    return Feeding(flops.total, passes, card.tflops * 1e12 * card.utilisation / (passes * flops.total), given)


def _rate(slices: Slices, train: TrainConfig, *, batches: int) -> float:
    loaded = _batches(slices, train)
    for _ in range(1 + train.workers * train.prefetch):  # what is loaded ahead says nothing
        next(loaded)
    start = time.perf_counter()
    count = sum(len(next(iter(next(loaded).values()))) for _ in range(batches))
    return count / (time.perf_counter() - start)


def _batches(slices: Slices, train: TrainConfig) -> Iterator[Batch]:
    loader = training_loader(slices, train, seed=0, rank=0, ranks=1)
    while True:
        yield from map(raised, loader)

"""Batches of slices: of equal size, shuffled by seed and epoch alone, shared among processes."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler, default_collate

from condswin.config.train import TrainConfig
from condswin.errors import CondswinError
from condswin.tasks.slices import PROGRESS, Batch, Slices
from condswin.training.checkpoints import START, Position

#: In training batches: (B, 2), number of each slice, as asked for, and seed of what is drawn for it.
DRAWN = "drawn"


def training_loader(
    slices: Slices, train: TrainConfig, *, seed: int, rank: int, ranks: int, start: Position = START
) -> DataLoader[Batch | CondswinError]:
    """This process's share of shuffled batches, of the same number on every rank.

    Args:
        slices: What to draw from.
        train: Batch size and workers.
        seed: Of the shuffle and of what is drawn per item.
        rank: Number of this process.
        ranks: Number of processes.
        start: Where an interrupted training goes on: the batches before it are left out of that epoch.
    """
    size = min(train.batch_size, max(len(slices) // ranks, 1))
    batches = _EqualSizes(slices, size, train.accumulate, seed=seed, rank=rank, ranks=ranks, start=start)
    return DataLoader(
        _Carried(_Seeded(slices, seed, train.epochs)), batch_sampler=batches, **_loading(slices, train, seed)
    )


def validation_loader(
    slices: Slices, train: TrainConfig, *, seed: int, rank: int, ranks: int
) -> DataLoader[Batch | CondswinError]:
    """This process's share of batches of neighbouring slices of one size.

    As many on every rank: where they do not come out even, the last ranks get the first batches once more.
    """
    batches = [
        list(group[start : start + train.batch_size])
        for _, same in groupby(range(len(slices)), key=slices.sizes.__getitem__)
        for group in [list(same)]
        for start in range(0, len(group), train.batch_size)
    ]
    share = [batches[number % len(batches)] for number in range(rank, -(-len(batches) // ranks) * ranks, ranks)]
    return DataLoader(_Carried(_Raw(slices)), batch_sampler=share, **_loading(slices, train, seed))


def raised(batch: Batch | CondswinError) -> Batch:
    """The batch of a loader.

    Raises:
        CondswinError: One of its slices could not be read.
    """
    if isinstance(batch, CondswinError):
        raise batch
    return batch


def inputs(slices: Slices, batch: Batch) -> Batch:
    """What a network is fed with, of a batch of raw items; what loaders added to these stays with it."""
    kept = {name: batch[name] for name in (DRAWN, PROGRESS) if name in batch}
    return {**slices.inputs(batch), **kept}


def _loading(slices: Slices, train: TrainConfig, seed: int) -> dict[str, Any]:
    return {
        "collate_fn": partial(_collate, None if train.transforms == "device" else slices),
        # A loader draws a number when it starts; not from the generator that dropout draws from.
        "generator": torch.Generator().manual_seed(seed),
        "num_workers": train.workers,
        "persistent_workers": train.workers > 0,
        "prefetch_factor": train.prefetch if train.workers else None,
        "pin_memory": train.pin_memory and torch.cuda.is_available() and train.device != "cpu",
    }


class _EpochSampler(DistributedSampler[Batch]):
    """A shuffle of all slices that depends on seed and epoch alone; says the epoch with each index."""

    def __init__(self, slices: Slices, *, seed: int) -> None:
        super().__init__(slices, num_replicas=1, rank=0, seed=seed)

    def __iter__(self) -> Iterator[Any]:
        return ((self.epoch, index) for index in super().__iter__())


class _EqualSizes(Sampler[list[tuple[int, int]]]):
    """This rank's batches of slices of equal size, as many on every rank and in every epoch.

    A size's last slices that do not fill a batch are left out, unless there are no others of that size; so are an
    epoch's last batches that do not fill a step.

    Args:
        slices: What to draw from.
        batch_size: Slices per batch and rank.
        accumulate: Batches per step and rank.
        seed: Of the shuffle.
        rank: Number of this process.
        ranks: Number of processes.
        start: See `training_loader`.
    """

    def __init__(
        self, slices: Slices, batch_size: int, accumulate: int, *, seed: int, rank: int, ranks: int, start: Position
    ) -> None:
        self._sizes = slices.sizes
        self.batch_size = batch_size
        self._accumulate = accumulate
        self._rank = rank
        self._ranks = ranks
        self._counts = Counter(self._sizes)
        self._start = start
        self.sampler = _EpochSampler(slices, seed=seed)  # named as in torch's BatchSampler: Lightning sets its epoch
        # Workers fetch the first batches before Lightning does.
        self.sampler.set_epoch(start.epoch)

    def __len__(self) -> int:
        batches = sum(max(count // self.batch_size, 1) for count in self._counts.values())
        share = max(batches // self._ranks, 1)
        return share - share % self._accumulate if share > self._accumulate else share

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        # A generator, since Lightning sets the epoch after it has asked for the iterator.
        done = self._start.batch if self.sampler.epoch == self._start.epoch else 0
        batches = list(self._batches())
        first = self._rank % len(batches)  # where there are fewer batches than ranks, some get the same
        yield from batches[first :: self._ranks][done : len(self)]

    def _batches(self) -> Iterator[list[tuple[int, int]]]:
        waiting: dict[tuple[int, ...], list[tuple[int, int]]] = defaultdict(list)
        for place in self.sampler:
            size = self._sizes[place[1]]
            waiting[size].append(place)
            if len(waiting[size]) == min(self.batch_size, self._counts[size]):
                yield waiting.pop(size)


class _Raw(Dataset[Batch]):
    """What inputs are made of, a batch at a time."""

    def __init__(self, slices: Slices) -> None:
        self._slices = slices

    def __getitem__(self, index: int) -> Batch:
        return self._slices.raw(index)


class _Seeded(Dataset[Batch]):
    """Draws an item's mask or augmentation from seed, epoch and index alone.

    Loaders fetch ahead, and not at the same moment in a resumed training: a generator shared with anything else would
    give other items there.
    """

    def __init__(self, slices: Slices, seed: int, epochs: int) -> None:
        self._slices = slices
        self._seed = seed
        self._epochs = epochs

    def __getitem__(self, place: tuple[int, int]) -> Batch:
        epoch, index = place
        with torch.random.fork_rng(devices=[]):
            # Not `torch.manual_seed`, which keeps a note of each call for GPUs that may yet be used.
            seed = hash((self._seed, epoch, index)) % 2**63
            torch.default_generator.manual_seed(seed)
            drawn = {DRAWN: torch.tensor([index, seed]), PROGRESS: torch.tensor(epoch / self._epochs)}
            return {**self._slices.raw(index), **drawn}


class _Carried(Dataset[Batch | CondswinError]):
    """Gives the error in place of a slice that cannot be read.

    An error that a worker raises reaches the training as another one, with a traceback for a message.
    """

    def __init__(self, slices: Dataset[Batch]) -> None:
        self._slices = slices

    def __getitem__(self, place: Any) -> Batch | CondswinError:
        try:
            return self._slices[place]
        except CondswinError as error:
            return error


def _collate(slices: Slices | None, items: list[Batch | CondswinError]) -> Batch | CondswinError:
    """A batch, of inputs if the slices are given, or the first error among the items."""
    for item in items:
        if isinstance(item, CondswinError):
            return item
    batch: Batch = default_collate(items)
    return batch if slices is None else inputs(slices, batch)

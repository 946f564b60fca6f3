from collections import Counter

import torch

from condswin.config.train import TrainConfig
from condswin.tasks.slices import Batch, Slices
from condswin.training.loaders import training_loader, validation_loader


class Numbered(Slices):
    """Slices that hold their own number, of the sizes given."""

    def __init__(self, sizes: list[tuple[int, ...]]) -> None:
        self._sizes = sizes

    @property
    def sizes(self) -> list[tuple[int, ...]]:
        return self._sizes

    def __getitem__(self, index: int) -> Batch:
        return {"image": torch.full(self._sizes[index], float(index))}


SIZES = [(1, 2)] * 7 + [(1, 3)] * 5 + [(1, 4)]
TRAIN = TrainConfig(batch_size=3)


def epoch(number: int, *, rank: int = 0, ranks: int = 1, sizes: list[tuple[int, ...]] = SIZES) -> list[list[int]]:
    loader = training_loader(Numbered(sizes), TRAIN, seed=1, rank=rank, ranks=ranks)
    loader.batch_sampler.sampler.set_epoch(number)
    batches = [batch["image"][:, 0, 0].int().tolist() for batch in loader]
    assert len(loader) == len(batches)
    return batches


def test_batches_are_of_one_size_and_no_slice_comes_twice() -> None:
    batches = epoch(0)
    assert all(len({SIZES[index] for index in batch}) == 1 for batch in batches)
    # Two full batches of seven, one of five, and the only slice of the third size by itself.
    assert Counter(len(batch) for batch in batches) == {3: 3, 1: 1}
    seen = [index for batch in batches for index in batch]
    assert len(set(seen)) == len(seen)


def test_epochs_differ_and_repeat_under_a_seed() -> None:
    assert epoch(0) == epoch(0)
    assert epoch(0) != epoch(1)
    # What is left out of one epoch comes in another.
    assert {index for number in range(20) for batch in epoch(number) for index in batch} == set(range(len(SIZES)))


def test_ranks_share_an_epoch_in_as_many_batches_each() -> None:
    first, second = (epoch(3, rank=rank, ranks=2) for rank in range(2))
    assert len(first) == len(second) == 2
    whole = epoch(3)
    assert sorted(first + second) == sorted(whole)


def test_there_may_be_fewer_batches_than_ranks() -> None:
    assert [len(epoch(0, rank=rank, ranks=3, sizes=[(1, 2)])) for rank in range(3)] == [1, 1, 1]


def test_validation_sees_every_slice_once() -> None:
    share = [validation_loader(Numbered(SIZES), TRAIN, seed=1, rank=rank, ranks=2) for rank in range(2)]
    seen = sorted(int(value) for loader in share for batch in loader for value in batch["image"][:, 0, 0])
    assert seen == list(range(len(SIZES)))

from collections import Counter
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from condswin.config.train import TrainConfig
from condswin.errors import BadFileError
from condswin.tasks.learning import Learning
from condswin.tasks.slices import Batch, Slices
from condswin.training.loaders import raised, training_loader, validation_loader
from condswin.training.module import TrainingModule


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


def test_an_epoch_has_whole_steps_only() -> None:
    def steps(**settings: int) -> list[int]:
        train = TRAIN.model_copy(update=settings)
        return [len(training_loader(Numbered(SIZES), train, seed=1, rank=rank, ranks=2)) for rank in range(2)]

    assert steps(batch_size=1) == [6, 6]
    assert steps(batch_size=1, accumulate=4) == [4, 4]
    assert steps(batch_size=1, accumulate=9) == [6, 6]


def validated(ranks: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What is logged of a validation that so many ranks share; slice i has the score i, where it is not NaN."""
    task = SimpleNamespace(
        loss=lambda output, batch: output.mean(),
        validation_means=lambda scores: Learning.validation_means(cast(Learning, None), scores),
        validation_scores=lambda output, batch: {
            "odd": torch.where(output[:, 0, 0] % 2 > 0, output[:, 0, 0], torch.nan),
            "eleven": torch.where(output[:, 0, 0] == 11, output[:, 0, 0], torch.nan),
        },
    )
    modules, collected = [], []
    for rank in range(ranks):
        module = TrainingModule(torch.nn.Identity(), cast(Learning, task), TRAIN, seed=1, slices=Numbered(SIZES))
        loader = validation_loader(Numbered(SIZES), TRAIN, seed=1, rank=rank, ranks=ranks)
        module._trainer = SimpleNamespace(val_dataloaders=loader)
        for number, batch in enumerate(loader):
            module.validation_step(batch, number)
        modules.append(module)
        collected.append(dict(module._validated))
    assert len({len(loader) for loader in collected}) == 1
    logged: dict[str, float] = {}
    monkeypatch.setattr("condswin.training.module.from_all", lambda _: collected)
    monkeypatch.setattr(modules[-1], "log", lambda name, value: logged.update({name: float(value)}))
    modules[-1].on_validation_epoch_end()
    return logged


@pytest.mark.parametrize("ranks", [1, 2, 4, 5, 7])
def test_validation_counts_every_slice_once_whatever_the_number_of_ranks(
    ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six batches of unequal size: some ranks get one again, and a score is defined on one slice alone."""
    assert validated(ranks, monkeypatch) == {"val/loss": 6.0, "val/odd": 6.0, "val/eleven": 11.0}


class Unreadable(Numbered):
    """Numbered slices of a file that became unreadable."""

    def __getitem__(self, index: int) -> Batch:
        if index == 4:
            raise BadFileError("volume.h5", "cannot be read")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_slice_that_cannot_be_read_is_the_same_error_from_every_process(workers: int) -> None:
    train = TrainConfig(batch_size=3, workers=workers)
    for loader in (training_loader, validation_loader):
        batches = list(loader(Unreadable([(1, 2)] * 6), train, seed=1, rank=0, ranks=1))
        assert len(batches) == 2
        with pytest.raises(BadFileError, match=r"^volume\.h5: cannot be read$"):
            list(map(raised, batches))

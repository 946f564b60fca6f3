"""One training run: resumed if it was interrupted, the best epoch's weights at its end."""

import logging
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

from condswin.config import TrainConfig
from condswin.progress import progress
from condswin.tasks.learning import Learning
from condswin.tasks.slices import Batch, Slices
from condswin.training.checkpoints import MovableCheckpoint
from condswin.training.module import TrainingModule

#: Exit status of a process that was asked to stop; an orchestrator then knows that the work is not done.
TERMINATED = 143

#: Called with the network (in evaluation mode), the epoch and one validation batch after each improvement.
Picture = Callable[[nn.Module, int, Batch], None]


class Fitted(NamedTuple):
    """A trained network.

    Attributes:
        network: In evaluation mode, on the CPU, with the weights of the best epoch.
        history: One row per epoch: `epoch` and what was logged.
        best_epoch: Its number, from 0.
    """

    network: nn.Module
    history: list[dict[str, float]]
    best_epoch: int


class _Shown(Callback):
    """Progress by training step, with the latest losses and scores behind it."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._open = ExitStack()

    def on_train_start(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        total = int(trainer.estimated_stepping_batches)
        self._advance = self._open.enter_context(progress(self._label, total))
        for _done in range(trainer.global_step):
            self._advance()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self._advance(", ".join(f"{name} {value:.4g}" for name, value in sorted(logged.items())))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._open.close()


class _History(Callback):
    """Rows of logged values per epoch, carried through checkpoints."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        values = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        self.rows.append({"epoch": trainer.current_epoch, **values})

    def state_dict(self) -> dict[str, Any]:
        return {"rows": list(self.rows)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = list(state["rows"])


def fit(
    task: Learning,
    network: nn.Module,
    train: TrainConfig,
    *,
    monitor: tuple[str, bool],
    validated: bool,
    variant: str,
    prepared: Path,
    checkpoints: Path,
    seed: int,
    label: str,
    loggers: list[Logger],
) -> Fitted:
    """Trains a network, or goes on from the last checkpoint of the same training.

    Args:
        task: Gives data, loss and scores.
        network: With fresh weights.
        train: Epochs, optimiser, schedule.
        monitor: Score that picks the best epoch, and whether a higher one is better.
        validated: Whether there are validation cases; without them the last epoch counts as the best.
        variant: What the network is; decides what the task's slices look like.
        prepared: Folder with `train` and, where there are validation cases, `val`.
        checkpoints: Folder for the checkpoints of this very training; see `training_folder`.
        seed: For the order of slices, masks, augmentation, dropout.
        label: Stands before the progress.
        loggers: Lightning loggers.

    Raises:
        SystemExit: Status 143 when the process was asked to terminate; the last checkpoint stays.
    """
    validation = task.dataset(prepared, "val", variant, training=False) if validated else None
    score, higher_is_better = monitor
    best = MovableCheckpoint(
        dirpath=checkpoints,
        filename="best",
        monitor=f"val/{score}" if validation else None,
        mode="max" if higher_is_better else "min",
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    # Apart from the best one: `save_last` would follow it, and resuming go back to the best epoch. Saved at the very
    # end of an epoch, so that a finished training that is started again has nothing left to do.
    last = MovableCheckpoint(
        dirpath=checkpoints, filename="last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    history = _History()
    module = TrainingModule(network, task, train, seed=seed)
    with warnings.catch_warnings():
        _hush_lightning()
        trainer = pl.Trainer(
            accelerator={"auto": "auto", "cpu": "cpu", "cuda": "gpu"}[train.device],
            devices=1 if train.device == "cpu" else "auto",
            precision=train.precision,
            max_epochs=train.epochs,
            gradient_clip_val=train.gradient_clip or None,
            deterministic="warn",
            logger=loggers or False,
            callbacks=[history, best, last, _Shown(label)],
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # ours know their rank
            log_every_n_steps=10,
        )
        share = {"seed": seed, "rank": trainer.global_rank, "ranks": trainer.world_size}
        resumed = checkpoints / "last.ckpt"
        try:
            trainer.fit(
                module,
                train_dataloaders=training_loader(
                    task.dataset(prepared, "train", variant, training=True), train, **share
                ),
                val_dataloaders=validation_loader(validation, train, **share) if validation else None,
                ckpt_path=str(resumed) if resumed.is_file() else None,
                # Checkpoints hold tensors and plain values only; nothing in them is ever executed.
                weights_only=True,
            )
        except SIGTERMException:
            # It is a SystemExit without a status: the process would end as if all were well.
            raise SystemExit(TERMINATED) from None
    state = torch.load(checkpoints / "best.ckpt", map_location="cpu", weights_only=True)
    module.load_state_dict(state["state_dict"])
    return Fitted(network=module.network.cpu().eval(), history=history.rows, best_epoch=int(state["epoch"]))


class _EpochSampler(DistributedSampler[Batch]):
    """A shuffle of all slices that depends on seed and epoch alone; says the epoch with each index."""

    def __init__(self, slices: Slices, *, seed: int) -> None:
        super().__init__(slices, num_replicas=1, rank=0, seed=seed)

    def __iter__(self) -> Iterator[Any]:
        return ((self.epoch, index) for index in super().__iter__())


class _EqualSizes(Sampler[list[tuple[int, int]]]):
    """This rank's batches of slices of equal size, as many on every rank and in every epoch.

    A size's last slices that do not fill a batch are left out, unless there are no others of that size.

    Args:
        slices: What to draw from.
        batch_size: Slices per batch and rank.
        seed: Of the shuffle.
        rank: Number of this process.
        ranks: Number of processes.
    """

    def __init__(self, slices: Slices, batch_size: int, *, seed: int, rank: int, ranks: int) -> None:
        self._sizes = slices.sizes
        self._batch_size = batch_size
        self._rank = rank
        self._ranks = ranks
        self._counts = Counter(self._sizes)
        self.sampler = _EpochSampler(slices, seed=seed)  # named as in torch's BatchSampler: Lightning sets its epoch

    def __len__(self) -> int:
        batches = sum(max(count // self._batch_size, 1) for count in self._counts.values())
        return max(batches // self._ranks, 1)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        # A generator, since Lightning sets the epoch after it has asked for the iterator.
        batches = list(self._batches())
        first = self._rank % len(batches)  # where there are fewer batches than ranks, some get the same
        yield from batches[first :: self._ranks][: len(self)]

    def _batches(self) -> Iterator[list[tuple[int, int]]]:
        waiting: dict[tuple[int, ...], list[tuple[int, int]]] = defaultdict(list)
        for place in self.sampler:
            size = self._sizes[place[1]]
            waiting[size].append(place)
            if len(waiting[size]) == min(self._batch_size, self._counts[size]):
                yield waiting.pop(size)


class _Seeded(Dataset[Batch]):
    """Draws an item's mask or augmentation from seed, epoch and index alone.

    Loaders fetch ahead, and not at the same moment in a resumed training: a generator shared with anything else would
    give other items there.
    """

    def __init__(self, slices: Slices, seed: int) -> None:
        self._slices = slices
        self._seed = seed

    def __len__(self) -> int:
        return len(self._slices)

    def __getitem__(self, place: tuple[int, int]) -> Batch:
        epoch, index = place
        with torch.random.fork_rng(devices=[]):
            # Not `torch.manual_seed`, which keeps a note of each call for GPUs that may yet be used.
            torch.default_generator.manual_seed(hash((self._seed, epoch, index)) % 2**63)
            return self._slices[index]


def training_loader(slices: Slices, train: TrainConfig, *, seed: int, rank: int, ranks: int) -> DataLoader[Batch]:
    """This process's share of shuffled batches, of the same number on every rank."""
    size = min(train.batch_size, max(len(slices) // ranks, 1))
    batches = _EqualSizes(slices, size, seed=seed, rank=rank, ranks=ranks)
    return DataLoader(_Seeded(slices, seed), batch_sampler=batches, **_loading(train, seed))


def validation_loader(slices: Slices, train: TrainConfig, *, seed: int, rank: int, ranks: int) -> DataLoader[Batch]:
    """This process's share of batches of neighbouring slices of one size."""
    batches = [
        list(group[start : start + train.batch_size])
        for _, same in groupby(range(len(slices)), key=slices.sizes.__getitem__)
        for group in [list(same)]
        for start in range(0, len(group), train.batch_size)
    ]
    return DataLoader(slices, batch_sampler=batches[rank::ranks] or batches[:1], **_loading(train, seed))


def _loading(train: TrainConfig, seed: int) -> dict[str, Any]:
    return {
        # A loader draws a number when it starts; not from the generator that dropout draws from.
        "generator": torch.Generator().manual_seed(seed),
        "num_workers": train.workers,
        "persistent_workers": train.workers > 0,
        "pin_memory": torch.cuda.is_available() and train.device != "cpu",
    }


def _hush_lightning() -> None:
    """Leaves out advice that does not concern our users: workers are a parameter, checkpoints are ours to resume."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    os.environ.setdefault("PYTORCH_LIGHTNING_SUPPRESS_TIPS", "1")
    for message in (".*does not have many workers.*", ".*Checkpoint directory.*exists and is not empty.*"):
        warnings.filterwarnings("ignore", message)
    warnings.filterwarnings("ignore", category=FutureWarning)

"""What is measured of each epoch beside losses and scores."""

import csv
import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from condswin.files import atomic_file
from condswin.progress import say
from condswin.training.loaders import DRAWN
from condswin.training.ranks import from_all

#: Folder, within that of the checkpoints, of tables that say which slices were trained on, in which order.
ORDER = "order"


class Measure(Callback):
    """Measures an epoch. Runs on all ranks."""

    @abstractmethod
    def values(self, trainer: pl.Trainer) -> dict[str, float]:
        """What the epoch that ends had; called once, on all ranks."""


class GradientNorms(Measure):
    """`train/gradient_norm` and `train/gradient_norm_max`: mean and maximum over steps, before clipping.

    Steps whose gradient is not finite, which mixed precision leaves out, do not count.
    """

    def __init__(self) -> None:
        # Sum, steps, maximum: they stay where they are computed, so that no GPU is waited for.
        self._sums = torch.zeros(3)

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Optimizer) -> None:
        """Adds the norm of a step, the same on all ranks."""
        gradients = [weight.grad for group in optimizer.param_groups for weight in group["params"]]
        norm = torch.nn.utils.get_total_norm([each for each in gradients if each is not None])
        finite = norm.isfinite()
        norm = torch.where(finite, norm, 0).to(torch.float32)
        sums = self._sums.to(norm.device)
        self._sums = torch.stack([sums[0] + norm, sums[1] + finite, torch.maximum(sums[2], norm)])

    def values(self, trainer: pl.Trainer) -> dict[str, float]:
        """See the class."""
        total, steps, largest = self._sums.tolist()
        self._sums = torch.zeros(3)
        return {"train/gradient_norm": total / steps, "train/gradient_norm_max": largest} if steps else {}

    def state_dict(self) -> dict[str, Any]:
        """The sums within an epoch."""
        return {"sums": self._sums.cpu()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self._sums = state_dict["sums"]


class Order(Measure):
    """`train/order`: a number that is the same if the same slices with the same draws were trained on in one order.

    It is the beginning, as long as a float holds exactly, of the SHA-256 of slice and seed of all items in the order of
    the epoch's batches; batches of several processes in the order of these. A table has the whole list.

    Args:
        folder: Of the checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._batches: list[Tensor] = []

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Keeps the numbers, where they are."""
        self._batches.append(batch[DRAWN])

    def values(self, trainer: pl.Trainer) -> dict[str, float]:
        """See the class; rank 0 writes the table."""
        ranks = from_all(self._taken())
        self._batches = []
        if trainer.global_rank > 0:
            return {}
        rows = list(_in_order(ranks))
        table = self._folder / ORDER / f"epoch-{trainer.current_epoch:04}.csv"
        try:
            with atomic_file(table) as path, path.open("w", newline="") as file:
                csv.writer(file).writerows([("batch", "process", "slice", "seed"), *rows])
        except OSError as error:  # a full disk: that of the state says what to do
            say(f"{table}: cannot be written ({error.strerror})")
        digest = hashlib.sha256(torch.tensor([row[2:] for row in rows]).numpy().astype("<i8").tobytes()).hexdigest()
        return {"train/order": int(digest[:13], 16)}

    def state_dict(self) -> dict[str, Any]:
        """The numbers within an epoch, of all ranks."""
        ranks = from_all(self._taken())
        return {
            "sizes": [list(map(len, batches)) for batches in ranks],
            "drawn": [torch.cat(batches) if batches else torch.empty(0, 2) for batches in ranks],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps those of all ranks until `on_train_start`."""
        self._loaded = state_dict

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Takes this rank's own."""
        if loaded := self.__dict__.pop("_loaded", None):
            rank = trainer.global_rank
            self._batches = list(loaded["drawn"][rank].split(loaded["sizes"][rank])) if loaded["sizes"][rank] else []

    def _taken(self) -> list[Tensor]:
        return [batch.cpu() for batch in self._batches]


def _in_order(ranks: list[list[Tensor]]) -> Iterator[tuple[int, int, int, int]]:
    """Batch, process, slice and seed of all items."""
    for number, batches in enumerate(zip_longest(*ranks)):
        for rank, batch in enumerate(batches):
            if batch is not None:
                for slice_, seed in batch.tolist():
                    yield number, rank, slice_, seed

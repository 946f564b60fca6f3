"""How the machine copes with a training. Nothing of this is the same twice."""

import resource
import time
from contextlib import suppress
from typing import Any

import lightning.pytorch as pl
import psutil
import torch
from lightning.pytorch.profilers import Profiler

from condswin.training.measures import Measure
from condswin.training.ranks import from_all


class Machine(Measure):
    """Figures of an epoch's training, without validation, under names that MLflow shows as system metrics.

    `system/images_per_second` of all processes together; `system/loader_wait_percent`, the share of the time that the
    slowest process waited for its loader; `system/cpu_percent` of processes here and what they started, 100 for each
    processor in use; `system/peak_memory_mb`, the most that one process held until then; and, with GPUs,
    `system/gpu_peak_memory_mb`, the most that torch held on one of them in this epoch.
    """

    def __init__(self) -> None:
        self.loading = _Loading()
        self._process = psutil.Process()

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """A training that goes on within an epoch begins here."""
        self.on_train_epoch_start(trainer, module)

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Starts the clocks."""
        self._images, self._cpu = 0, self._cpu_seconds()
        self._started = self._ended = time.monotonic()
        self.loading.seconds = 0.0
        if module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(module.device)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts; validation comes after the last of these."""
        self._images += len(batch["image"])
        self._ended = time.monotonic()
        if batch_idx + 1 == trainer.num_training_batches:
            self._cpu = self._cpu_seconds() - self._cpu

    def values(self, trainer: pl.Trainer) -> dict[str, float]:
        """See the class."""
        seconds = max(self._ended - self._started, 1e-9)
        device = trainer.strategy.root_device
        own = (
            self._images / seconds,
            100 * self.loading.seconds / seconds,
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0,
        )
        rates, waits, memory, gpu_memory = zip(*from_all(own), strict=True)
        found = {
            "system/images_per_second": sum(rates),
            "system/loader_wait_percent": max(waits),
            "system/cpu_percent": 100 * self._cpu / seconds,
            "system/peak_memory_mb": max(memory),
        }
        return {**found, "system/gpu_peak_memory_mb": max(gpu_memory)} if device.type == "cuda" else found

    def _cpu_seconds(self) -> float:
        """Of this process and those that it started, other ranks and loaders."""
        total = 0.0
        for process in (self._process, *self._process.children(recursive=True)):
            with suppress(psutil.Error):  # ended meanwhile
                total += sum(process.cpu_times()[:2])
        return total


class _Loading(Profiler):
    """Lightning says when it waits for the loader."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def start(self, action_name: str) -> None:
        if action_name.endswith("train_dataloader_next"):
            self._since = time.monotonic()

    def stop(self, action_name: str) -> None:
        if action_name.endswith("train_dataloader_next"):
            self.seconds += time.monotonic() - self._since

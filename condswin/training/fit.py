"""One training run: resumed if it was interrupted, the best epoch's weights at its end."""

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from condswin.config.train import TrainConfig
from condswin.devices import device
from condswin.progress import progress
from condswin.tasks.learning import Learning
from condswin.training.checkpoints import START, WholeFiles, newest
from condswin.training.loaders import training_loader, validation_loader
from condswin.training.module import TrainingModule
from condswin.training.state import State
from condswin.training.stopping import Stopping

# Settings that leave the result as it is.
_INDECISIVE = {"workers", "checkpoint_minutes", "grace_seconds"}


class Fitted(NamedTuple):
    """A trained network.

    Attributes:
        network: In evaluation mode, on the CPU, with the weights of the best epoch.
        history: One row per epoch: `epoch` and what was logged.
    """

    network: nn.Module
    history: list[dict[str, float]]


class _Shown(Callback):
    """Progress by training step; behind it images per second and the latest losses and scores."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._open = ExitStack()

    def on_train_start(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        total = int(trainer.estimated_stepping_batches)
        self._advance = self._open.enter_context(progress(self._label, total, done=trainer.global_step))
        self._images, self._started = 0, time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, _: pl.LightningModule, outputs: Any, batch: Any, *__: Any
    ) -> None:
        self._images += len(batch["image"]) * trainer.world_size
        rate = self._images / (time.monotonic() - self._started)
        logged = {"images/s": rate, **{name: float(value) for name, value in trainer.callback_metrics.items()}}
        self._advance(", ".join(f"{name} {value:.4g}" for name, value in sorted(logged.items())))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._open.close()


def decisive(train: TrainConfig) -> dict[str, Any]:
    """The settings that decide a training's result, JSON-able: what computes it, and not how slices are loaded or when
    states are saved.

    That is the kind of device, and the number of processes that train together, one for each GPU: every one has batches
    of its own.
    """
    place = device(train.device)
    ranks = torch.cuda.device_count() if place.type == "cuda" else 1
    return {**train.model_dump(mode="json", exclude=_INDECISIVE), "device": place.type, "ranks": ranks}


def fit(
    task: Learning,
    network: nn.Module,
    train: TrainConfig,
    *,
    monitor: tuple[str, bool],
    validated: bool,
    name: str,
    prepared: Path,
    checkpoints: Path,
    seed: int,
    label: str,
    require_owner: Callable[[], None] = lambda: None,
    report: Callable[[list[dict[str, float]]], None] = lambda _: None,
) -> Fitted:
    """Trains a network, or goes on from the last checkpoint of the same training.

    Args:
        task: Gives data, loss and scores.
        network: With fresh weights.
        train: Epochs, optimiser, schedule.
        monitor: Score that picks the best epoch, and whether a higher one is better.
        validated: Whether there are validation cases; without them the last epoch counts as the best.
        name: The network's, as in `create_model`; decides what the task's slices look like.
        prepared: Folder with `train` and, where there are validation cases, `val`.
        checkpoints: Folder for the checkpoints of this very training; see `training_folder`.
        seed: For the order of slices, masks, augmentation, dropout.
        label: Stands before the progress.
        require_owner: Raises if another training has taken `checkpoints` over; see `owned`.
        report: Called at the end of each epoch with the history so far.

    Raises:
        SystemExit: Status 143 when the process was asked to terminate; its state is saved.
        CheckpointError: A state cannot be written.
    """
    with Stopping(train.grace_seconds) as stopping:
        position, resumed = newest(checkpoints) or (START, None)
        if resumed:
            print(
                f"{label}: goes on after {position.batch} batches of epoch {position.epoch} ({resumed})",
                file=sys.stderr,
            )
        state = State(
            checkpoints,
            monitor=monitor if validated else None,
            minutes=train.checkpoint_minutes,
            stopping=stopping,
            report=report,
            require_owner=require_owner,
        )
        slices = task.dataset(prepared, "train", name, training=True)
        validation = task.dataset(prepared, "val", name, training=False) if validated else None
        module = TrainingModule(network, task, train, seed=seed, slices=slices, validation=validation)
        with warnings.catch_warnings():
            _hush_lightning()
            trainer = pl.Trainer(
                accelerator={"auto": "auto", "cpu": "cpu", "cuda": "gpu"}[train.device],
                devices=1 if train.device == "cpu" else "auto",
                precision=train.precision,
                max_epochs=train.epochs,
                gradient_clip_val=train.gradient_clip or None,
                deterministic="warn",
                logger=False,
                callbacks=[state, _Shown(label)],
                plugins=[WholeFiles()],
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                use_distributed_sampler=False,  # ours know their rank
            )
            share = {"seed": seed, "rank": trainer.global_rank, "ranks": trainer.world_size}
            trainer.fit(
                module,
                train_dataloaders=training_loader(slices, train, **share, start=position),
                val_dataloaders=validation_loader(validation, train, **share) if validation else None,
                ckpt_path=resumed,
                weights_only=True,
            )
    module.network.load_state_dict(state.weights)
    return Fitted(network=module.network.cpu().eval(), history=state.rows)


def _hush_lightning() -> None:
    """Leaves out advice that does not concern our users: workers are a parameter, and loaders start where told to."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    os.environ.setdefault("PYTORCH_LIGHTNING_SUPPRESS_TIPS", "1")
    for message in (".*does not have many workers.*", ".*your dataloader is not resumable.*"):
        warnings.filterwarnings("ignore", message)
    warnings.filterwarnings("ignore", category=FutureWarning)

"""One training run: resumed if it was interrupted, the best epoch's weights at its end."""

import logging
import os
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn

from condswin.config.train import TrainConfig
from condswin.devices import device
from condswin.progress import progress
from condswin.tasks.learning import Learning
from condswin.training.checkpoints import MovableCheckpoint
from condswin.training.loaders import training_loader, validation_loader
from condswin.training.module import TrainingModule

#: Exit status of a process that was asked to stop; an orchestrator then knows that the work is not done.
TERMINATED = 143


class Fitted(NamedTuple):
    """A trained network.

    Attributes:
        network: In evaluation mode, on the CPU, with the weights of the best epoch.
        history: One row per epoch: `epoch` and what was logged.
    """

    network: nn.Module
    history: list[dict[str, float]]


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


def decisive(train: TrainConfig) -> dict[str, Any]:
    """The settings that decide a training's result, JSON-able: what computes it, and not how slices are loaded.

    That is the kind of device, and the number of processes that train together, one for each GPU: every one has batches
    of its own.
    """
    place = device(train.device)
    ranks = torch.cuda.device_count() if place.type == "cuda" else 1
    return {**train.model_dump(mode="json", exclude={"workers"}), "device": place.type, "ranks": ranks}


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
    loggers: list[Logger],
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
        loggers: Lightning loggers.

    Raises:
        SystemExit: Status 143 when the process was asked to terminate; the last checkpoint stays.
    """
    validation = task.dataset(prepared, "val", name, training=False) if validated else None
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
                train_dataloaders=training_loader(task.dataset(prepared, "train", name, training=True), train, **share),
                val_dataloaders=validation_loader(validation, train, **share) if validation else None,
                ckpt_path=str(resumed) if resumed.is_file() else None,
                # Checkpoints hold tensors and plain values only; nothing in them is ever executed.
                weights_only=True,
            )
        except SIGTERMException:
            # It is a SystemExit without a status: the process would end as if the work were done.
            raise SystemExit(TERMINATED) from None
    state = torch.load(checkpoints / "best.ckpt", map_location="cpu", weights_only=True)
    module.load_state_dict(state["state_dict"])
    return Fitted(network=module.network.cpu().eval(), history=history.rows)


def _hush_lightning() -> None:
    """Leaves out advice that does not concern our users: workers are a parameter, checkpoints are ours to resume."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    os.environ.setdefault("PYTORCH_LIGHTNING_SUPPRESS_TIPS", "1")
    for message in (".*does not have many workers.*", ".*Checkpoint directory.*exists and is not empty.*"):
        warnings.filterwarnings("ignore", message)
    warnings.filterwarnings("ignore", category=FutureWarning)

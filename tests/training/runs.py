"""Trainings that are ended where a test wants."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from condswin.config.root import Config
from condswin.networks.models import create_model
from condswin.tasks.learning import Learning
from condswin.tasks.loading import load
from condswin.training import fit
from condswin.training.module import TrainingModule

TASK = "reconstruction"
MONITOR = ("slice_psnr", True)


class KilledError(Exception):
    """Ends a training as a kill does: nothing more is saved."""


def weights(
    config: Config,
    prepared: Path,
    checkpoints: Path,
    until: tuple[int, int] | None = None,
    *,
    hook: str = "on_train_batch_start",
    act: Callable[[], None] | None = None,
    epochs: int = 4,
    dropout: float = 0.1,
    require_owner: Callable[[], None] = lambda: None,
    spoil: Callable[[torch.nn.Module], None] = lambda _: None,
    **settings: Any,
) -> torch.Tensor:
    """Trains; returns all weights and losses, or nothing if it was ended.

    Args:
        config: Parameters.
        prepared: Data.
        checkpoints: Folder.
        until: Epoch and batch at whose `hook` the training is ended.
        hook: Of the module.
        act: Called there, a KilledError by default.
        epochs: Of the whole training.
        dropout: Of the network.
        require_owner: See `fit`.
        spoil: Called with the fresh network.
        settings: Of the training, other than the configuration's.
    """
    import lightning.pytorch as pl

    train = config.reconstruction.train.model_copy(update={"epochs": epochs, "batch_size": 1} | settings)
    pl.seed_everything(1, workers=True, verbose=False)
    network = create_model("conditional-light", preset="demo", embedding=16, heads=[2, 2], dropout=dropout)
    spoil(network)
    with pytest.MonkeyPatch.context() as patch:
        if until:
            original = getattr(TrainingModule, hook)

            def interrupted(self: TrainingModule, batch: Any, index: int) -> Any:
                if (self.current_epoch, index) == until:
                    (act or _kill)()
                return original(self, batch, index)

            patch.setattr(TrainingModule, hook, interrupted)
        try:
            fitted = fit(
                load(Learning, TASK, config),
                network,
                train,
                monitor=MONITOR,
                validated=True,
                name="conditional-light",
                prepared=prepared,
                checkpoints=checkpoints,
                seed=1,
                label="t",
                require_owner=require_owner,
            )
        except KilledError:
            return torch.empty(0)
    assert [row["epoch"] for row in fitted.history] == list(range(epochs))
    assert not fitted.network.training
    # The best epoch may be an early one; losses tell whether the last one was the same too.
    rows = torch.tensor([[row["train/loss"], row["val/loss"], row["val/slice_psnr"]] for row in fitted.history])
    return torch.cat([rows.flatten(), *(parameter.detach().flatten() for parameter in fitted.network.parameters())])


def _kill() -> None:
    raise KilledError


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def states(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.ckpt"))

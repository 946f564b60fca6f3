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
from condswin.training import Fitted, fit
from condswin.training.history import Rows
from condswin.training.module import TrainingModule
from condswin.training.shown import Draw

TASK = "reconstruction"
MONITOR = ("slice_psnr", True)


class KilledError(Exception):
    """Ends a training as a kill does: nothing more is saved."""


def weights(config: Config, prepared: Path, checkpoints: Path, *arguments: Any, **settings: Any) -> torch.Tensor:
    """All weights and losses of a training, or nothing if it was ended; see `run`."""
    fitted = run(config, prepared, checkpoints, *arguments, **settings)
    if fitted is None:
        return torch.empty(0)
    assert [row["epoch"] for row in fitted.history] == list(range(settings.get("epochs", 4)))
    assert not fitted.network.training
    # The best epoch may be an early one; losses tell whether the last one was the same too.
    rows = torch.tensor([[row["train/loss"], row["val/loss"], row["val/slice_psnr"]] for row in fitted.history])
    return torch.cat([rows.flatten(), *(parameter.detach().flatten() for parameter in fitted.network.parameters())])


def run(
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
    report: Callable[[Rows], None] = lambda _: None,
    draw: Draw | None = None,
    seed: int = 1,
    **settings: Any,
) -> Fitted | None:
    """Trains; returns nothing if it was ended.

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
        report: See `fit`.
        draw: See `fit`.
        seed: Of the order of slices.
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
            return fit(
                load(Learning, TASK, config),
                network,
                train,
                monitor=MONITOR,
                validated=True,
                name="conditional-light",
                prepared=prepared,
                checkpoints=checkpoints,
                seed=seed,
                label="t",
                require_owner=require_owner,
                report=report,
                draw=draw,
            )
        except KilledError:
            return None


def _kill() -> None:
    raise KilledError


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def states(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.ckpt"))

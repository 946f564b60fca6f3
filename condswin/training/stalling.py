"""What a training does that gets no better: it stops, or goes on in smaller steps."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch.optim.lr_scheduler import ReduceLROnPlateau

from condswin.config.train import EarlyStoppingConfig, ScheduleConfig, TrainConfig
from condswin.errors import ConfigError


def require_validation(train: TrainConfig, validated: bool) -> None:
    """Refuses settings that need a validation score where there is none.

    Raises:
        ConfigError: There is no validation case for them.
    """
    plateau = "schedule.name: plateau" if train.schedule.name == "plateau" else None
    if not validated and (setting := plateau or ("early_stopping" if train.early_stopping else None)):
        raise ConfigError(
            f"train.{setting}: goes by a score of validation cases, and there are none; set ingest.val_fraction and "
            "ingest again, or leave it out"
        )


class Stop(EarlyStopping):
    """Ends a training whose score was no better for some epochs.

    Args:
        settings: Patience and least gain.
        monitor: The score, as logged, and whether a higher one is better.
    """

    def __init__(self, settings: EarlyStoppingConfig, monitor: tuple[str, bool]) -> None:
        name, higher_is_better = monitor
        super().__init__(
            name,
            patience=settings.patience,
            min_delta=settings.min_delta,
            mode="max" if higher_is_better else "min",
            check_finite=False,  # an undefined score is no better one
            check_on_train_epoch_end=True,
        )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Also a training that was killed after its last epoch is at its end."""
        trainer.should_stop = self.stopped

    @property
    def stopped(self) -> bool:
        """Whether it has ended the training."""
        return self.wait_count >= self.patience

    @property
    def reason(self) -> str:
        """In words."""
        more = f" by more than {abs(self.min_delta):g}" if self.min_delta else ""
        return f"{self.monitor} no better than {float(self.best_score):.4g}{more} for {self.wait_count} epochs"


class Plateau(Callback):
    """Multiplies the learning rate when the score was no better for some epochs.

    Lightning's own handling of such a schedule takes its step after the state of the epoch is saved.

    Args:
        schedule: Patience, least gain and factor.
        monitor: The score, as logged, and whether a higher one is better.
    """

    def __init__(self, schedule: ScheduleConfig, monitor: tuple[str, bool]) -> None:
        self._schedule = schedule
        self._monitor, self._higher_is_better = monitor
        self._loaded: dict[str, Any] | None = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Takes hold of the optimiser."""
        self._plateau = ReduceLROnPlateau(
            trainer.optimizers[0],
            mode="max" if self._higher_is_better else "min",
            factor=self._schedule.gamma,
            patience=self._schedule.patience - 1,  # torch counts epochs that are let pass
            threshold=self._schedule.min_delta,
            threshold_mode="abs",
        )
        if self._loaded:
            self._plateau.load_state_dict(self._loaded)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Compares the epoch's score with the best."""
        self._plateau.step(float(trainer.callback_metrics[self._monitor]))

    def state_dict(self) -> dict[str, Any]:
        """torch's."""
        return self._plateau.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self._loaded = state_dict

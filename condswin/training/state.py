"""What a training has come to, and when that is saved."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from condswin.training.checkpoints import Position
from condswin.training.machine import Machine
from condswin.training.measures import Measure
from condswin.training.module import TrainingModule
from condswin.training.ranks import any_rank
from condswin.training.stopping import TERMINATED, Stopping


class State(Checkpoint):
    """History and best weights of a training, and when its whole state is saved.

    A state is saved every few minutes, at the end of each epoch, when the process is asked to terminate, and before the
    last step of an epoch that is validated: Lightning can go on from between two steps and from the end of an epoch,
    but not from within or before a validation, nor from within a step, whose gradients no state has.

    Args:
        folder: For the states.
        monitor: Score that picks the best epoch, and whether a higher one is better; None takes the last epoch.
        minutes: Between two states within an epoch.
        stopping: Whether the process was asked to terminate.
        require_owner: Raises if the folder belongs to another training.
        measures: Of each epoch, for the history.
        machine: Its figures of each epoch, which are kept apart: the history of a training is the same every time.
        draw: Called with the history and these figures before an epoch's state is saved: what is drawn twice is there
            once, what was not drawn would be missing.
        report: Called with the same after that.
    """

    def __init__(
        self,
        folder: Path,
        *,
        monitor: tuple[str, bool] | None,
        minutes: float,
        stopping: Stopping,
        require_owner: Callable[[], None],
        measures: Sequence[Measure],
        machine: Machine,
        draw: Callable[[list[dict[str, float]]], None],
        report: Callable[[list[dict[str, float]]], None],
    ) -> None:
        self.rows: list[dict[str, float]] = []
        self._figures: list[dict[str, float]] = []
        self.weights: dict[str, Tensor] = {}
        self._score = math.nan
        self._folder, self._monitor, self._minutes = folder, monitor, minutes
        self._stopping, self._require_owner, self._report = stopping, require_owner, report
        self._measures, self._machine, self._draw = measures, machine, draw
        self._saved_at = time.monotonic()

    @property
    def told(self) -> list[dict[str, float]]:
        """The history, with the machine's figures."""
        return [{**row, **figures} for row, figures in zip(self.rows, self._figures, strict=True)]

    def on_train_start(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        """Replaces Lightning's handler of SIGTERM, which ends with status 0."""
        self._stopping.take_note()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves what is due; see the class."""
        left, step = trainer.num_training_batches - (batch_idx + 1), trainer.accumulate_grad_batches
        if left == 0 or (batch_idx + 1) % step:
            return
        due = time.monotonic() - self._saved_at > 60 * self._minutes
        asked, due = any_rank(self._stopping.asked, due)
        if asked or due or (left <= step and self._monitor):
            self._save(trainer, Position(trainer.current_epoch, batch_idx + 1))
        self._stop_if(asked)

    def on_validation_batch_start(self, *_: Any) -> None:
        """Ends if asked to: what can be saved is saved."""
        self._stop_if(self._stopping.asked)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Adds to the history, keeps the best weights, saves."""
        values = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        for measure in self._measures:
            values |= measure.values(trainer)
        self.rows.append({"epoch": trainer.current_epoch, "train/learning_rate": rate, **values})
        self._figures.append(self._machine.values(trainer))
        if self._is_best(values):
            network = cast(TrainingModule, module).evaluated
            self.weights = {
                name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
                for name, value in network.state_dict().items()
            }
        self._draw(self.told)
        self._save(trainer, Position(trainer.current_epoch + 1, 0))
        # After the state is on the disk, whatever happens to what is told of it.
        self._report(self.told)
        self._stop_if(*any_rank(self._stopping.asked))

    def state_dict(self) -> dict[str, Any]:
        """What a state on the disk has of this."""
        return {"rows": list(self.rows), "figures": list(self._figures), "weights": self.weights, "score": self._score}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.rows, self._figures = list(state["rows"]), list(state["figures"])
        self.weights, self._score = state["weights"], state["score"]

    def _is_best(self, values: Mapping[str, float]) -> bool:
        if not self._monitor:
            return True
        name, higher_is_better = self._monitor
        score = values[f"val/{name}"]
        better = score > self._score if higher_is_better else score < self._score
        if better or not self.weights or (math.isnan(self._score) and not math.isnan(score)):
            self._score = score
            return True
        return False

    def _save(self, trainer: pl.Trainer, position: Position) -> None:
        self._require_owner()
        trainer.save_checkpoint(self._folder / position.file_name)
        self._saved_at = time.monotonic()

    def _stop_if(self, asked: bool) -> None:
        if asked:
            raise SystemExit(TERMINATED)

"""The network, its optimiser and what is logged, as Lightning sees them."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    SequentialLR,
    StepLR,
)

from condswin.config.train import ScheduleConfig, TrainConfig
from condswin.errors import BadDataError, DivergedError
from condswin.tasks.learning import Learning
from condswin.tasks.slices import Batch, Slices


class TrainingModule(LightningModule):
    """Optimises a network for a task.

    Logs `train/loss` per step, `val/loss` and `val/<score>` per epoch.

    Args:
        network: From images to outputs.
        task: Gives the loss and the validation scores.
        train: Optimiser, schedule.
        seed: Reseeds the random generators at each step, so that a resumed training draws what an unbroken one does.
        slices: Trained on; they name a slice that ruins the loss.
        validation: Validated on.
    """

    def __init__(
        self,
        network: nn.Module,
        task: Learning,
        train: TrainConfig,
        *,
        seed: int,
        slices: Slices,
        validation: Slices | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.task = task
        self.train_config = train
        self.seed = seed
        self._slices, self._validation = slices, validation
        self._scores: dict[str, list[Tensor]] = {}
        self._losses: Tensor
        self.register_buffer("_losses", torch.zeros(2), persistent=False)  # sum, slices

    def forward(self, image: Tensor) -> Tensor:
        """Network output (B, C, H, W)."""
        output: Tensor = self.network(image)
        return output

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Reseeds; see the class."""
        seed = hash((self.seed, self.current_epoch, batch_idx, self.global_rank)) % 2**63
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Loss of one batch.

        Raises:
            BadDataError: A slice holds values that are not finite.
            DivergedError: The loss is not finite all the same; going on would only ruin the weights.
        """
        loss = self.task.loss(self(batch["image"]), batch)
        self._require_finite(loss, batch, self._slices)
        self._losses[0] += loss.detach() * len(batch["image"])
        self._losses[1] += len(batch["image"])
        return loss

    def _require_finite(self, loss: Tensor, batch: Batch, slices: Slices | None) -> None:
        if torch.isfinite(loss):
            return
        when = f"epoch {self.current_epoch}, step {self.global_step}"
        for name, values in batch.items():
            finite = values.isfinite().flatten(1).all(1) if values.ndim > 1 else values.isfinite()
            if slices is not None and "item" in batch and not finite.all():
                where = ", ".join(slices.name(int(item)) for item in batch["item"][~finite])
                raise BadDataError(
                    f"{where}: {name} has NaN or infinite values ({when}); mend or leave out the file that it was "
                    "prepared from, and prepare again"
                )
        raise DivergedError(
            f"the loss became {loss.item()} at {when}, and the data is finite; lower train.learning_rate or "
            "train.gradient_clip"
        )

    def on_train_epoch_end(self) -> None:
        """Logs the mean loss of the epoch's slices, also of those before an interruption."""
        total, count = self._sum_over_ranks().tolist()
        self._losses.zero_()
        self.log("train/loss", total / count, rank_zero_only=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the sums of all ranks; Lightning's own means forget what was before."""
        checkpoint["losses"] = self._sum_over_ranks().cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes this rank's share of them."""
        self._losses.copy_(checkpoint["losses"] / self.trainer.world_size)

    def _sum_over_ranks(self) -> Tensor:
        total: Tensor = self.trainer.strategy.reduce(self._losses.clone(), reduce_op="sum")
        return total

    def validation_step(self, batch: Batch, _: int) -> None:
        """Collects the loss and slice-wise scores of one batch; raises as `training_step` does."""
        output = self(batch["image"])
        size = len(batch["image"])
        loss = self.task.loss(output, batch)
        self._require_finite(loss, batch, self._validation)
        self.log("val/loss", loss, batch_size=size, sync_dist=True)
        for name, values in self.task.validation_scores(output, batch).items():
            self._scores.setdefault(name, []).append(values.detach().float().cpu())

    def on_validation_epoch_end(self) -> None:
        """Logs the means of the scores that are defined."""
        for name, parts in self._scores.items():
            values = torch.cat(parts)
            self.log(f"val/{name}", values[values.isfinite()].mean(), sync_dist=True)
        self._scores.clear()

    def configure_optimizers(self) -> Any:
        """Optimiser and per-step learning rate."""
        config = self.train_config
        kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
        optimizer: Optimizer = kind(
            self.network.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            # One kernel for all parameters; Lightning cannot clip its gradients in mixed precision.
            fused=config.precision == "32-true",
        )
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = learning_rates(optimizer, config.schedule, steps=steps, epochs=config.epochs)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def learning_rates(optimizer: Optimizer, schedule: ScheduleConfig, *, steps: int, epochs: int) -> LRScheduler:
    """A schedule that is stepped once per training step.

    Args:
        optimizer: With the configured learning rate.
        schedule: Warm-up and what follows; a stepwise one counts epochs from the beginning of the training.
        steps: Of the whole training.
        epochs: In as many steps.
    """
    first = max(schedule.warmup_steps, 1)
    warmup = LinearLR(optimizer, start_factor=1 / first, total_iters=max(first - 1, 1))
    if schedule.name == "constant":
        return warmup
    if schedule.name == "step":
        epoch = max(steps // epochs, 1)
        return ChainedScheduler([warmup, StepLR(optimizer, schedule.step_size * epoch, schedule.gamma)], optimizer)
    cosine = CosineAnnealingLR(optimizer, max(steps - schedule.warmup_steps, 1))
    return SequentialLR(optimizer, [warmup, cosine], [schedule.warmup_steps])

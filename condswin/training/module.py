"""The network, its optimiser and what is logged, as Lightning sees them."""

import random
from typing import Any, cast

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
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from condswin.config.train import ScheduleConfig, TrainConfig
from condswin.devices import compiled
from condswin.errors import BadDataError, CondswinError, DivergedError
from condswin.networks.recomputing import recompute_activations
from condswin.tasks.learning import Learning
from condswin.tasks.slices import Batch, Slices
from condswin.training.loaders import inputs, raised
from condswin.training.ranks import from_all


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
        self._layout = torch.channels_last if train.channels_last else torch.contiguous_format
        self.network = lay_out(network, self._layout)
        if train.activation_checkpointing:
            recompute_activations(network)
        self._run = compiled(network.forward) if train.compile else network
        self.average: AveragedModel | None = None
        if train.ema:
            average = get_ema_multi_avg_fn(train.ema)  # type: ignore[no-untyped-call]
            self.average = AveragedModel(network, multi_avg_fn=average).requires_grad_(False)
        self.task = task
        self.train_config = train
        self.seed = seed
        self._slices, self._validation = slices, validation
        # By the first slice of a batch: slices, loss and scores.
        self._validated: dict[int, tuple[int, Tensor, Batch]] = {}
        # Sum, slices; of this rank. No buffer, since one would be overwritten with that of rank 0.
        self._losses = torch.zeros(2)

    def forward(self, image: Tensor) -> Tensor:
        """Network output (B, C, H, W)."""
        run = self._run if self.training or self.average is None else self.average.module
        output: Tensor = run(image.contiguous(memory_format=self._layout))
        return output

    @property
    def evaluated(self) -> nn.Module:
        """What is validated and kept: the network with averaged weights where there are such."""
        return self.network if self.average is None else self.average.module

    def evaluate(self, image: Tensor) -> Tensor:
        """What `evaluated` makes of an image, never compiled."""
        output: Tensor = self.evaluated(image.contiguous(memory_format=self._layout))
        return output

    def optimizer_step(self, *arguments: Any, **others: Any) -> None:
        """A step, and of the average too."""
        super().optimizer_step(*arguments, **others)
        if self.average is not None:
            self.average.update_parameters(self.network)

    def on_before_batch_transfer(self, batch: Batch | CondswinError, _: int) -> Batch:
        """A batch whose slices could all be read."""
        return raised(batch)

    def on_train_start(self) -> None:
        """Sums losses where they are computed."""
        self._losses = self._losses.to(self.device)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Reseeds; see the class."""
        seed = hash((self.seed, self.current_epoch, batch_idx, self.global_rank)) % 2**63
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Makes inputs of what the loader left to the device."""
        slices = self._slices if self.training else cast(Slices, self._validation)
        return inputs(slices, batch) if self.train_config.transforms == "device" else batch

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Loss of one batch.

        Raises:
            BadDataError: A slice holds values that are not finite.
            DivergedError: The loss is not finite all the same; going on would only ruin the weights.
        """
        loss = self.task.loss(self(batch["image"]).float(), batch)
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
        total, count = torch.stack(from_all(self._losses.cpu())).sum(0).tolist()
        self._losses.zero_()
        self.log("train/loss", total / count)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the sums of all ranks; Lightning's own means forget what was before."""
        checkpoint["losses"] = torch.stack(from_all(self._losses.cpu()))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes this rank's own."""
        self._losses = checkpoint["losses"][self.global_rank]

    def validation_step(self, batch: Batch, number: int) -> None:
        """Collects the loss and slice-wise scores of one batch; raises as `training_step` does."""
        output = self(batch["image"]).float()
        loss = self.task.loss(output, batch)
        self._require_finite(loss, batch, self._validation)
        scores = self.task.validation_scores(output, batch)
        first_slice = cast(DataLoader[Batch], self.trainer.val_dataloaders).batch_sampler[number][0]  # type: ignore
        self._validated[first_slice] = (
            len(batch["image"]),
            loss.detach().cpu(),
            {name: values.detach().float().cpu() for name, values in scores.items()},
        )

    def on_validation_epoch_end(self) -> None:
        """Logs the mean loss over the slices of all ranks, each counted once, and what the task makes of the scores."""
        batches = {number: batch for rank in from_all(self._validated) for number, batch in rank.items()}
        in_order = [batches[number] for number in sorted(batches)]
        self._validated.clear()
        self.log("val/loss", sum(loss * size for size, loss, _ in in_order) / sum(size for size, _, _ in in_order))
        scores = {name: torch.cat([batch[name] for _, _, batch in in_order]) for name in in_order[0][2]}
        for name, value in self.task.validation_means(scores).items():
            self.log(f"val/{name}", value)

    def configure_optimizers(self) -> Any:
        """Optimiser and per-step learning rate."""
        config = self.train_config
        optimizer = make_optimizer(self, config, self.trainer.accumulate_grad_batches * self.trainer.world_size)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = learning_rates(optimizer, config.schedule, steps=steps, epochs=config.epochs)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def lay_out(network: nn.Module, layout: torch.memory_format) -> nn.Module:
    """Lays out the weights of convolutions in place."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return network


def peak_learning_rate(train: TrainConfig, batches: int) -> float:
    """The learning rate after the warm-up, of steps that average over so many batches."""
    factor: float = {"fixed": 1.0, "linear": batches, "sqrt": batches**0.5}[train.learning_rate_rule]
    return train.learning_rate * factor


def make_optimizer(module: TrainingModule, train: TrainConfig, batches: int) -> Optimizer:
    """The optimiser of the weights that are trained, for steps that average over so many batches."""
    kind = torch.optim.Adam if train.optimizer == "adam" else torch.optim.AdamW
    return kind(
        module.network.parameters(),
        lr=peak_learning_rate(train, batches),
        weight_decay=train.weight_decay,
        # One kernel for all parameters; Lightning cannot clip its gradients in mixed precision.
        fused=train.precision == "32-true",
    )


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
    if schedule.name in ("constant", "plateau"):  # what follows is `Plateau`'s
        return warmup
    if schedule.name == "step":
        epoch = max(steps // epochs, 1)
        return ChainedScheduler([warmup, StepLR(optimizer, schedule.step_size * epoch, schedule.gamma)], optimizer)
    cosine = CosineAnnealingLR(optimizer, max(steps - schedule.warmup_steps, 1))
    return SequentialLR(optimizer, [warmup, cosine], [schedule.warmup_steps])

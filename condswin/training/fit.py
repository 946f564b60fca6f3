"""One training run: resumed if it was interrupted, the best epoch's weights at its end."""

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from condswin.config.train import TrainConfig
from condswin.devices import compiling, device
from condswin.errors import RankError
from condswin.progress import progress, say
from condswin.tasks.learning import Learning
from condswin.training.checkpoints import START, Position, WholeFiles, newest
from condswin.training.history import Rows
from condswin.training.loaders import training_loader, validation_loader
from condswin.training.machine import Machine
from condswin.training.measures import GradientNorms, Order
from condswin.training.module import TrainingModule, lay_out, peak_learning_rate
from condswin.training.ranks import Environment, Place, a_loader_died, first, helped, how_many, place
from condswin.training.shown import Draw, Epoch, Watch
from condswin.training.stalling import Plateau, Stop, require_validation
from condswin.training.state import State
from condswin.training.stopping import Stopping

# Settings that leave the result as it is.
_INDECISIVE = {
    *("processes", "workers", "prefetch", "pin_memory", "cache_mb", "activation_checkpointing"),
    *("pictures", "checkpoint_minutes", "grace_seconds"),
}


class Fitted(NamedTuple):
    """A trained network.

    Attributes:
        network: In evaluation mode, on the CPU, with the weights of the best epoch.
        history: One row per epoch: `epoch` and what was logged.
        told: The same with the machine's figures.
    """

    network: nn.Module
    history: list[dict[str, float]]
    told: list[dict[str, float]]


class _Shown(Callback):
    """Progress by training step; behind it images per second and the latest losses and scores."""

    def __init__(self, label: str, *, at_most: bool) -> None:
        self._label, self._at_most = label, at_most
        self._open = ExitStack()

    def on_train_start(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        total = int(trainer.estimated_stepping_batches)
        self._advance = self._open.enter_context(
            progress(self._label, total, done=trainer.global_step, at_most=self._at_most)
        )
        self._images, self._started = 0, time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, _: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._images += len(batch["image"]) * trainer.world_size
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        rate = self._images / (time.monotonic() - self._started)
        logged = {"images/s": rate, **{name: float(value) for name, value in trainer.callback_metrics.items()}}
        self._advance(", ".join(f"{name} {value:.4g}" for name, value in sorted(logged.items())))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._open.close()


def decisive(train: TrainConfig) -> dict[str, Any]:
    """The settings that decide a training's result, JSON-able: what computes it, and not how slices are loaded or when
    states are saved.

    That is the kind of device, and the number of processes that train together: every one has batches of its own.

    Raises:
        ConfigError: There cannot be so many processes; see `how_many`.
    """
    settings = train.model_dump(mode="json", exclude=_INDECISIVE)
    return {**settings, "device": device(train.device).type, "ranks": how_many(train)}


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
    report: Callable[[Rows], None] = lambda _: None,
    draw: Draw | None = None,
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
        report: Called at the end of each epoch with the history so far and the machine's figures.
        draw: Draws pictures of an epoch into `checkpoints`.

    Raises:
        SystemExit: Status 143 when the process was asked to terminate; its state is saved.
        CheckpointError: A state cannot be written.
        ConfigError: There cannot be so many processes.
        RankError: One of the processes died that train or load.
    """
    with Stopping(train.grace_seconds) as stopping:
        position, resumed = first(lambda: newest(checkpoints)) or (START, None)
        if resumed and place().rank == 0:
            print(
                f"{label}: goes on after {position.batch} batches of epoch {position.epoch} ({resumed})",
                file=sys.stderr,
            )
        job = _Job(
            task, network, train, monitor, validated, name, prepared, checkpoints, seed, label, position, resumed
        )
        with helped(how_many(train), _help, job) as here:
            callbacks = [_Shown(label, at_most=train.early_stopping is not None)] if here.rank == 0 else []
            state = _run(job, here, stopping, callbacks, require_owner=require_owner, report=report, draw=draw)
    network.load_state_dict(state.weights)
    return Fitted(network=lay_out(network, torch.contiguous_format).cpu().eval(), history=state.rows, told=state.told)


def steps_of(train: TrainConfig) -> dict[str, float]:
    """What a step averages over at most, and the learning rate that follows from it: `effective_batch` slices."""
    batches = train.accumulate * how_many(train)
    return {"effective_batch": train.batch_size * batches, "peak_learning_rate": peak_learning_rate(train, batches)}


class _Job(NamedTuple):
    """What the processes of a training have in common; see `fit`."""

    task: Learning
    network: nn.Module
    train: TrainConfig
    monitor: tuple[str, bool]
    validated: bool
    name: str
    prepared: Path
    checkpoints: Path
    seed: int
    label: str
    position: Position
    resumed: Path | None


def _help(here: Place, job: _Job) -> None:
    """Trains as another rank than 0."""
    with Stopping(job.train.grace_seconds) as stopping:
        _run(job, here, stopping, [], require_owner=lambda: None, report=lambda _: None, draw=None)


def _run(
    job: _Job,
    here: Place,
    stopping: Stopping,
    callbacks: Sequence[Callback],
    *,
    require_owner: Callable[[], None],
    report: Callable[[Rows], None],
    draw: Draw | None,
) -> State:
    train = job.train
    require_validation(train, job.validated)
    share = {"seed": job.seed, "rank": here.rank, "ranks": here.ranks}
    slices = job.task.dataset(job.prepared, "train", job.name, training=True)
    validation = job.task.dataset(job.prepared, "val", job.name, training=False) if job.validated else None
    batches = training_loader(slices, train, **share, start=job.position)
    monitor = (f"val/{job.monitor[0]}", job.monitor[1]) if job.validated else None
    machine, watch = Machine(), Watch(validation, train.pictures if draw else 0)
    measures = [GradientNorms(), Order(job.checkpoints), watch]

    def draw_epoch(rows: Rows) -> None:
        if draw and here.rank == 0:
            draw(Epoch(rows, monitor[0] if monitor else None, *watch.drawn()), job.checkpoints)

    state = State(
        job.checkpoints,
        monitor=job.monitor if job.validated else None,
        minutes=train.checkpoint_minutes,
        stopping=stopping,
        require_owner=require_owner,
        measures=measures,
        machine=machine,
        draw=draw_epoch,
        report=report,
    )
    stop = Stop(train.early_stopping, monitor) if monitor and train.early_stopping else None
    plateau = Plateau(train.schedule, monitor) if monitor and train.schedule.name == "plateau" else None
    module = TrainingModule(job.network, job.task, train, seed=job.seed, slices=slices, validation=validation)
    # No more than an epoch has, or steps would be smaller than they are said to be.
    accumulate = min(train.accumulate, len(batches))
    size, rate = cast(Any, batches.batch_sampler).batch_size, peak_learning_rate(train, accumulate * here.ranks)
    if here.rank == 0 and accumulate * here.ranks > 1:
        print(
            f"{job.label}: {size * accumulate * here.ranks} slices a step ({size} x {accumulate} batches x "
            f"{here.ranks} processes), learning rate {rate:g}",
            file=sys.stderr,
        )
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = train.tf32
    with warnings.catch_warnings():
        _hush_lightning()
        trainer = pl.Trainer(
            accelerator={"auto": "auto", "cpu": "cpu", "cuda": "gpu"}[train.device],
            devices=here.local_ranks,
            num_nodes=here.ranks // here.local_ranks,
            # Routers may leave a parameter without a gradient.
            strategy=DDPStrategy(find_unused_parameters=True) if here.ranks > 1 else "auto",
            precision=train.precision,
            max_epochs=train.epochs,
            accumulate_grad_batches=accumulate,
            gradient_clip_val=train.gradient_clip or None,
            deterministic="warn",
            logger=False,
            callbacks=[machine, *measures, *filter(None, (stop, plateau)), state, *callbacks],
            profiler=machine.loading,
            plugins=[WholeFiles(), *([Environment(here)] if here.ranks > 1 else [])],
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # ours know their rank
        )
        with _loaders_may_die(job.label), compiling():
            trainer.fit(
                module,
                train_dataloaders=batches,
                val_dataloaders=validation_loader(validation, train, **share) if validation else None,
                ckpt_path=job.resumed,
                weights_only=True,
            )
    if stop and stop.stopped and here.rank == 0:
        say(f"{job.label}: stopped after epoch {state.rows[-1]['epoch']:g}: {stop.reason}")
    return state


@contextmanager
def _loaders_may_die(label: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not a_loader_died(error):
            raise
        raise RankError(
            f"{label}: a process that loads slices was killed; start again, and it goes on from the last state. If "
            "memory was short, set fewer train.workers"
        ) from error


def _hush_lightning() -> None:
    """Leaves out advice that does not concern our users: workers are a parameter, and loaders start where told to."""
    if logging.getLogger("condswin").isEnabledFor(logging.INFO):  # somebody wants to hear it
        return
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    os.environ.setdefault("PYTORCH_LIGHTNING_SUPPRESS_TIPS", "1")
    for message in (
        ".*does not have many workers.*",
        ".*your dataloader is not resumable.*",
        # Scores are put together from those of all ranks before they are logged.
        ".*sync_dist=True.*",
        ".*Grad strides do not match.*",
    ):
        warnings.filterwarnings("ignore", message)
    warnings.filterwarnings("ignore", category=FutureWarning)

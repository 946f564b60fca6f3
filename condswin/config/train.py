"""How networks are trained."""

from typing import Annotated, Literal

from pydantic import Field

from condswin.config.section import Natural, Positive, Section


class ScheduleConfig(Section):
    """Learning rate over training.

    Attributes:
        name: Constant, stepwise (the slides'), cosine to zero, or a step whenever the validation score that picks the
            best epoch is on a plateau; each after the warm-up.
        step_size: Epochs per step of `step`.
        gamma: Factor per step of `step` and `plateau`.
        patience: Epochs without a better score after which `plateau` takes a step.
        min_delta: Less than this is no better score for `plateau`.
        warmup_steps: Optimiser steps over which the learning rate rises linearly.
    """

    name: Literal["constant", "step", "cosine", "plateau"] = "cosine"
    step_size: Positive = 5
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.8
    patience: Positive = 3
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    warmup_steps: Natural = 0


class EarlyStoppingConfig(Section):
    """When a training ends before its last epoch.

    Attributes:
        patience: Epochs without a better validation score, of the kind that picks the best epoch.
        min_delta: Less than this is no better score.
    """

    patience: Positive = 5
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class TrainConfig(Section):
    """Optimisation, common to all tasks.

    Attributes:
        epochs: Passes over the training slices.
        batch_size: Slices per batch; each process has its own.
        accumulate: Batches of a process in a step. A step averages over `batch_size x accumulate x processes` slices.
        initial: Folder of a trained network whose weights a training starts from where names and shapes are equal, as
            `condswin pretrain` writes it; null for random weights.
        optimizer: Adam, or AdamW with decoupled weight decay.
        learning_rate: After the warm-up.
        learning_rate_rule: What it is multiplied by where a step averages over several batches (`accumulate` x
            processes): nothing, their number, or the root of that.
        weight_decay: The optimiser's.
        schedule: Learning rate over training.
        early_stopping: Ends a training that gets no better; null for none. A cosine schedule is cut off then.
        gradient_clip: Largest norm of the gradient; 0 for no limit.
        ema: Validate and keep a moving average of the weights with this decay per step, 0.999 say; 0 for the weights
            themselves.
        precision: As Lightning names it. Routers, Fourier transforms and losses are computed in fp32 all the same.
        tf32: Let GPUs round what they multiply in fp32 to 10 bits, which is faster.
        compile: Compile the network with `torch.compile` first, which takes minutes and makes steps faster.
        activation_checkpointing: Keep less of the forward pass and compute it again in the backward pass: less memory,
            more time, the same gradients.
        channels_last: Lay out images pixel by pixel, which convolutions on GPUs prefer.
        workers: Processes that load slices; 0 loads in the training process.
        prefetch: Batches that each of them loads ahead.
        transforms: Where slices are made of what was read: by what loads them, or a batch at a time by the device that
            trains, which leaves less to the processor. MRI slices are masked, transformed and scaled there; those of CT
            come from the loader all the same.
        pin_memory: Load into memory from which a GPU copies faster; without a GPU nothing is pinned.
        cache_mb: Largest split that a process holds in memory, in MiB; of larger ones each slice is read when needed.
        device: `auto` takes a GPU where there is one.
        processes: That train together on this machine, each with batches of its own; null for one for each GPU, and one
            where there is none. torchrun, which starts them on several machines, decides their number itself.
        pictures: Validation slices, one of a case, that are drawn after each epoch with what the network makes of them
            and what its routers choose; 0 for none. They change nothing else.
        checkpoint_minutes: A training that is killed loses at most what it did in so many minutes.
        grace_seconds: From being asked to terminate to ending without having saved.
    """

    epochs: Positive = 20
    batch_size: Positive = 8
    accumulate: Positive = 1
    initial: str | None = None
    optimizer: Literal["adam", "adamw"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    learning_rate_rule: Literal["fixed", "linear", "sqrt"] = "fixed"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: ScheduleConfig = ScheduleConfig()
    early_stopping: EarlyStoppingConfig | None = None
    gradient_clip: Annotated[float, Field(ge=0)] = 0.5
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    tf32: bool = False
    compile: bool = False
    activation_checkpointing: bool = False
    channels_last: bool = False
    workers: Natural = 0
    prefetch: Positive = 2
    transforms: Literal["loader", "device"] = "loader"
    pin_memory: bool = True
    cache_mb: Natural = 1024
    device: Literal["auto", "cpu", "cuda"] = "auto"
    processes: Positive | None = None
    pictures: Natural = 2
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 10.0
    grace_seconds: Annotated[float, Field(gt=0)] = 25.0

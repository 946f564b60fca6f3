"""How networks are trained."""

from typing import Annotated, Literal

from pydantic import Field

from condswin.config.section import Natural, Positive, Section


class ScheduleConfig(Section):
    """Learning rate over training.

    Attributes:
        name: Constant, stepwise (the slides') or cosine to zero, each after the warm-up.
        step_size: Epochs per step of `step`.
        gamma: Factor per step of `step`.
        warmup_steps: Optimiser steps over which the learning rate rises linearly.
    """

    name: Literal["constant", "step", "cosine"] = "cosine"
    step_size: Positive = 5
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.8
    warmup_steps: Natural = 0


class TrainConfig(Section):
    """Optimisation, common to all tasks.

    Attributes:
        epochs: Passes over the training slices.
        batch_size: Slices per step and device.
        optimizer: Adam, or AdamW with decoupled weight decay.
        learning_rate: After the warm-up.
        weight_decay: The optimiser's.
        schedule: Learning rate over training.
        gradient_clip: Largest norm of the gradient; 0 for no limit.
        precision: As Lightning names it.
        workers: Processes that load slices; 0 loads in the training process.
        device: `auto` takes a GPU where there is one.
        checkpoint_minutes: A training that is killed loses at most what it did in so many minutes.
        grace_seconds: From being asked to terminate to ending without having saved.
    """

    epochs: Positive = 20
    batch_size: Positive = 8
    optimizer: Literal["adam", "adamw"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: ScheduleConfig = ScheduleConfig()
    gradient_clip: Annotated[float, Field(ge=0)] = 0.5
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    workers: Natural = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 10.0
    grace_seconds: Annotated[float, Field(gt=0)] = 25.0

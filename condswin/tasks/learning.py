"""What training a network needs of a task."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from condswin.config.names import Split
from condswin.config.train import TrainConfig
from condswin.errors import ConfigError
from condswin.manifest import Manifest
from condswin.tasks.loading import Part
from condswin.tasks.slices import Batch, Slices


class Pretraining(NamedTuple):
    """A training without labels, whose weights another training starts from.

    Attributes:
        learning: Its slices, loss and scores.
        train: Its optimisation.
        monitor: Score that picks the best epoch, and whether a higher one is better.
        parameters: JSON-able; what else decides its result.
    """

    learning: "Learning"
    train: TrainConfig
    monitor: tuple[str, bool]
    parameters: Mapping[str, Any]


class Learning(Part):
    """Slices, loss and scores."""

    @abstractmethod
    def channels(self, network: str) -> tuple[int, int]:
        """Input and output channels of a network of this name."""

    @abstractmethod
    def dataset(self, prepared: Path, split: Split, network: str, *, training: bool) -> Slices:
        """Slices of `prepared/<split>` as a network of this name takes them."""

    def seen(self, manifest: Manifest) -> dict[str, Any]:
        """What the training's cases are like, for `Serving` to compare users' files with; JSON-able, of no one case."""
        return {}

    def synthetic(self) -> list[str]:
        """What a training sees that no scanner made, beside cases that were generated; for the model's description."""
        return []

    @abstractmethod
    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Scalar training loss of network output (B, C, H, W)."""

    @abstractmethod
    def validation_scores(self, output: Tensor, batch: Batch) -> Batch:
        """Quick scores (B,) of slices, under names that no metric of cases has."""

    def validation_means(self, scores: Batch) -> Batch:
        """What is logged of the scores (N,) of all validation slices, the monitor among it; means without NaN."""
        return {name: values[values.isfinite()].mean() for name, values in scores.items()}

    def pretraining(self) -> Pretraining:
        """How a network of the task is trained before it learns the task.

        Raises:
            ConfigError: There is no way.
        """
        raise ConfigError("pretrain: there is no training without labels for this task (for segmentation there is)")

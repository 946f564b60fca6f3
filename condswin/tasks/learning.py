"""What training a network needs of a task."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from condswin.config import Split
from condswin.tasks.loading import Part

Batch = dict[str, Tensor]


class Slices(Dataset[Batch], ABC):
    """Slices of one split, each with at least `image` (C, H, W)."""

    @property
    @abstractmethod
    def sizes(self) -> Sequence[tuple[int, ...]]:
        """What must be equal for slices to be in one batch: height and width, and whatever else differs in shape."""

    def __len__(self) -> int:
        return len(self.sizes)


class Learning(Part):
    """Slices, loss and scores."""

    @abstractmethod
    def channels(self, network: str) -> tuple[int, int]:
        """Input and output channels of a network of this name."""

    @abstractmethod
    def dataset(self, prepared: Path, split: Split, network: str, *, training: bool) -> Slices:
        """Slices of `prepared/<split>` as a network of this name takes them."""

    @abstractmethod
    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Scalar training loss of network output (B, C, H, W)."""

    @abstractmethod
    def validation_scores(self, output: Tensor, batch: Batch) -> Batch:
        """Quick scores (B,) of slices, under names that no metric of cases has; NaN is left out of the mean."""

"""What networks are fed with."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor
from torch.utils.data import Dataset

Batch = dict[str, Tensor]


class Slices(Dataset[Batch], ABC):
    """Slices of one split, each with at least `image` (C, H, W).

    One may also have `item`, its number, which `name` takes.
    """

    @property
    @abstractmethod
    def sizes(self) -> Sequence[tuple[int, ...]]:
        """What must be equal for slices to be in one batch: height and width, and whatever else differs in shape."""

    def __len__(self) -> int:
        return len(self.sizes)

    def name(self, item: int) -> str:
        """Which slice of which file this is, for messages."""
        return f"slice {item}"

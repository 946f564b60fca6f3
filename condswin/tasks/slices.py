"""What networks are fed with."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor
from torch.utils.data import Dataset

Batch = dict[str, Tensor]


class Slices(Dataset[Batch], ABC):
    """Slices of one split, each with at least `image` (C, H, W).

    One may also have `item`, its number, which `name` takes.

    A task whose slices cost much to make divides that: `raw` reads and draws, `inputs` computes, for a whole batch and
    on any device. An item is then `inputs` of a batch of one. By default `raw` gives items and nothing is left to
    compute.
    """

    @property
    @abstractmethod
    def sizes(self) -> Sequence[tuple[int, ...]]:
        """What must be equal for slices to be in one batch: height and width, and whatever else differs in shape."""

    def __len__(self) -> int:
        return len(self.sizes)

    def raw(self, index: int) -> Batch:
        """What `inputs` makes an item of, with all that is drawn for it; of equal shapes where `sizes` are equal."""
        return self[index]

    def inputs(self, batch: Batch) -> Batch:
        """Items (B, ...) from a batch of `raw` ones, on its device; draws nothing."""
        return batch

    def name(self, item: int) -> str:
        """Which slice of which file this is, for messages."""
        return f"slice {item}"

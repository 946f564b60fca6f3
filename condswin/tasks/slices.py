"""What networks are fed with."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor
from torch.utils.data import Dataset

Batch = dict[str, Tensor]

#: In raw training batches: (B,), the share of the training's epochs that were done before this one, from 0 to below 1.
PROGRESS = "progress"


class Shown(NamedTuple):
    """A slice and what a network made of it.

    Attributes:
        name: Which slice of which file.
        batch: Its item, as a batch of one.
        output: (1, C, H, W), float32, of the network.
    """

    name: str
    batch: Batch
    output: Tensor


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
        """Items (B, ...) from a batch of `raw` ones, on its device; draws nothing.

        A training's batch has `PROGRESS`; others do not.
        """
        return batch

    def telling(self, count: int) -> Sequence[int]:
        """At most so many slices, of different cases if possible, that show much; the same ones every time."""
        number = min(count, len(self))
        return [(2 * place + 1) * len(self) // (2 * number) for place in range(number)]

    def name(self, item: int) -> str:
        """Which slice of which file this is, for messages."""
        return f"slice {item}"

"""Which columns of k-space a scan went over: scanners leave outer ones out, and fill them with zeros.

FastMRI takes such padding out of its masks after it drew them over the whole width (`VarNetDataTransform`, its
`padding_left` and `padding_right`). It goes by the header; here the values have the last word.
"""

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from condswin.mri.storage import Array


class Extent(NamedTuple):
    """Neighbouring columns.

    Attributes:
        first: The first of them.
        last: One past the last.
    """

    first: int
    last: int

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.last - self.first

    @classmethod
    def nothing(cls, width: int) -> Self:
        """That of k-space of so many columns before any of it was seen."""
        return cls(width, 0)

    def seen(self, block: Array) -> "Extent":
        """Widened to all columns that hold anything in a block of k-space (..., W)."""
        axes = tuple(range(block.ndim - 1))
        # Only what lies outside is looked at, which after the first block is next to nothing.
        left = np.flatnonzero(block[..., : self.first].any(axis=axes))
        right = np.flatnonzero(block[..., self.last :].any(axis=axes))
        return Extent(
            int(left[0]) if left.size else self.first, self.last + int(right[-1]) + 1 if right.size else self.last
        )

    def within(self, sampled: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The columns of a mask (W,) that lie inside."""
        inside = np.zeros_like(sampled)
        inside[self.first : self.last] = sampled[self.first : self.last]
        return inside


def center(sampled: NDArray[np.bool_]) -> Extent:
    """The fully sampled columns of a mask (W,) around frequency zero; none if that was not measured."""
    middle = sampled.size // 2
    if not sampled[middle]:
        return Extent(middle, middle)
    return Extent(middle - _run(sampled[:middle][::-1]), middle + _run(sampled[middle:]))


def _run(values: NDArray[np.bool_]) -> int:
    return int(values.argmin()) if not values.all() else values.size


def measurable(
    held: Extent, width: int, *, claimed: tuple[int, int] | None, sampled: NDArray[np.bool_] | None = None
) -> Extent:
    """The columns that a scan went over.

    Those that hold values were measured, so a header that denies it is wrong. Of the others, what should have been
    measured and is zero in every slice was not.

    Args:
        held: The columns that hold values.
        width: Columns of k-space.
        claimed: First and one past the last column by the header, None if it does not say.
        sampled: (W,), the columns that should hold values; None for all.
    """
    sampled = np.ones(width, np.bool_) if sampled is None else sampled
    first, last = claimed or (0, width)
    if held.first < first or held.last > last:
        first, last = 0, width
    before, after = np.flatnonzero(sampled[: held.first]), np.flatnonzero(sampled[held.last :])
    return Extent(
        max(first, int(before[-1]) + 1 if before.size else 0),
        min(last, held.last + int(after[0]) if after.size else width),
    )


def contradictions(held: Extent, width: int, claimed: tuple[int, int] | None) -> list[str]:
    """Where the values of fully sampled k-space say another extent than its header; see `measurable`."""
    first, last = claimed or (0, width)
    found = []
    if held.first < first or held.last > last:
        found.append("columns with values outside the header's encoding limits taken as measured")
    if held.first > first or held.last < last:
        limits = "within the header's encoding limits" if claimed else "of which no header speaks"
        found.append(f"outer columns of zeros {limits} taken as never measured")
    return found

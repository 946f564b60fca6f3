"""Non-overlapping (shifted) windows of a feature map of any size (Swin Transformer, arXiv:2103.14030, section 3.2).

Axes: B batch, H height, W width, C channels, M windows, N patches of a window.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

_F = TypeVar("_F", bound=Callable[..., Any])

#: Rows and columns; one number is both.
Sides = int | tuple[int, int]

#: Added to the score of a key that a query must not see: large enough to vanish in a softmax, and held by fp16.
MASKED = -1e4


class WindowPlan(NamedTuple):
    """How one size of feature map is cut, and who may look at whom.

    Attributes:
        height: Rows of the feature map.
        width: Columns of the feature map.
        window: Rows and columns of a window; smaller than asked where the map is smaller.
        shift: Rows and columns by which the windows are displaced; 0 where one window spans the map.
        padding: Rows and columns added at the lower and right edge so that windows fill the map.
        mask: (M, N, N) float, 0 or `MASKED`: a query sees the keys of its region only. Patches that the cyclic shift
            brought from the opposite edge, and padding, are regions apart. None where every window is one region.
        real: (M, N) booleans, False for padding. None where there is none.
    """

    height: int
    width: int
    window: tuple[int, int]
    shift: tuple[int, int]
    padding: tuple[int, int]
    mask: Tensor | None
    real: Tensor | None


def _constant(function: _F) -> _F:
    """Tells compilers that what a function returns is a constant.

    They look through caches: every pass would make the result again, and break the graph where it looks at values.
    The mark is `torch.compiler.assume_constant_result`'s, without its import of the compiler, which takes every process
    seconds.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def pair(sides: Sides) -> tuple[int, int]:
    """Rows and columns of what is square or not."""
    return (sides, sides) if isinstance(sides, int) else sides


@_constant
def window_plan(height: int, width: int, window: Sides, shift: Sides, device: torch.device) -> WindowPlan:
    """The plan for a feature map of `height` x `width` patches, made once per size and device."""
    return _window_plan(height, width, pair(window), pair(shift), device)


@lru_cache(maxsize=256)
def _window_plan(
    height: int, width: int, window: tuple[int, int], shift: tuple[int, int], device: torch.device
) -> WindowPlan:
    sizes = min(window[0], height), min(window[1], width)
    shifts = shift[0] if height > window[0] else 0, shift[1] if width > window[1] else 0
    padding = -height % sizes[0], -width % sizes[1]
    # A plan first made in inference mode must still serve a later training step.
    with torch.inference_mode(False), torch.no_grad():
        rows = torch.arange(height + padding[0]).roll(-shifts[0])
        columns = torch.arange(width + padding[1]).roll(-shifts[1])
        wrapped_row = (torch.arange(len(rows)) >= len(rows) - shifts[0]).long()
        wrapped_column = (torch.arange(len(columns)) >= len(columns) - shifts[1]).long()
        region_map = 2 * wrapped_row[:, None] + wrapped_column[None, :]
        real_map = (rows < height)[:, None] & (columns < width)[None, :]
        region_map = torch.where(real_map, region_map, 4)
        region, real = (_cut(grid[None, :, :, None], sizes)[0, :, :, 0].to(device) for grid in (region_map, real_map))
        mask = torch.where(region[:, :, None] == region[:, None, :], 0.0, MASKED)
    parted = bool((mask != 0).any())
    return WindowPlan(
        height=height,
        width=width,
        window=sizes,
        shift=shifts,
        padding=padding,
        mask=mask if parted else None,
        real=None if bool(real.all()) else real,
    )


def relative_position_index(window: Sides, rows: int, columns: int, device: torch.device) -> Tensor:
    """Row of a bias table for each query and key of a `rows` x `columns` window.

    Args:
        window: Height and width of the largest window, whose offsets are the table's
            (2 * height - 1) * (2 * width - 1) rows.
        rows: Of the window at hand.
        columns: Likewise.
        device: Where the result is.

    Returns:
        (N, N) integers; row offset times 2 * width - 1 plus column offset, counted from -(height - 1) and
        -(width - 1).
    """
    return _constant_index(pair(window), rows, columns, device)[0]


@_constant
def _constant_index(window: tuple[int, int], rows: int, columns: int, device: torch.device) -> tuple[Tensor]:
    """In a tuple: compilers take a bare tensor for one of the network's own, and refuse a second of its name."""
    return (_relative_position_index(window, rows, columns, device),)


@lru_cache(maxsize=64)
def _relative_position_index(window: tuple[int, int], rows: int, columns: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        row, column = (axis.reshape(-1) for axis in torch.meshgrid(
            torch.arange(rows), torch.arange(columns), indexing="ij"
        ))  # fmt: skip
        row_offset = row[:, None] - row[None, :] + window[0] - 1
        column_offset = column[:, None] - column[None, :] + window[1] - 1
        return (row_offset * (2 * window[1] - 1) + column_offset).to(device)


def partition(x: Tensor, plan: WindowPlan) -> Tensor:
    """Cuts (B, H, W, C) into windows (B, M, N, C), shifted and padded with zeros as planned."""
    if any(plan.padding):
        x = F.pad(x, (0, 0, 0, plan.padding[1], 0, plan.padding[0]))
    if any(plan.shift):
        x = x.roll((-plan.shift[0], -plan.shift[1]), dims=(1, 2))
    return _cut(x, plan.window)


def unpartition(windows: Tensor, plan: WindowPlan) -> Tensor:
    """Undoes `partition`: (B, M, N, C) to (B, H, W, C)."""
    batch, _, _, channels = windows.shape
    height, width = plan.height + plan.padding[0], plan.width + plan.padding[1]
    rows, columns = plan.window
    x = windows.reshape(batch, height // rows, width // columns, rows, columns, channels)
    x = x.transpose(2, 3).reshape(batch, height, width, channels)
    if any(plan.shift):
        x = x.roll(plan.shift, dims=(1, 2))
    if any(plan.padding):
        x = x[:, : plan.height, : plan.width].contiguous()
    return x


def _cut(x: Tensor, window: tuple[int, int]) -> Tensor:
    batch, height, width, channels = x.shape
    rows, columns = window
    x = x.reshape(batch, height // rows, rows, width // columns, columns, channels)
    return x.transpose(2, 3).reshape(batch, -1, rows * columns, channels)

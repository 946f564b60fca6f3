"""Masked image modelling: a network paints in what is hidden from it, and so learns anatomy without labels.

Source: Xie et al. 2022 (arXiv:2111.09886, SimMIM): random patches, one linear output, mean absolute error of what was
hidden alone.
"""

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from condswin.config.names import Split
from condswin.ct.config import SegmentationConfig
from condswin.ct.dataset import SliceDataset
from condswin.ct.prepared import prepared_files
from condswin.ct.resampling import Windows
from condswin.tasks.learning import Learning
from condswin.tasks.slices import Batch

#: What hidden pixels show: the middle of each window.
_HIDDEN = 0.0


class MaskedSliceDataset(SliceDataset):
    """Slices of which patches are hidden. No label is read.

    An item has `image` (windows * (1 + 2 * neighbours), H, W) with hidden patches at 0, and positions, which are not
    hidden; `target`, the same without either; `hidden` (1, H, W), booleans; and `item`. In training patches are drawn
    anew each time, from torch's global generator; else a slice has the same ones every time.

    Args:
        files: Prepared cases.
        windows: HU windows, a channel for each.
        neighbours: Slices on either side given as extra channels.
        position: As in `SliceDataset`.
        patch: Side of a patch, pixels.
        share: Of the patches that is hidden.
        training: Draw patches afresh.
        crop: As in `SliceDataset`.
        augmented: As in `SliceDataset`.
        cache_bytes: As in `SliceDataset`.
    """

    labelled: ClassVar[bool] = False

    def __init__(
        self,
        files: list[Path],
        *,
        windows: Windows,
        neighbours: int,
        position: bool,
        patch: int,
        share: float,
        training: bool,
        crop: int | None,
        augmented: bool,
        cache_bytes: int,
    ) -> None:
        super().__init__(
            files, windows=windows, neighbours=neighbours, position=position, crop=crop, augmented=augmented,
            one_size=training, cache_bytes=cache_bytes,
        )  # fmt: skip
        self.patch, self.share, self.training = patch, share, training

    def __getitem__(self, item: int) -> Batch:
        image = super().__getitem__(item)["image"]
        draw = None if self.training else torch.Generator().manual_seed(item)
        hidden = hide((image.shape[-2], image.shape[-1]), self.patch, self.share, draw)[None]
        target = image[: len(image) - 2 * self.position]
        shown = torch.cat([target.masked_fill(hidden, _HIDDEN), image[len(target) :]])
        return {"image": shown, "target": target, "hidden": hidden, "item": torch.tensor(item)}

    def telling(self, count: int) -> list[int]:
        """The middle slices of the first cases."""
        places = [[number for number, each in enumerate(self.slices) if each.case == case] for case in range(count)]
        return [numbers[len(numbers) // 2] for numbers in places if numbers]


def hide(size: tuple[int, int], patch: int, share: float, draw: torch.Generator | None = None) -> Tensor:
    """Draws a share of the patches of an image, at least one of them.

    Args:
        size: Rows and columns.
        patch: Side of a patch, pixels; those at the lower and right edge may be cut.
        share: Of the patches.
        draw: What to draw with; torch's global generator if None.

    Returns:
        (H, W), True where pixels are hidden.
    """
    rows, columns = (-(-side // patch) for side in size)
    chosen = torch.zeros(rows * columns, dtype=torch.bool)
    chosen[torch.randperm(rows * columns, generator=draw)[: max(round(share * rows * columns), 1)]] = True
    pixels = chosen.view(rows, columns).repeat_interleave(patch, 0).repeat_interleave(patch, 1)
    return pixels[: size[0], : size[1]]


class MaskedLearning(Learning):
    """Slices of which patches are hidden, and the error there."""

    def channels(self, network: str) -> tuple[int, int]:
        """The slice in and out, and in, if so asked, where it is."""
        prepare = self.config.section(SegmentationConfig).prepare
        return prepare.channels, prepare.channels - 2 * prepare.position

    def dataset(self, prepared: Path, split: Split, network: str, *, training: bool) -> MaskedSliceDataset:
        """See `MaskedSliceDataset`."""
        section = self.config.section(SegmentationConfig)
        return MaskedSliceDataset(
            list(prepared_files(prepared / split).values()),
            windows=section.prepare.windows,
            neighbours=section.prepare.neighbours,
            position=section.prepare.position,
            patch=section.pretrain.patch,
            share=section.pretrain.share,
            training=training,
            crop=section.train.crop if training else None,
            augmented=section.train.augment and training,
            cache_bytes=section.train.cache_mb << 20,
        )

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Mean absolute error of hidden pixels, in half windows."""
        return _errors(output, batch).sum() / (batch["hidden"].sum() * output.shape[1])

    def validation_scores(self, output: Tensor, batch: Batch) -> Batch:
        """`hidden_error` (B,), the same by slice."""
        pixels = batch["hidden"].sum((1, 2, 3)) * output.shape[1]
        return {"hidden_error": _errors(output, batch).sum((1, 2, 3)) / pixels}


def _errors(output: Tensor, batch: Batch) -> Tensor:
    return (output - batch["target"]).abs() * batch["hidden"]

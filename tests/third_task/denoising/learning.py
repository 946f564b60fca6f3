"""What training a denoising network needs."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from condswin.config.names import Split
from condswin.tasks.learning import Learning
from condswin.tasks.slices import Batch, Slices

from .images import read_image
from .judging import noisy_files


class Pairs(Slices):
    """Noisy images and their clean `target`, (1, H, W) each."""

    def __init__(self, folder: Path) -> None:
        self._noisy = list(noisy_files(folder).items())
        self._sizes = [read_image(path).shape for _, path in self._noisy]

    @property
    def sizes(self) -> Sequence[tuple[int, ...]]:
        """Height and width."""
        return self._sizes

    def __getitem__(self, index: int) -> Batch:
        name, noisy = self._noisy[index]
        images = {"image": noisy, "target": noisy.with_name(f"{name}-clean.npy")}
        return {key: torch.from_numpy(read_image(path))[None] for key, path in images.items()}


class DenoisingLearning(Learning):
    """Mean squared error of whole images."""

    def channels(self, network: str) -> tuple[int, int]:
        """One grey image in, one out."""
        return 1, 1

    def dataset(self, prepared: Path, split: Split, network: str, *, training: bool) -> Pairs:
        """The split's images."""
        return Pairs(prepared / split)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Mean squared error."""
        return F.mse_loss(output, batch["target"])

    def validation_scores(self, output: Tensor, batch: Batch) -> Batch:
        """`batch_psnr` (B,)."""
        return {"batch_psnr": -10 * (output - batch["target"]).square().mean(dim=(1, 2, 3)).log10()}


PART = DenoisingLearning

"""What training a reconstruction network needs."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from condswin.config.names import Split
from condswin.mri.config import ReconstructionConfig
from condswin.mri.dataset import ComplexSliceDataset, SliceDataset, magnitude
from condswin.mri.metrics import slice_psnr, slice_ssim
from condswin.networks.presets import is_unrolled
from condswin.tasks.learning import Learning
from condswin.tasks.slices import PROGRESS, Batch


class ReconstructionLearning(Learning):
    """Normalised slices, freshly masked in training."""

    def channels(self, network: str) -> tuple[int, int]:
        """One magnitude in, one out; unrolled networks take and give complex images, and take neighbours."""
        if not is_unrolled(network):
            return SliceDataset.channels
        inside, outside = ComplexSliceDataset.channels
        return inside + 2 * outside * self.config.section(ReconstructionConfig).train.neighbours, outside

    def dataset(self, prepared: Path, split: Split, network: str, *, training: bool) -> SliceDataset:
        """Normalised slices; see `SliceDataset`."""
        section = self.config.section(ReconstructionConfig)
        folder, undersample, cache_bytes = prepared / split, section.undersample, section.train.cache_mb << 20
        # A trained network tells by its class what it takes, see `condswin.mri.prediction`.
        if not is_unrolled(network):
            return SliceDataset(folder, undersample, training=training, cache_bytes=cache_bytes)
        return ComplexSliceDataset(
            folder,
            undersample,
            training=training,
            cache_bytes=cache_bytes,
            neighbours=section.train.neighbours,
            augment=section.train.augment if training else None,
        )

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """L1 or mean squared error between normalised images; late in a training, what `late_loss` says."""
        train = self.config.section(ReconstructionConfig).train
        image, target = magnitude(output, batch["target"].shape[-1]), batch["target"]
        late = train.late_loss
        # All of a training's batches have their progress, and only these; those of one batch are of one epoch.
        if late and PROGRESS in batch and bool(batch[PROGRESS].min() >= late.after):
            std, mean = batch["std"][:, None, None, None], batch["mean"][:, None, None, None]
            similarity = slice_ssim(target * std + mean, image * std + mean, batch["maximum"]).mean()
            return 1 - similarity + late.l1 * F.l1_loss(image, target)
        return (F.l1_loss if train.loss == "l1" else F.mse_loss)(image, target)

    def validation_scores(self, output: Tensor, batch: Batch) -> Batch:
        """`slice_psnr` (B,) with the volume's maximum as data range; `volume`; `slice_ssim` if the loss turns to it."""
        std, mean = batch["std"][:, None, None, None], batch["mean"][:, None, None, None]
        image, target = magnitude(output, batch["target"].shape[-1]) * std + mean, batch["target"] * std + mean
        scores = {"slice_psnr": slice_psnr(target, image, batch["maximum"]), "volume": batch["volume"]}
        if self.config.section(ReconstructionConfig).train.late_loss:
            scores["slice_ssim"] = slice_ssim(target, image, batch["maximum"])
        return scores

    def validation_means(self, scores: Batch) -> Batch:
        """Means over slices, and `volume_psnr`, the reported PSNR: the mean over volumes of that of all their pixels.

        Decibels of slices count a dark slice as much as a bright one, whose errors are what a volume's PSNR is made of.
        """
        volumes = scores["volume"].long()
        squared = 10 ** (-scores["slice_psnr"].double() / 10)
        empty = squared.new_zeros(int(volumes.max()) + 1)
        counts = empty.index_add(0, volumes, torch.ones_like(squared))
        errors = empty.index_add(0, volumes, squared)[counts > 0] / counts[counts > 0]
        means = super().validation_means({name: values for name, values in scores.items() if name != "volume"})
        return {**means, "volume_psnr": (-10 * errors.log10()).mean().float()}


PART = ReconstructionLearning

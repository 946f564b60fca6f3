"""What training a reconstruction network needs."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from condswin.config.names import Split
from condswin.errors import ConfigError
from condswin.mri.config import ReconstructionConfig
from condswin.mri.dataset import ComplexSliceDataset, SliceDataset
from condswin.mri.inputs import magnitude
from condswin.mri.metrics import slice_psnr, slice_ssim
from condswin.mri.self_supervision import MeasuredSliceDataset, held_out_snr, line_loss
from condswin.networks.presets import UNROLLED, is_unrolled
from condswin.tasks.learning import Learning
from condswin.tasks.slices import PROGRESS, Batch


class ReconstructionLearning(Learning):
    """Normalised slices, freshly masked in training; without targets where measured lines are to be foretold."""

    def channels(self, network: str) -> tuple[int, int]:
        """One magnitude in, one out; unrolled networks take and give complex images, and take neighbours.

        Raises:
            ConfigError: Measured lines are to be foretold by a network that gives none.
        """
        if not is_unrolled(network):
            if self._measured:
                raise ConfigError(
                    f"reconstruction.train.loss: ssdu compares measured lines of k-space, and {network} gives "
                    f"magnitudes, which have none; train an unrolled network ({UNROLLED}{network})"
                )
            return SliceDataset.channels
        inside, outside = ComplexSliceDataset.channels
        return inside + 2 * outside * self.config.section(ReconstructionConfig).train.neighbours, outside

    @property
    def _measured(self) -> bool:
        return self.config.section(ReconstructionConfig).train.loss == "ssdu"

    def dataset(self, prepared: Path, split: Split, network: str, *, training: bool) -> SliceDataset:
        """Normalised slices; see `SliceDataset` and `MeasuredSliceDataset`."""
        section = self.config.section(ReconstructionConfig)
        folder, undersample, cache_bytes = prepared / split, section.undersample, section.train.cache_mb << 20
        if self._measured:
            share = section.train.held_out
            return MeasuredSliceDataset(folder, undersample, training=training, share=share, cache_bytes=cache_bytes)
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
        """L1 or mean squared error between normalised images, or of withheld lines; late, what `late_loss` says."""
        if self._measured:
            return line_loss(output, batch)
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
        """`slice_psnr` (B,) with the volume's maximum as data range; `volume`; `slice_ssim` if the loss turns to it.

        Without targets `held_out_snr`, of withheld lines.
        """
        if self._measured:
            return {"held_out_snr": held_out_snr(output, batch)}
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
        if self._measured:
            return super().validation_means(scores)
        volumes = scores["volume"].long()
        squared = 10 ** (-scores["slice_psnr"].double() / 10)
        empty = squared.new_zeros(int(volumes.max()) + 1)
        counts = empty.index_add(0, volumes, torch.ones_like(squared))
        errors = empty.index_add(0, volumes, squared)[counts > 0] / counts[counts > 0]
        means = super().validation_means({name: values for name, values in scores.items() if name != "volume"})
        return {**means, "volume_psnr": (-10 * errors.log10()).mean().float()}


PART = ReconstructionLearning

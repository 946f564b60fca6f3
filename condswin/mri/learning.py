"""What training a reconstruction network needs."""

from pathlib import Path

from torch import Tensor
from torch.nn import functional as F

from condswin.config.names import Split
from condswin.mri.config import ReconstructionConfig
from condswin.mri.dataset import ComplexSliceDataset, SliceDataset, magnitude
from condswin.mri.metrics import slice_psnr
from condswin.networks.presets import is_unrolled
from condswin.tasks.learning import Learning
from condswin.tasks.slices import Batch


class ReconstructionLearning(Learning):
    """Normalised slices, freshly masked in training."""

    def channels(self, network: str) -> tuple[int, int]:
        """One magnitude in, one out; unrolled networks take and give complex images."""
        return _slices(network).channels

    def dataset(self, prepared: Path, split: Split, network: str, *, training: bool) -> SliceDataset:
        """Normalised slices; see `SliceDataset`."""
        section = self.config.section(ReconstructionConfig)
        return _slices(network)(
            prepared / split, section.undersample, training=training, cache_bytes=section.train.cache_mb << 20
        )

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """L1 or mean squared error between normalised images."""
        loss = F.l1_loss if self.config.section(ReconstructionConfig).train.loss == "l1" else F.mse_loss
        return loss(magnitude(output, batch["target"].shape[-1]), batch["target"])

    def validation_scores(self, output: Tensor, batch: Batch) -> Batch:
        """`slice_psnr` (B,) with the volume's maximum as data range: close to, but not, the reported one."""
        std, mean = batch["std"][:, None, None, None], batch["mean"][:, None, None, None]
        image = magnitude(output, batch["target"].shape[-1])
        return {"slice_psnr": slice_psnr(batch["target"] * std + mean, image * std + mean, batch["maximum"])}


def _slices(network: str) -> type[SliceDataset]:
    """What a network of this name takes; a trained one tells by its class, see `condswin.mri.prediction`."""
    return ComplexSliceDataset if is_unrolled(network) else SliceDataset


PART = ReconstructionLearning

"""What training a reconstruction network needs."""

from pathlib import Path

from torch import Tensor
from torch.nn import functional as F

from condswin.config.names import Split
from condswin.errors import ConfigError
from condswin.mri.config import ReconstructionConfig
from condswin.mri.dataset import ComplexSliceDataset, SliceDataset, magnitude
from condswin.mri.metrics import slice_psnr
from condswin.mri.self_supervision import MeasuredSliceDataset, held_out_snr, line_loss
from condswin.networks.presets import UNROLLED, is_unrolled
from condswin.tasks.learning import Learning
from condswin.tasks.slices import Batch


class ReconstructionLearning(Learning):
    """Normalised slices, freshly masked in training; without targets where measured lines are to be foretold."""

    def channels(self, network: str) -> tuple[int, int]:
        """One magnitude in, one out; unrolled networks take and give complex images.

        Raises:
            ConfigError: Measured lines are to be foretold by a network that gives none.
        """
        if self._measured and not is_unrolled(network):
            raise ConfigError(
                f"reconstruction.train.loss: ssdu compares measured lines of k-space, and {network} gives magnitudes, "
                f"which have none; train an unrolled network ({UNROLLED}{network})"
            )
        return _slices(network).channels

    @property
    def _measured(self) -> bool:
        return self.config.section(ReconstructionConfig).train.loss == "ssdu"

    def dataset(self, prepared: Path, split: Split, network: str, *, training: bool) -> SliceDataset:
        """Normalised slices; see `SliceDataset` and `MeasuredSliceDataset`."""
        section = self.config.section(ReconstructionConfig)
        folder, masks, memory = prepared / split, section.undersample, section.train.cache_mb << 20
        if self._measured:
            share = section.train.held_out
            return MeasuredSliceDataset(folder, masks, training=training, share=share, cache_bytes=memory)
        return _slices(network)(folder, masks, training=training, cache_bytes=memory)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """L1 or mean squared error between normalised images, or that of withheld lines."""
        if self._measured:
            return line_loss(output, batch)
        loss = F.l1_loss if self.config.section(ReconstructionConfig).train.loss == "l1" else F.mse_loss
        return loss(magnitude(output, batch["target"].shape[-1]), batch["target"])

    def validation_scores(self, output: Tensor, batch: Batch) -> Batch:
        """`slice_psnr` (B,) with the volume's maximum as data range: close to, but not, the reported one.

        Without targets `held_out_snr`, of withheld lines.
        """
        if self._measured:
            return {"held_out_snr": held_out_snr(output, batch)}
        std, mean = batch["std"][:, None, None, None], batch["mean"][:, None, None, None]
        image = magnitude(output, batch["target"].shape[-1])
        return {"slice_psnr": slice_psnr(batch["target"] * std + mean, image * std + mean, batch["maximum"])}


def _slices(network: str) -> type[SliceDataset]:
    """What a network of this name takes; a trained one tells by its class, see `condswin.mri.prediction`."""
    return ComplexSliceDataset if is_unrolled(network) else SliceDataset


PART = ReconstructionLearning

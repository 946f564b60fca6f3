"""Reconstruction's scores."""

from collections.abc import Mapping
from typing import ClassVar

from condswin.config.names import TaskName
from condswin.mri.config import ReconstructionConfig
from condswin.tasks.facts import Facts


class ReconstructionFacts(Facts):
    """fastMRI's metrics per volume, and those of its zero-filled image."""

    name: ClassVar[TaskName] = "reconstruction"
    metrics: ClassVar[Mapping[str, bool]] = ReconstructionConfig.metrics
    baselines: ClassVar[Mapping[str, str]] = ReconstructionConfig.baselines
    reference_method: ClassVar[str] = ReconstructionConfig.reference_method
    traits: ClassVar[Mapping[str, type]] = ReconstructionConfig.traits
    details: ClassVar[tuple[str, ...]] = ("fallback",)
    #: A network that is set aside more often than not is no better than what replaces it.
    ceilings: ClassVar[Mapping[str, float]] = {"fallback": 0.5}
    shares: ClassVar[tuple[str, ...]] = ("fallback",)
    units: ClassVar[Mapping[str, str]] = {"psnr": "dB", "mae": "scanner's units", "fallback": "share of volumes"}

    @property
    def monitor(self) -> tuple[str, bool]:
        """What the loss ends with picks the best epoch: late in a training, PSNR falls a little as SSIM rises.

        Without targets it is the signal to error of withheld lines.
        """
        train = self.config.section(ReconstructionConfig).train
        if train.loss == "ssdu":
            return "held_out_snr", True
        return "slice_ssim" if train.late_loss else "volume_psnr", True


PART = ReconstructionFacts

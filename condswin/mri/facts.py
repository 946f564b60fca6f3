"""Reconstruction's scores."""

import math
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
    methods: ClassVar[Mapping[str, str]] = {
        "zero-filled": "The Fourier transform of the measured k-space, with zeros for what was not measured.",
        "compressed-sensing": "Classical, without training: the image of least total variation that agrees with the "
        "measured k-space. Their balance is chosen on validation cases.",
    }
    traits: ClassVar[Mapping[str, type]] = ReconstructionConfig.traits
    details: ClassVar[tuple[str, ...]] = ("fallback",)
    #: A network that is set aside more often than not is no better than what replaces it.
    ceilings: ClassVar[Mapping[str, float]] = {"fallback": 0.5}
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        "ssim": (-1.0, 1.0),
        "fallback": (0.0, 1.0),
        **dict.fromkeys(("nmse", "mae"), (0.0, math.inf)),
    }
    modality: ClassVar[str] = "MRI"
    terms: ClassVar[Mapping[str, tuple[str, str]]] = {
        "psnr": ("PSNR", "Peak signal-to-noise ratio of a volume, against the largest value of its target."),
        "ssim": ("SSIM", "Structural similarity, 7 x 7 pixels, mean over a volume; 1 is equal."),
        "nmse": ("NMSE", "Squared error of a volume over the target's squared values; 0 is equal."),
        "mae": ("MAE", "Mean absolute error of a pixel."),
        "fallback": (
            "Set aside",
            "Share of volumes that compressed sensing, or the zero-filled image, made instead of the network: some "
            "measured lines are withheld, and it foretold them far better. Only networks that see k-space can "
            "be set aside.",
        ),
        "acquisition": ("Acquisition", "The file's own label of its sequence; it says nothing of the anatomy."),
        "acceleration": ("True acceleration", "Lines that could be measured over lines that are kept."),
        "nominal_acceleration": ("Acceleration", "The acceleration that was asked for."),
        "target_snr": ("SNR of the target", "Bright pixels of its middle slice over the noise in its darkest corner."),
    }
    demo: ClassVar[str] = (
        "Drawn knees, limbs and heads of random sizes, contrasts and textures, nobody's, in fastMRI's single-coil "
        "format."
    )
    units: ClassVar[Mapping[str, str]] = {
        "psnr": "dB",
        "mae": "the file's units",
        "fallback": "share of volumes",
        "target_snr": "dB",
    }

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

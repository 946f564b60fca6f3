"""Denoising's scores."""

from collections.abc import Mapping
from typing import ClassVar

from condswin.config.names import TaskName
from condswin.tasks.facts import Facts

from .config import DenoisingConfig


class DenoisingFacts(Facts):
    """Peak signal to noise ratio, and that of the noisy image."""

    name: ClassVar[TaskName] = "denoising"
    metrics: ClassVar[Mapping[str, bool]] = DenoisingConfig.metrics
    baselines: ClassVar[Mapping[str, str]] = DenoisingConfig.baselines

    @property
    def monitor(self) -> tuple[str, bool]:
        """Of a batch."""
        return "batch_psnr", True


PART = DenoisingFacts

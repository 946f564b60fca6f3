"""Reconstruction's scores."""

from typing import ClassVar

from condswin.config import TaskName
from condswin.tasks.facts import Facts


class ReconstructionFacts(Facts):
    """fastMRI's metrics per volume, and those of its zero-filled image."""

    name: ClassVar[TaskName] = "reconstruction"
    metrics: ClassVar[dict[str, bool]] = {"psnr": True, "ssim": True, "nmse": False, "mae": False}
    baselines: ClassVar[dict[str, str]] = {"zero-filled": "zero_filled_"}
    monitor: ClassVar[tuple[str, bool]] = ("slice_psnr", True)


PART = ReconstructionFacts

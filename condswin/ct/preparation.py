"""Windowing and resampling as a step of the pipeline."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from condswin.config.names import Split
from condswin.ct.config import SegmentationConfig
from condswin.ct.prepare import prepare_case, prepared_names
from condswin.tasks.preparation import Preparation


class SegmentationPreparation(Preparation):
    """The same for every split."""

    def outputs(self, name: str, files: Mapping[str, Path], split: Split) -> list[str]:
        """Network inputs, and the target beside them."""
        return prepared_names(name, files["segmentation"])

    def size(self, files: Mapping[str, Path], split: Split, details: Mapping[str, Any]) -> int:
        """Half-precision slices at their new pixel size, and the target; labels compress to next to nothing."""
        spacing = self.config.section(SegmentationConfig).prepare.spacing
        _, *pixel = details["spacing"]
        finer = math.prod(pixel) / spacing**2 if spacing else 1
        return int(2 * math.prod(details["shape"]) * finer) + files["segmentation"].stat().st_size

    def prepare_case(self, name: str, files: Mapping[str, Path], split: Split, folder: Path) -> None:
        """Writes `<name>.h5` and the target `segmentation-N.nii[.gz]`."""
        settings = self.config.section(SegmentationConfig)
        prepare_case(name, files["volume"], files["segmentation"], folder, settings.prepare, settings.ingest)


PART = SegmentationPreparation

"""Windowing and resampling as a step of the pipeline."""

from collections.abc import Mapping
from pathlib import Path

from condswin.config.names import Split
from condswin.ct.config import SegmentationConfig
from condswin.ct.prepare import prepare_case, prepared_names
from condswin.tasks.preparation import Preparation


class SegmentationPreparation(Preparation):
    """The same for every split."""

    def outputs(self, name: str, files: Mapping[str, Path], split: Split) -> list[str]:
        """Network inputs, and the target beside them."""
        return prepared_names(name, files["segmentation"])

    def prepare_case(self, name: str, files: Mapping[str, Path], split: Split, folder: Path) -> None:
        """Writes `<name>.h5` and the target `segmentation-N.nii[.gz]`."""
        prepare_case(
            name, files["volume"], files["segmentation"], folder, self.config.section(SegmentationConfig).prepare
        )


PART = SegmentationPreparation

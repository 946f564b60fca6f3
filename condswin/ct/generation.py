"""Demo data of segmentation."""

from pathlib import Path

from condswin.ct.config import SegmentationConfig
from condswin.ct.demo.scans import write_demo
from condswin.tasks.generation import Advance, Generation


class SegmentationGeneration(Generation):
    """Abdomen-like volumes in LiTS's format."""

    def count(self) -> int:
        """One step per case."""
        return self.config.section(SegmentationConfig).demo.cases

    def write(self, folder: Path, advance: Advance) -> None:
        """Writes generated abdomens as `volume-N.nii.gz` and `segmentation-N.nii.gz`."""
        write_demo(folder, self.config.section(SegmentationConfig).demo, self.config.seed, advance)


PART = SegmentationGeneration

"""Demo data of reconstruction."""

from pathlib import Path

from condswin.mri.config import ReconstructionConfig
from condswin.mri.demo.scans import write_demo
from condswin.tasks.generation import Advance, Generation


class ReconstructionGeneration(Generation):
    """Knee-like volumes in fastMRI's single-coil format."""

    def count(self) -> int:
        """One call per volume."""
        settings = self.config.section(ReconstructionConfig).demo
        return settings.train_volumes + settings.test_volumes

    def write(self, folder: Path, advance: Advance) -> None:
        """Writes generated volumes as `singlecoil_train/*.h5` and `singlecoil_val/*.h5`."""
        write_demo(folder, self.config.section(ReconstructionConfig).demo, self.config.seed, advance)


PART = ReconstructionGeneration

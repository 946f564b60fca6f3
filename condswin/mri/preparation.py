"""Undersampling as a step of the pipeline."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from condswin.config.names import Split
from condswin.mri.config import ReconstructionConfig
from condswin.mri.reading import MASK, VolumeReader
from condswin.mri.undersample import prepare_full, prepare_measured, prepare_undersampled
from condswin.tasks.preparation import Preparation


class ReconstructionPreparation(Preparation):
    """Masks validation and test files; training files stay fully sampled, and undersampled ones as they are."""

    def outputs(self, name: str, files: Mapping[str, Path], split: Split) -> list[str]:
        """One file."""
        return [f"{name}.h5"]

    def size(self, files: Mapping[str, Path], split: Split, details: Mapping[str, Any]) -> int:
        """Single-coil k-space and target; where it is masked, the zero-filled image as well."""
        images = 1 if split == "train" else 2
        return 8 * int(math.prod(details["shape"])) + 4 * images * int(math.prod(details["target_shape"]))

    def prepare_case(self, name: str, files: Mapping[str, Path], split: Split, folder: Path) -> None:
        """Training files stay fully sampled; others are undersampled with a mask seeded by their name.

        What was undersampled at the scanner keeps its mask.
        """
        section, source, out = self.config.section(ReconstructionConfig), files["kspace"], folder / f"{name}.h5"
        with VolumeReader(source) as reader:
            measured = MASK in reader
        if measured:
            prepare_measured(source, out, section.ingest.multicoil)
        elif split == "train":
            prepare_full(source, out, section.ingest.multicoil)
        else:
            prepare_undersampled(source, out, section.undersample, section.ingest.multicoil)

    def details(self, folder: Path, outputs: list[str]) -> dict[str, Any]:
        """Nominal and true acceleration, one for training files."""
        with VolumeReader(folder / outputs[0]) as reader:
            return {name: reader.attribute(name) or 1.0 for name in ("acceleration", "true_acceleration")}


PART = ReconstructionPreparation

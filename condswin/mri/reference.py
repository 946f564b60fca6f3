"""Compressed sensing as the method to beat."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from condswin.mri.compressed_sensing import tune, write_reconstruction
from condswin.tasks.reference import Reference


class ReconstructionReference(Reference):
    """Total variation."""

    def tune(self, cases: Sequence[Path]) -> dict[str, Any]:
        """The `weight` of the highest mean PSNR, and `weights`, the PSNR by weight."""
        scores = tune(cases)
        weight = max(scores, key=lambda value: scores[value])
        return {"weight": weight, "weights": {str(value): score for value, score in scores.items()}}

    def predict(self, case_file: Path, out: Path, settings: dict[str, Any]) -> None:
        """Writes `reconstruction` as networks do."""
        write_reconstruction(case_file, out, settings["weight"])


PART = ReconstructionReference

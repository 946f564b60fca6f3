"""Thresholds and an active contour as the method to beat."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from condswin.ct.active_contour import tune, write_segmentation
from condswin.tasks.reference import Reference


class SegmentationReference(Reference):
    """A band of HU, an active contour, and what is darker inside."""

    def tune(self, cases: Sequence[Path]) -> dict[str, Any]:
        """`band` and `depth` of the highest mean Dice of liver and tumour, and `dice`, that by both."""
        scores = tune(cases)
        band, depth = max(scores, key=lambda settings: scores[settings])
        return {"band": band, "depth": depth, "dice": {f"{a:g}, {b:g}": score for (a, b), score in scores.items()}}

    def predict(self, case_file: Path, out: Path, settings: dict[str, Any]) -> None:
        """Writes labels as networks do."""
        write_segmentation(case_file, out, settings["band"], settings["depth"])


PART = SegmentationReference

"""Scores of reconstructions by fastMRI's protocol."""

import math
from pathlib import Path

from condswin.mri.prepared import prepared_files
from condswin.mri.scoring import score_case, score_pairs
from condswin.tasks.facts import Row
from condswin.tasks.judging import Judging


class ReconstructionJudging(Judging):
    """By fastMRI's protocol."""

    def case_files(self, folder: Path) -> dict[str, Path]:
        """Prepared files by case name."""
        return prepared_files(folder)

    def prediction_name(self, case: str) -> str:
        """As fastMRI: the name of the k-space file."""
        return f"{case}.h5"

    def score(self, targets: Path, predictions: Path) -> list[Row]:
        """One row per volume: its metrics, those of its zero-filled image, acquisition and true acceleration.

        And `fallback`, as in `score_case`, unless no prediction says so.
        """
        pairs = score_pairs(targets, predictions)
        rows = [score_case(case, target, prediction) for case, (target, prediction) in pairs.items()]
        if all(math.isnan(float(row["fallback"])) for row in rows):
            for row in rows:
                del row["fallback"]
        return rows


PART = ReconstructionJudging

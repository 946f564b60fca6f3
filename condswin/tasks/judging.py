"""Scores of predictions of held-out cases."""

from abc import abstractmethod
from pathlib import Path

from condswin.tasks.facts import Row
from condswin.tasks.loading import Part


class Judging(Part):
    """Scores files, whoever wrote them."""

    @abstractmethod
    def case_files(self, folder: Path) -> dict[str, Path]:
        """Prepared case files of a split folder by case name."""

    @abstractmethod
    def prediction_name(self, case: str) -> str:
        """File name of a case's prediction."""

    def prediction_names(self, case: str) -> list[str]:
        """Names of all files that a prediction of a case may consist of, the prediction first."""
        return [self.prediction_name(case)]

    @abstractmethod
    def score(self, targets: Path, predictions: Path) -> list[Row]:
        """One row per case found in both folders: `case`, text columns such as `acquisition`, and metric columns.

        Raises:
            BadDataError: A target without prediction, or nothing to score.
        """

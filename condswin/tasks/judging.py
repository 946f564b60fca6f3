"""Scores of predictions of held-out cases."""

from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, NamedTuple

from condswin.manifest import Manifest
from condswin.tasks.facts import Row
from condswin.tasks.loading import Part


class Detection(NamedTuple):
    """How well what there is to find was found, over all cases of a split.

    Attributes:
        kinds: What the rows (reference) and columns (prediction) of `counts` are.
        counts: How many were taken for what.
        curve: False positive rate, true positive rate and threshold of the receiver operating characteristic, from the
            highest threshold down; empty where cases are all positive or all negative.
    """

    kinds: list[str]
    counts: list[list[int]]
    curve: list[tuple[float, float, float]]


class Judging(Part):
    """Scores files, whoever wrote them."""

    #: How the slices of `by_slice` lie.
    slice_order: ClassVar[str] = ""

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

    def by_slice(self, targets: Path, predictions: Path) -> dict[str, list[float]]:
        """The task's first metric of every slice by case; NaN where a slice has none. By default of no case."""
        return {}

    def describe(self, manifest: Manifest) -> dict[str, str]:
        """What prepared data is made of, by name. Nothing by default."""
        return {}

    def qualities(self, targets: Path) -> dict[str, dict[str, float]]:
        """What describes targets beside `Facts.traits`: by name, with its unit, a number per case. None by default."""
        return {}

    def detection(self, rows: list[Row], predictions: Path) -> Detection | None:
        """What rows of `score` and the predictions that they are of say about detection; None for tasks without.

        Args:
            rows: As `score` made them; numbers may be texts.
            predictions: Folder of the predictions.
        """
        return None


def spread(values: Iterable[float], unit: str = "") -> str:
    """The range of numbers: "96 to 128 mm", "96 mm" if they are equal; empty without any."""
    known = sorted(values)
    ends = dict.fromkeys(f"{value:.4g}" for value in (*known[:1], *known[-1:]))
    return f"{' to '.join(ends)} {unit}".strip() if known else ""

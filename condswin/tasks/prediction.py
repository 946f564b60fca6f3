"""Predictions of prepared cases by a network."""

from abc import abstractmethod
from pathlib import Path

from torch import nn

from condswin.tasks.loading import Part


class Prediction(Part):
    """Runs a network on files."""

    @abstractmethod
    def predict(self, model: nn.Module, case_file: Path, out: Path) -> None:
        """Writes the prediction for one prepared case file to `out` atomically, in the field's format."""

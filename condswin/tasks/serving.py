"""Predictions of files as they came from the scanner."""

from abc import abstractmethod
from pathlib import Path

from torch import nn

from condswin.tasks.loading import Part


class Serving(Part):
    """Uses a trained network on users' files."""

    @abstractmethod
    def output_names(self, source: Path) -> list[str]:
        """Names of all files that `predict_raw` may write for a file, the prediction first."""

    @abstractmethod
    def predict_raw(self, model: nn.Module, source: Path, folder: Path) -> Path:
        """Writes the prediction for a file as it came from the scanner, with or without target; returns its path."""

    def refusals(self, source: Path) -> list[str]:
        """Why a model trained with these parameters should not be trusted with a raw file; nothing if it may."""
        return []

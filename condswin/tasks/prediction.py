"""Predictions of prepared cases by a network."""

from abc import abstractmethod
from pathlib import Path
from typing import Any

from torch import nn

from condswin.tasks.loading import Part


class Prediction(Part):
    """Runs a network on files."""

    def parameters(self) -> dict[str, Any]:
        """JSON-able parameters that decide what is predicted, beside network, data and code."""
        return {}

    @abstractmethod
    def predict(self, model: nn.Module, case_file: Path, out: Path) -> None:
        """Writes the prediction for one prepared case file to `out` atomically, in the field's format."""

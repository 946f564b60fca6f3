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

    def alone(self) -> "Prediction":
        """The same, but that no other method stands in for a network: for comparing networks."""
        return self

    @abstractmethod
    def predict(self, model: nn.Module, case_file: Path, out: Path) -> None:
        """Writes the prediction for one prepared case file to `out` atomically, in the field's format."""

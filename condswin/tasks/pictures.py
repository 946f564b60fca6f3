"""Pictures of predicted cases."""

from abc import abstractmethod
from pathlib import Path

import matplotlib.figure

from condswin.tasks.loading import Part


class Pictures(Part):
    """Draws with matplotlib, which is slow to import."""

    @abstractmethod
    def picture(self, targets: Path, predictions: Path, case: str) -> matplotlib.figure.Figure:
        """Target, reference method where there is one, prediction and error of one slice that shows much."""

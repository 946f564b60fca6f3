"""Pictures of predicted cases."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import matplotlib.figure
import numpy as np
from numpy.typing import NDArray

from condswin.tasks.loading import Part
from condswin.tasks.slices import Batch, Shown


class Pictures(Part):
    """Draws with matplotlib, which is slow to import."""

    @abstractmethod
    def picture(self, targets: Path, predictions: Path, case: str) -> matplotlib.figure.Figure:
        """Target, reference method where there is one, prediction and error of one slice that shows much."""

    def slices(self, shown: Sequence[Shown]) -> matplotlib.figure.Figure | None:
        """Input, target, output and error of slices while a network is trained; None draws nothing."""
        return None

    def background(self, batch: Batch) -> NDArray[np.float32]:
        """What a network sees of a slice, (H, W) in 0..1: by default the middle channel."""
        image = batch["image"][0].numpy()
        return between(image[len(image) // 2])


def between(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """An image in 0..1, a few bright pixels aside."""
    black, white = np.quantile(image, (0.002, 0.998))
    shades: NDArray[np.float32] = ((image - black) / max(white - black, 1e-12)).clip(0, 1).astype(np.float32)
    return shades

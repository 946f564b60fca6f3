"""Pictures of predicted cases."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.figure
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.typing import NDArray

from condswin.tasks.loading import Part
from condswin.tasks.slices import Batch, Shown


class Panel(NamedTuple):
    """One way to look at the slices of a case.

    Attributes:
        name: What is seen: `target`, a method, or `error of` a method.
        slices: Pictures of one size, one for each place of the case: (H, W) grey levels or (H, W, 3), pixels square.
        error: Shown on the scale of errors.
    """

    name: str
    slices: list[NDArray[np.uint8]]
    error: bool = False


class CasePanels(NamedTuple):
    """A case as several methods see it, all of them in one window.

    Attributes:
        places: Which slices, from 0.
        total: Slices of the case.
        panels: All with these slices.
        unit: Of the window.
        window: What is black and what is white; None where that differs among the pictures.
        errors: The ends of the scale of errors; None where errors are of classes and have none.
        legend: How to read outlines and colours.
        error_unit: Of the scale of errors.
        whole: Pictures of the whole case, a slice each, which show at a glance what slices hide; the name says it.
        whole_legend: How to read these.
    """

    places: list[int]
    total: int
    panels: list[Panel]
    unit: str
    window: tuple[float, float] | None
    errors: tuple[float, float] | None
    legend: str
    error_unit: str = ""
    whole: Sequence[Panel] = ()
    whole_legend: str = ""


class Pictures(Part):
    """Draws with matplotlib, which is slow to import."""

    @abstractmethod
    def picture(self, targets: Path, predictions: Path, case: str) -> matplotlib.figure.Figure:
        """Target, reference method where there is one, prediction and error of one slice that shows much."""

    def panels(self, targets: Path, predictions: Mapping[str, Path], case: str) -> CasePanels:
        """The same slices of a case by several methods, for a page: by default `picture` of each of them.

        Args:
            targets: Folder of prepared cases.
            predictions: Folders of predictions by method, the best one first.
            case: Which case.
        """
        drawn = {name: pixels(self.picture(targets, folder, case)) for name, folder in predictions.items()}
        panels = [Panel(name, [picture]) for name, picture in drawn.items()]
        return CasePanels(places=[0], total=1, panels=panels, unit="", window=None, errors=None, legend="")

    def slices(self, shown: Sequence[Shown]) -> matplotlib.figure.Figure | None:
        """Input, target, output and error of slices while a network is trained; None draws nothing."""
        return None

    def background(self, batch: Batch) -> NDArray[np.float32]:
        """What a network sees of a slice, (H, W) in 0..1: by default the middle channel."""
        image = batch["image"][0].numpy()
        return between(image[len(image) // 2])


def pixels(figure: matplotlib.figure.Figure) -> NDArray[np.uint8]:
    """What a figure looks like, (H, W, RGB)."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    picture: NDArray[np.uint8] = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return picture


def shades(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Grey levels of values in a window."""
    levels: NDArray[np.uint8] = ((values - low) / (high - low) * 255).clip(0, 255).round().astype(np.uint8)
    return levels


def between(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """An image in 0..1, a few bright pixels aside."""
    black, white = np.quantile(image, (0.002, 0.998))
    shades: NDArray[np.float32] = ((image - black) / max(white - black, 1e-12)).clip(0, 1).astype(np.float32)
    return shades

"""A slice of a case with the outlines of target and prediction."""

from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
from numpy.typing import NDArray

from condswin.ct.geometry import Geometry
from condswin.ct.prepare import open_prepared

_COLOURS = {1: "#4dd2ff", 2: "#ffcc00"}  # liver, tumour


def draw_case(
    case: str,
    geometry: Geometry,
    target: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    prepared: Path | None,
) -> matplotlib.figure.Figure:
    """Draws CT, target outline, predicted outline and disagreement of the slice that shows most tumour (or liver).

    Args:
        case: Name for the title.
        geometry: Of both label volumes.
        target: Reference labels, (X, Y, Z).
        prediction: Predicted labels, same shape.
        prepared: Prepared case file to take the CT from; None draws labels on black.
    """
    target, prediction = geometry.to_canonical(target), geometry.to_canonical(prediction)
    index = telling_slice(target, prediction)
    shown = np.full((1, 1), -1, np.float32)
    if prepared is not None:
        with open_prepared(prepared) as file:
            shown = file["image"][index].astype(np.float32)
    rows, columns = target.shape[1:]
    _, row_step, column_step = geometry.spacing
    # One extent in pixels of the scanner for all layers: a resampled CT lies under them exactly.
    frame: dict[str, Any] = {"extent": (-0.5, columns - 0.5, rows - 0.5, -0.5), "aspect": row_step / column_step}
    figure = matplotlib.figure.Figure(figsize=(12, 3.3), layout="constrained")
    panels = figure.subplots(1, 4)
    titles = ("CT", "target", "prediction", "disagreement (missed red, false blue)")
    for panel, title in zip(panels, titles, strict=True):
        panel.imshow(shown, cmap="gray", vmin=-1, vmax=1, **frame)
        panel.set_title(title, fontsize=9)
        panel.set_axis_off()
    for panel, labels in ((panels[1], target[index]), (panels[2], prediction[index])):
        for value, colour in _COLOURS.items():
            mask = labels >= value
            if mask.any() and not mask.all():
                panel.contour(mask, levels=[0.5], colors=colour, linewidths=1)
    # Any wrong class is an error: pixels called less than they are, and more than they are.
    missed, false = target[index] > prediction[index], target[index] < prediction[index]
    overlay = np.zeros((rows, columns, 4), np.float32)
    overlay[missed] = (1, 0.2, 0.2, 0.7)
    overlay[false] = (0.2, 0.5, 1, 0.7)
    panels[3].imshow(overlay, **frame)
    figure.suptitle(f"{case}, slice {index + 1} of {len(target)} (liver blue, tumour yellow)", fontsize=10)
    return figure


def telling_slice(target: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> int:
    """Index of the slice with most true tumour, else most true liver, else most predicted foreground."""
    for mask in (target == 2, target > 0, prediction > 0):
        if mask.any():
            return int(mask.sum(axis=(1, 2)).argmax())
    return len(target) // 2

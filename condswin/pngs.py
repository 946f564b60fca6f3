"""One slice as a PNG: pixels and nothing else, no text and no date."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from condswin.files import atomic_file

# Longest side of a picture, pixels.
_LONGEST = 2048


def write_png(pixels: NDArray[np.uint8], out: Path, spacing: tuple[float, float] = (1.0, 1.0)) -> None:
    """Writes a picture with square pixels, atomically.

    Args:
        pixels: (rows, columns), grey, or (rows, columns, 3).
        out: The file.
        spacing: Size of a row and of a column, in one unit.
    """
    rows, columns = pixels.shape[:2]
    # The finer direction keeps its pixels.
    factor = min(1 / min(spacing), _LONGEST / max(rows * spacing[0], columns * spacing[1]))
    size = (max(round(columns * spacing[1] * factor), 1), max(round(rows * spacing[0] * factor), 1))
    image = Image.fromarray(pixels)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    with atomic_file(out) as temporary:
        image.save(temporary, format="PNG", optimize=True)


def grey(values: NDArray[Any], black: float, white: float) -> NDArray[np.uint8]:
    """Values as shades from black (0) to white (255)."""
    scaled = (values.astype(np.float64) - black) / max(white - black, 1e-30)
    shades: NDArray[np.uint8] = np.round(255 * np.clip(scaled, 0, 1)).astype(np.uint8)
    return shades

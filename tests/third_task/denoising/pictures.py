"""Pictures of denoised images."""

from pathlib import Path

import matplotlib.figure

from condswin.tasks.pictures import Pictures

from .images import read_image


class DenoisingPictures(Pictures):
    """Three images side by side."""

    def picture(self, targets: Path, predictions: Path, case: str) -> matplotlib.figure.Figure:
        """Clean, noisy and denoised image."""
        files = {
            "clean": targets / f"{case}-clean.npy",
            "noisy": targets / f"{case}-noisy.npy",
            "denoised": predictions / f"{case}.npy",
        }
        figure = matplotlib.figure.Figure(figsize=(6, 2.4), layout="constrained")
        for axis, (title, path) in zip(figure.subplots(1, len(files)), files.items(), strict=True):
            axis.imshow(read_image(path), cmap="gray", vmin=0, vmax=1)
            axis.set_title(title)
            axis.axis("off")
        return figure


PART = DenoisingPictures

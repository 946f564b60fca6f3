"""Demo data of denoising."""

from pathlib import Path

import numpy as np

from condswin.tasks.generation import Advance, Generation

from .config import DenoisingConfig
from .images import Image, write_image


class DenoisingGeneration(Generation):
    """Images of a few smooth blobs."""

    def count(self) -> int:
        """One call per image."""
        return self.config.section(DenoisingConfig).demo.images

    def write(self, folder: Path, advance: Advance) -> None:
        """Writes `image-N.npy`."""
        size = self.config.section(DenoisingConfig).demo.size
        for number in range(self.count()):
            blobs = _blobs(np.random.default_rng([self.config.seed, number]), size)
            write_image(folder / f"image-{number}.npy", blobs)
            advance()


def _blobs(random: np.random.Generator, size: int) -> Image:
    """The sum of five Gaussians, scaled to a maximum of 1."""
    y, x = np.mgrid[:size, :size] / size
    image = np.zeros((size, size))
    for centre_y, centre_x, width, height in random.uniform([0, 0, 0.1, 0.3], [1, 1, 0.3, 1], (5, 4)):
        image += height * np.exp(-((y - centre_y) ** 2 + (x - centre_x) ** 2) / (2 * width**2))
    scaled: Image = (image / image.max()).astype(np.float32)
    return scaled


PART = DenoisingGeneration

"""From clean images to pairs of a clean and a noisy one."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from condswin.config.names import Split
from condswin.tasks.preparation import Preparation

from .config import DenoisingConfig
from .images import read_image, write_image


class DenoisingPreparation(Preparation):
    """Adds noise seeded by the case's name."""

    def outputs(self, name: str, files: Mapping[str, Path], split: Split) -> list[str]:
        """Two files."""
        return [f"{name}-clean.npy", f"{name}-noisy.npy"]

    def prepare_case(self, name: str, files: Mapping[str, Path], split: Split, folder: Path) -> None:
        """Writes the image as it is, and with noise."""
        clean = read_image(files["image"])
        random = np.random.default_rng(list(hashlib.sha256(name.encode()).digest()))
        noise = random.standard_normal(clean.shape, dtype=np.float32)
        write_image(folder / f"{name}-clean.npy", clean)
        write_image(folder / f"{name}-noisy.npy", clean + self.config.section(DenoisingConfig).noise.sigma * noise)


PART = DenoisingPreparation

"""The data card of MRI: what k-space and images of ingested volumes are like."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from matplotlib.figure import Figure

from condswin.fourier import FloatArray, magnitude_image
from condswin.manifest import CaseRecord
from condswin.mri.coils import Multicoil, open_volume
from condswin.mri.config import ReconstructionConfig
from condswin.mri.extent import Extent
from condswin.mri.masks import Mask, draw_mask, name_seed
from condswin.mri.noise import signal_to_noise
from condswin.mri.prepared import image_size, read_mask
from condswin.mri.reading import KSPACE, VolumeReader
from condswin.plain import label
from condswin.reporting.figures import grid
from condswin.tasks.card import DataCard, Described


class ReconstructionCard(DataCard):
    """By the middle slice of each volume's target, or of its zero-filled image."""

    statistics: ClassVar[Mapping[str, str]] = {
        "log_maximum": "largest value, log10",
        "mean_to_maximum": "mean over largest value",
        "background": "pixels below 5 % of the largest",
        "snr_db": "signal to noise, dB",
        "rows": "k-space rows",
        "columns": "k-space columns",
        "slices": "slices",
    }
    compared: ClassVar[tuple[str, ...]] = ("acquisition",)

    def measure(self, case: CaseRecord, files: Mapping[str, Path]) -> dict[str, float]:
        """See `volume_statistics`."""
        return volume_statistics(files["kspace"], self._multicoil)

    def facts(self, case: CaseRecord) -> dict[str, str]:
        """Acquisition and matrices."""
        return {
            "acquisition": str(case.details["acquisition"]),
            "k-space, rows x columns": " x ".join(map(str, case.details["shape"][1:])),
            "target, rows x columns": " x ".join(map(str, case.details["target_shape"][1:])),
        }

    def slices(self, case: CaseRecord) -> int:
        """Of k-space."""
        return int(case.details["shape"][0])

    def figures(self, cases: Sequence[Described]) -> dict[str, Figure]:
        """Middle slices, and masks."""
        undersample = self.config.section(ReconstructionConfig).undersample
        masks = [
            draw_mask(undersample, int(case.details["shape"][2]), name_seed(files["kspace"].name)).within(
                Extent(*case.details["measured_columns"])
            )
            for case, files in cases
        ]
        names = "Masks that these files' names draw (white is measured), with nominal and true acceleration."
        return {"Middle slices, each scaled to its largest value.": self._images(cases), names: _masks(masks)}

    @property
    def _multicoil(self) -> Multicoil:
        return self.config.section(ReconstructionConfig).ingest.multicoil

    def _images(self, cases: Sequence[Described]) -> Figure:
        figure, axes = grid(len(cases), 3.1)
        for axis, (case, files) in zip(axes, cases, strict=True):
            axis.axis("off")
            with open_volume(files["kspace"], self._multicoil) as reader:
                axis.imshow(_middle_slice(reader), cmap="gray")
            title = f"{label(case.name, 30)}\n{case.split}, {label(case.details['acquisition'], 24)}"
            axis.set_title(title, fontsize=8)
        return figure


def volume_statistics(path: Path, multicoil: Multicoil = "refuse") -> dict[str, float]:
    """Statistics of one ingested volume, by their names; the signal is the middle slice's.

    Raises:
        BadFileError: The file is unusable.
    """
    with open_volume(path, multicoil) as reader:
        slices, rows, columns = reader.shape(KSPACE)
        image = _middle_slice(reader)
    largest = float(image.max()) or 1.0
    return {
        "log_maximum": float(np.log10(largest)),
        "mean_to_maximum": float(image.mean()) / largest,
        "background": 1 - float((image > 0.05 * largest).mean()),
        "snr_db": signal_to_noise(image),
        "rows": float(rows),
        "columns": float(columns),
        "slices": float(slices),
    }


def _middle_slice(reader: VolumeReader) -> FloatArray:
    """Of the target; of an undersampled file without one, of its zero-filled image."""
    name, middle = reader.target_name(), reader.shape(KSPACE)[0] // 2
    if name is None:
        block = reader.read(KSPACE, middle, middle + 1)
        shown: FloatArray = magnitude_image(block, image_size(reader), read_mask(reader))[0]
        return shown
    image: FloatArray = reader.read(name, middle, middle + 1)[0]
    return image


def _masks(masks: list[Mask]) -> Figure:
    figure = Figure(figsize=(11, 0.45 * len(masks) + 0.6), layout="constrained")
    axes = figure.subplots(len(masks), 1, squeeze=False)[:, 0]
    for axis, mask in zip(axes, masks, strict=True):
        axis.imshow(mask.sampled[None], cmap="gray", aspect="auto", interpolation="nearest")
        axis.set_yticks([])
        axis.set_xticks([])
        title = f"{mask.acceleration}x, {mask.true_acceleration:.2f}x"
        axis.set_ylabel(title, rotation=0, ha="right", va="center", fontsize=9)
    return figure


PART = ReconstructionCard

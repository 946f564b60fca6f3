"""Segmentations of CT volumes as they came from the scanner."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
from torch import nn

from condswin import kinds
from condswin.ct.config import PrepareCtConfig, SegmentationConfig
from condswin.ct.ensemble import Ensemble
from condswin.ct.geometry import Geometry
from condswin.ct.guard import refusals, wanted_spacing
from condswin.ct.judging import SegmentationJudging
from condswin.ct.metrics import overlap
from condswin.ct.nifti import SUFFIXES, UNPROCESSED, read_geometry, read_image, read_labels, stem
from condswin.ct.prediction import SegmentationPrediction
from condswin.ct.prepare import write_inputs
from condswin.ct.resampling import apply_window
from condswin.errors import BadFileError
from condswin.plain import span
from condswin.pngs import grey, write_png
from condswin.tasks.serving import Origin, Predicted, Serving

# Folders of labels in the Decathlon's (MSD's) layout.
_LABEL_FOLDERS = {"labelsTr", "labelsTs"}
# Longest side of a resampled slice, pixels.
_LARGEST = 4096
_LIVER, _TUMOUR = (55, 214, 122), (255, 79, 216)


class SegmentationServing(Serving):
    """Takes NIfTI volumes in HU."""

    subject: ClassVar[str] = "CT"
    takes: ClassVar[str] = f"NIfTI volumes ({', '.join(SUFFIXES)})"
    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES
    kind: ClassVar[str] = kinds.NIFTI
    #: Segmentations are NIfTI anyway.
    forms: ClassVar[Mapping[str, str]] = {"png": ".png", "nifti": ".nii.gz"}

    def output_names(self, source: Path) -> list[str]:
        """`volume-N.nii.gz` or `N.nii.gz` -> `segmentation-N.nii.gz`."""
        name = stem(source)
        return [
            SegmentationJudging(self.config).prediction_name(name if name.startswith("volume-") else f"volume-{name}")
        ]

    def predict_raw(self, model: nn.Module, source: Path, folder: Path, origin: Origin) -> Predicted:
        """Segments a CT volume as it came from the scanner, in its own grid.

        Where training took pixels as they came, and this volume's are of another size than all of them, the network
        sees it resampled to their median.
        """
        name, out = stem(source), folder / self.output_names(source)[0]
        image = read_image(source, self.config.section(SegmentationConfig).ingest)
        settings, notes = self._settings(source, image.geometry, origin.seen)
        notes = [*image.assumed, *notes]
        # A name of the scratch file's own: the input's may be as long as names can be.
        with TemporaryDirectory() as scratch:
            inputs = Path(scratch, f"{name[:40]}.h5")
            write_inputs(image, None, inputs, settings)
            del image
            SegmentationPrediction(self.config).segment(model, inputs, out, unprocessed=False)
        return Predicted(out, notes)

    def refusals(self, source: Path, seen: Mapping[str, Any]) -> list[str]:
        """A spacing or field of view unlike those trained with; see `guard.refusals`."""
        section = self.config.section(SegmentationConfig)
        geometry = read_geometry(source, section.ingest)
        return refusals(geometry, seen, single_slices=section.prepare.neighbours == 0)

    def together(self, networks: Sequence[nn.Module]) -> nn.Module:
        """Class probabilities are averaged, before windows are blended and classes decided."""
        return Ensemble(networks).eval()

    def passed_over(self, source: Path) -> str:
        """Segmentations lie beside images under the same endings."""
        name = stem(source)
        labels = name.startswith("segmentation-") or name.endswith(UNPROCESSED) or source.parent.name in _LABEL_FOLDERS
        return "segmentations" if labels else ""

    def write_form(self, form: str, source: Path, prediction: Path, out: Path) -> list[str]:
        """The slice with most liver: CT, liver green, tumours magenta."""
        rules = self.config.section(SegmentationConfig).ingest
        image, labels = read_image(source, rules), read_labels(prediction, rules=rules)
        slices = labels.canonical
        chosen = int((slices > 0).sum(axis=(1, 2)).argmax()) if slices.any() else len(slices) // 2
        window = self.config.section(SegmentationConfig).prepare.windows[0]
        shades = grey(apply_window(image.canonical[chosen], window), -1, 1)
        pixels = np.repeat(shades[..., None], 3, axis=2)
        for value, colour in ((1, _LIVER), (2, _TUMOUR)):
            there = slices[chosen] == value
            pixels[there] = (0.6 * pixels[there] + 0.4 * np.array(colour)).astype(np.uint8)
        write_png(pixels, out, image.geometry.spacing[1:])
        return []

    def disagreement(self, first: Path, second: Path) -> dict[str, float]:
        """Dice of the two livers, tumours included, and of the two tumours; NaN where both are empty."""
        rules = self.config.section(SegmentationConfig).ingest
        one, other = (read_labels(path, rules=rules).canonical for path in (first, second))
        livers, tumours = overlap(one > 0, other > 0), overlap(one == 2, other == 2)
        return {"liver_dice": livers.dice, "tumour_dice": tumours.dice}

    def _settings(self, source: Path, geometry: Geometry, seen: Mapping[str, Any]) -> tuple[PrepareCtConfig, list[str]]:
        """How a volume is prepared for the network, and what is to be said about that."""
        settings = self.config.section(SegmentationConfig).prepare
        _, row, column = geometry.spacing
        own = f"{row:.3g}" if f"{row:.3g}" == f"{column:.3g}" else f"{row:.3g} x {column:.3g}"
        if settings.spacing is not None:
            return settings, []
        if not seen:
            return settings, [f"the model does not say at which pixel size it was trained: predicted at {own} mm"]
        spacing = wanted_spacing(geometry, seen)
        if spacing is None:
            return settings, []
        _, rows, columns = geometry.canonical_shape
        if max(rows * row, columns * column) > _LARGEST * spacing:
            raise BadFileError(source, f"slices would have more than {_LARGEST} pixels a side at {spacing:.3g} mm")
        return settings.model_copy(update={"spacing": spacing}), [
            f"pixels of {own} mm resampled to {spacing:.3g} mm: "
            f"the network was trained with {span(seen['pixel'][0], seen['pixel'][-1])} mm"
        ]


PART = SegmentationServing

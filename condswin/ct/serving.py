"""Segmentations of CT volumes as they came from the scanner."""

from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from condswin.ct.config import SegmentationConfig
from condswin.ct.judging import SegmentationJudging
from condswin.ct.nifti import read_image, stem
from condswin.ct.prediction import SegmentationPrediction
from condswin.ct.prepare import write_inputs
from condswin.tasks.serving import Serving


class SegmentationServing(Serving):
    """Takes NIfTI volumes in HU."""

    def output_names(self, source: Path) -> list[str]:
        """`volume-N.nii.gz` or `N.nii.gz` -> `segmentation-N.nii.gz`."""
        name = stem(source)
        return SegmentationJudging(self.config).prediction_names(
            name if name.startswith("volume-") else f"volume-{name}"
        )

    def predict_raw(self, model: nn.Module, source: Path, folder: Path) -> Path:
        """Segments a CT volume as it came from the scanner."""
        name, out = stem(source), folder / self.output_names(source)[0]
        with TemporaryDirectory() as scratch:
            inputs = Path(scratch, f"{name}.h5")
            settings = self.config.section(SegmentationConfig)
            write_inputs(read_image(source, settings.ingest), None, inputs, settings.prepare)
            SegmentationPrediction(self.config).predict(model, inputs, out)
        return out


PART = SegmentationServing

"""Segmentations of prepared cases by a network."""

from pathlib import Path
from typing import Any

from torch import nn

from condswin.ct.config import SegmentationConfig
from condswin.ct.predict import predict_case
from condswin.tasks.prediction import Prediction


class SegmentationPrediction(Prediction):
    """Slice by slice, or in overlapping windows."""

    def parameters(self) -> dict[str, Any]:
        """Neighbours, windows and post-processing."""
        settings = self.config.section(SegmentationConfig)
        return {
            "windows": [list(window) for window in settings.prepare.windows],
            "neighbours": settings.prepare.neighbours,
            "position": settings.prepare.position,
            "window": settings.predict.window or settings.train.crop,
            "post": settings.predict.model_dump(mode="json", exclude={"window"}),
        }

    def predict(self, model: nn.Module, case_file: Path, out: Path) -> None:
        """Writes labels as NIfTI in the shape and affine of the case's source file.

        Where post-processing is asked for, `<name>.unprocessed.nii.gz` beside it holds what the network said.
        """
        self.segment(model, case_file, out, unprocessed=True)

    def segment(self, model: nn.Module, case_file: Path, out: Path, *, unprocessed: bool) -> None:
        """As `predict`, with or without what the network said beside the result."""
        settings = self.config.section(SegmentationConfig)
        predict_case(
            model,
            case_file,
            out,
            windows=settings.prepare.windows,
            neighbours=settings.prepare.neighbours,
            position=settings.prepare.position,
            window=settings.predict.window or settings.train.crop,
            post=settings.predict,
            unprocessed=unprocessed,
        )


PART = SegmentationPrediction

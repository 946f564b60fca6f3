"""Reconstructions of files as they came from the scanner."""

from pathlib import Path

from torch import nn

from condswin.mri.config import ReconstructionConfig
from condswin.mri.guard import refusals
from condswin.mri.judging import ReconstructionJudging
from condswin.mri.prediction import ReconstructionPrediction
from condswin.tasks.serving import Serving


class ReconstructionServing(Serving):
    """Takes fully sampled and undersampled files."""

    def output_names(self, source: Path) -> list[str]:
        """As fastMRI: the name of the k-space file."""
        return ReconstructionJudging(self.config).prediction_names(source.stem)

    def predict_raw(self, model: nn.Module, source: Path, folder: Path) -> Path:
        """Reconstructs a fastMRI file; one that is fully sampled is undersampled first."""
        out = folder / self.output_names(source)[0]
        ReconstructionPrediction(self.config).predict(model, source, out)
        return out

    def refusals(self, source: Path) -> list[str]:
        """A mask unlike those trained with; see `guard.refusals`."""
        section = self.config.section(ReconstructionConfig)
        return refusals(source, section.undersample, section.ingest.multicoil)


PART = ReconstructionServing

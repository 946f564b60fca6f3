"""Denoising of users' files."""

from pathlib import Path
from typing import ClassVar

from torch import nn

from condswin.tasks.serving import Origin, Predicted, Serving

from .prediction import DenoisingPrediction


class DenoisingServing(Serving):
    """Takes noisy images."""

    subject: ClassVar[str] = "denoising"
    takes: ClassVar[str] = "NumPy arrays (.npy)"
    suffixes: ClassVar[tuple[str, ...]] = (".npy",)
    kind: ClassVar[str] = "a NumPy array"

    def output_names(self, source: Path) -> list[str]:
        """The input's name."""
        return [f"{source.stem}.npy"]

    def predict_raw(self, model: nn.Module, source: Path, folder: Path, origin: Origin) -> Predicted:
        """Denoises a file."""
        out = folder / self.output_names(source)[0]
        DenoisingPrediction(self.config).predict(model, source, out)
        return Predicted(out, [])


PART = DenoisingServing

"""Denoised images by a network."""

from pathlib import Path

import torch
from torch import nn

from condswin.tasks.prediction import Prediction

from .images import read_image, write_image


class DenoisingPrediction(Prediction):
    """The network's output is the image."""

    def predict(self, model: nn.Module, case_file: Path, out: Path) -> None:
        """Denoises an image."""
        device = next(model.parameters()).device
        with torch.inference_mode():
            output = model(torch.from_numpy(read_image(case_file))[None, None].to(device))
        write_image(out, output[0, 0].cpu().numpy())


PART = DenoisingPrediction

"""Reconstructions of prepared files by a network."""

import json
from pathlib import Path
from typing import Any

import h5py
import torch
from torch import nn

from condswin.errors import BadDataError
from condswin.files import atomic_file
from condswin.mri.adaptation import Adaptation, adapt
from condswin.mri.config import PredictMriConfig, ReconstructionConfig
from condswin.mri.fallback import BATCH, Judgement, Method, classics, judge
from condswin.mri.inputs import complex_volume, magnitude, normalise, zero_filled_volume
from condswin.mri.reading import ADAPTED, ERRORS, METHOD, NETWORK, PREDICTION
from condswin.networks.unrolled import UnrolledNetwork
from condswin.tasks.prediction import Prediction


class ReconstructionPrediction(Prediction):
    """From zero-filled magnitudes or, for unrolled networks, complex images."""

    def parameters(self) -> dict[str, Any]:
        """Whether networks are judged by withheld lines, and adapted to each volume."""
        return self.config.section(ReconstructionConfig).predict.model_dump(mode="json")

    def alone(self) -> Prediction:
        """Believes every network as it is."""
        section = self.config.section(ReconstructionConfig)
        believing = section.model_copy(update={"predict": PredictMriConfig(fallback="none")})
        return ReconstructionPrediction(self.config.model_copy(update={section.name: believing}))

    def predict(self, model: nn.Module, case_file: Path, out: Path) -> None:
        """Writes `reconstruction` (slices, H, W) float32 in the units of the input, as fastMRI's scripts read it."""
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        section = self.config.section(ReconstructionConfig)
        undersample, multicoil = section.undersample, section.ingest.multicoil
        method: Method = model
        judgement: Judgement | None = None
        adaptation: Adaptation | None = None
        if isinstance(model, UnrolledNetwork):
            inputs = complex_volume(case_file, undersample, multicoil, model.neighbours)
            image, std, columns = inputs
            mean = torch.zeros_like(std)
            if section.predict.fallback == "held-out":
                judgement = judge(model, inputs, device)
                method = model if judgement.method == NETWORK else classics()[judgement.method]
            if section.predict.adapt and method is model:
                adaptation = adapt(model, inputs, device, steps=section.predict.adapt)
                method = adaptation.network
        else:
            zero_filled = zero_filled_volume(case_file, undersample, multicoil)
            image, mean, std = normalise(zero_filled, float(zero_filled.max()))
            image, columns = image[:, None], zero_filled.shape[-1]
        with torch.inference_mode():
            parts = [magnitude(method(batch.to(device)), columns).cpu()[:, 0] for batch in torch.split(image, BATCH)]
        images = torch.cat(parts) * std[:, None, None] + mean[:, None, None]
        if not bool(torch.isfinite(images).all()):
            raise BadDataError(f"{case_file}: the network's output has NaN or infinite values; do not use this model")
        with atomic_file(out) as temporary, h5py.File(temporary, "w") as file:
            file[PREDICTION] = images.numpy()
            if judgement is not None:
                file.attrs.update({METHOD: judgement.method, ERRORS: json.dumps(judgement.errors)})
            if adaptation is not None:
                told = {"steps": adaptation.steps, "before": adaptation.before, "after": adaptation.after}
                file.attrs[ADAPTED] = json.dumps(told)


PART = ReconstructionPrediction

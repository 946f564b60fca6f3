"""Code of a logged model, run by MLflow from the model's folder ("models from code"): nothing is pickled.

Not imported by condswin. `condswin` itself is logged beside it, so that a model runs without this package installed.
"""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.pyfunc import PythonModel, PythonModelContext

from condswin.networks.saving import load_model


class Network:
    """Network output for normalised images: float32 (B, C, H, W) to (B, K, H, W)."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads weights onto the CPU."""
        self.model, _ = load_model(Path(context.artifacts["model"]))

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """Runs the network once on the whole batch."""
        with torch.inference_mode():
            output: np.ndarray = self.model(torch.from_numpy(np.asarray(model_input, np.float32))).numpy()
        return output


class Served(Network, PythonModel):  # type: ignore[misc]
    """Has no `predict` here: MLflow would take its type hints for a schema, and warn if it had none."""


mlflow.models.set_model(Served())

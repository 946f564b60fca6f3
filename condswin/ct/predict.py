"""Segmentation of whole volumes."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from condswin.ct.geometry import Geometry
from condswin.ct.nifti import write_labels
from condswin.ct.prepare import labels_at, open_prepared, read_slices

# Slices per forward pass; the result does not depend on it.
_BATCH = 8


@torch.inference_mode()
def predict_case(model: nn.Module, case_file: Path, out: Path, *, neighbours: int) -> None:
    """Segments a prepared case slice by slice and writes labels in the geometry of its source file.

    Args:
        model: (B, 1 + 2 * neighbours, H, W) to (B, 3, H, W) logits, in evaluation mode, on the device to use.
        case_file: `<case>.h5` that `prepare_case` wrote.
        out: NIfTI file to write, atomically.
        neighbours: Slices on either side that the model was trained with.

    Raises:
        BadFileError: `case_file` is unusable.
    """
    device = next(model.parameters()).device
    with open_prepared(case_file) as file:
        geometry = Geometry.from_attributes(file.attrs)
        labels = np.zeros(geometry.shape, dtype=np.uint8)
        canonical = geometry.to_canonical(labels)  # a view: filling it fills `labels`
        for start in range(0, len(canonical), _BATCH):
            part = slice(start, min(start + _BATCH, len(canonical)))
            images = torch.from_numpy(read_slices(file, part.start, part.stop, neighbours)).to(device)
            probabilities = model(images).float().softmax(dim=1)
            canonical[part] = labels_at(probabilities, canonical.shape[1:])
    write_labels(out, labels, geometry)

"""Segmentation of whole volumes."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from condswin.ct.config import PredictCtConfig
from condswin.ct.geometry import Geometry
from condswin.ct.nifti import UNPROCESSED, stem, write_labels
from condswin.ct.prepared import open_prepared, read_slices
from condswin.ct.resampling import Windows, channels, labels_at
from condswin.errors import BadDataError
from condswin.progress import progress

# Slices (or windows) per forward pass; the result does not depend on it.
_BATCH = 8
# Axes along which a slice is mirrored for an average.
_MIRRORS: tuple[tuple[int, ...], ...] = ((), (-2,), (-1,), (-2, -1))
# Pixels from which on a volume gets a progress bar of its own; smaller ones are done before anybody reads it.
_LONG = 1 << 22


@torch.inference_mode()
def predict_case(
    model: nn.Module,
    case_file: Path,
    out: Path,
    *,
    windows: Windows,
    neighbours: int,
    position: bool = False,
    window: int | None = None,
    post: PredictCtConfig = PredictCtConfig(),  # noqa: B008 (frozen)
    unprocessed: bool = True,
) -> None:
    """Segments a prepared case slice by slice and writes labels in the geometry of its source file.

    Args:
        model: (B, windows * (1 + 2 * neighbours), and 2 with positions, H, W) to (B, 3, H, W) logits, in evaluation
            mode, on the device to use.
        case_file: `<case>.h5` that `prepare_case` wrote.
        out: NIfTI file to write, atomically; and `<out>.unprocessed.nii.gz`, see below.
        windows: HU windows that the model was trained with.
        neighbours: Slices on either side that the model was trained with.
        position: Whether the model was trained with positions.
        window: Side of the windows in which larger slices pass the model; None passes all slices whole.
        post: How windows overlap, whether mirror images are averaged, which post-processing.
        unprocessed: Whether to keep what the network said where there is post-processing.

    Raises:
        BadFileError: `case_file` is unusable.
        BadDataError: The model's output is not finite.
    """
    device = next(model.parameters()).device

    def classes(images: Tensor) -> Tensor:
        mirrors = _MIRRORS if post.mirrored else _MIRRORS[:1]
        return torch.stack([model(images.flip(axes)).float().softmax(dim=1).flip(axes) for axes in mirrors]).mean(dim=0)

    with open_prepared(case_file) as file:
        geometry = Geometry.from_attributes(file.attrs)
        labels = np.zeros(geometry.shape, dtype=np.uint8)
        canonical = geometry.to_canonical(labels)  # a view: filling it fills `labels`
        slices, height, width = file["image"].shape
        parts = [slice(start, min(start + _BATCH, slices)) for start in range(0, slices, _BATCH)]
        long = slices * height * width >= _LONG
        shown = progress(f"segment {case_file.stem}", len(parts)) if long else nullcontext(_silent)
        with shown as advance:
            for part in parts:
                hu = torch.from_numpy(read_slices(file, part.start, part.stop, neighbours))
                images = channels(hu.to(device), windows, position=position)
                if window and max(height, width) > window:
                    probabilities = _in_windows(classes, images, window, post.overlap)
                else:
                    probabilities = classes(images)
                if not bool(torch.isfinite(probabilities).all()):
                    raise BadDataError(f"{case_file}: the network's output has NaN or infinite values; do not use it")
                canonical[part] = labels_at(probabilities, canonical.shape[1:])
                advance()
    if post.processes:
        if unprocessed:
            write_labels(out.with_name(f"{stem(out)}{UNPROCESSED}.nii.gz"), labels, geometry)
        labels = post_process(labels, post, voxel=abs(float(np.linalg.det(geometry.affine[:3, :3]))))
    write_labels(out, labels, geometry)


def post_process(labels: NDArray[np.uint8], post: PredictCtConfig, *, voxel: float) -> NDArray[np.uint8]:
    """Cleans a segmentation by what is known of livers: there is one, it has no holes, and what is tiny is noise.

    Args:
        labels: (X, Y, Z) of 0, 1 and 2. Liver is connected where voxels share a face, tumours also where they share
            an edge or a corner, as in the scores.
        post: What to do.
        voxel: Its volume, cubic millimetres.
    """
    foreground = labels > 0
    if post.largest_component:
        parts, count = ndimage.label(foreground)
        if count > 1:
            sizes = np.bincount(parts.ravel(order="K"))
            sizes[0] = 0
            foreground = parts == sizes.argmax()
    cleaned = np.where(foreground, labels, 0).astype(np.uint8)
    if post.fill_holes:
        cleaned[ndimage.binary_fill_holes(foreground) & ~foreground] = 1
    if post.minimum_lesion:
        parts, _ = ndimage.label(cleaned == 2, np.ones((3, 3, 3)))
        small = np.bincount(parts.ravel(order="K")) * voxel < post.minimum_lesion
        small[0] = False
        cleaned[small[parts]] = 1
    return cleaned


def _in_windows(classes: Callable[[Tensor], Tensor], images: Tensor, window: int, overlap: float) -> Tensor:
    # MONAI takes seconds to import, which only volumes of large slices are worth.
    from monai.inferers import sliding_window_inference

    # Weights fall towards a window's edge, where the network sees least.
    blended: Tensor = sliding_window_inference(
        images, (window, window), _BATCH, classes, overlap=overlap, mode="gaussian", padding_mode="constant", cval=-1.0
    )
    return blended


def _silent(_: str = "") -> None:
    pass

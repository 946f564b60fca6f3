"""The classical segmentation of liver and tumours, the reference method that a network has to beat.

A band of HU around the liver's own, the largest piece of it, an active contour without edges (Chan and Vese 2001, in
its morphological form), and inside that what is darker. It knows that the liver lies on the patient's right, and
nothing else of anatomy.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from condswin.ct.geometry import Geometry
from condswin.ct.metrics import overlap
from condswin.ct.nifti import write_labels
from condswin.ct.prepared import open_prepared
from condswin.ct.resampling import labels_at, one_hot, resample_image, resample_labels

#: Half widths of the liver's band to choose from, HU.
BANDS = (15.0, 25.0, 35.0)
#: How much darker than the liver a tumour is, HU.
DEPTHS = (15.0, 25.0, 35.0)

Hu = NDArray[np.float32]
Mask = NDArray[np.bool_]

_PIXEL = 3.0  # mm; finer ones are averaged first: the method takes seconds, and noise goes
_SOFT = (20.0, 180.0)  # HU among which the liver's is looked for
_SMOOTH = 3.0  # mm
_BRIDGE = 9.0  # mm; what is thinner joins no organs
_STEPS = 12  # of the contour


def segment(hu: Hu, steps: tuple[float, float, float], band: float, depth: float) -> NDArray[np.uint8]:
    """Labels of a volume.

    Args:
        hu: (slices, rows, columns): upwards, front to back, and the patient's right to left.
        steps: Voxel size in the same order, mm.
        band: Half width of the liver's HU.
        depth: How much darker tumours are, HU.
    """
    # scikit-image takes a second to import, which reading segmentations is not worth.
    from skimage.segmentation import morphological_chan_vese

    # Beyond the first and last slice lies more of the same.
    beyond = math.ceil(_BRIDGE / steps[0])
    hu = np.pad(hu, ((beyond, beyond), (0, 0), (0, 0)), mode="edge")
    smooth = ndimage.gaussian_filter(hu, [_SMOOTH / step / 2 for step in steps])
    solid = ndimage.binary_erosion((smooth > _SOFT[0]) & (smooth < _SOFT[1]), _ball(_BRIDGE / 2, steps))
    labels = np.zeros(hu.shape, np.uint8)
    if not solid.any():
        return labels[beyond:-beyond]
    right = solid & (np.arange(hu.shape[2]) < np.argwhere(hu > -200)[:, 2].mean())
    middle = _commonest(smooth[right if right.any() else solid])
    liver = _largest(ndimage.binary_opening(np.abs(smooth - middle) < band, _ball(_BRIDGE, steps)), right)
    if not liver.any():
        return labels[beyond:-beyond]
    # What is as far from the liver's HU as the band is wide lies between both sides' means.
    far = np.minimum(np.abs(smooth - middle), 2 * band)
    box = tuple(slice(max(at.start - 4, 0), at.stop + 4) for at in ndimage.find_objects(liver.astype(np.uint8))[0])
    contour = morphological_chan_vese(far[box], _STEPS, init_level_set=liver[box], smoothing=1).astype(bool)
    liver[box] = _largest(ndimage.binary_opening(contour, _ball(_BRIDGE / 2, steps)), liver[box])
    # Smoothing moved the edge inwards.
    liver |= ndimage.binary_dilation(liver, _ball(_PIXEL, steps)) & (np.abs(smooth - middle) < 2 * band)
    for index, slice_ in enumerate(liver):
        liver[index] = ndimage.binary_fill_holes(slice_)
    labels[liver] = 1
    inside = ndimage.binary_erosion(liver, _ball(_BRIDGE / 2, steps))
    labels[ndimage.binary_opening(inside & (smooth < middle - depth), _ball(_SMOOTH, steps))] = 2
    return labels[beyond:-beyond]


def tune(cases: Sequence[Path]) -> dict[tuple[float, float], float]:
    """Mean Dice of liver and tumour over prepared cases with labels, by band and depth."""
    scores: dict[tuple[float, float], list[float]] = {}
    for case in cases:
        hu, steps = _read(case)
        with open_prepared(case) as file:
            truth = resample_labels(file["label"][:], hu.shape[1:])
        for band in BANDS:
            for depth in DEPTHS:
                found = segment(hu, steps, band, depth)
                pairs = ((truth > 0, found > 0), (truth == 2, found == 2))
                scores.setdefault((band, depth), []).append(float(np.nanmean([overlap(*pair).dice for pair in pairs])))
    return {settings: float(np.mean(dices)) for settings, dices in scores.items()}


def write_segmentation(case: Path, out: Path, band: float, depth: float) -> None:
    """Writes a prepared case's segmentation as predictions of networks are written, atomically."""
    hu, steps = _read(case)
    with open_prepared(case) as file:
        geometry = Geometry.from_attributes(file.attrs)
    labels = np.zeros(geometry.shape, dtype=np.uint8)
    canonical = geometry.to_canonical(labels)  # a view: filling it fills `labels`
    found = segment(hu, steps, band, depth)
    for index, slice_ in enumerate(found):
        canonical[index] = labels_at(one_hot(slice_[None]), canonical.shape[1:])[0]
    write_labels(out, labels, geometry)


def _read(case: Path) -> tuple[Hu, tuple[float, float, float]]:
    with open_prepared(case) as file:
        row, column = file.attrs["pixel_spacing"]
        between = Geometry.from_attributes(file.attrs).spacing[0]
        images = file["image"]
        _, rows, columns = images.shape
        size = min(rows, round(rows * row / _PIXEL)), min(columns, round(columns * column / _PIXEL))
        hu = np.concatenate([resample_image(part[None].astype(np.float32), size) for part in images])
    return hu, (between, row * rows / size[0], column * columns / size[1])


def _commonest(hu: Hu) -> float:
    counts, edges = np.histogram(hu, bins=80, range=_SOFT)
    return float(edges[ndimage.gaussian_filter1d(counts.astype(float), 2).argmax()])


def _largest(mask: Mask, near: Mask) -> Mask:
    """The connected part that has most of `near`."""
    parts, count = ndimage.label(mask)
    shared = np.bincount(parts[near], minlength=count + 1)
    shared[0] = 0
    largest: Mask = (parts == shared.argmax()) & bool(shared.any())
    return largest


def _ball(radius: float, steps: tuple[float, float, float]) -> Mask:
    """Voxels within a radius, mm; never fewer than those that share a face in the plane."""
    radius = max(radius, *steps[1:])
    axes = np.ogrid[tuple(slice(-n, n + 1) for n in (int(radius / step) for step in steps))]
    ball: Mask = np.asarray(sum((axis * step) ** 2 for axis, step in zip(axes, steps, strict=True)) <= radius**2)
    return ball

"""Small volumes in LiTS's format: odd sizes, thick slices, tilted and turned axes."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from condswin.config.reading import parse_config
from condswin.config.root import Config
from condswin.ct.geometry import Geometry
from condswin.ct.headers import locate

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "ct"


def affine(spacing=(0.8, 0.8, 5.0), *, flips=(1, 1, 1), order=(0, 1, 2), tilt=0.0, origin=(-31.0, 12.5, 400.0)):
    """Voxels to mm: file axis i lies along world axis order[i], in direction flips[i], tilted by `tilt` degrees."""
    matrix = np.zeros((3, 3))
    for axis, (world, sign) in enumerate(zip(order, flips, strict=True)):
        matrix[world, axis] = sign * spacing[axis]
    cos, sin = np.cos(np.deg2rad(tilt)), np.sin(np.deg2rad(tilt))
    result = np.eye(4)
    result[:3, :3] = (
        np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
        @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
        @ matrix
    )
    result[:3, 3] = origin
    return result


AFFINES = {
    "plain": affine(),
    "lits": affine(flips=(-1, -1, 1)),
    "upside down": affine(flips=(1, -1, -1)),
    "sagittal": affine((3.0, 0.9, 0.7), order=(1, 2, 0), flips=(-1, 1, -1)),
    "oblique": affine(tilt=11.0, flips=(-1, 1, 1)),
    "anisotropic": affine((0.6, 1.1, 7.5), flips=(-1, -1, -1)),
}


def anatomy(shape, seed=0):
    """HU (int16) and labels (uint8) of a fake abdomen: air, body, a liver with one large and one small tumour."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    hu = np.full(shape, -1000)
    hu[(grid**2).sum(0) < 1.6] = 10
    labels = np.zeros(shape, np.uint8)
    labels[(((grid - np.array([0.2, -0.1, 0.0]).reshape(3, 1, 1, 1)) / 0.6) ** 2).sum(0) < 1] = 1
    labels[(((grid - np.array([0.3, 0.0, 0.1]).reshape(3, 1, 1, 1)) / 0.28) ** 2).sum(0) < 1] = 2
    hu[labels == 1], hu[labels == 2] = 110, 70
    return (hu + rng.normal(0, 6, shape)).astype(np.int16), labels


def geometry(shape, matrix) -> Geometry:
    """That of a file with this affine."""
    header = nib.Nifti1Image(np.zeros(shape, np.uint8), matrix).header
    return locate(Path("made-up.nii"), header, header, shape)[0]


def from_canonical(geometry: Geometry, slices: Any) -> Any:
    """Axial slices in the axis order of a file, as a prediction is written: through a view."""
    array = np.zeros(geometry.shape, slices.dtype)
    geometry.to_canonical(array)[:] = slices
    return array


def write(path: Path, array: Any, matrix: Any = None, *, codes=(1, 1), **header: Any) -> Path:
    """Writes any array as NIfTI, with header fields changed at will."""
    matrix = AFFINES["plain"] if matrix is None else matrix
    image = nib.Nifti1Image(np.asarray(array), matrix)
    image.set_sform(matrix, codes[0])
    image.set_qform(matrix, codes[1])
    for field, value in header.items():
        image.header[field] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def write_pair(folder: Path, number: Any = 0, shape=(37, 30, 9), matrix=None, *, suffix=".nii.gz", codes=(1, 1)):
    """Writes `volume-N` and `segmentation-N`; returns both paths."""
    hu, labels = anatomy(shape, seed=hash(str(number)) % 1000 if not isinstance(number, int) else number)
    volume = write(folder / f"volume-{number}{suffix}", hu, matrix, codes=codes)
    return volume, write(folder / f"segmentation-{number}{suffix}", labels, matrix, codes=codes)


def config(**segmentation: Any) -> Config:
    """A valid configuration with some of the segmentation section replaced."""
    return parse_config({"segmentation": {"variants": {"swin": {}}, **segmentation}}, origin="test")

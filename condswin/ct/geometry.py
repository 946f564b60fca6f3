"""Where the voxels of a NIfTI file lie in the patient, and the way to axial slices and back."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

# The canonical frame is (slices, rows, columns): slices from inferior to superior, rows from anterior to posterior,
# columns from the patient's right to left, which is how radiologists look at axial slices (liver on the image's left).
# nibabel's world axes are 0 left-right, 1 posterior-anterior, 2 inferior-superior; -1 runs against them.
_WORLD_AXES = (2, 1, 0)
_DIRECTIONS = (1, -1, -1)
_DIRECTION_WORDS = (("LR", "left-right"), ("PA", "front-back"), ("IS", "head-foot"))
#: Voxels by which positions on one grid may differ. Half a voxel apart, a point may belong to a neighbour, and readers
#: that count from corners instead of centres are half a voxel apart. Half of that is left for rounding, which grows
#: towards the far corner of 512 pixels: four decimals in an affine make up to 0.17, single precision in a quaternion
#: mostly less than 0.25, single precision in an sform 0.0001.
SAME_GRID = 0.25


@dataclass(frozen=True, eq=False)
class Geometry:
    """Shape and position of a volume, as its NIfTI header gives them.

    Attributes:
        shape: Voxels along the file's three axes.
        affine: Voxel indices to millimetres, 4x4, the one that NIfTI readers use (sform, else qform, else voxel sizes).
        sform: The header's sform, 4x4; meaningless where its code is 0.
        qform: The header's qform, 4x4; meaningless where its code is 0.
        codes: The sform's and qform's codes; 0 where the header's matrix is no position.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    sform: NDArray[np.float64]
    qform: NDArray[np.float64]
    codes: tuple[int, int]

    @property
    def field(self) -> str:
        """The header field that the affine comes from: `sform`, `qform` or `pixdim`."""
        return "sform" if self.codes[0] else "qform" if self.codes[1] else "pixdim"

    @cached_property
    def _axes(self) -> tuple[tuple[int, int, int], tuple[int, ...]]:
        """File axis behind each canonical axis, and the canonical axes that run backwards."""
        orientation = nib.io_orientation(self.affine)  # row per file axis: world axis, direction
        where = {int(world): axis for axis, (world, _) in enumerate(orientation)}
        axes = (where[_WORLD_AXES[0]], where[_WORLD_AXES[1]], where[_WORLD_AXES[2]])
        flipped = tuple(i for i, axis in enumerate(axes) if int(orientation[axis][1]) != _DIRECTIONS[i])
        return axes, flipped

    @property
    def canonical_shape(self) -> tuple[int, int, int]:
        """Slices, rows and columns."""
        axes, _ = self._axes
        return self.shape[axes[0]], self.shape[axes[1]], self.shape[axes[2]]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in millimetres along the canonical axes (slice, row, column)."""
        sizes = np.linalg.norm(self.affine[:3, :3], axis=0)
        axes, _ = self._axes
        return float(sizes[axes[0]]), float(sizes[axes[1]]), float(sizes[axes[2]])

    @property
    def orientation(self) -> str:
        """Closest anatomical directions of the file's axes, such as `LPS`."""
        return "".join(nib.aff2axcodes(self.affine))

    @property
    def directions(self) -> list[str]:
        """What each of the file's axes runs along, in words."""
        return [next(words for ends, words in _DIRECTION_WORDS if letter in ends) for letter in self.orientation]

    @property
    def oblique(self) -> bool:
        """Whether the axes are tilted against the anatomical ones by more than half a degree."""
        cosines = np.abs(self.affine[:3, :3]).max(axis=0) / np.linalg.norm(self.affine[:3, :3], axis=0)
        return bool(cosines.min() < np.cos(np.deg2rad(0.5)))

    def to_canonical(self, array: NDArray[Any]) -> NDArray[Any]:
        """A view of a file's array as axial slices (slices, rows, columns).

        An oblique volume keeps its own slices: axes are swapped and turned round, never interpolated.
        """
        axes, flipped = self._axes
        return np.flip(array.transpose(axes), flipped)

    def turn(self, other: "Geometry") -> tuple[NDArray[np.float64], float]:
        """How another volume's axes have to be swapped and reversed to run as this one's, and how well that fits.

        Returns:
            An orientation in nibabel's form, and the largest distance along an axis between corners that should be the
            same, in this volume's voxels; infinite if the shapes do not fit.
        """
        orientation = nib.io_orientation(np.linalg.inv(self.affine) @ other.affine)
        shape = tuple(int(size) for _, size in sorted(zip(orientation[:, 0], other.shape, strict=True)))
        if shape != self.shape:
            return orientation, np.inf
        turned = other.affine @ nib.orientations.inv_ornt_aff(orientation, other.shape)
        corners = np.array(list(product(*[(0, size - 1) for size in self.shape])))
        moved = apply_affine(np.linalg.inv(self.affine) @ turned, corners)
        return orientation, float(np.abs(moved - corners).max())

    def mismatch(self, other: "Geometry") -> str | None:
        """Says how the voxels of another volume lie elsewhere than this one's, or None if they are the same points.

        The order and direction of axes may differ, and each position by `SAME_GRID`.
        """
        _, distance = self.turn(other)
        if distance <= SAME_GRID:
            return None
        if self.shape != other.shape:
            return f"shape {other.shape} differs from {self.shape}"
        difference = np.abs(self.affine - other.affine).max()
        away = f"corners lie up to {distance:.3g} voxels away" if np.isfinite(distance) else "axes run otherwise"
        return f"affine differs by up to {difference:.3g} mm, {away}"

    def attributes(self) -> dict[str, Any]:
        """Everything, as HDF5 attributes."""
        return {
            "shape": np.array(self.shape),
            "affine": self.affine,
            "sform": self.sform,
            "qform": self.qform,
            "form_codes": np.array(self.codes),
        }

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> "Geometry":
        """The inverse of `attributes`."""
        height, width, depth = (int(size) for size in attributes["shape"])
        sform_code, qform_code = (int(code) for code in attributes["form_codes"])
        affine, sform, qform = (np.asarray(attributes[name], np.float64) for name in ("affine", "sform", "qform"))
        return cls((height, width, depth), affine, sform, qform, (sform_code, qform_code))

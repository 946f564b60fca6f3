"""Where the voxels of a NIfTI file lie in the patient, and the way to axial slices and back."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

# The canonical frame is (slices, rows, columns): slices from inferior to superior, rows from anterior to posterior,
# columns from the patient's right to left, which is how radiologists look at axial slices (liver on the image's left).
# nibabel's world axes are 0 left-right, 1 posterior-anterior, 2 inferior-superior; -1 runs against them.
_WORLD_AXES = (2, 1, 0)
_DIRECTIONS = (1, -1, -1)


@dataclass(frozen=True, eq=False)
class Geometry:
    """Shape and position of a volume, as its NIfTI header gives them.

    Attributes:
        shape: Voxels along the file's three axes.
        affine: Voxel indices to millimetres, 4x4, the one that NIfTI readers use (sform, else qform, else voxel sizes).
        sform: The header's sform, 4x4; meaningless where its code is 0.
        qform: The header's qform, 4x4; meaningless where its code is 0.
        codes: The header's sform and qform codes.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    sform: NDArray[np.float64]
    qform: NDArray[np.float64]
    codes: tuple[int, int]

    @classmethod
    def from_header(cls, header: Any) -> "Geometry":
        """Geometry of a three-dimensional volume from its nibabel NIfTI header.

        Raises:
            nibabel.spatialimages.HeaderDataError: The quaternion is invalid.
        """
        height, width, depth = (int(size) for size in header.get_data_shape())
        codes = (int(header["sform_code"]), int(header["qform_code"]))
        qform = header.get_qform() if codes[1] else np.eye(4)
        return cls((height, width, depth), np.asarray(header.get_best_affine()), header.get_sform(), qform, codes)

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

    def mismatch(self, other: "Geometry", *, tolerance: float = 1e-3) -> str | None:
        """Says how another volume's geometry differs, or None if it is the same one.

        Args:
            other: The other volume's geometry.
            tolerance: Largest allowed difference of any element of the affines (mm).
        """
        if self.shape != other.shape:
            return f"shape {other.shape} differs from {self.shape}"
        difference = float(np.abs(self.affine - other.affine).max())
        if difference > tolerance:
            return f"affine differs by up to {difference:.4g} (more than {tolerance:g})"
        return None

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

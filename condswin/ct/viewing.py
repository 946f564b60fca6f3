"""A CT volume with its reference and predicted segmentations over it."""

import gzip
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from condswin.ct.config import SegmentationConfig
from condswin.ct.geometry import Geometry
from condswin.ct.judging import label_files
from condswin.ct.nifti import LABELS, SUFFIXES, UNPROCESSED, read_geometry, read_image, read_labels, stem
from condswin.ct.prepared import open_prepared
from condswin.errors import BadFileError
from condswin.kinds import HDF5, kind_of
from condswin.tasks.pictures import CasePanels
from condswin.tasks.viewing import Layer, Viewing, Volumes

#: Voxels of an image that a page has room for: packed about a byte each, and four thirds of that in HTML.
ROOM = 24_000_000
#: Voxels that are read at all: a GB as they are read.
READ = 1 << 28

#: Of the palette of Okabe and Ito (2008), which the colour-blind tell apart: liver and tumour of the target, and of
#: predictions.
_TARGET = {1: (240, 228, 66), 2: (230, 159, 0)}
_PREDICTION = {1: (86, 180, 233), 2: (0, 114, 178)}
#: Hounsfield units that are black and white.
_PRESETS = {"abdomen": (-160.0, 240.0), "liver": (0.0, 200.0), "bone": (-400.0, 1400.0), "lung": (-1350.0, 150.0)}


class SegmentationViewing(Viewing):
    """NIfTI volumes and prepared cases."""

    suffixes: ClassVar[tuple[str, ...]] = (*SUFFIXES, ".h5")
    own: ClassVar[tuple[str, ...]] = ("CT", "target", "segmentation")

    def takes(self, path: Path) -> bool:
        """Whether it is a NIfTI volume or a prepared case."""
        if path.name.lower().endswith(SUFFIXES):
            return True
        try:
            with open_prepared(path):
                return True
        except BadFileError:
            return False

    def prediction_of(self, path: Path) -> str:
        """`segmentation-N` -> `volume-N`; what a network said before post-processing is no prediction of its own."""
        name = stem(path)
        if not path.name.lower().endswith(SUFFIXES) or name.endswith(UNPROCESSED) or name.startswith("volume-"):
            return ""
        return f"volume-{name.removeprefix('segmentation-')}"

    def scan_name(self, case: str) -> str:
        """As `prepare` writes it."""
        return f"{case}.h5"

    def show(
        self, scan: Path | None, reference: Path | None, predictions: Mapping[str, Path]
    ) -> tuple[CasePanels | Volumes, list[str]]:
        """The image, and segmentations over it; a reference that lies beside the scan under LiTS's name is found.

        Rows and columns that a page has no room for are left out, evenly.
        """
        rules = self.config.section(SegmentationConfig).ingest
        first = next(path for path in (scan, reference, *predictions.values()) if path is not None)
        if scan is not None and stem(scan).startswith("segmentation-"):
            scan, predictions = None, {"segmentation": first, **predictions}
        if scan is not None and reference is None:
            reference = label_files(scan.parent).get(stem(scan).removesuffix(".h5").removeprefix("volume-"))
            reference = None if reference == scan else reference
        notes: list[str] = []
        layers: list[Layer] = []
        geometry: Geometry | None = None
        step = 1
        if scan is not None:
            image, geometry, size = self._image(scan, notes)
            step = _step(image.size)
            shown = np.rint(image[:, ::step, ::step].astype(np.float32)).clip(-(1 << 15), (1 << 15) - 1)
            layers.append(Layer("CT", _nifti(shown.astype(np.int16), geometry, size, step)))
            del image, shown
        segmentations = {**({"target": reference} if reference else {}), **predictions}
        for name, path in segmentations.items():
            if geometry is None:
                _require_room(path, read_geometry(path, rules))
            like = (geometry, first.name) if geometry is not None else None
            labels = read_labels(path, like=like, rules=rules)
            notes += [f"{name}: {what}" for what in labels.assumed]
            geometry = labels.geometry
            size = geometry.canonical_shape
            step = step if scan is not None else _step(labels.data.size)
            colours = _TARGET if name == "target" else _PREDICTION
            meaning = {value: (LABELS[value], colour) for value, colour in colours.items()}
            canonical = labels.canonical[:, ::step, ::step]
            layers.append(Layer(name, _nifti(np.ascontiguousarray(canonical), geometry, size, step), meaning))
        if step > 1:
            notes.append(f"every {step}. row and column: the page has no room for more")
        low, high = self.config.section(SegmentationConfig).prepare.windows[0]
        return Volumes(layers, (low, high), "HU", _PRESETS), notes

    def _image(self, path: Path, notes: list[str]) -> tuple[NDArray[Any], Geometry, tuple[int, int, int]]:
        """Hounsfield units as axial slices, the geometry of the source, and the shape of these slices."""
        if path.suffix.lower() == ".h5" and kind_of(path) == HDF5:
            with open_prepared(path) as file:
                geometry = Geometry.from_attributes(file.attrs)
                _require_room(path, geometry)
                image: NDArray[Any] = file["image"][()]
                notes.append("a prepared case: clipped to what its windows keep")
                slices, rows, columns = (int(side) for side in image.shape)
                return image, geometry, (slices, rows, columns)
        rules = self.config.section(SegmentationConfig).ingest
        _require_room(path, read_geometry(path, rules))
        volume = read_image(path, rules)
        notes += volume.assumed
        return volume.canonical, volume.geometry, volume.geometry.canonical_shape


def _require_room(path: Path, geometry: Geometry) -> None:
    voxels = math.prod(geometry.shape)
    if voxels > READ:
        raise BadFileError(path, f"{voxels} voxels, view takes at most {READ}; cut out the part to look at")


def _step(voxels: int) -> int:
    return max(math.ceil(math.sqrt(voxels / ROOM)), 1)


def canonical_affine(geometry: Geometry, size: tuple[int, int, int], step: int = 1) -> NDArray[np.float64]:
    """Indices (column, row, slice) of axial slices to millimetres, 4x4.

    Args:
        geometry: Of the file that they came from.
        size: Slices, rows and columns of the slices, which may have been resampled.
        step: Every so many rows and columns are there.
    """
    wanted = nib.orientations.axcodes2ornt(("L", "P", "S"))
    turn = nib.orientations.ornt_transform(nib.io_orientation(geometry.affine), wanted)
    affine = geometry.affine @ nib.orientations.inv_ornt_aff(turn, geometry.shape)
    scales = np.array([there / here for there, here in zip(geometry.canonical_shape, size, strict=True)])[::-1]
    resampled = np.diag([*scales, 1.0])
    resampled[:3, 3] = (scales - 1) / 2
    result: NDArray[np.float64] = affine @ resampled @ np.diag([step, step, 1.0, 1.0])
    return result


def _nifti(slices: NDArray[Any], geometry: Geometry, size: tuple[int, int, int], step: int) -> bytes:
    """A gzipped NIfTI file of axial slices, with nothing but their place in its header."""
    image = nib.Nifti1Image(slices.transpose(2, 1, 0), canonical_affine(geometry, size, step))
    image.header.set_xyzt_units("mm")
    if slices.dtype == np.uint8:
        image.header.set_intent("label")
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


PART = SegmentationViewing

"""NIfTI volumes read with suspicion, and label volumes written in the geometry of their image.

A scanner export or a download may be anything, so files are decoded here in an order that refuses before it allocates:
container, header, declared size, voxels, values.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BufferedIOBase
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from condswin.ct.config import CtIngestConfig
from condswin.ct.geometry import SAME_GRID, Geometry
from condswin.ct.headers import EXTRA, Header
from condswin.ct.opening import opened
from condswin.errors import BadFileError
from condswin.files import atomic_file

SUFFIXES = (".nii.gz", ".nii")
#: Added to the stem of a prediction's name: what the network said, before post-processing.
UNPROCESSED = ".unprocessed"
#: Label values and what they mean.
LABELS = {0: "background", 1: "liver", 2: "tumour"}

#: Values that CT can hold: padding reaches below -3000 HU, metal on extended scales above 20,000 HU.
HU_RANGE = (-5000.0, 32000.0)
# A few voxels may lie beyond (metal artefacts); the window clips them.
_OUTLIERS = 1e-3
# Every abdomen shows fat or air below this and, from its darkest to its brightest voxel, this contrast.
_DARKEST = -20.0
_CONTRAST = 200.0
_CHUNK = 1 << 22
# An image becomes float32. One of more than 4 GB that shrank further than this is refused, since scans do not (about
# 2:1, noise does not compress; one with nothing but a liver left 100:1): a few MB would fill the memory.
_BOMB, _RATIO = 1 << 30, 200
# Floats saved under a header of integers are stored with a slope, and come back off by up to half of it: labels in 16
# bits by 2e-5, in 8 bits by 1/255.
_ROUNDING, _ROUNDING_8_BIT = 1e-3, 1.001 / 255
# Positions that differ by less differ by the precision of a header's numbers.
_EQUAL = 1e-3  # voxels
_UNTURNED = np.array([[0, 1], [1, 1], [2, 1]])


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels in the file's own axis order (that of their image for labels), and where they lie.

    Attributes:
        data: (X, Y, Z); float32 HU of an image, uint8 labels of a segmentation.
        geometry: The header's geometry, or that of the volume that labels were read on.
        assumed: What was taken for granted in reading it, short sentences.
        as_stored: Whether the file itself has the axes of `data` and the position of `geometry`.
    """

    data: NDArray[Any]
    geometry: Geometry
    assumed: tuple[str, ...] = ()
    as_stored: bool = True

    @property
    def canonical(self) -> NDArray[Any]:
        """The voxels as axial slices (slices, rows, columns)."""
        return self.geometry.to_canonical(self.data)


def stem(path: Path) -> str:
    """File name without `.nii` or `.nii.gz`, in whatever case; the whole name of any other file."""
    suffix = next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), "")
    return path.name[: len(path.name) - len(suffix)]


def read_geometry(path: Path, rules: CtIngestConfig = CtIngestConfig()) -> Geometry:  # noqa: B008 (frozen)
    """Where the voxels of a file lie, of which none is read.

    Args:
        path: NIfTI-1 or -2 file, gzipped if named `.gz`.
        rules: What to do where the header leaves something open.

    Raises:
        BadFileError: The file is missing, or its header is damaged or not that of a three-dimensional volume.
    """
    with opened(path) as (_, header):
        _known(path, header, rules)
        return header.geometry


def read_image(path: Path, rules: CtIngestConfig = CtIngestConfig()) -> Volume:  # noqa: B008 (frozen)
    """Reads a CT volume.

    Args:
        path: NIfTI-1 or -2 file, gzipped if named `.gz`.
        rules: What to do where the header leaves something open.

    Returns:
        Hounsfield units, float32.

    Raises:
        BadFileError: The file is missing, damaged, not a three-dimensional NIfTI volume or not in HU.
    """

    def place(header: Header) -> _Place:
        voxels = math.prod(header.geometry.shape)
        if voxels > max(_BOMB, path.stat().st_size * _RATIO // header.dtype.itemsize):
            raise BadFileError(path, f"{voxels} voxels in {path.stat().st_size} bytes: no scan compresses that far")
        unit = ("no unit of length in the header: millimetres",) if header.unit == "unknown" else ()
        return _Place(header.geometry, None, (*_known(path, header, rules), *unit))

    volume = _read(path, np.dtype(np.float32), place, lambda values, _: values)
    data = volume.data
    low, high = float(data.min()), float(data.max())  # NaN if any voxel is
    if not (math.isfinite(low) and math.isfinite(high)):
        count = data.size - np.count_nonzero(np.isfinite(data))
        raise BadFileError(path, f"{count} voxels are not finite (NaN or infinite HU)")
    if low < HU_RANGE[0] or high > HU_RANGE[1]:
        outside = np.count_nonzero((data < HU_RANGE[0]) | (data > HU_RANGE[1])) / data.size
        if outside > _OUTLIERS:
            raise BadFileError(
                path, f"{outside:.1%} of the voxels lie outside {HU_RANGE} HU (values from {low:g} to {high:g})"
            )
    if low > _DARKEST or high - low < _CONTRAST:
        raise BadFileError(
            path, f"values from {low:g} to {high:g} are no Hounsfield units of an abdomen (rescaled, or offset lost?)"
        )
    return volume


def read_labels(
    path: Path,
    *,
    like: tuple[Geometry, str] | None = None,
    rules: CtIngestConfig = CtIngestConfig(),  # noqa: B008 (frozen)
) -> Volume:
    """Reads a label volume.

    Args:
        path: NIfTI-1 or -2 file, gzipped if named `.gz`.
        like: Geometry that it must have, and whose that is; checked before any voxel is unpacked. Axes may be in
            another order and direction: they are turned.
        rules: What to do where the header leaves something open, or says another geometry.

    Returns:
        Values of `LABELS`, uint8. All background is allowed here.

    Raises:
        BadFileError: The file is missing, damaged, not three-dimensional NIfTI, holds other values or lies elsewhere.
    """
    rounded: list[float] = []

    def whole(values: NDArray[Any], header: Header) -> NDArray[Any]:
        allowed = min(max(_ROUNDING, abs(header.scaling[0]) * 0.501), _ROUNDING_8_BIT) if header.scaling else _ROUNDING
        nearest = values if values.dtype.kind in "iu" else np.rint(values)
        away = np.abs(values - nearest)
        good = (nearest >= 0) & (nearest < len(LABELS)) & (away <= allowed)
        if not good.all():
            others = np.unique(values[~good])
            shown = ", ".join(f"{value:.8g}" for value in others[:5]) + (", ..." if others.size > 5 else "")
            raise BadFileError(path, f"labels must be 0, 1 or 2, found {shown}")
        if away.any():
            rounded.append(float(away.max()))
        return nearest

    volume = _read(path, np.dtype(np.uint8), lambda header: _place_labels(path, header, like, rules), whole)
    if rounded:
        return replace(volume, assumed=(*volume.assumed, "values almost 0, 1 or 2 rounded"))
    return volume


def write_labels(path: Path, labels: NDArray[np.uint8], geometry: Geometry) -> None:
    """Writes a label volume as NIfTI-1, atomically; nothing but geometry goes into its header.

    Args:
        path: `.nii.gz` or `.nii`.
        labels: (X, Y, Z) in the axis order of `geometry`.
        geometry: Where the voxels lie; affine, sform, qform and their codes are kept.
    """
    image = nib.Nifti1Image(np.asarray(labels, np.uint8), None)
    sform_code, qform_code = geometry.codes
    image.header.set_zooms(np.linalg.norm(geometry.affine[:3, :3], axis=0))
    image.header.set_xyzt_units("mm")
    if qform_code:
        image.set_qform(geometry.qform, qform_code)
    if sform_code:
        image.set_sform(geometry.sform, sform_code)
    with atomic_file(path) as temporary:
        nib.save(image, temporary)


class _Place(NamedTuple):
    """Where voxels are put: the geometry, how axes are turned to it (None: not at all), and what was assumed."""

    geometry: Geometry
    turn: NDArray[np.float64] | None
    assumed: tuple[str, ...] = ()
    as_stored: bool = True


def _known(path: Path, header: Header, rules: CtIngestConfig) -> tuple[str, ...]:
    """What was assumed for a header's own geometry.

    Raises:
        BadFileError: It is not known, and nothing may be assumed.
    """
    if header.unknown and rules.unknown_geometry == "refuse":
        doubts, instead = ("; ".join(parts) for parts in zip(*header.unknown, strict=True))
        raise BadFileError(
            path,
            f"{doubts}. Correct the header, or set segmentation.ingest.unknown_geometry to assume ({instead})",
        )
    return (*header.assumed, *(f"{doubt}: {instead} assumed" for doubt, instead in header.unknown))


def _place_labels(path: Path, header: Header, like: tuple[Geometry, str] | None, rules: CtIngestConfig) -> _Place:
    if like is None:
        return _Place(header.geometry, None, _known(path, header, rules))
    there, whose = like
    mismatch = there.mismatch(header.geometry)
    if not mismatch and header.unknown and rules.unknown_geometry == "refuse":
        mismatch = header.unknown[0][0]
    if mismatch:
        if header.geometry.shape != there.shape:
            raise BadFileError(path, f"{mismatch}, that of {whose}")
        if rules.label_geometry == "require":
            mend = "if its voxels match all the same, set segmentation.ingest.label_geometry to of-image"
            raise BadFileError(path, f"{mismatch} (against {whose}); {mend}")
        return _Place(there, None, (*header.assumed, f"geometry taken from the image ({mismatch})"), as_stored=False)
    assumed = _known(path, header, rules)
    turn, distance = there.turn(header.geometry)
    if distance > _EQUAL:
        assumed += (f"positions off by less than {SAME_GRID} voxels: the image's were taken",)
    if np.array_equal(turn, _UNTURNED):
        return _Place(there, None, assumed)
    return _Place(there, turn, (*assumed, "axes turned to those of the image, on the same grid"), as_stored=False)


def _read(
    path: Path,
    dtype: np.dtype[Any],
    place: Callable[[Header], _Place],
    convert: Callable[[NDArray[Any], Header], NDArray[Any]],
) -> Volume:
    """Voxels of a three-dimensional NIfTI file, scaled as its header says and converted to `dtype` as they are read.

    Args:
        path: The file.
        dtype: Wanted.
        place: Called before any voxel is read.
        convert: Called with each portion of scaled voxels and the header.
    """
    with opened(path) as (file, header):
        placed, skip = place(header), header.skip
        try:
            while skip > 0 and (passed := len(file.read(min(_CHUNK, skip)))):
                skip -= passed
            data = _read_voxels(path, file, header, dtype, convert)
        except MemoryError:
            raise BadFileError(path, f"{header.geometry.shape} voxels do not fit into this machine's memory") from None
        for _ in range(EXTRA // _CHUNK):  # to the end, where gzip checks its sum
            if not file.read(_CHUNK):
                break
        else:
            raise BadFileError(path, f"more than {EXTRA} bytes follow the voxels; the header's shape is wrong")
    if placed.turn is not None:
        data = np.asfortranarray(nib.apply_orientation(data, placed.turn))
    return Volume(data, placed.geometry, placed.assumed, placed.as_stored)


def _read_voxels(
    path: Path,
    file: BufferedIOBase,
    header: Header,
    dtype: np.dtype[Any],
    convert: Callable[[NDArray[Any], Header], NDArray[Any]],
) -> NDArray[Any]:
    """Voxels in portions, so that only what is wanted is held, and memory grows with what the file really holds."""
    shape, stored = header.geometry.shape, header.dtype
    voxels = np.zeros(math.prod(shape), dtype)  # untouched pages take no memory, and background leaves them so
    done = 0
    while done < voxels.size:
        wanted = min(_CHUNK, (voxels.size - done) * stored.itemsize)
        portion = file.read(wanted)
        if len(portion) < wanted:
            got, needed = done * stored.itemsize + len(portion), voxels.size * stored.itemsize
            raise BadFileError(path, f"truncated: {got} of {needed} bytes of voxels")
        values = np.frombuffer(portion, stored)
        with np.errstate(all="ignore"):  # overflow becomes infinity, which the value checks name
            if header.scaling:
                slope, intercept = header.scaling
                values = values.astype(np.float32) * np.float32(slope) + np.float32(intercept)
            values = convert(values, header)
            if values.any():
                voxels[done : done + values.size] = values
        done += values.size
    return voxels.reshape(shape, order="F")

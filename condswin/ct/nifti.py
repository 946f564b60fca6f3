"""NIfTI volumes read with suspicion, and label volumes written in the geometry of their image.

A scanner export or a download may be anything, so files are decoded here in an order that refuses before it allocates:
container, header, declared size, voxels, values. Only the header's layout is left to nibabel.
"""

import gzip
import logging
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from condswin.ct.geometry import Geometry
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
_VOXEL_SIZE = (1e-2, 1e2)  # mm
_HEADER_SIZES = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_DEFLATE_LIMIT = 1032  # deflate cannot shrink zeros further, so a bigger claim is false before anything is unpacked
_CHUNK = 1 << 22
_EXTRA = 1 << 24  # bytes of extensions before the voxels, or of anything after them
# A file that unpacks to more than this is refused if it shrank more than scans (about 2:1, noise does not compress) and
# segmentations (up to 730:1, stored as doubles) do: it would fill the memory with next to nothing.
_BOMB = 1 << 26
_IMAGE_RATIO, _LABEL_RATIO = 200, 1000
_QUIET = logging.Logger("nibabel headers of unchecked files", level=logging.CRITICAL + 1)


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels in the file's own axis order, and where they lie.

    Attributes:
        data: (X, Y, Z); float32 HU of an image, uint8 labels of a segmentation.
        geometry: The header's geometry.
    """

    data: NDArray[Any]
    geometry: Geometry

    @property
    def canonical(self) -> NDArray[Any]:
        """The voxels as axial slices (slices, rows, columns)."""
        return self.geometry.to_canonical(self.data)


def stem(path: Path) -> str:
    """File name without `.nii` or `.nii.gz`, in whatever case; the whole name of any other file."""
    suffix = next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), "")
    return path.name[: len(path.name) - len(suffix)]


def read_image(path: Path) -> Volume:
    """Reads a CT volume.

    Args:
        path: NIfTI-1 or -2 file, gzipped if named `.gz`.

    Returns:
        Hounsfield units, float32.

    Raises:
        BadFileError: The file is missing, damaged, not a three-dimensional NIfTI volume or not in HU.
    """
    volume = _read(path, np.dtype(np.float32), ratio=_IMAGE_RATIO)
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


def read_geometry(path: Path) -> Geometry:
    """Where the voxels of a CT volume lie, of which none is read."""
    return read_image(path).geometry


def read_labels(path: Path, *, like: tuple[Geometry, str] | None = None) -> Volume:
    """Reads a label volume.

    Args:
        path: NIfTI-1 or -2 file, gzipped if named `.gz`.
        like: Geometry that it must have, and whose that is; checked before any voxel is unpacked.

    Returns:
        Values of `LABELS`, uint8. All background is allowed here.

    Raises:
        BadFileError: The file is missing, damaged, not three-dimensional NIfTI, holds other values or lies elsewhere.
    """
    return _read(path, np.dtype(np.uint8), ratio=_LABEL_RATIO, check=_check_labels, like=like)


def read_pair(image_path: Path, label_path: Path) -> tuple[Volume, Volume]:
    """Reads a CT volume and its segmentation, and checks that they belong together.

    Returns:
        Image and labels.

    Raises:
        BadFileError: Either is unusable, their shapes or affines differ, or no voxel is liver or tumour.
    """
    image = read_image(image_path)
    labels = read_labels(label_path, like=(image.geometry, f"its image {image_path.name}"))
    if not labels.data.any():
        raise BadFileError(label_path, "all voxels are background; a labelled abdomen shows liver")
    return image, labels


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


def _check_labels(path: Path, values: NDArray[Any]) -> None:
    good = np.zeros(values.shape, dtype=bool)
    for value in LABELS:
        good |= values == value
    if not good.all():
        others = np.unique(values[~good])
        shown = ", ".join(f"{value:g}" for value in others[:5]) + (", ..." if others.size > 5 else "")
        raise BadFileError(path, f"labels must be 0, 1 or 2, found {shown}")


def _read(
    path: Path,
    dtype: np.dtype[Any],
    *,
    ratio: int,
    check: Callable[[Path, NDArray[Any]], None] | None = None,
    like: tuple[Geometry, str] | None = None,
) -> Volume:
    """Voxels of a three-dimensional NIfTI file, scaled as its header says and converted to `dtype` as they are read.

    Args:
        path: The file.
        dtype: Wanted.
        ratio: Refuse large files that were compressed further than this.
        check: Called with the path and each portion of scaled voxels.
        like: As in `read_labels`.
    """
    if not path.is_file():
        raise BadFileError(path, "no such file")
    size = path.stat().st_size
    if not size:
        raise BadFileError(path, "empty file")
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        if zipped != path.name.lower().endswith(".gz"):
            raise BadFileError(path, "gzip data without .gz in its name" if zipped else "named .gz but not gzip data")
        with gzip.open(path) if zipped else path.open("rb") as file:
            header, head = _read_header(path, file)
            geometry = _check_header(path, header, size, ratio if zipped else 1)
            if like and (mismatch := like[0].mismatch(geometry)):
                raise BadFileError(path, f"{mismatch}, that of {like[1]}")
            skip = header.get_data_offset() - len(head)
            while skip > 0 and (passed := len(file.read(min(_CHUNK, skip)))):
                skip -= passed
            data = _read_voxels(path, file, header, dtype, check)
            for _ in range(_EXTRA // _CHUNK):  # to the end, where gzip checks its sum
                if not file.read(_CHUNK):
                    break
            else:
                raise BadFileError(path, f"more than {_EXTRA} bytes follow the voxels; the header's shape is wrong")
    except (OSError, EOFError, zlib.error) as error:
        raise BadFileError(path, f"damaged or unreadable: {error}") from None
    except MemoryError:
        raise BadFileError(path, f"{geometry.shape} voxels do not fit into this machine's memory") from None
    return Volume(data, geometry)


def _read_header(path: Path, file: BufferedIOBase) -> tuple[Any, bytes]:
    head = file.read(4)
    header_class = _HEADER_SIZES.get(int.from_bytes(head, "little")) or _HEADER_SIZES.get(int.from_bytes(head, "big"))
    if header_class is None:
        raise BadFileError(path, "not a NIfTI file")
    head += file.read(header_class.sizeof_hdr - 4)
    if len(head) < header_class.sizeof_hdr:
        raise BadFileError(path, f"truncated inside the header ({len(head)} bytes)")
    # nibabel raises many types of error for damaged headers, and repairs some silently or with a log line.
    try:
        header = header_class(head, check=False)
        header.check_fix(logger=_QUIET, error_level=40)
        header.get_data_dtype(), header.get_slope_inter(), header.get_data_offset(), header.get_xyzt_units()
    except Exception as error:
        raise BadFileError(path, f"bad NIfTI header: {error}") from None
    if bytes(header["magic"]).rstrip(b"\0")[:3] not in (b"n+1", b"n+2"):
        raise BadFileError(path, f"not a single-file NIfTI (magic {bytes(header['magic'])!r})")
    return header, head


def _check_header(path: Path, header: Any, size: int, ratio: int) -> Geometry:
    """Refuses what cannot be a CT volume or cannot come out of a file of `size` bytes; allocates nothing."""
    shape = tuple(int(size) for size in header.get_data_shape())
    if len(shape) != 3:
        raise BadFileError(path, f"{len(shape)}-dimensional {shape}; one three-dimensional volume is needed")
    if min(shape) < 1:
        raise BadFileError(path, f"no voxels: shape {shape}")
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise BadFileError(path, f"voxels of type {dtype} are not real numbers")
    offset = header.get_data_offset()
    if offset < header.sizeof_hdr:
        raise BadFileError(path, f"voxels at byte {offset} would lie inside the header")
    if offset > _EXTRA:
        raise BadFileError(path, f"voxels at byte {offset}; at most {_EXTRA} are valid")
    declared = offset + math.prod(shape) * dtype.itemsize
    if declared > size * (_DEFLATE_LIMIT if ratio > 1 else 1):
        raise BadFileError(
            path, f"truncated: {shape} voxels of {dtype} need {declared} bytes, the file cannot hold them"
        )
    if declared > max(_BOMB, size * ratio):
        raise BadFileError(
            path,
            f"{declared} bytes of voxels in a file of {size}: nothing but padding compresses further than {ratio}:1",
        )
    unit = header.get_xyzt_units()[0]
    if unit not in ("mm", "unknown"):  # LiTS leaves the unit out and means millimetres
        raise BadFileError(path, f"spatial unit {unit!r}; millimetres are needed")
    try:
        geometry = Geometry.from_header(header)
    except Exception as error:  # as above
        raise BadFileError(path, f"bad orientation in the NIfTI header: {error}") from None
    matrix = geometry.affine[:3, :3]
    sizes = np.linalg.norm(matrix, axis=0)
    if not np.isfinite(geometry.affine).all() or sizes.min() < _VOXEL_SIZE[0] or sizes.max() > _VOXEL_SIZE[1]:
        shown = " x ".join(f"{size:.4g}" for size in sizes)
        raise BadFileError(
            path, f"voxels of {shown} mm: sides from {_VOXEL_SIZE[0]:g} to {_VOXEL_SIZE[1]:g} mm are valid"
        )
    if abs(np.linalg.det(matrix / sizes)) < 0.1:
        raise BadFileError(path, "affine is singular or nearly so: its axes do not span the volume")
    return geometry


def _read_voxels(
    path: Path,
    file: BufferedIOBase,
    header: Any,
    dtype: np.dtype[Any],
    check: Callable[[Path, NDArray[Any]], None] | None,
) -> NDArray[Any]:
    """Voxels in portions, so that only what is wanted is held, and memory grows with what the file really holds."""
    shape, stored = header.get_data_shape(), header.get_data_dtype()
    slope, intercept = header.get_slope_inter()
    scaled = slope not in (None, 1.0) or intercept not in (None, 0.0)
    voxels = np.empty(math.prod(shape), dtype)  # untouched pages take no memory
    done = 0
    while done < voxels.size:
        wanted = min(_CHUNK, (voxels.size - done) * stored.itemsize)
        portion = file.read(wanted)
        if len(portion) < wanted:
            got, needed = done * stored.itemsize + len(portion), voxels.size * stored.itemsize
            raise BadFileError(path, f"truncated: {got} of {needed} bytes of voxels")
        values = np.frombuffer(portion, stored)
        with np.errstate(all="ignore"):  # overflow becomes infinity, which the value checks name
            if scaled:
                values = values.astype(np.float32) * np.float32(slope) + np.float32(intercept or 0)
            if check:
                check(path, values)
            voxels[done : done + values.size] = values
        done += values.size
    return voxels.reshape(shape, order="F")

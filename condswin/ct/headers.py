"""What a NIfTI header says, what it leaves open, and what no CT volume's header says.

Read with suspicion: only the layout of its fields is left to nibabel, which repairs some of them without a word.
"""

import logging
import math
from dataclasses import dataclass, replace
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from condswin.ct.geometry import SAME_GRID, Geometry
from condswin.errors import BadFileError

#: Bytes of extensions before the voxels, or of anything after them.
EXTRA = 1 << 24
#: The most voxels of a volume: eight times 512 x 512 x 1024. Any file may claim them with a few MB of zeros.
VOXELS = 1 << 31
_VOXEL_SIZE = (1e-2, 1e2)  # mm
_CLASSES = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_DEFLATE_LIMIT = 1032  # deflate cannot shrink zeros further, so a bigger claim is false before anything is unpacked
# Sums of squares of a quaternion may exceed 1 by rounding. The NIfTI library scales any back to 1, nibabel none.
_QUATERNION = 1e-3
# The normalised axes of a gantry tilted by 30 degrees span 0.87 of a unit cube.
_SPAN = 0.1
_IDENTITY = "an identity matrix"
_QUIET = logging.Logger("nibabel headers of unchecked files", level=logging.CRITICAL + 1)


@dataclass(frozen=True)
class Header:
    """A header that can be that of a CT volume.

    Attributes:
        unit: `mm`, or `unknown`, which means millimetres.
        dtype: Of the voxels as stored.
        scaling: Slope and intercept; None if values are stored as they are.
        skip: Bytes between the header and the voxels.
        geometry: Where the voxels lie, as nibabel reads it.
        assumed: What was taken for granted, short sentences.
        unknown: What the header does not say about the geometry, each with what nibabel assumes.
    """

    unit: str
    dtype: np.dtype[Any]
    scaling: tuple[float, float] | None
    skip: int
    geometry: Geometry
    assumed: tuple[str, ...]
    unknown: tuple[tuple[str, str], ...]


def read_header(path: Path, file: BufferedIOBase, *, packed: bool) -> Header:
    """Reads the header of a NIfTI-1 or -2 file and refuses what cannot be a CT volume; allocates nothing.

    Args:
        path: The file.
        file: Its unpacked bytes, from the first.
        packed: Whether they are compressed.

    Raises:
        BadFileError: Not the header of one three-dimensional volume of real numbers that the file can hold.
    """
    raw, header = _parse(path, file)
    shape = tuple(int(size) for size in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:  # volumes of one time point or channel, as other tools save them
        shape = shape[:-1]
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
    if offset > EXTRA:
        raise BadFileError(path, f"voxels at byte {offset}; at most {EXTRA} are valid")
    declared = offset + math.prod(shape) * dtype.itemsize
    if declared > path.stat().st_size * (_DEFLATE_LIMIT if packed else 1):
        raise BadFileError(
            path, f"truncated: {shape} voxels of {dtype} need {declared} bytes, the file cannot hold them"
        )
    if math.prod(shape) > VOXELS:
        raise BadFileError(path, f"{math.prod(shape)} voxels {shape}: at most {VOXELS} are read; is the shape right?")
    unit = header.get_xyzt_units()[0]
    if unit not in ("mm", "unknown"):  # LiTS leaves the unit out and means millimetres
        shown = " x ".join(f"{size:.4g}" for size in header.get_zooms()[:3])
        raise BadFileError(
            path,
            f"spatial unit {unit!r} (voxels of {shown}); millimetres are needed: if they are, write 2 (mm) into "
            "xyzt_units, else convert the affine",
        )
    with np.errstate(all="ignore"):  # what is not finite is named
        geometry, assumed, unknown = locate(path, raw, header, shape)
    slope, intercept = header.get_slope_inter()
    plain = slope in (None, 1.0) and intercept in (None, 0.0)
    return Header(
        unit,
        dtype,
        None if plain else (slope, intercept or 0),
        offset - header.sizeof_hdr,
        geometry,
        tuple(assumed),
        tuple(unknown),
    )


def locate(
    path: Path, raw: Any, header: Any, shape: tuple[int, ...]
) -> tuple[Geometry, list[str], list[tuple[str, str]]]:
    """Geometry by the first of sform, qform and voxel sizes that is one.

    Args:
        path: Named in errors.
        raw: The header as it is in the file.
        header: The same, repaired by nibabel.
        shape: Three-dimensional.

    Returns:
        Geometry; what was assumed; what is unknown, with what stands in its place.

    Raises:
        BadFileError: What the header says is impossible.
    """
    assumed: list[str] = []
    unknown: list[tuple[str, str]] = []
    forms = {"sform": header.get_sform(), "qform": _qform(header)}
    codes = {name: int(header[f"{name}_code"]) for name in forms}
    assumed += [f"{name}_code is none of NIfTI's: not read" for name in forms if raw[f"{name}_code"] != codes[name]]
    faults = {name: _fault(form) for name, form in forms.items() if codes[name]}
    usable = [name for name, fault in faults.items() if fault in ("", _IDENTITY)]
    # An identity matrix gives way to a qform that somebody filled in.
    field = min(usable, key=lambda name: faults[name] == _IDENTITY, default="pixdim")
    if field == "pixdim" and "qform" in faults:
        raise BadFileError(path, f"bad orientation in the NIfTI header: the qform is {faults['qform']}")
    affine = forms.get(field)
    if affine is None:
        affine = np.asarray(header.get_base_affine(), np.float64)
        why = f"the sform is {faults['sform']} and there is no qform" if faults else "there is neither sform nor qform"
        unknown.append((f"{why}: nothing says which way its axes run", "axes that run LAS"))
    elif field == "qform" and "sform" in faults:
        assumed.append(f"the sform is {faults['sform']}: the qform was read")
    if field != "sform":
        sizes = raw["pixdim"][1:4]
        if flat := [str(axis + 1) for axis in np.flatnonzero(sizes == 0)]:
            axes = " and ".join(flat)
            unknown.append((f"pixdim is 0 along axis {axes}: nothing says how large voxels are", f"1 mm along {axes}"))
        if (sizes < 0).any():
            assumed.append("negative pixdim: read without the sign")
    if faults.get(field) == _IDENTITY:
        runs = "".join(nib.aff2axcodes(affine))
        unknown.append(
            (f"the {field} is {_IDENTITY}, what tools write without a geometry", f"1 mm, axes that run {runs}")
        )
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or sizes.min() < _VOXEL_SIZE[0] or sizes.max() > _VOXEL_SIZE[1]:
        shown = " x ".join(f"{size:.4g}" for size in sizes)
        raise BadFileError(
            path, f"voxels of {shown} mm: sides from {_VOXEL_SIZE[0]:g} to {_VOXEL_SIZE[1]:g} mm are valid"
        )
    sform, qform = header.get_sform(), forms["qform"] if "qform" in usable else affine
    if field == "qform":
        codes["sform"] = 0
    elif field == "pixdim":
        codes = dict.fromkeys(codes, 0)
    qform = qform if codes["qform"] else np.eye(4)
    geometry = Geometry((shape[0], shape[1], shape[2]), affine, sform, qform, (codes["sform"], codes["qform"]))
    if field == "sform" and faults.get("qform") == "":
        _, distance = geometry.turn(replace(geometry, affine=qform))
        if distance > SAME_GRID:
            assumed.append("the qform lies elsewhere than the sform: the sform was read")
    return geometry, assumed, unknown


def _parse(path: Path, file: BufferedIOBase) -> tuple[Any, Any]:
    """The header as it is in the file, and as nibabel repairs it."""
    head = file.read(4)
    kind = _CLASSES.get(int.from_bytes(head, "little")) or _CLASSES.get(int.from_bytes(head, "big"))
    if kind is None:
        raise BadFileError(path, "not a NIfTI file")
    head += file.read(kind.sizeof_hdr - 4)
    if len(head) < kind.sizeof_hdr:
        raise BadFileError(path, f"truncated inside the header ({len(head)} bytes)")
    # nibabel raises many types of error for damaged headers, and repairs some silently or with a log line.
    try:
        raw = kind(head, check=False)
        header = raw.copy()
        header.check_fix(logger=_QUIET, error_level=40)
        header.get_data_dtype(), header.get_slope_inter(), header.get_data_offset(), header.get_xyzt_units()
    except Exception as error:
        raise BadFileError(path, f"bad NIfTI header: {error}") from None
    if bytes(header["magic"]).rstrip(b"\0")[:3] not in (b"n+1", b"n+2"):
        raise BadFileError(path, f"not a single-file NIfTI (magic {bytes(header['magic'])!r})")
    return raw, header


def _fault(form: NDArray[np.float64] | None) -> str:
    """What keeps a matrix from being a position; empty if nothing does."""
    if form is None:
        return "no rotation"
    if not np.isfinite(form).all():
        return "not finite"
    sizes = np.linalg.norm(form[:3, :3], axis=0)
    if not sizes.any():
        return "all zeros"
    if not sizes.all() or abs(np.linalg.det(form[:3, :3] / sizes)) < _SPAN:
        return "singular or nearly so"
    # What nibabel (RAS) and ITK (LPS) write where they were given no geometry. No scanner's voxel lies at the origin.
    if np.allclose(np.abs(form), np.eye(4), rtol=0, atol=1e-6):
        return _IDENTITY
    return ""


def _qform(header: Any) -> NDArray[np.float64] | None:
    """The matrix of a qform, None if its quaternion is none."""
    try:
        return np.asarray(header.get_qform(), np.float64)
    except (ValueError, HeaderDataError):
        header = header.copy()
    parts = ("quatern_b", "quatern_c", "quatern_d")
    length = float(np.linalg.norm([float(header[part]) for part in parts]))
    if length**2 > 1 + _QUATERNION:
        return None
    for part in parts:
        header[part] /= length
    return np.asarray(header.get_qform(), np.float64)

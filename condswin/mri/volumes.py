"""What a dataset must know of prepared files before it reads a slice, remembered from run to run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from condswin.checksums import cache_folder
from condswin.errors import BadFileError
from condswin.files import fingerprint, read_json, write_json
from condswin.mri.extent import Extent
from condswin.mri.prepared import read_extent, read_mask
from condswin.mri.reading import ZERO_FILLED, VolumeReader, kspace_shape, target_shape

#: Raise it when `Volume` changes, so that what was remembered is forgotten.
FORMAT = 3

#: Why a file is refused where targets are needed.
NO_TARGET = "has no target image, so it cannot be trained on or validated with, but by reconstruction.train.loss: ssdu"


class Volume(NamedTuple):
    """A prepared file.

    Attributes:
        path: The file.
        slices: Their number.
        kspace: Rows and columns of k-space.
        target: Name of the target; None for a file that was undersampled at the scanner and has none.
        size: Rows and columns of the images.
        maximum: Largest value of the target; where there is none, of the zero-filled images.
        sampled: (W,), the measured columns of an undersampled file; None for a fully sampled one.
        extent: The columns that the scan went over.
    """

    path: Path
    slices: int
    kspace: tuple[int, int]
    target: str | None
    size: tuple[int, int]
    maximum: float
    sampled: NDArray[np.bool_] | None
    extent: Extent


def read_volumes(paths: Sequence[Path]) -> list[Volume]:
    """Describes the files of one folder; those that did not change since they were last described are not opened.

    A file changed if its size, its time of change (ns) or its inode did. Descriptions are remembered in the user's
    cache folder (`$XDG_CACHE_HOME`, else `~/.cache`), without names; where nothing can be kept there, files are opened
    every time.

    Raises:
        BadFileError: A file is unusable.
    """
    if not paths:
        return []
    memory = cache_folder() / f"volumes-{fingerprint(str(paths[0].parent.resolve()))[:16]}.json"
    known = _recall(memory)
    volumes, entries = [], {}
    for path in paths:
        # Asked before the file is read: a change meanwhile is noticed next time.
        state = path.stat()
        mark = [FORMAT, state.st_size, state.st_mtime_ns, state.st_ino]
        name = fingerprint(path.name)
        entry = known.get(name)
        if not isinstance(entry, dict) or entry.get("mark") != mark:
            entry = {"mark": mark, **_describe(path)}
        entries[name] = entry
        volumes.append(_volume(path, entry))
    if entries != known:
        _remember(memory, entries)
    return volumes


def around(slices: int, neighbours: int) -> list[list[int]]:
    """For each place beside a slice, first slice first, who is there for each slice: at the ends, the last one."""
    steps = [step for step in range(-neighbours, neighbours + 1) if step]
    return [[min(max(at + step, 0), slices - 1) for at in range(slices)] for step in steps]


def _recall(memory: Path) -> dict[str, Any]:
    try:
        known = read_json(memory)
    except BadFileError:
        return {}
    return known if isinstance(known, dict) else {}


def _remember(memory: Path, entries: dict[str, Any]) -> None:
    try:
        write_json(memory, entries)
    except OSError:  # a read-only or missing home
        return


def _describe(path: Path) -> dict[str, Any]:
    with VolumeReader(path) as reader:
        target = reader.target_name()
        image = target or ZERO_FILLED
        if image not in reader:
            raise BadFileError(path, NO_TARGET)
        shape = target_shape(reader, image)
        maximum = reader.attribute("max") if target else None
        if not isinstance(maximum, int | float) or maximum <= 0:
            maximum = float(reader.read(image).max())
        sampled = read_mask(reader) if ZERO_FILLED in reader else None
        return {
            "kspace": list(kspace_shape(reader)[1:]),
            "target": target,
            "shape": list(shape),
            "maximum": float(maximum),
            "sampled": None if sampled is None else np.flatnonzero(sampled).tolist(),
            "extent": list(read_extent(reader, sampled)),
        }


def _volume(path: Path, entry: dict[str, Any]) -> Volume:
    (height, width), (slices, rows, columns) = entry["kspace"], entry["shape"]
    sampled = None
    if entry["sampled"] is not None:
        sampled = np.zeros(width, np.bool_)
        sampled[entry["sampled"]] = True
    size, extent = (rows, columns), Extent(*entry["extent"])
    return Volume(path, slices, (height, width), entry["target"], size, entry["maximum"], sampled, extent)

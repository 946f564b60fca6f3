"""Reading prepared cases, which `prepare.prepare_case` writes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from condswin.errors import BadFileError


def prepared_files(folder: Path) -> dict[str, Path]:
    """Prepared `<case>.h5` files of a folder by case name."""
    return {path.stem: path for path in sorted(folder.glob("*.h5")) if not path.name.startswith(".")}


@contextmanager
def open_prepared(path: Path) -> Iterator[h5py.File]:
    """Opens a prepared case for reading.

    Raises:
        BadFileError: The file is missing, damaged or not one that `prepare_case` wrote.
    """
    try:
        with h5py.File(path, "r") as file:
            if "image" not in file or "shape" not in file.attrs:
                raise BadFileError(path, "not a prepared CT case; run prepare-ct again")
            yield file
    except OSError as error:
        raise BadFileError(path, f"not readable as HDF5 ({error}); run prepare-ct again") from None


def read_slices(file: h5py.File, start: int, stop: int, neighbours: int) -> NDArray[np.float32]:
    """Slices `start` to `stop` of a prepared case with their neighbours as channels.

    Returns:
        (slices, 1 + 2 * neighbours, rows, columns); beyond the volume its last slice is repeated.
    """
    images = file["image"]
    first, last = max(0, start - neighbours), min(len(images), stop + neighbours)
    block = images[first:last].astype(np.float32)
    wanted = np.arange(start, stop)[:, None] + np.arange(-neighbours, neighbours + 1)
    stacked: NDArray[np.float32] = block[np.clip(wanted, 0, len(images) - 1) - first]
    return stacked

"""Writing slices so that what a disk spoils later is noticed where it is read."""

from typing import Any

import h5py
from numpy.typing import DTypeLike


def create_slices(file: h5py.File, name: str, shape: tuple[int, ...], dtype: DTypeLike, **filters: Any) -> h5py.Dataset:
    """Creates a dataset with one chunk per slice, of which each has a checksum that every reading verifies.

    Args:
        file: Open for writing.
        name: Of the dataset.
        shape: Slices first.
        dtype: Of the values.
        filters: More of `h5py.Group.create_dataset`'s arguments, as `compression`.
    """
    return file.create_dataset(name, shape, dtype, chunks=(1, *shape[1:]), fletcher32=True, **filters)

"""How others store complex numbers and axes, and what it is in fastMRI's terms.

K-space is complex64 (slices, rows, columns), or (slices, coils, rows, columns). Many tools write complex128, pairs of
real and imaginary part, a coil axis of one, or a single slice without its axis. These say the same and are read; what
could mean two things is refused.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

#: Names of the fields with real and imaginary part, whatever their case: h5py's own, and those of other tools.
FIELDS = (("r", "i"), ("re", "im"), ("real", "imag"), ("real", "imaginary"))


class Stored(NamedTuple):
    """How a dataset lies in its file, and how it is read.

    Attributes:
        shape: As it is read.
        kind: As it is read: complex64 or float32.
        flat: The file has one slice, without an axis of slices.
        single: The file has an axis of one coil, the second.
        fields: Names of the fields with real and imaginary part, if these are fields.
        pairs: Real and imaginary part are the last axis.
        assumed: What was taken for granted, a sentence each.
    """

    shape: tuple[int, ...]
    kind: type[np.generic]
    flat: bool
    single: bool
    fields: tuple[str, str] | None
    pairs: bool
    assumed: tuple[str, ...]

    def fetch(self, dataset: Any, start: int, stop: int | None) -> Array:
        """Slices `start` to `stop` of an HDF5 dataset that lies like this, as they lie."""
        return np.asarray(dataset[()][None][start:stop] if self.flat else dataset[start:stop])

    def decode(self, array: Array) -> Array:
        """Fetched slices as they are read.

        Raises:
            ValueError: They hold finite values that single precision cannot.
        """
        if self.single:
            array = array[:, 0]
        if self.fields is None and not self.pairs:
            return _narrow(array, self.kind)
        parts = [array[name] for name in self.fields] if self.fields else [array[..., 0], array[..., 1]]
        numbers = np.empty(parts[0].shape, np.complex64)
        numbers.real, numbers.imag = (_narrow(part, np.float32) for part in parts)
        return numbers


def kspace_layout(dtype: np.dtype[Any], shape: tuple[int, ...]) -> Stored:
    """How k-space lies in its file.

    Raises:
        ValueError: It cannot be told; says what there is.
    """
    kind, pairs = dtype.name, False
    fields: tuple[str, str] | None = None
    assumed: list[str] = []
    if dtype.names is not None:
        fields = _parts(dtype)
        assumed.append(f"fields {fields[0]} and {fields[1]} of kspace read as complex numbers")
    elif dtype.kind == "f" and len(shape) > 2 and shape[-1] == 2:
        pairs, shape = True, shape[:-1]
        assumed.append("last axis of kspace (2) read as real and imaginary part")
    elif dtype.kind == "f":
        twos = [str(axis) for axis, length in enumerate(shape) if length == 2]
        mend = f"move axis {twos[0]}, of length 2, to the end" if twos else "store both parts, as complex64"
        raise ValueError(f"holds real numbers ({kind} {shape}), k-space is complex: {mend}")
    elif dtype.kind != "c":
        kind = "text or references" if dtype.hasobject or dtype.kind in "SU" else kind
        raise ValueError(f"holds {kind} {shape}, k-space is complex: store it as complex64")
    elif dtype.itemsize != np.dtype(np.complex64).itemsize:
        assumed.append(f"kspace of {kind} read as complex64")
    flat, single = len(shape) == 2, len(shape) == 4 and shape[1] == 1
    if flat:
        shape = (1, *shape)
        assumed.append("kspace of two axes read as one slice")
    if single:
        shape = (shape[0], *shape[2:])
        assumed.append("kspace of one coil read as single-coil")
    return Stored(shape, np.complex64, flat, single, fields, pairs, tuple(assumed))


def image_layout(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Stored:
    """How magnitude images lie in their file.

    Raises:
        ValueError: They are no real numbers.
    """
    if dtype.kind != "f":
        raise ValueError(f"holds {dtype.name} {shape}, expected magnitudes as float32")
    assumed = [f"{name} of {dtype.name} read as float32"] if dtype.itemsize != 4 else []
    flat, single = len(shape) == 2, len(shape) == 4 and shape[1] == 1
    if flat:
        shape = (1, *shape)
        assumed.append(f"{name} of two axes read as one slice")
    if single:
        shape = (shape[0], *shape[2:])
        assumed.append(f"axis of one coil of {name} left out")
    return Stored(shape, np.float32, flat, single, None, False, tuple(assumed))


def _parts(dtype: np.dtype[Any]) -> tuple[str, str]:
    names = {name.lower(): name for name in dtype.names or () if dtype[name].kind == "f"}
    for real, imaginary in FIELDS:
        if set(names) == {real, imaginary} and len(names) == len(dtype.names or ()):
            return names[real], names[imaginary]
    fields = ", ".join(f"{name[:20]!r} {dtype[name].name}" for name in (dtype.names or ())[:4])
    raise ValueError(
        f"holds records of {len(dtype.names or ())} fields ({fields}), k-space is complex: call the parts r and i, of "
        "floats, or store complex64"
    )


def _narrow(array: Array, kind: type[np.generic]) -> Array:
    """The same numbers in single precision and this machine's order of bytes."""
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = array.astype(kind, copy=False)
    if array.dtype.itemsize > numbers.dtype.itemsize:
        lost = np.isfinite(array) & ~np.isfinite(numbers)
        if lost.any():
            largest = float(np.abs(array[lost]).max())
            raise ValueError(f"holds values up to {largest:.3g}, more than single precision can: scale them down")
    return numbers

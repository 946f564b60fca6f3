"""Reading fastMRI HDF5 files from sources nobody vouches for, in constant memory."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import h5py
import numpy as np

from condswin.errors import BadFileError
from condswin.mri.extent import Extent
from condswin.mri.header import MAX_BYTES, Header, parse_header
from condswin.mri.storage import Array, Stored, image_layout, kspace_layout

T = TypeVar("T")

KSPACE = "kspace"
HEADER = "ismrmrd_header"
MASK = "mask"
ZERO_FILLED = "zero_filled"
PREDICTION = "reconstruction"
#: Attributes of a reconstruction whose network was judged by withheld lines: who made it, and the errors as JSON.
METHOD, ERRORS = "method", "held_out_errors"
#: Attribute of a reconstruction whose network was adapted to it: the steps, and errors before and after, as JSON.
ADAPTED = "adapted"
#: The value of `METHOD` where the network did.
NETWORK = "network"
#: Names of the fully sampled magnitude image, the first one present is the target.
TARGETS = ("reconstruction_esc", "reconstruction_rss")
#: Datasets of magnitude images.
IMAGES = (*TARGETS, PREDICTION, ZERO_FILLED)
SUFFIXES = (".h5", ".hdf5")

#: Kind of scan of a file that does not say.
UNKNOWN = "unknown"

#: Largest uncompressed slice or chunk that is read, bytes.
_MAX_BLOCK = 1 << 28
#: Bytes read at once where slices are smaller.
_BLOCK = 1 << 21
#: Largest factor of compression believed: noise hardly compresses, and padding or empty slices do not explain more.
_MAX_RATIO = 100


class VolumeReader:
    """An open HDF5 file of which whatever goes wrong is a `BadFileError`; a context manager.

    Args:
        path: The file.

    Raises:
        BadFileError: The file is missing, empty or not HDF5.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise BadFileError(path, "no such file")
        self._bytes = path.stat().st_size
        if self._bytes == 0:
            raise BadFileError(path, "is empty (0 bytes)")
        # Without locks, so that read-only and network file systems serve as well.
        self._file: h5py.File = self._guard(lambda: h5py.File(path, "r", locking=False))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._guard(self._file.close)

    def __contains__(self, name: str) -> bool:
        return self._guard(lambda: self._file.get(name, getlink=True) is not None)

    def target_name(self) -> str | None:
        """Name of the fully sampled image, None if the file has none."""
        return next((name for name in TARGETS if name in self), None)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a dataset as it is read: slices first of k-space and images, then coils if there are several."""
        dataset = self._dataset(name)
        stored = self._stored(name, dataset)
        return stored.shape if stored else self._guard(lambda: tuple(int(length) for length in dataset.shape))

    def dtype(self, name: str) -> np.dtype[Any]:
        """Element type of a dataset in the file."""
        dataset = self._dataset(name)
        return self._guard(lambda: np.dtype(dataset.dtype))

    def assumed(self, name: str) -> tuple[str, ...]:
        """What reading k-space or images takes for granted, a sentence each."""
        stored = self._stored(name, self._dataset(name))
        return stored.assumed if stored else ()

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Entries `start` to `stop` of a dataset along its first axis; k-space as complex64, images as float32."""
        dataset = self._dataset(name)
        if (stored := self._stored(name, dataset)) is not None:
            fetched = self._guard(lambda: stored.fetch(dataset, start, stop))
            with self._named(name):
                return stored.decode(fetched)

        def values() -> Array:
            array = np.asarray(dataset[start:stop])
            return array.astype(array.dtype.newbyteorder("="), copy=False)

        return self._guard(values)

    def blocks(self, name: str) -> Iterator[tuple[int, Array]]:
        """Yields (first slice, slices) until the end, in blocks of bounded size, each stored chunk read once."""
        dataset = self._dataset(name)
        slices, (per_slice, chunk) = self.shape(name)[0], self._guard(lambda: _layout(dataset))
        step = math.ceil(max(_BLOCK // max(per_slice, 1), 1) / chunk) * chunk
        for start in range(0, slices, step):
            yield start, self.read(name, start, start + step)

    def attribute(self, name: str) -> Any:
        """A plain Python value of a file attribute, None if there is none or it is longer than a line of text."""
        value = self._guard(lambda: self._file.attrs.get(name))
        if isinstance(value, np.ndarray | np.generic):
            value = value.item() if value.size == 1 else None
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if isinstance(value, str):
            value = value.strip("\0 ")
            return value if 0 < len(value) <= 256 and value.isprintable() else None
        return value if isinstance(value, int | float) and math.isfinite(value) else None

    def header(self) -> bytes | None:
        """Raw ISMRMRD header, None if there is none."""
        if HEADER not in self:
            return None
        dataset = self._dataset(HEADER)

        def text() -> bytes:
            if dataset.size != 1 or dataset.dtype.itemsize > MAX_BYTES:
                raise ValueError(f"{HEADER} is not one string of at most {MAX_BYTES} bytes")
            value = np.asarray(dataset[()]).item()
            if not isinstance(value, bytes | str):
                raise ValueError(f"{HEADER} holds {dataset.dtype}, expected a string")
            return value.encode() if isinstance(value, str) else value

        return self._guard(text)

    def _dataset(self, name: str) -> Any:
        def find() -> Any:
            link = self._file.get(name, getlink=True)
            if link is None:
                raise BadFileError(self.path, f"has no dataset {name!r} (there are: {', '.join(list(self._file)[:9])})")
            if not isinstance(link, h5py.HardLink):
                raise BadFileError(self.path, f"{name} is a link to elsewhere; store the data in the file itself")
            dataset = self._file[name]
            if not isinstance(dataset, h5py.Dataset):
                raise BadFileError(self.path, f"{name} is a group, expected a dataset")
            if dataset.is_virtual or dataset.external:
                raise BadFileError(self.path, f"{name} is kept in other files; store the data in the file itself")
            self._plausible(name, dataset)
            return dataset

        return self._guard(find)

    def _stored(self, name: str, dataset: Any) -> Stored | None:
        """How k-space or images lie in the file; None for anything else."""
        if name not in (KSPACE, *IMAGES):
            return None
        dtype, shape = self._guard(lambda: (np.dtype(dataset.dtype), tuple(int(length) for length in dataset.shape)))
        with self._named(name):
            return kspace_layout(dtype, shape) if name == KSPACE else image_layout(name, dtype, shape)

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise BadFileError(self.path, f"{name} {error}") from None

    def _plausible(self, name: str, dataset: Any) -> None:
        """Refuses, before any read, what would allocate far more than the file holds."""
        if dataset.shape is None or dataset.dtype.hasobject:
            return
        declared = math.prod(dataset.shape) * dataset.dtype.itemsize
        stored = dataset.id.get_storage_size()
        if stored > self._bytes:
            raise BadFileError(self.path, f"{name} needs {stored} bytes, the file has {self._bytes}: it is truncated")
        if declared > _MAX_RATIO * max(stored, 1024):
            raise BadFileError(
                self.path,
                f"{name} declares {declared} bytes in shape {dataset.shape} but stores {stored}: "
                f"not believed beyond {_MAX_RATIO} to 1",
            )
        per_slice, chunk = _layout(dataset)
        block = per_slice * chunk
        if block > _MAX_BLOCK:
            raise BadFileError(self.path, f"{name} can only be read {block} bytes at a time, at most {_MAX_BLOCK} are")

    def _guard(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except BadFileError:
            raise
        # h5py raises OSError, KeyError, RuntimeError, ValueError, TypeError, MemoryError and more on damaged files.
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            message = f"cannot be read as HDF5: damaged, truncated or another format ({reason})"
            raise BadFileError(self.path, message) from error


def read_header(reader: VolumeReader) -> Header:
    """A file's ISMRMRD header; an empty one if it has none.

    Raises:
        BadFileError: It has one that cannot be read.
    """
    raw = reader.header()
    try:
        return parse_header(raw) if raw is not None else Header()
    except ValueError as error:
        raise BadFileError(reader.path, f"{HEADER}: {error}") from None


def check_kspace(reader: VolumeReader) -> Extent:
    """Reads the k-space of a single-coil file to its last value; undersampled or not, with or without a target.

    Returns:
        The columns that hold anything.

    Raises:
        BadFileError: It cannot be reconstructed; the message says why.
    """
    kspace_shape(reader)
    return held_columns(reader)


def held_columns(reader: VolumeReader) -> Extent:
    """The columns that hold anything, of single-coil or multi-coil k-space, which is read to its last value.

    Raises:
        BadFileError: It cannot be reconstructed.
    """
    held = Extent.nothing(reader.shape(KSPACE)[-1])
    for _, block in checked_blocks(reader, KSPACE):
        held = held.seen(block)
    return held


def checked_blocks(reader: VolumeReader, name: str) -> Iterator[tuple[int, Array]]:
    """`reader.blocks(name)`, refused where a value is not finite and, at the end, if none was other than zero.

    Raises:
        BadFileError: So it is; blocks yielded before are then worth nothing either.
    """
    something = False
    for start, block in reader.blocks(name):
        for index, values in enumerate(block):
            # A sum is infinite or NaN if a value is, and needs no array of booleans; a sum of large finite values may
            # overflow too, so the values themselves have the last word.
            with np.errstate(over="ignore", invalid="ignore"):
                total = values.sum()
            if not np.isfinite(total) and not np.isfinite(values).all():
                raise BadFileError(reader.path, f"{name} has NaN or infinite values, first in slice {start + index}")
        something = something or bool((block > 0 if block.dtype.kind == "f" else block != 0).any())
        yield start, block
    if not something:
        raise BadFileError(reader.path, f"{name} is zero everywhere")


def acquisition(reader: VolumeReader) -> str:
    """FastMRI's name for the kind of scan, "unknown" if the file does not say."""
    value = reader.attribute("acquisition")
    return value if isinstance(value, str) else UNKNOWN


def kspace_shape(reader: VolumeReader) -> tuple[int, int, int]:
    """Slices, rows and columns of single-coil k-space.

    Raises:
        BadFileError: It is multi-coil, of another type or empty.
    """
    shape = reader.shape(KSPACE)
    if len(shape) == 4:
        target = reader.target_name()
        if target is not None and reader.shape(target)[:1] == shape[1:2] != shape[:1]:
            raise BadFileError(
                reader.path,
                f"kspace {shape} has as many coils as {target} has slices: store it as (slices, coils, rows, columns)",
            )
        raise BadFileError(
            reader.path,
            f"kspace {shape} is multi-coil (slices, coils, rows, columns); set reconstruction.ingest.multicoil to "
            "combine to read it as an emulated single coil",
        )
    return _volume_shape(reader, KSPACE)


def target_shape(reader: VolumeReader, name: str) -> tuple[int, int, int]:
    """Slices, rows and columns of a target, of single-coil or multi-coil k-space.

    Raises:
        BadFileError: It cannot be the magnitude of an image of the file's k-space.
    """
    shape, scanned = _volume_shape(reader, name), reader.shape(KSPACE)
    if len(scanned) != 4:
        scanned = kspace_shape(reader)
    if shape[0] != scanned[0]:
        raise BadFileError(
            reader.path, f"{name} has {shape[0]} slices, kspace {scanned[0]}; slices are the first axis of both"
        )
    if shape[1] > scanned[-2] or shape[2] > scanned[-1]:
        raise BadFileError(
            reader.path,
            f"{name} of {shape[1:]} is larger than the image of kspace {scanned[-2:]}: crop it to that size, or give "
            "k-space as wide as it",
        )
    return shape


def _volume_shape(reader: VolumeReader, name: str) -> tuple[int, int, int]:
    shape = reader.shape(name)
    if len(shape) != 3:
        raise BadFileError(reader.path, f"{name} has shape {shape}, expected (slices, rows, columns)")
    if 0 in shape:
        raise BadFileError(reader.path, f"{name} has shape {shape}: there is nothing in it")
    return shape[0], shape[1], shape[2]


def _layout(dataset: Any) -> tuple[int, int]:
    """Bytes per slice, slices per chunk."""
    if len(dataset.shape) < 3:  # one slice
        return math.prod(dataset.shape) * dataset.dtype.itemsize, 1
    per_slice = math.prod(dataset.shape[1:]) * dataset.dtype.itemsize
    return per_slice, dataset.chunks[0] if dataset.chunks else 1

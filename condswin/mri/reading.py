"""Reading fastMRI single-coil HDF5 files from sources nobody vouches for, in constant memory."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from condswin.errors import BadFileError
from condswin.mri.header import MAX_BYTES, Header, parse_header
from condswin.patients import patient_key

T = TypeVar("T")
Array = NDArray[Any]

KSPACE = "kspace"
HEADER = "ismrmrd_header"
PREDICTION = "reconstruction"
#: Names of the fully sampled magnitude image, the first one present is the target.
TARGETS = ("reconstruction_esc", "reconstruction_rss")
SUFFIXES = (".h5", ".hdf5")

#: Largest uncompressed slice or chunk that is read, bytes.
_MAX_BLOCK = 1 << 28
#: Bytes read at once where slices are smaller.
_BLOCK = 1 << 21
#: Largest factor of compression believed: noise hardly compresses, and padding or empty slices do not explain more.
_MAX_RATIO = 100


class VolumeInfo(NamedTuple):
    """What checking a file found.

    Attributes:
        shape: Of k-space: slices, rows (readout), columns (phase encoding).
        target: Dataset name of the fully sampled magnitude image.
        target_shape: Slices, rows, columns of it.
        acquisition: FastMRI's attribute (`CORPD_FBK`), "unknown" if there is none.
        patient: Hashed key of the person; never the identifier.
        header: Geometry from the ISMRMRD header; empty if there is none. Its `patient_id` is removed.
    """

    shape: tuple[int, int, int]
    target: str
    target_shape: tuple[int, int, int]
    acquisition: str
    patient: str
    header: Header


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
        """Shape of a dataset."""
        dataset = self._dataset(name)
        return self._guard(lambda: tuple(int(length) for length in dataset.shape))

    def dtype(self, name: str) -> np.dtype[Any]:
        """Element type of a dataset."""
        dataset = self._dataset(name)
        return self._guard(lambda: np.dtype(dataset.dtype))

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Entries `start` to `stop` of a dataset along its first axis."""
        dataset = self._dataset(name)

        def values() -> Array:
            array = np.asarray(dataset[start:stop])
            return array.astype(array.dtype.newbyteorder("="), copy=False)

        return self._guard(values)

    def blocks(self, name: str) -> Iterator[tuple[int, Array]]:
        """Yields (first slice, slices) until the end, in blocks of bounded size, each stored chunk read once."""
        dataset = self._dataset(name)
        slices, per_slice, chunk = self._guard(lambda: _layout(dataset))
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
        per_slice = math.prod(dataset.shape[1:]) * dataset.dtype.itemsize
        block = per_slice * (dataset.chunks[0] if dataset.chunks else 1)
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


def check_volume(reader: VolumeReader) -> VolumeInfo:
    """Reads a fully sampled single-coil file to its last value, block by block.

    Raises:
        BadFileError: The file cannot be trusted; the message says why.
    """
    info = read_info(reader)
    for name in (KSPACE, info.target):
        for _ in checked_blocks(reader, name):
            pass
    return info


def read_info(reader: VolumeReader) -> VolumeInfo:
    """What a fully sampled single-coil file says of itself; its values are not read.

    Raises:
        BadFileError: It says what cannot be used.
    """
    path = reader.path
    if "mask" in reader:
        raise BadFileError(path, "is already undersampled (it has a mask): predict it, do not ingest it")
    shape = kspace_shape(reader)
    target = reader.target_name()
    if target is None:
        raise BadFileError(path, f"has neither {' nor '.join(TARGETS)}: nothing to train on or compare with")
    header = Header()
    if (raw := reader.header()) is not None:
        try:
            header = parse_header(raw)
        except ValueError as error:
            raise BadFileError(path, f"{HEADER}: {error}") from None
    return VolumeInfo(
        shape=shape,
        target=target,
        target_shape=target_shape(reader, target),
        acquisition=acquisition(reader),
        patient=patient_key(str(reader.attribute("patient_id") or header.patient_id or path.stem)),
        header=header._replace(patient_id=None),
    )


def check_kspace(reader: VolumeReader) -> None:
    """Reads the k-space of a single-coil file to its last value; undersampled or not, with or without a target.

    Raises:
        BadFileError: It cannot be reconstructed; the message says why.
    """
    kspace_shape(reader)
    for _ in checked_blocks(reader, KSPACE):
        pass


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
    return value if isinstance(value, str) else "unknown"


def kspace_shape(reader: VolumeReader) -> tuple[int, int, int]:
    """Slices, rows and columns of single-coil k-space.

    Raises:
        BadFileError: It is multi-coil, of another type or empty.
    """
    shape = _volume_shape(reader, KSPACE)
    if reader.dtype(KSPACE).newbyteorder("=") != np.dtype(np.complex64):
        raise BadFileError(reader.path, f"kspace holds {reader.dtype(KSPACE).name}, only complex64 is accepted")
    return shape


def target_shape(reader: VolumeReader, name: str) -> tuple[int, int, int]:
    """Slices, rows and columns of a target.

    Raises:
        BadFileError: It cannot be the magnitude of an image of the file's k-space.
    """
    shape, scanned = _volume_shape(reader, name), kspace_shape(reader)
    if reader.dtype(name).kind != "f":
        raise BadFileError(reader.path, f"{name} holds {reader.dtype(name).name}, expected float32")
    if shape[0] != scanned[0]:
        raise BadFileError(reader.path, f"{name} has {shape[0]} slices, kspace {scanned[0]}")
    if shape[1] > scanned[1] or shape[2] > scanned[2]:
        raise BadFileError(reader.path, f"{name} of {shape[1:]} is larger than the image of kspace {scanned[1:]}")
    return shape


def _volume_shape(reader: VolumeReader, name: str) -> tuple[int, int, int]:
    shape = reader.shape(name)
    if name == KSPACE and len(shape) == 4:
        raise BadFileError(
            reader.path,
            f"kspace {shape} is multi-coil (slices, coils, rows, columns); set reconstruction.ingest.multicoil to "
            "combine to ingest it as an emulated single coil",
        )
    if len(shape) != 3:
        raise BadFileError(reader.path, f"{name} has shape {shape}, expected (slices, rows, columns)")
    if 0 in shape:
        raise BadFileError(reader.path, f"{name} has shape {shape}: there is nothing in it")
    return shape[0], shape[1], shape[2]


def _layout(dataset: Any) -> tuple[int, int, int]:
    """Slices, bytes per slice, slices per chunk."""
    per_slice = math.prod(dataset.shape[1:]) * dataset.dtype.itemsize
    return dataset.shape[0], per_slice, dataset.chunks[0] if dataset.chunks else 1

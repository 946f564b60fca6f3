"""A NIfTI file, unpacked or not, read as far as its header; what is wrong with the file around it, in words."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

from condswin.ct.headers import Header, read_header
from condswin.errors import BadFileError

_CHUNK = 1 << 20


@contextmanager
def opened(path: Path) -> Iterator[tuple[BufferedIOBase, Header]]:
    """Opens a NIfTI file, gzipped if named `.gz`.

    Yields:
        The unpacked bytes behind the header, and the header.

    Raises:
        BadFileError: The file is missing or damaged, as far as it is read; the header is not a CT volume's.
    """
    if not path.is_file():
        raise BadFileError(path, "no such file")
    if not path.stat().st_size:
        raise BadFileError(path, "empty file")
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        if zipped != path.name.lower().endswith(".gz"):
            raise BadFileError(path, "gzip data without .gz in its name" if zipped else "named .gz but not gzip data")
        with gzip.open(path) if zipped else path.open("rb") as file:
            yield file, read_header(path, file, packed=zipped)
    except EOFError:
        raise BadFileError(path, "truncated: its gzip stream has no end; copy or download it again") from None
    except (OSError, zlib.error) as error:
        if isinstance(error, gzip.BadGzipFile) and (behind := _bytes_behind(path)):
            raise BadFileError(
                path,
                f"{behind} bytes follow its gzip stream, which is whole without them: something was appended; "
                "unpack it with gzip -dc and pack it again",
            ) from None
        raise BadFileError(path, f"damaged or unreadable: {error}; copy or download it again") from None


def _bytes_behind(path: Path) -> int:
    """Bytes behind the gzip members of a file that are neither another member nor zeros; 0 if a member is broken."""
    with path.open("rb") as file:
        data = file.read(_CHUNK)
        while data[:2] == b"\x1f\x8b":
            member = zlib.decompressobj(zlib.MAX_WBITS | 16)
            while not member.eof:
                try:
                    member.decompress(data, _CHUNK)
                except zlib.error:
                    return 0
                data = member.unconsumed_tail or file.read(_CHUNK)
                if not data and not member.eof:
                    return 0
            data = member.unused_data + data
            while data and not data.strip(b"\0"):  # gzip itself passes over padding
                data = file.read(_CHUNK)
            data = data.lstrip(b"\0")
            if len(data) == 1:
                data += file.read(1)
        return len(data) + path.stat().st_size - file.tell() if data else 0

"""Whether a file's content is that of an object, by what S3 servers tell of objects.

An ETag is the MD5 of the content, or for a multipart upload the MD5 of its parts' MD5s, followed by their number. It is
neither for objects under SSE-KMS or SSE-C and in directory buckets. Other checksums are of the whole object or, again
with the number of parts, of the parts' checksums (Amazon S3 User Guide, "Checking object integrity").
"""

import base64
import hashlib
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from condswin.sources.crc import crc32c, crc64_nvme

MIB = 1 << 20
#: What upload tools take for the size of parts, for servers that do not tell it.
COMMON_PARTS = [size * MIB for size in (5, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128, 200, 256, 512, 1024)]


#: Nothing but the size could be compared.
SIZE = "size"


class Digest(Protocol):
    """A hash that is fed piece by piece."""

    def update(self, data: bytes, /) -> None:
        """Takes in the next bytes."""

    def digest(self) -> bytes:
        """Of all bytes so far."""


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


def _md5() -> Digest:
    return hashlib.md5(usedforsecurity=False)


#: By their names in S3's answers, the strongest first.
CHECKSUMS: dict[str, Callable[[], Digest]] = {
    "ChecksumSHA512": hashlib.sha512,
    "ChecksumSHA256": hashlib.sha256,
    "ChecksumSHA1": lambda: hashlib.sha1(usedforsecurity=False),
    "ChecksumCRC64NVME": crc64_nvme,
    "ChecksumCRC32C": crc32c,
    "ChecksumCRC32": _Crc32,
    "ChecksumMD5": _md5,
}


@dataclass(frozen=True)
class Listed:
    """An object as the server lists it.

    Attributes:
        key: Its whole key.
        size: Bytes.
        etag: Without quotation marks; empty if the server gives none.
    """

    key: str
    size: int
    etag: str


class DiffersError(Exception):
    """A file is not the object that is listed; the message says in what."""


class Server(Protocol):
    """What can be asked about an object besides the listing."""

    def head(self, key: str, part: int | None = None) -> Mapping[str, Any]:
        """The answer to HeadObject with all checksums, of the object or of one of its parts."""


def compared_by(path: Path, listed: Listed, server: Server) -> str:
    """What a file's content was compared by and found equal: `MD5`, `SHA256` and so on; `size` if by that alone.

    Raises:
        DiffersError: The file is not the object.
    """
    size = path.stat().st_size
    if size != listed.size:
        raise DiffersError(f"{size} bytes come, {listed.size} are listed")
    is_md5 = re.fullmatch("[0-9a-f]{32}", listed.etag) is not None
    if is_md5 and digest(path, [size], _md5).hex() == listed.etag:
        return "MD5"
    head = server.head(listed.key)
    if head.get("ETag", "").strip('"') != listed.etag or head.get("ContentLength") != size:
        raise DiffersError("it changed since it was listed")
    checksums = [(name.removeprefix("Checksum"), str(head.get(name, "")), new) for name, new in CHECKSUMS.items()]
    for name, value, new in checksums:
        if value and "-" not in value:
            if _text(digest(path, [size], new)) != value:
                raise DiffersError(f"its content does not have the {name} that the server tells")
            return name
    if not _opaque(head):
        if is_md5:
            raise DiffersError("its content does not have the MD5 that is its ETag")
        if of_parts := re.fullmatch("([0-9a-f]{32})-([0-9]+)", listed.etag):
            checksums.append(("MD5", f"{_text(bytes.fromhex(of_parts[1]))}-{of_parts[2]}", _md5))
    for name, value, new in checksums:
        if (of_parts := re.fullmatch("(.+)-([0-9]{1,5})", value)) and int(of_parts[2]):
            if _has_parts(path, listed, server, of_parts[1], int(of_parts[2]), new):
                return f"{name} of parts"
            break
    return SIZE


def _has_parts(path: Path, listed: Listed, server: Server, value: str, count: int, new: Callable[[], Digest]) -> bool:
    """Whether parts of some size give a checksum; False if they do not and the server does not tell their sizes."""
    first = server.head(listed.key, 1)
    told = first.get("PartsCount") == count
    for sizes in _told_sizes(first, listed, count, server) if told else _usual_sizes(listed, count):
        if _text(digest_of_digests(path, sizes, new)) == value:
            return True
    if told:
        raise DiffersError("its content does not have the checksum of its parts")
    return False


def digest(path: Path, sizes: Sequence[int], new: Callable[[], Digest]) -> bytes:
    """The digests of consecutive parts of a file, one behind the other, read in constant memory."""
    result = b""
    with path.open("rb") as file:
        for size in sizes:
            one, left = new(), size
            while left and (piece := file.read(min(left, 4 * MIB))):
                one.update(piece)
                left -= len(piece)
            result += one.digest()
    return result


def digest_of_digests(path: Path, sizes: Sequence[int], new: Callable[[], Digest]) -> bytes:
    """The digest of the parts' digests, as S3 makes it of a multipart upload."""
    outer = new()
    outer.update(digest(path, sizes, new))
    return outer.digest()


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _opaque(head: Mapping[str, Any]) -> bool:
    """Whether the ETag tells nothing of the content."""
    encryption = head.get("ServerSideEncryption") or "AES256"
    return encryption != "AES256" or "SSECustomerAlgorithm" in head or head.get("StorageClass") == "EXPRESS_ONEZONE"


def _told_sizes(first: Mapping[str, Any], listed: Listed, count: int, server: Server) -> Iterator[list[int]]:
    """Parts of the first one's size, which is nearly always so, else as the server tells of each."""
    length = int(first.get("ContentLength", 0))
    if _fits(length, listed.size, count):
        yield _equal_parts(length, listed.size, count)
    yield [length, *(int(server.head(listed.key, part).get("ContentLength", 0)) for part in range(2, count + 1))]


def _usual_sizes(listed: Listed, count: int) -> Iterator[list[int]]:
    even = -(-listed.size // (count * MIB)) * MIB
    for length in sorted({*COMMON_PARTS, even}):
        if _fits(length, listed.size, count):
            yield _equal_parts(length, listed.size, count)


def _fits(length: int, size: int, count: int) -> bool:
    return length > 0 and (count - 1) * length < size <= count * length


def _equal_parts(length: int, size: int, count: int) -> list[int]:
    return [length] * (count - 1) + [size - (count - 1) * length]

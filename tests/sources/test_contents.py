import base64
import hashlib
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from condswin.sources.contents import MIB, DiffersError, Listed, compared_by

CONTENT = bytes(range(256)) * (7 * MIB // 256) + b"the last part is shorter"
MD5 = hashlib.md5(CONTENT).hexdigest()
KMS = {"ServerSideEncryption": "aws:kms"}


def text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def crc32(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(4, "big")


def split(sizes: list[int]) -> list[bytes]:
    ends = [sum(sizes[:count]) for count in range(1, len(sizes) + 1)]
    assert ends[-1] == len(CONTENT)
    return [CONTENT[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def parts_etag(sizes: list[int]) -> str:
    """As Amazon S3 makes it, in other words than the product's."""
    digests = b"".join(hashlib.md5(part).digest() for part in split(sizes))
    return f"{hashlib.md5(digests).hexdigest()}-{len(sizes)}"


class Server:
    """What HeadObject answers, and the sizes of parts if the server tells them."""

    def __init__(self, etag: str, sizes: list[int] | None = None, **head: str) -> None:
        self.listed = Listed("a.h5", len(CONTENT), etag)
        self._answer = {"ETag": f'"{etag}"', "ContentLength": len(CONTENT), **head}
        self._sizes, self.asked = sizes, []

    def head(self, key: str, part: int | None = None) -> Mapping[str, Any]:
        self.asked.append(part)
        assert key == "a.h5"
        if part is None or self._sizes is None:
            return self._answer
        return {"ContentLength": self._sizes[part - 1], "PartsCount": len(self._sizes)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.h5"
    path.write_bytes(CONTENT)
    return path


def flip(file: Path, at: int) -> None:
    file.write_bytes(CONTENT[:at] + bytes([CONTENT[at] ^ 16]) + CONTENT[at + 1 :])


EQUAL = [5 * MIB, len(CONTENT) - 5 * MIB]
UNEQUAL = [6 * MIB, 1000, MIB - 1000, 24]
SHA256 = text(hashlib.sha256(CONTENT).digest())
OF_PARTS = f"{text(crc32(b''.join(map(crc32, split(UNEQUAL)))))}-4"
#: Of CONTENT, from google-crc32c and from a bit-by-bit computation.
CRC64_NVME, CRC32C = "07pOluhLPqM=", "J3P2qw=="
CASES = {
    "directory bucket": (
        Server("0" * 32, StorageClass="EXPRESS_ONEZONE", ChecksumCRC64NVME=CRC64_NVME),
        "CRC64NVME",
        [None],
    ),
    "parts as one whole": (Server("0" * 32 + "-2", ChecksumCRC32C=CRC32C, **KMS), "CRC32C", [None]),
    "MD5 of the content": (Server(MD5), "MD5", []),
    "an ETag that is none, beside a SHA-256": (Server("0x8D4B2AE97754E88", ChecksumSHA256=SHA256), "SHA256", [None]),
    "SSE-KMS with a CRC32": (Server("0" * 32, ChecksumCRC32=text(crc32(CONTENT)), **KMS), "CRC32", [None]),
    "parts of one size": (Server(parts_etag(EQUAL), EQUAL), "MD5 of parts", [None, 1]),
    "parts of sizes of their own": (Server(parts_etag(UNEQUAL), UNEQUAL), "MD5 of parts", [None, 1, 2, 3, 4]),
    "parts that the server does not tell": (Server(parts_etag(EQUAL)), "MD5 of parts", [None, 1]),
    "SSE-KMS with a checksum of parts": (
        Server("0" * 32, UNEQUAL, ChecksumCRC32=OF_PARTS, **KMS),
        "CRC32 of parts",
        [None, 1, 2, 3, 4],
    ),
}


@pytest.mark.parametrize(("server", "by", "asked"), CASES.values(), ids=CASES.keys())
def test_an_object_is_known_by_what_the_server_tells_of_it(
    file: Path, server: Server, by: str, asked: list[Any]
) -> None:
    server.asked.clear()
    assert compared_by(file, server.listed, server) == by
    assert server.asked == asked


@pytest.mark.parametrize(
    "server", [server for server, _, _ in CASES.values() if server != CASES["parts that the server does not tell"][0]]
)
@pytest.mark.parametrize("at", [0, 6 * MIB + 1, len(CONTENT) - 1])
def test_a_flipped_bit_is_found_wherever_it_is(file: Path, server: Server, at: int) -> None:
    flip(file, at)
    with pytest.raises(DiffersError, match="its content does not have the"):
        compared_by(file, server.listed, server)


@pytest.mark.parametrize(
    "server",
    [
        Server("0x8D4B2AE97754E88"),
        Server("0" * 32, **KMS),
        Server("0" * 32, SSECustomerAlgorithm="AES256"),
        Server("0" * 32, StorageClass="EXPRESS_ONEZONE", ChecksumXXHASH64="rosUhgyiXnI="),
        Server("0" * 32 + "-2", EQUAL, **KMS),
        Server(parts_etag(UNEQUAL)),
        Server(""),
    ],
    ids=["gateway", "KMS", "SSE-C", "directory bucket", "KMS in parts", "untold parts", "no ETag"],
)
def test_what_nothing_can_be_compared_of_is_said_to_be_known_by_size_alone(file: Path, server: Server) -> None:
    assert compared_by(file, server.listed, server) == "size"


def test_an_etag_of_md5_form_that_is_not_encrypted_is_believed(file: Path) -> None:
    server = Server("0" * 32, ServerSideEncryption="AES256")
    with pytest.raises(DiffersError, match="the MD5 that is its ETag"):
        compared_by(file, server.listed, server)


def test_both_sizes_are_named(file: Path) -> None:
    file.write_bytes(CONTENT[:1000])
    with pytest.raises(DiffersError, match=f"^1000 bytes come, {len(CONTENT)} are listed$"):
        compared_by(file, Server(MD5).listed, Server(MD5))


def test_an_object_that_changed_since_the_listing_is_named_so(file: Path) -> None:
    with pytest.raises(DiffersError, match="changed since it was listed"):
        compared_by(file, Listed("a.h5", len(CONTENT), "0" * 32), Server(MD5))


@pytest.mark.parametrize("checksum", ["-", "x-y", "AAAA-0", "AAAA-99999", "not base64 at all-3", "AAAA--3"])
def test_nonsense_of_a_server_is_no_match(file: Path, checksum: str) -> None:
    server = Server("0" * 32, ChecksumCRC32=checksum, **KMS)
    assert compared_by(file, server.listed, server) == "size"


def test_a_server_that_tells_a_number_of_parts_but_not_their_sizes_is_not_believed(file: Path) -> None:
    class Terse(Server):
        def head(self, key: str, part: int | None = None) -> Mapping[str, Any]:
            return {"PartsCount": 2} if part else super().head(key)

    server = Terse(parts_etag(EQUAL))
    with pytest.raises(DiffersError, match="the checksum of its parts"):
        compared_by(file, server.listed, server)

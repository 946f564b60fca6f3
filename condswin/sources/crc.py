"""CRC-64/NVME and CRC-32C, with which S3 stores objects, for files of any size.

zlib has neither. A piece is cut into lanes whose remainders numpy computes at once; they are then joined, since a
remainder behind n further bytes is a linear function of it (Williams 1993, "A Painless Guide to CRC Error Detection
Algorithms").
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

#: Bytes per lane.
LANE = 2048


class Crc:
    """A reflected CRC with ones before and after; see `condswin.sources.contents.Digest`.

    Args:
        polynomial: With the lowest power in the highest bit.
        bits: 32 or 64.
    """

    def __init__(self, polynomial: int, bits: int) -> None:
        self._polynomial, self._bits = polynomial, bits
        self._value = (1 << bits) - 1

    def update(self, data: bytes, /) -> None:
        """Takes in the next bytes."""
        table = _table(self._polynomial)
        whole = len(data) // LANE * LANE
        lanes = np.zeros(whole // LANE, np.uint64)
        for column in np.frombuffer(data, np.uint8, whole).reshape(-1, LANE).T:
            lanes = table[(lanes ^ column) & 0xFF] ^ (lanes >> np.uint64(8))
        shift = _behind_a_lane(self._polynomial) if whole else []
        value = self._value
        for lane in lanes.tolist():
            value = lane ^ _apply(shift, value)
        for byte in data[whole:]:
            value = int(table[(value ^ byte) & 0xFF]) ^ (value >> 8)
        self._value = value

    def digest(self) -> bytes:
        """Of all bytes so far, the highest first."""
        return (self._value ^ ((1 << self._bits) - 1)).to_bytes(self._bits // 8, "big")


def crc64_nvme() -> Crc:
    """CRC-64/NVME."""
    return Crc(0x9A6C9329AC4BC9B5, 64)


def crc32c() -> Crc:
    """CRC-32C (Castagnoli)."""
    return Crc(0x82F63B78, 32)


@cache
def _table(polynomial: int) -> NDArray[np.uint64]:
    """Remainders of single bytes."""
    values = np.arange(256, dtype=np.uint64)
    for _ in range(8):
        values = (values >> np.uint64(1)) ^ (values & np.uint64(1)) * np.uint64(polynomial)
    return values


@cache
def _behind_a_lane(polynomial: int) -> list[list[int]]:
    """What a remainder becomes behind a lane of zeros: by the number of its byte and that byte's value."""
    table = _table(polynomial)
    values = np.arange(256, dtype=np.uint64) << (8 * np.arange(8, dtype=np.uint64))[:, None]
    for _ in range(LANE):
        values = table[values & 0xFF] ^ (values >> np.uint64(8))
    result: list[list[int]] = values.tolist()
    return result


def _apply(shift: list[list[int]], value: int) -> int:
    result = 0
    for values, byte in zip(shift, value.to_bytes(8, "little"), strict=True):
        result ^= values[byte]
    return result

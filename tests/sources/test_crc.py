import numpy as np
import pytest

from condswin.sources.crc import LANE, Crc, crc32c, crc64_nvme

MAKERS = [(crc64_nvme, 0x9A6C9329AC4BC9B5, 64), (crc32c, 0x82F63B78, 32)]


def bit_by_bit(data: bytes, polynomial: int, bits: int) -> bytes:
    ones = (1 << bits) - 1
    value = ones
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (polynomial if value & 1 else 0)
    return (value ^ ones).to_bytes(bits // 8, "big")


def test_check_values_of_the_catalogue() -> None:
    """Of the catalogue of parametrised CRC algorithms (Cook): CRC-64/NVME and CRC-32/ISCSI."""
    for crc, expected in ((crc64_nvme(), "ae8b14860a799888"), (crc32c(), "e3069283")):
        crc.update(b"123456789")
        assert crc.digest().hex() == expected


@pytest.mark.parametrize(("new", "polynomial", "bits"), MAKERS)
@pytest.mark.parametrize("cuts", [[], [1], [LANE - 1], [LANE], [LANE + 1, 3 * LANE], [0, 7, 2 * LANE + 5]])
def test_pieces_of_any_size_make_one_value(new: type[Crc], polynomial: int, bits: int, cuts: list[int]) -> None:
    data = np.random.default_rng(0).bytes(5 * LANE + 100)
    crc = new()
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        crc.update(data[start:end])
    assert crc.digest() == bit_by_bit(data, polynomial, bits)


@pytest.mark.parametrize(("new", "polynomial", "bits"), MAKERS)
def test_nothing_has_a_value(new: type[Crc], polynomial: int, bits: int) -> None:
    assert new().digest() == bit_by_bit(b"", polynomial, bits)

"""CRC32C and CRC64NVME: known sums, and folding against the definition, bit by bit, at every kind of length."""

from __future__ import annotations

from random import Random

import pytest

from proxy.s3.crc import CRC32C, CRC64NVME, SLICE_BYTES, Crc, Kind

KINDS = [CRC32C, CRC64NVME]


def plain(kind: Kind, data: bytes) -> bytes:
    """The definition: one division step per bit."""
    register = kind.ones
    for byte in data:
        register = kind.times_x(register ^ byte, 8)
    return (register ^ kind.ones).to_bytes(kind.width // 8, "big")


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        (CRC32C, b"", "00000000"),
        (CRC32C, b"123456789", "e3069283"),
        (CRC32C, bytes(32), "8a9136aa"),
        (CRC32C, b"\xff" * 32, "62a8ab43"),
        (CRC64NVME, b"", "0000000000000000"),
        (CRC64NVME, b"123456789", "ae8b14860a799888"),
        (CRC64NVME, bytes(4096), "6482d367eb22b64e"),
        (CRC64NVME, b"\xff" * 4096, "c0ddba7302eca3ac"),
    ],
)
def test_known_sums(kind: Kind, data: bytes, expected: str) -> None:
    summed = Crc(kind)
    summed.update(data)
    assert summed.digest().hex() == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [*range(0, 300, 13), 1000, 4095, 20_001])
def test_folding_agrees_with_the_definition(kind: Kind, size: int) -> None:
    data = Random(size).randbytes(size)
    cut = size // 3
    summed = Crc(kind)
    summed.update(data[:cut])
    summed.update(data[cut:])
    assert summed.digest() == plain(kind, data)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [SLICE_BYTES - 1, SLICE_BYTES, SLICE_BYTES + 1, 3 * SLICE_BYTES + 5])
def test_slices_agree_with_short_pieces(kind: Kind, size: int) -> None:
    """Short pieces go by the table alone."""
    data = Random(size).randbytes(size)
    whole, pieces = Crc(kind), Crc(kind)
    whole.update(data)
    for start in range(0, size, 61):
        pieces.update(data[start : start + 61])
    assert whole.digest() == pieces.digest()

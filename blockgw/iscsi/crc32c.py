"""CRC32C (Castagnoli), as iSCSI digests use it (RFC 7143 13.1).  Pure.

Two bytes a step through a table of 65,536; it is built when the first digest is asked for, for most sessions never do.
Still some 100 microseconds for 4 KiB: the target takes a digest only from an initiator that insists.
"""

from __future__ import annotations

import struct
from functools import cache

from ring.world.interface import Buffer

_POLYNOMIAL = 0x82F63B78


@cache
def _table() -> list[int]:
    table = []
    for word in range(256):
        for _ in range(8):
            word = word >> 1 ^ (_POLYNOMIAL if word & 1 else 0)
        table.append(word)
    return [(one := table[word & 0xFF] ^ word >> 8) >> 8 ^ table[one & 0xFF] for word in range(65536)]


def crc32c(data: Buffer) -> int:
    table, crc, pairs = _table(), 0xFFFFFFFF, len(data) // 2
    for word in struct.unpack_from(f"<{pairs}H", data):
        crc = table[(crc ^ word) & 0xFFFF] ^ crc >> 16
    if len(data) & 1:
        byte = (crc ^ data[-1]) & 0xFF
        for _ in range(8):
            byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
        crc = byte ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def digest(data: Buffer) -> bytes:
    """The four bytes on the wire."""
    return crc32c(data).to_bytes(4, "little")

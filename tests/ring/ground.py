"""A ring that the golden files hold, and an envelope written without the codec."""

from __future__ import annotations

import zlib
from array import array
from pathlib import Path

from ring.device import Device
from ring.names import NameHasher
from ring.placement import Ring

HASHER = NameHasher(b"p", b"s")
GOLDEN = Path(__file__).parent.parent / "golden"
DEVICES = (
    None,
    Device(1, 1, 2, "10.0.0.1", 6200, "d2", 2.0, "Größe"),
    Device(2, 1, 3, "10.0.0.1", 6200, "d3", 3.0, "Größe"),
    Device(3, 1, 4, "10.0.0.1", 6200, "d4", 4.0, "Größe"),
    Device(4, 2, 1, "10.0.0.2", 0, "e", 4.0),
)
TABLE = (
    array("H", [4, 3, 4, 3, 1, 3, 4, 4, 2, 3, 3, 2, 1, 1, 4, 3]),
    array("H", [2, 1, 3, 1, 2, 4, 3, 3, 4, 2, 4, 3, 4, 3, 3, 2]),
    array("H", [3, 4, 2, 4, 4, 2, 2, 1]),
)
RING = Ring(9, 4, DEVICES, TABLE, HASHER)


def header_end(data: bytes) -> int:
    return 24 + int.from_bytes(data[12:16], "big")


def sealed(magic: bytes, head: bytes, body: bytes) -> bytes:
    """An envelope as docs/formats/ring.md has it, written without the codec."""
    start = magic + bytes((0, 1, 0, 0)) + len(head).to_bytes(4, "big") + len(body).to_bytes(4, "big")
    return start + zlib.crc32(start + head + body).to_bytes(4, "big") + head + body

"""The ring file, what every node reads: byte for byte in docs/formats/ring.md.

Codecs are pure; ``read_ring`` and ``write_ring`` go through a Disk and replace the whole file.  Neighbours: ``placement.py``
(Ring), ``envelope.py``, ``builder/builderfile.py`` (what the operator edits).
"""

from __future__ import annotations

import sys
from array import array
from itertools import accumulate

import msgspec

from ring.envelope import DeviceRecord, devices_of, records_of, seal, unseal
from ring.errors import FormatError
from ring.names import NameHasher
from ring.placement import NO_DEVICE, Ring, Row
from ring.world.interface import Disk

RING_MAGIC = b"RFRING\r\n"
_CHECKED_BYTES = 1 << 17  # of the table at once


class _Header(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    version: int
    part_power: int
    rows: list[int]
    devices: list[DeviceRecord | None]
    next_part_power: int | None = None


def encode(ring: Ring) -> bytes:
    """The hasher's secrets are not part of a ring file."""
    rows = [len(row) for row in ring.table]
    header = _Header(ring.version, ring.part_power, rows, records_of(ring.devices), ring.next_part_power)
    return seal(RING_MAGIC, header, b"".join(_pack(row) for row in ring.table))


def decode(data: bytes, hasher: NameHasher) -> Ring:
    """FormatError unless it is a whole ring file of a format that we know."""
    header, body = unseal(RING_MAGIC, "ring file", data, _Header, lambda h: 2 * sum(h.rows))
    devices = devices_of(header.devices)
    known = {device.id for device in devices if device is not None} | {NO_DEVICE}
    if not _all_known(body, known):
        stranger = min(set(_unpack(body)) - known)
        raise FormatError(f"the table names d{stranger}, which is not in the ring")
    ids = _unpack(body)
    ends = list(accumulate(header.rows))
    table = tuple(ids[end - length : end] for length, end in zip(header.rows, ends, strict=True))
    return Ring(header.version, header.part_power, tuple(devices), table, hasher, header.next_part_power)


async def read_ring(disk: Disk, path: str, hasher: NameHasher) -> Ring:
    """OSError as the disk gave it (FileNotFoundError when there is none)."""
    return decode(await disk.read_file(path), hasher)


async def write_ring(disk: Disk, path: str, ring: Ring) -> None:
    await disk.replace_file(path, encode(ring))


def _pack(row: Row) -> bytes:
    """Little-endian."""
    if sys.byteorder == "big":
        row = array("H", row.tobytes())
        row.byteswap()
    return row.tobytes()


def _unpack(body: bytes) -> memoryview:
    """Device ids.  Where the machine is little-endian as the file is, no byte is copied: a big ring is in memory once."""
    if sys.byteorder == "big":
        ids = array("H", body)
        ids.byteswap()
        return memoryview(ids)
    return memoryview(body).cast("H")


def _all_known(body: bytes, known: set[int]) -> bool:
    """Whether the table holds no other ids.

    Nodes have no numpy, and a set of millions of ids takes six times as long as all other reading does.  So this is done on
    bytes: 256 ids share a high byte and a low byte tells them apart, thus some ids are strangers by their high byte and their low
    byte together.  High bytes with the same strangers form a class, and a class has one bit, set in the image of its high
    bytes, and in the image of the low bytes of its strangers.  An id whose two images share a bit is a stranger.
    """
    lows: dict[int, set[int]] = {}  # by high byte
    for device_id in known:
        lows.setdefault(device_id >> 8, set()).add(device_id & 0xFF)
    every = frozenset(range(256))
    strangers = [every - lows[high] if high in lows else every for high in range(256)]
    classes = [some for some in set(strangers) if some]
    images = []
    for first in range(0, len(classes), 8):
        bits = {some: 1 << bit for bit, some in enumerate(classes[first : first + 8])}
        of_high = bytes(bits.get(some, 0) for some in strangers)
        of_low = bytes(sum(bit for some, bit in bits.items() if low in some) for low in range(256))
        images.append((of_high, of_low))
    for start in range(0, len(body), _CHECKED_BYTES):
        piece = body[start : start + _CHECKED_BYTES]
        low_bytes, high_bytes = piece[::2], piece[1::2]
        for of_high, of_low in images:
            if int.from_bytes(high_bytes.translate(of_high), "little") & int.from_bytes(low_bytes.translate(of_low), "little"):
                return False
    return True

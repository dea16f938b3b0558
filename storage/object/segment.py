"""The head of a pack segment, and places in segments.  Pure codec.

A segment is a file ``packs/<sequence, 8 hex>.pack``: this head, then records (record.py) to its end.  Format: docs/formats/pack.md.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import NamedTuple

from ring.errors import FormatError
from ring.world.interface import Buffer

SEGMENT_MAGIC = b"RFPACK\r\n"
SEGMENT_VERSION = 1
_HEAD = struct.Struct(">8sHxxIIIxxxxI")  # magic, version, sequence, device id, salt, crc32
SEGMENT_HEAD_BYTES = _HEAD.size
FOLDER = "packs"


class Position(NamedTuple):
    """A byte of the log: segments are ordered by sequence."""

    segment: int
    offset: int


LOG_START = Position(0, 0)


@dataclass(frozen=True, slots=True)
class SegmentHead:
    sequence: int
    device_id: int
    salt: int

    def encode(self) -> bytes:
        body = _HEAD.pack(SEGMENT_MAGIC, SEGMENT_VERSION, self.sequence, self.device_id, self.salt, 0)[:-4]
        return body + zlib.crc32(body).to_bytes(4, "big")

    @classmethod
    def decode(cls, data: Buffer) -> SegmentHead:
        """FormatError when it is not the head of a segment that this program can read."""
        if len(data) < SEGMENT_HEAD_BYTES:
            raise FormatError("the segment's head is cut off")
        magic, version, sequence, device_id, salt, checksum = _HEAD.unpack_from(data)
        if magic != SEGMENT_MAGIC or checksum != zlib.crc32(memoryview(data)[: SEGMENT_HEAD_BYTES - 4]):
            raise FormatError("the segment's head is damaged")
        if version > SEGMENT_VERSION:
            raise FormatError(f"the segment has format {version}; this program knows up to {SEGMENT_VERSION}")
        return cls(sequence, device_id, salt)


def segment_path(sequence: int) -> str:
    return f"{FOLDER}/{sequence:08x}.pack"


def sequence_of(name: str) -> int | None:
    """From a name in the packs folder; None when it is not a segment's."""
    stem, dot, suffix = name.partition(".")
    if suffix != "pack" or not dot or len(stem) != 8:
        return None
    try:
        return int(stem, 16)
    except ValueError:
        return None

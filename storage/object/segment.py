"""The head of a pack segment, its name, places in segments, and the order of segments.  Pure codec.

A segment is a file in ``packs``: a head, then records (record.py) to its end.  Sequences 1, 2, ... are *plain* segments: the log as
it was written.  Those from COMPACTED on are made by compaction, and each stands for a range of plain sequences, whose place in the
order of the log it takes; its name says which.  ``arrange`` tells from the names alone what the log is.  Format:
docs/formats/pack.md.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from ring.errors import FormatError, NewerFormat
from ring.world.interface import Buffer

SEGMENT_MAGIC = b"RFPACK\r\n"
SEGMENT_VERSION = 2
COMPACTED = 1 << 31  # sequences from here on are compacted segments
_HEAD_1 = struct.Struct(">8sHxxIIIxxxxI")  # magic, version, sequence, device id, salt, crc32
_HEAD_2 = struct.Struct(">8sHxxIIIIII24xI")  # ... sequence, device id, salt, first, last, clean, crc32
SEGMENT_HEAD_BYTES = _HEAD_2.size
FOLDER = "packs"


class Position(NamedTuple):
    """A byte of the log, in a plain segment."""

    segment: int
    offset: int


LOG_START = Position(0, 0)


@dataclass(frozen=True, slots=True)
class SegmentHead:
    """``clean``: of a compacted segment: no record in it was dead when the log already had records in this plain sequence; 0: not
    known."""

    sequence: int
    device_id: int
    salt: int
    clean: int = 0
    span: tuple[int, int] | None = None  # the plain sequences that it stands for; None: itself
    version: int = SEGMENT_VERSION

    @property
    def length(self) -> int:
        """Where its records begin."""
        return _HEAD_1.size if self.version == 1 else _HEAD_2.size

    def encode(self) -> bytes:
        first, last = self.span or (self.sequence, self.sequence)
        body = _HEAD_2.pack(SEGMENT_MAGIC, SEGMENT_VERSION, self.sequence, self.device_id, self.salt, first, last, self.clean, 0)[
            :-4
        ]
        return body + zlib.crc32(body).to_bytes(4, "big")

    @classmethod
    def decode(cls, data: Buffer) -> SegmentHead:
        """FormatError when it is not the head of a segment that this program can read."""
        if len(data) < _HEAD_1.size:
            raise FormatError("the segment's head is cut off")
        magic, version = struct.unpack_from(">8sH", data)
        if magic != SEGMENT_MAGIC:
            raise FormatError("the segment's head is damaged")
        layout = _HEAD_1 if version == 1 else _HEAD_2
        if len(data) < layout.size:
            raise FormatError("the segment's head is cut off")
        checksum = int.from_bytes(data[layout.size - 4 : layout.size], "big")
        if checksum != zlib.crc32(memoryview(data)[: layout.size - 4]):
            raise FormatError("the segment's head is damaged, or newer than this program knows")
        if version > SEGMENT_VERSION:
            raise NewerFormat("the segment", version, SEGMENT_VERSION)
        if version == 1:
            _, _, sequence, device_id, salt, _ = _HEAD_1.unpack_from(data)
            return cls(sequence, device_id, salt, version=1)
        _, _, sequence, device_id, salt, first, last, clean, _ = _HEAD_2.unpack_from(data)
        return cls(sequence, device_id, salt, clean, None if first == last == sequence else (first, last))


class SegmentName(NamedTuple):
    """``first`` and ``last``: the plain sequences that it stands for."""

    sequence: int
    first: int
    last: int

    @property
    def path(self) -> str:
        span = f"-{self.first:08x}-{self.last:08x}" if self.sequence >= COMPACTED else ""
        return f"{FOLDER}/{self.sequence:08x}{span}.pack"

    @classmethod
    def parse(cls, name: str) -> SegmentName | None:
        """From a name in the packs folder; None when it is not a segment's."""
        stem, dot, suffix = name.partition(".")
        parts = stem.split("-")
        if suffix != "pack" or not dot or any(len(part) != 8 for part in parts) or stem != stem.lower():
            return None
        try:
            numbers = [int(part, 16) for part in parts]
        except ValueError:
            return None
        if len(numbers) == 1 and numbers[0] < COMPACTED:
            return plain(numbers[0])
        if len(numbers) == 3 and numbers[0] >= COMPACTED and 0 < numbers[1] <= numbers[2] < COMPACTED:
            return cls(*numbers)
        return None


def plain(sequence: int) -> SegmentName:
    return SegmentName(sequence, sequence, sequence)


def arrange(names: Iterable[SegmentName]) -> tuple[list[SegmentName], list[SegmentName]]:
    """The segments of the log in its order, and those whose place a later one has taken.

    A compacted segment gets its name when it is whole, so it stands for all of its range from then on.  Of two that stand for one
    plain sequence the one with the greater sequence was made later, out of the other."""
    order: list[SegmentName] = []
    replaced: list[SegmentName] = []
    ends: list[tuple[int, int]] = []  # (last, first) of the compacted ones that stand, ascending: they do not overlap
    for name in sorted(names, reverse=True):
        at = bisect_left(ends, (name.last, 0))
        if at < len(ends) and ends[at][1] <= name.first:
            replaced.append(name)
            continue
        order.append(name)
        if name.sequence >= COMPACTED:
            ends.insert(at, (name.last, name.first))
    return sorted(order, key=lambda name: name.first), sorted(replaced)

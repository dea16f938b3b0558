"""Finding records in the bytes of a segment, harmed ones included.  Bytes in, findings out; ``scan`` is the edge that reads a file.

After a place where no good record begins, the next good one is searched by its magic and both checksums, so that one rotten sector
costs what lay on it and nothing behind it.  Neighbours: store.py replays the log with it, auditor.py looks for rot with it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field

from ring.world.interface import File
from storage.object.errors import BadRecord, ForeignRecord
from storage.object.record import (
    FLAG_MOVED,
    FLAG_ZSTD,
    FOOT_BYTES,
    HEAD,
    HEAD_BYTES,
    MAGIC,
    RECORD_BYTES_MAX,
    Head,
    Origin,
    Record,
    RecordKind,
    decode_head,
    decode_info,
    decode_record,
)

CHUNK_BYTES = 4 << 20
FOOT = struct.Struct(">I")
ORIGIN_BYTES = 4 * len(Origin._fields)
_KINDS = frozenset(map(int, RecordKind))
_FLAGS = frozenset((0, FLAG_ZSTD, FLAG_MOVED, FLAG_ZSTD | FLAG_MOVED))


@dataclass(frozen=True, slots=True)
class Found:
    """A whole and unharmed record."""

    record: Record
    offset: int
    length: int
    meta_length: int
    meta: bytes = b""  # of a raw one


@dataclass(frozen=True, slots=True)
class Damaged:
    """``head`` is known when a record's metadata is good and its data is not.  ``to_end``: nothing good follows in the segment,
    so it may be the torn end of an append that was never acknowledged.  ``foreign``: a whole record of a newer format."""

    offset: int
    end: int
    head: Head | None = None
    to_end: bool = False
    foreign: bool = False


Finding = Found | Damaged


@dataclass(slots=True)
class StartReport:
    """What the start found, for the log."""

    rebuilt: bool = False  # the index was made anew from the whole log
    replayed: int = 0  # records
    torn_bytes: int = 0  # cut from the end of the log
    damaged: list[tuple[int, int, int]] = field(default_factory=list)  # segment, offset, end: skipped


class Scanner:
    """Feed it a segment's bytes in order, from a place where a record begins.  ``raw``: metadata is checked, but not decoded.
    ``only_damage``: whole and unharmed records are not reported, which costs a tenth."""

    def __init__(self, salt: int, offset: int, *, raw: bool = False, only_damage: bool = False) -> None:
        self._salt = salt
        self._raw = raw or only_damage
        self._only_damage = only_damage
        self._buffer = b""
        self._base = offset  # of the buffer in the segment
        self._bad_from: int | None = None  # searching since there

    @property
    def offset(self) -> int:
        """Up to here everything was reported; a scan can go on from here."""
        return self._base if self._bad_from is None else self._bad_from

    def feed(self, data: bytes, *, last: bool) -> list[Finding]:
        """What can be told so far; everything if ``last`` (nothing follows in the segment)."""
        buffer = self._buffer + data if self._buffer else data
        findings: list[Finding] = []
        at = 0
        while True:
            if self._bad_from is not None:
                at, found = self._search(buffer, at, last)
                if not found:
                    break
                findings.append(Damaged(self._bad_from, self._base + at))
                self._bad_from = None
            if self._only_damage:
                at = skip_sound(buffer, self._salt, at)
            if at == len(buffer):
                break
            head = _head(buffer, at)
            if head is None:
                if len(buffer) - at < HEAD_BYTES and not last:
                    break
                self._bad_from = self._base + at
                at += 1
                continue
            if at + head.length > len(buffer) and not last:
                break
            finding = self._record(buffer, at, head)
            if finding is None:
                self._bad_from = self._base + at
                at += 1
                continue
            findings.append(finding)
            at += head.length
        self._base += at
        self._buffer = buffer[at:]
        if last and self._bad_from is not None:
            findings.append(Damaged(self._bad_from, self._base + len(self._buffer), to_end=True))
        return findings

    def _record(self, buffer: bytes, at: int, head: Head) -> Finding | None:
        try:
            record = decode_record(buffer, self._salt, at, raw=self._raw)
            meta = bytes(buffer[at + HEAD_BYTES : at + HEAD_BYTES + head.meta_length]) if self._raw else b""
            return Found(record, self._base + at, head.length, head.meta_length, meta)
        except ForeignRecord:
            return Damaged(self._base + at, self._base + at + head.length, head, foreign=True)
        except BadRecord:
            if at + head.length > len(buffer):
                return None
        try:
            decode_info(buffer, self._salt, at)
        except BadRecord:
            return None
        return Damaged(self._base + at, self._base + at + head.length, head)

    def _search(self, buffer: bytes, at: int, last: bool) -> tuple[int, bool]:
        """The next place from ``at`` where a record's metadata is good, or how far it is known that there is none."""
        while True:
            place = buffer.find(MAGIC, at)
            if place < 0:
                return (len(buffer) if last else max(at, len(buffer) - len(MAGIC) + 1)), False
            if len(buffer) - place < HEAD_BYTES + FOOT_BYTES and not last:
                return place, False
            head = _head(buffer, place)
            if head is not None:
                if place + head.length > len(buffer) and not last:
                    return place, False
                if self._record(buffer, place, head) is not None:
                    return place, True
            at = place + 1


def skip_sound(buffer: bytes, salt: int, at: int) -> int:
    """Behind the whole and unharmed records that begin at ``at``, one after the other.

    The checks of ``decode_record`` without anything being made of what is read.  Where it stops there may still be a good record
    that it does not judge (a newer format's); ``decode_record`` has the word on those."""
    view, size = memoryview(buffer), len(buffer)
    crc32, unpack, foot = zlib.crc32, HEAD.unpack_from, FOOT.unpack_from
    while at + HEAD_BYTES <= size:
        magic, length, checksum, _, _, kind, flags, meta_length = unpack(buffer, at)
        end, data = at + length - FOOT_BYTES, at + HEAD_BYTES + meta_length
        least = data + ORIGIN_BYTES if flags & FLAG_MOVED else data
        if (
            magic != MAGIC
            or kind not in _KINDS
            or flags not in _FLAGS
            or length > RECORD_BYTES_MAX
            or not least <= end <= size - FOOT_BYTES
        ):
            break
        if crc32(view[at + 12 : data], crc32(view[at + 4 : at + 8], salt)) != checksum:
            break
        if crc32(view[data:end], checksum) != foot(buffer, end)[0]:
            break
        at = end + FOOT_BYTES
    return at


def _head(buffer: bytes, at: int) -> Head | None:
    if len(buffer) - at < HEAD_BYTES:
        return None
    try:
        return decode_head(buffer, at)
    except BadRecord:
        return None


def scan(file: File, salt: int, start: int, end: int, *, chunk_bytes: int = CHUNK_BYTES) -> AsyncGenerator[Finding, None]:
    """The findings in ``file`` from ``start`` (where a record begins) up to ``end``.  OSError as the disk gave it."""
    return _scan(file.pread, salt, start, end, chunk_bytes)


def scan_medium(file: File, salt: int, start: int, end: int, *, chunk_bytes: int = CHUNK_BYTES) -> AsyncGenerator[Finding, None]:
    """``scan`` past the page cache."""
    return _scan(file.pread_medium, salt, start, end, chunk_bytes)


async def _scan(
    read: Callable[[int, int], Awaitable[bytes]], salt: int, start: int, end: int, chunk_bytes: int
) -> AsyncGenerator[Finding, None]:
    scanner = Scanner(salt, start)
    at = start
    while at < end:
        data = await read(at, min(chunk_bytes, end - at))
        at += len(data)
        for finding in scanner.feed(data, last=at >= end or not data):
            yield finding
        if not data:
            return

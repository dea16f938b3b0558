"""Byte ranges: which parts of a body a Range header asks for, and what the answer states.

Pure.  ``conditions`` has If-Range and the other conditions.  Standard: RFC 9110 section 14.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

RANGES_MAX = 50  # as Swift; more are ignored, as a header that is not understood
_UNIT = re.compile(r"\s*bytes\s*=(.*)", re.IGNORECASE | re.DOTALL)
_SPEC = re.compile(r"[ \t]*(\d{0,18})[ \t]*-[ \t]*(\d{0,18})[ \t]*")


@dataclass(frozen=True, slots=True)
class ByteRange:
    start: int
    stop: int  # exclusive

    @property
    def length(self) -> int:
        return self.stop - self.start

    def content_range(self, size: int) -> str:
        """Of a 206: "bytes 0-499/1234"."""
        return f"bytes {self.start}-{self.stop - 1}/{size}"


@dataclass(frozen=True, slots=True)
class Unsatisfiable:
    """The header is well formed and no range of it lies in the body: 416, with this Content-Range."""

    size: int

    @property
    def content_range(self) -> str:
        return f"bytes */{self.size}"


def parse_ranges(header: str, size: int) -> list[ByteRange] | Unsatisfiable | None:
    """The satisfiable ranges, in the order asked for; None when the header is absent, malformed or of another unit, and so
    ignored (200 with the whole body).

    More than RANGES_MAX ranges, and more than two that overlap, are ignored too: they only cost (section 14.2)."""
    match = _UNIT.fullmatch(header)
    if match is None:
        return None
    specs = match[1].split(",")
    if len(specs) > RANGES_MAX:
        return None
    asked = 0
    ranges: list[ByteRange] = []
    for spec in specs:
        if not spec.strip():
            continue  # a list may have empty members (section 5.6.1)
        parts = _SPEC.fullmatch(spec)
        if parts is None:
            return None
        first, last = parts.groups()
        asked += 1
        if first:
            start = int(first)
            if last and int(last) < start:
                return None
            stop = min(int(last) + 1, size) if last else size
            if start < size:
                ranges.append(ByteRange(start, stop))
        elif last:
            if int(last) and size:
                ranges.append(ByteRange(max(size - int(last), 0), size))
        else:
            return None
    if not asked:
        return None
    if not ranges:
        return Unsatisfiable(size)
    return None if _overlaps(ranges) > 2 else ranges


def _overlaps(ranges: Sequence[ByteRange]) -> int:
    count = 0
    reached = -1
    for item in sorted(ranges, key=lambda item: item.start):
        if item.start < reached:
            count += 1
        reached = max(reached, item.stop)
    return count


@dataclass(frozen=True, slots=True)
class Multipart:
    """The frame of a multipart/byteranges body (section 14.6): before each part goes ``part_head``, at the end ``tail``."""

    boundary: str
    content_type: str
    size: int

    @property
    def header(self) -> str:
        """The answer's Content-Type."""
        return f"multipart/byteranges; boundary={self.boundary}"

    def part_head(self, part: ByteRange, *, first: bool) -> bytes:
        lead = "" if first else "\r\n"
        kind = f"Content-Type: {self.content_type}\r\n" if self.content_type else ""
        return f"{lead}--{self.boundary}\r\n{kind}Content-Range: {part.content_range(self.size)}\r\n\r\n".encode("latin-1")

    @property
    def tail(self) -> bytes:
        return f"\r\n--{self.boundary}--\r\n".encode("latin-1")

    def length(self, parts: Sequence[ByteRange]) -> int:
        """Of the whole body."""
        heads = sum(len(self.part_head(part, first=at == 0)) for at, part in enumerate(parts))
        return heads + sum(part.length for part in parts) + len(self.tail)

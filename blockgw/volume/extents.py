"""Extents: which bytes of a volume lie where.  Pure.

An ExtentMap holds disjoint extents in order; inserting one cuts those it covers.  Offsets are bytes from the start of the volume;
ends are excluded.  A volume reads through layers of maps: what one layer does not know, the next is asked for.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

SourceT = TypeVar("SourceT")


@dataclass(frozen=True, slots=True)
class Extent(Generic[SourceT]):
    start: int
    end: int
    source: SourceT  # where the bytes are
    offset: int  # of ``start`` in the source

    def cut(self, start: int, end: int) -> Extent[SourceT]:
        return Extent(start, end, self.source, self.offset + start - self.start)


class ExtentMap(Generic[SourceT]):
    def __init__(self) -> None:
        self._starts: list[int] = []
        self._extents: list[Extent[SourceT]] = []

    def __len__(self) -> int:
        return len(self._extents)

    def __iter__(self) -> Iterator[Extent[SourceT]]:
        return iter(self._extents)

    def insert(self, extent: Extent[SourceT]) -> None:
        """What was known of its range before is forgotten."""
        start, end = extent.start, extent.end
        if start >= end:
            return
        first = bisect_right(self._starts, start) - 1
        if first < 0 or self._extents[first].end <= start:
            first += 1
        last = bisect_left(self._starts, end, first)
        kept: list[Extent[SourceT]] = []
        if first < last:
            head, tail = self._extents[first], self._extents[last - 1]
            if head.start < start:
                kept.append(head.cut(head.start, start))
            kept.append(extent)
            if tail.end > end:
                kept.append(tail.cut(end, tail.end))
        else:
            kept.append(extent)
        self._extents[first:last] = kept
        self._starts[first:last] = [one.start for one in kept]

    def lookup(self, start: int, end: int) -> Iterator[Extent[SourceT] | tuple[int, int]]:
        """The range in order: cut extents, and (start, end) of gaps."""
        at = start
        index = bisect_right(self._starts, start) - 1
        if index < 0 or self._extents[index].end <= start:
            index += 1
        while at < end:
            if index >= len(self._extents) or self._extents[index].start >= end:
                yield (at, end)
                return
            extent = self._extents[index]
            if extent.start > at:
                yield (at, extent.start)
                at = extent.start
            stop = min(extent.end, end)
            yield extent.cut(at, stop)
            at = stop
            index += 1

    def bytes_by_source(self) -> dict[SourceT, int]:
        """How many bytes of each source are still referred to."""
        found: dict[SourceT, int] = {}
        for extent in self._extents:
            found[extent.source] = found.get(extent.source, 0) + extent.end - extent.start
        return found

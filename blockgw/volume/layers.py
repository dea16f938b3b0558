"""The layers of a volume: what they hold, how a range is found through them, how one is cut into segments.  Pure.

Newest first: dirty and frozen (Taken), stable (segments), the base.  Neighbours: extents (one layer), volume (which keeps them).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from blockgw.volume.extents import Extent, ExtentMap
from blockgw.volume.segment import SegmentId
from ring.names import Path


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """A write in RAM; ``data`` None is a discard."""

    sequence: int
    data: bytes | None


@dataclass(frozen=True, slots=True)
class Base:
    """What lies below a volume: an image's parts, each ``part_bytes`` long but the last."""

    parts: Sequence[Path]
    part_bytes: int
    size: int


Stable = SegmentId | None  # None: zeroes


def through(layers: Sequence[ExtentMap[Taken]], start: int, end: int) -> Iterator[Extent[Taken] | tuple[int, int]]:
    """The range as the layers know it, newest layer first; gaps that none knows as (start, end)."""
    for found in layers[0].lookup(start, end):
        if isinstance(found, Extent) or len(layers) == 1:
            yield found
        else:
            yield from through(layers[1:], *found)


def below(base: Base | None, start: int, end: int) -> Iterator[bytes | tuple[Path, int, int]]:
    """The range as the base has it, zeroes beyond its end."""
    at = start
    while base is not None and at < min(end, base.size):
        part, offset = divmod(at, base.part_bytes)
        length = min(end - at, base.part_bytes - offset, base.size - at)
        yield base.parts[part], offset, length
        at += length
    if at < end:
        yield bytes(end - at)


def bytes_of(extent: Extent[Taken]) -> bytes:
    """Its data; a discard has none."""
    data = extent.source.data
    return b"" if data is None else data[extent.offset : extent.offset + extent.end - extent.start]


def batches(frozen: ExtentMap[Taken], segment_bytes: int) -> Iterator[list[Extent[Taken]]]:
    """Neighbours together, about ``segment_bytes`` each; a larger extent is cut."""
    batch: list[Extent[Taken]] = []
    size = 0
    for extent in frozen:
        if extent.source.data is None:
            batch.append(extent)
            continue
        for start in range(extent.start, extent.end, segment_bytes):
            piece = extent.cut(start, min(start + segment_bytes, extent.end))
            if batch and size + piece.end - piece.start > segment_bytes:
                yield batch
                batch, size = [], 0
            batch.append(piece)
            size += piece.end - piece.start
    if batch:
        yield batch

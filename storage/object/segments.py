"""The segments of a device: which there are, in which order they are the log, open files of them, and reading from them.

Decides nothing about what is in a segment.  A segment that compaction has replaced stays readable until it is removed, and one that
is removed while somebody reads it is closed by the last reader.  Neighbours: segment.py (names, heads, order), packs.py (appends to
the last one), compaction.py (puts one in the place of others), reader.py and auditor.py (read).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

import trio

from ring.errors import DiskFault, FormatError, NewerFormat
from ring.world.interface import File, OpenMode
from storage.object.device import PACKS, OpenDevice
from storage.object.scan import Finding, scan
from storage.object.segment import COMPACTED, SEGMENT_HEAD_BYTES, Position, SegmentHead, SegmentName, arrange, plain

XATTR = "ringfort"  # a second copy of the segment's head, for when its first sector rots


class Place(NamedTuple):
    """Where a record lies.  ``meta`` is the length of its metadata part."""

    segment: int
    offset: int
    length: int
    meta: int


@dataclass(slots=True)
class Segment:
    head: SegmentHead
    file: File
    size: int  # every byte before it is durable
    appended_from: int  # where this process began to append
    readers: int = 0
    removed: bool = False


class Segments:
    def __init__(self, device: OpenDevice) -> None:
        self._device = device
        self._disk = device.disk
        self._open: dict[int, Segment] = {}
        self._sizes: dict[int, int] = {}  # of those that nobody appends to
        self._names: dict[int, SegmentName] = {}  # of all that exist
        self.order: list[SegmentName] = []  # the log
        self.replaced: list[SegmentName] = []  # compaction has put another one in their place

    async def find(self) -> None:
        """Look which there are.  OSError."""
        found = [SegmentName.parse(name) for name in await self._disk.list_dir(PACKS)]
        names = [name for name in found if name is not None]
        self._names = {name.sequence: name for name in names}
        self.order, self.replaced = arrange(names)

    @property
    def sequences(self) -> list[int]:
        """Of all that exist, ascending."""
        return sorted(self._names)

    def exists(self, sequence: int) -> bool:
        return sequence in self._names

    def stands(self, sequence: int) -> bool:
        """Whether it is a part of the log."""
        return sequence in self._names and all(name.sequence != sequence for name in self.replaced)

    def place_in_log(self, sequence: int) -> int | None:
        """Its place in ``order``."""
        return next((at for at, name in enumerate(self.order) if name.sequence == sequence), None)

    # ---- opening

    async def segment(self, sequence: int, mode: OpenMode = OpenMode.READ) -> Segment:
        """Open it, if it is not open.  FileNotFoundError, OSError, FormatError."""
        segment = self._open.get(sequence)
        if segment is None:
            name = self._names.get(sequence)
            if name is None:
                raise FileNotFoundError(f"there is no segment {sequence:08x}")
            file = await self._disk.open(name.path, mode)
            try:
                head = await _read_head(file, sequence)
            except BaseException:
                with trio.CancelScope(shield=True):
                    await file.close()
                raise
            segment = self._open.get(sequence)
            if segment is not None or sequence not in self._names:  # another task was faster, or it went away
                with trio.CancelScope(shield=True):
                    await file.close()
                return await self.segment(sequence, mode)
            size = file.size()
            segment = self._open[sequence] = Segment(head, file, size, size)
        return segment

    @asynccontextmanager
    async def reading(self, sequence: int) -> AsyncIterator[Segment]:
        """The segment, which stays open meanwhile.  As ``segment``."""
        segment = await self.segment(sequence)
        segment.readers += 1
        try:
            yield segment
        finally:
            segment.readers -= 1
            if segment.removed and not segment.readers:
                with trio.CancelScope(shield=True):
                    await segment.file.close()

    async def size(self, name: SegmentName) -> int:
        """Its bytes, the head included.  OSError."""
        segment = self._open.get(name.sequence)
        if segment is not None:
            return segment.size
        size = self._sizes.get(name.sequence)
        if size is None:
            info = await self._disk.info(name.path)
            size = self._sizes[name.sequence] = 0 if info is None else info.size
        return size

    # ---- changing

    async def create(self, salt: int) -> Segment:
        """A plain segment behind the last one.  OSError: then there is none."""
        sequence = self.order[-1].last + 1 if self.order else 1
        head = SegmentHead(sequence, self._device.device_id, salt)
        file = await self._disk.open_unnamed(PACKS)
        name = plain(sequence)
        try:
            await file.append([head.encode()], sync=False)
            await file.set_xattr(XATTR, head.encode())
            await file.sync()
            await self._name(file, name)
        except OSError:
            await file.close()
            raise
        segment = self._open[sequence] = Segment(head, file, head.length, head.length)
        self._names[sequence] = name
        self.order.append(name)
        return segment

    def next_compacted(self) -> int:
        """A sequence for a segment that takes the place of others: greater than all there are."""
        return max(COMPACTED, *self._names) + 1

    async def install(self, head: SegmentHead, file: File, size: int) -> None:
        """Give a whole and durable file its name: it takes the place of all that stand in its span.  OSError: then it has none."""
        assert head.span is not None
        name = SegmentName(head.sequence, *head.span)
        await self._name(file, name)
        self._open[name.sequence] = Segment(head, file, size, size)
        self._names[name.sequence] = name
        self.order, self.replaced = arrange(self._names.values())

    async def _name(self, file: File, name: SegmentName) -> None:
        """OSError: then it has none, or the device is out of service: with the next start it might stand for what changed since."""
        try:
            await self._disk.link(file, name.path)
        except OSError:
            try:
                await self._disk.unlink(name.path)
            except FileNotFoundError:
                pass
            except OSError as error:
                self._device.fail(f"whether a segment has a name is not known ({error.strerror or error})")
            raise

    async def remove(self, name: SegmentName) -> None:
        """Unlink it.  OSError."""
        with trio.CancelScope(shield=True):
            try:
                await self._disk.unlink(name.path)
            except OSError:
                if await self._disk.info(name.path) is not None:
                    raise
            del self._names[name.sequence]
            self._sizes.pop(name.sequence, None)
            self.order, self.replaced = arrange(self._names.values())
            segment = self._open.pop(name.sequence, None)
            if segment is not None:
                segment.removed = True
                if not segment.readers:
                    await segment.file.close()

    async def close(self) -> None:
        for segment in self._open.values():
            await segment.file.close()
        self._open.clear()

    # ---- reading

    async def scan(self, start: Position) -> AsyncGenerator[tuple[Segment, Finding], None]:
        """Every finding from ``start`` (LOG_START, or in a plain segment of the log) to the end of the log."""
        for name in self.order[self.place_in_log(start.segment) or 0 :]:
            async with self.reading(name.sequence) as segment:
                at = start.offset if name.sequence == start.segment else 0
                findings = scan(segment.file, segment.head.salt, max(at, segment.head.length), segment.size)
                async with aclosing(findings):
                    async for finding in findings:
                        yield segment, finding

    def read_now(self, place: Place, length: int) -> tuple[bytes, int] | None:
        """The first ``length`` bytes of a record and its segment's salt, if they can be had without waiting."""
        segment = self._open.get(place.segment)
        if segment is None:
            return None
        data = segment.file.pread_now(place.offset, length)
        return None if data is None else (data, segment.head.salt)

    async def read(self, place: Place, length: int) -> tuple[bytes, int]:
        """The same, waiting for the disk.  DiskFault when it cannot read it."""
        try:
            async with self.reading(place.segment) as segment:
                return await segment.file.pread(place.offset, length), segment.head.salt
        except (OSError, FormatError) as error:
            self._device.erred(error, f"segment {place.segment:08x} at {place.offset}")
            raise DiskFault(f"device {self._device.device_id}: a record cannot be read: {error}") from error


async def _read_head(file: File, sequence: int) -> SegmentHead:
    """From the file, or from the copy beside it when that sector is rotten."""
    try:
        head = SegmentHead.decode(await file.pread(0, SEGMENT_HEAD_BYTES))
    except NewerFormat as error:
        raise error.at(f"{PACKS}/{sequence:08x}") from None
    except (FormatError, OSError):
        copy = await file.get_xattr(XATTR)
        if copy is None:
            raise
        head = SegmentHead.decode(copy)
    if head.sequence != sequence:
        raise FormatError(f"segment {sequence:08x} holds segment {head.sequence:08x}")
    return head

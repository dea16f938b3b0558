"""The log of a device: segments, group commit, and what a failed write means.

All records that wait are written by one append with one sync, by one task (``run``), and their callers are woken together; when
nothing is in flight a record goes at once.  In the order of the log, each durable record is handed to ``land`` (the index takes it)
before its caller wakes.  A caller may be cancelled at any time; its record is then written or not, whole either way.

After a failed write or sync nobody knows what the segment holds behind its last acknowledged byte: the segment is sealed for good,
the waiting callers get DiskFault, what was acknowledged is read back, and only then the device goes on in a new segment.  The
second failure takes the device out of service.  A full disk is not a failure: the segment is cut back and goes on.

Neighbours: record.py and segment.py (formats), index.py (behind ``land``), store.py (owns this).  Never touches large files.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import outcome
import trio

from ring.errors import DiskFault, DiskFull, FormatError
from ring.timestamp import Timestamp
from ring.world.interface import Buffer, File, OpenMode, World
from storage.object.device import PACKS, OpenDevice
from storage.object.errors import DeviceOutOfService
from storage.object.record import Record, encode_record
from storage.object.scan import Damaged, Finding, scan
from storage.object.segment import SEGMENT_HEAD_BYTES, Position, SegmentHead, segment_path, sequence_of

SEGMENT_BYTES_MAX = 1 << 30
BATCH_RECORDS_MAX = 64
BATCH_BYTES_MAX = 8 << 20
XATTR = "ringfort"  # a second copy of the segment's head, for when its first sector rots
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Place(NamedTuple):
    """Where a record lies.  ``meta`` is the length of its metadata part."""

    segment: int
    offset: int
    length: int
    meta: int


class Landed(NamedTuple):
    """What a durable record did to what the device holds."""

    taken: bool  # False: something newer (or the same) was there and the record changed nothing
    newest: Timestamp  # of its name, afterwards


class Pending:
    """A record on its way to the disk."""

    __slots__ = ("_error", "_landed", "_task", "record")

    def __init__(self, record: Record) -> None:
        self.record = record
        self._landed: Landed | None = None
        self._error: Exception | None = None
        self._task: trio.lowlevel.Task | None = None

    @property
    def done(self) -> bool:
        return self._landed is not None or self._error is not None

    async def wait(self) -> Landed:
        """Until it is durable.  One task may wait; giving up does not take the record back.  DiskFault, DeviceOutOfService."""
        if not self.done:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._give_up)
        if self._error is not None:
            raise self._error
        assert self._landed is not None
        return self._landed

    def settle(self, result: Landed | Exception) -> None:
        if isinstance(result, Exception):
            self._error = result
        else:
            self._landed = result
        if self._task is not None:
            trio.lowlevel.reschedule(self._task, outcome.Value(None))
            self._task = None

    def _give_up(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


@dataclass(slots=True)
class Segment:
    head: SegmentHead
    file: File
    size: int  # every byte before it is durable
    appended_from: int  # where this process began to append


class Packs:
    def __init__(
        self,
        world: World,
        device: OpenDevice,
        land: Callable[[Record, Place], Landed],
        *,
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
    ) -> None:
        self._world = world
        self._device = device
        self._disk = device.disk
        self._land = land
        self._segment_bytes_max = segment_bytes_max
        self._segments: dict[int, Segment] = {}  # those that are open
        self._sequences: list[int] = []  # all, ascending
        self._active: Segment | None = None
        self._queue: deque[Pending] = deque()
        self._idle: trio.lowlevel.Task | None = None
        self._running = False
        self._failures = 0
        self.end = Position(0, 0)  # of the log: everything before it was landed
        self.batches = 0  # facts for metrics
        self.records = 0

    # ---- segments

    @property
    def sequences(self) -> list[int]:
        return list(self._sequences)

    async def open(self) -> None:
        """Find the segments.  The last one's bytes are made durable before anything in it is believed."""
        found = [sequence_of(name) for name in await self._disk.list_dir(PACKS)]
        self._sequences = sorted(sequence for sequence in found if sequence is not None)
        if self._sequences:
            last = await self.segment(self._sequences[-1], OpenMode.WRITE)
            await last.file.sync()
            self._active = last
            self.end = Position(last.head.sequence, last.size)

    async def segment(self, sequence: int, mode: OpenMode = OpenMode.READ) -> Segment:
        """Open it, if it is not open.  FileNotFoundError, OSError, FormatError."""
        segment = self._segments.get(sequence)
        if segment is None:
            file = await self._disk.open(segment_path(sequence), mode)
            try:
                head = await _read_head(file, sequence)
            except BaseException:
                with trio.CancelScope(shield=True):
                    await file.close()
                raise
            segment = self._segments.get(sequence)
            if segment is not None:  # another task was faster
                await file.close()
            else:
                size = file.size()
                segment = self._segments[sequence] = Segment(head, file, size, size)
        return segment

    async def scan(self, start: Position) -> AsyncIterator[tuple[Segment, Finding]]:
        """Every finding from ``start`` to the end of the log, segment by segment."""
        for sequence in self._sequences:
            if sequence >= start.segment:
                segment = await self.segment(sequence)
                at = start.offset if sequence == start.segment else 0
                async for finding in scan(segment.file, segment.head.salt, max(at, SEGMENT_HEAD_BYTES), segment.size):
                    yield segment, finding

    def seal(self) -> None:
        """Append no more to the last segment."""
        self._active = None

    async def cut(self, size: int) -> None:
        """Take back the torn end of the last segment, after a crash."""
        segment = self._active
        assert segment is not None
        await segment.file.truncate(size)
        await segment.file.sync()
        segment.size = segment.appended_from = size
        self.end = Position(segment.head.sequence, size)

    async def close(self) -> None:
        for segment in self._segments.values():
            await segment.file.close()
        self._segments.clear()
        self._active = None

    # ---- reading

    def salt(self, place: Place) -> int:
        return self._segments[place.segment].head.salt

    def read_now(self, place: Place, length: int) -> bytes | None:
        """The first ``length`` bytes of a record if they can be had without waiting."""
        segment = self._segments.get(place.segment)
        return segment.file.pread_now(place.offset, length) if segment is not None else None

    async def read(self, place: Place, length: int) -> bytes:
        """DiskFault when the disk cannot read it."""
        try:
            segment = await self.segment(place.segment)
            return await segment.file.pread(place.offset, length)
        except (OSError, FormatError) as error:
            raise DiskFault(f"device {self._device.device_id}: a record cannot be read: {error}") from error

    # ---- writing

    def submit(self, record: Record) -> Pending:
        """Queue a record; ``wait`` on what is returned.  DeviceOutOfService."""
        self._device.check()
        if not self._running:
            raise DeviceOutOfService(f"device {self._device.device_id} is not running")
        pending = Pending(record)
        self._queue.append(pending)
        if self._idle is not None:
            trio.lowlevel.reschedule(self._idle)
            self._idle = None
        return pending

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The device's writer; runs until it is cancelled."""
        assert not self._running
        self._running = True
        task_status.started()
        try:
            while True:
                if not self._queue:
                    self._idle = trio.lowlevel.current_task()
                    await trio.lowlevel.wait_task_rescheduled(self._stop_idling)
                with trio.CancelScope(shield=True):
                    await self._write_batch()
                await trio.lowlevel.checkpoint_if_cancelled()
        finally:
            self._running = False
            while self._queue:
                self._queue.popleft().settle(DeviceOutOfService(f"device {self._device.device_id} was closed"))

    def _stop_idling(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._idle = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def _write_batch(self) -> None:
        batch: list[Pending] = []
        size = 0
        while self._queue and len(batch) < BATCH_RECORDS_MAX and size < BATCH_BYTES_MAX:
            batch.append(self._queue.popleft())
            size += len(batch[-1].record.data)
        try:
            self._device.check()
            segment, buffers, places = await self._encode(batch)
        except (OSError, DiskFault, DeviceOutOfService) as error:
            self._refuse(batch, error)
            return
        try:
            offset = await segment.file.append(buffers, sync=True)
        except OSError as error:
            await self._failed(segment, error)
            self._refuse(batch, error)
            return
        assert offset == segment.size, (offset, segment.size)
        segment.size = places[-1].offset + places[-1].length
        self.end = Position(segment.head.sequence, segment.size)
        self.batches += 1
        self.records += len(batch)
        try:
            landed = [self._land(pending.record, place) for pending, place in zip(batch, places, strict=True)]
        except (OSError, FormatError) as error:
            self._device.fail(f"its index cannot be read: {error}")
            self._refuse(batch, DeviceOutOfService(f"device {self._device.device_id} is out of service: {self._device.fault}"))
            return
        for pending, result in zip(batch, landed, strict=True):
            pending.settle(result)

    async def _encode(self, batch: list[Pending]) -> tuple[Segment, list[Buffer], list[Place]]:
        """The batch's bytes for the active segment, or for a new one when they do not fit."""
        segment = self._active or await self._new_segment()
        while True:
            buffers: list[Buffer] = []
            places: list[Place] = []
            at = segment.size
            for pending in batch:
                parts, length, meta = encode_record(pending.record, segment.head.salt)
                buffers += parts
                places.append(Place(segment.head.sequence, at, length, meta))
                at += length
            if at <= self._segment_bytes_max or segment.size == SEGMENT_HEAD_BYTES:
                return segment, buffers, places
            segment = await self._new_segment()

    async def _new_segment(self) -> Segment:
        sequence = (self._sequences[-1] if self._sequences else 0) + 1
        head = SegmentHead(sequence, self._device.device_id, int.from_bytes(self._world.entropy.token(4), "big"))
        file = await self._disk.open_unnamed(PACKS)
        try:
            await file.append([head.encode()], sync=False)
            await file.set_xattr(XATTR, head.encode())
            await file.sync()
            await self._disk.link(file, segment_path(sequence))
        except OSError:
            await file.close()
            raise
        self._sequences.append(sequence)
        self._active = self._segments[sequence] = Segment(head, file, SEGMENT_HEAD_BYTES, SEGMENT_HEAD_BYTES)
        return self._active

    def _refuse(self, batch: list[Pending], error: Exception) -> None:
        for pending in batch:
            if isinstance(error, OSError):
                kind = DiskFull if error.errno in _FULL else DiskFault
                refusal: Exception = kind(f"device {self._device.device_id} could not write: {error.strerror or error}")
            else:
                refusal = type(error)(error.message) if isinstance(error, (DiskFault, DeviceOutOfService)) else error
            refusal.__cause__ = error
            pending.settle(refusal)

    async def _failed(self, segment: Segment, error: OSError) -> None:
        """A write or sync of ``segment`` failed: see the module's docstring."""
        if error.errno in _FULL and await self._cut_back(segment):
            return
        self._active = None
        self._failures += 1
        if self._failures > 1:
            self._device.fail(f"its disk failed to write again ({error.strerror or error})")
            return
        await self._cut_back(segment)
        try:
            async for finding in scan(segment.file, segment.head.salt, segment.appended_from, segment.size):
                if isinstance(finding, Damaged):
                    self._device.fail("acknowledged records were lost when a sync failed")
                    return
        except OSError as broken:
            self._device.fail(f"what it had acknowledged cannot be read back ({broken.strerror or broken})")

    async def _cut_back(self, segment: Segment) -> bool:
        """Take away what the failed write may have left; whether that is certain."""
        with suppress(OSError):  # the answer is False
            await segment.file.truncate(segment.size)
            await segment.file.sync()
            return True
        return False


async def _read_head(file: File, sequence: int) -> SegmentHead:
    """From the file, or from the copy beside it when that sector is rotten."""
    try:
        head = SegmentHead.decode(await file.pread(0, SEGMENT_HEAD_BYTES))
    except (FormatError, OSError):
        copy = await file.get_xattr(XATTR)
        if copy is None:
            raise
        head = SegmentHead.decode(copy)
    if head.sequence != sequence:
        raise FormatError(f"segment {sequence:08x} holds segment {head.sequence:08x}")
    return head

"""The log of a device: segments, group commit, and what a failed write means.

All records that wait are written by one append with one sync, by one task (``run``), and their callers are woken together; when
nothing is in flight a record goes at once.  In the order of the log, each durable record is handed to ``land`` (the index takes it)
before its caller wakes.  A caller may be cancelled at any time; its record is then written or not, whole either way.

After a failed write or sync nobody knows what the segment holds behind its last acknowledged byte: the segment is sealed for good,
the waiting callers get DiskFault, what was acknowledged is read back from the medium (the page cache would say yes to anything),
and only then the device goes on in a new segment.  The second failure takes the device out of service.  A full disk is not a
failure: the segment is cut back and goes on.

Neighbours: segments.py (the files), record.py and segment.py (formats), compression.py, index.py (behind ``land``), store.py (owns
this).  Never touches large files.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, NamedTuple

import outcome
import trio

from ring.errors import DiskFault, DiskFull, FormatError
from ring.timestamp import Timestamp
from ring.world.interface import Buffer, OpenMode, World
from storage.client.node import Debt, WriteReply
from storage.object.compression import OFFLOAD_BYTES, TRY_BYTES_MIN, compress, compress_apart
from storage.object.device import OpenDevice
from storage.object.errors import DeviceOutOfService
from storage.object.record import DESCRIBED, Record, encode_info, encode_record
from storage.object.scan import Damaged, scan_medium
from storage.object.segment import COMPACTED, SEGMENT_VERSION, Position
from storage.object.segments import Place, Segment, Segments

if TYPE_CHECKING:
    from storage.object.entry import Held

SEGMENT_BYTES_MAX = 1 << 30
BATCH_RECORDS_MAX = 64
BATCH_BYTES_MAX = 8 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Landed(NamedTuple):
    """What a durable record did to what the device holds."""

    taken: bool  # False: something newer (or the same) was there and the record changed nothing
    newest: Timestamp  # of its name, afterwards
    never: bool = False  # of a version that was not taken: nor was it ever held (storage.object.past)
    held: Held | None = None  # of a promise that was taken: what it was given upon


class Pending:
    """A record on its way to the disk."""

    __slots__ = ("_error", "_landed", "_task", "meta", "record", "settled")

    def __init__(self, record: Record, meta: bytes) -> None:
        self.record = record
        self.meta = meta  # its metadata, encoded
        self.settled: trio.Event | None = None  # for whoever else wants to know
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
        if self.settled is not None:
            self.settled.set()
        if self._task is not None:
            trio.lowlevel.reschedule(self._task, outcome.Value(None))
            self._task = None

    def _give_up(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


class Write:
    """A small write that was submitted; lets one task write to several devices at once."""

    __slots__ = ("_debt", "_pending", "_reply")

    def __init__(self, reply: WriteReply | None, pending: Pending | None, debt: Debt | None) -> None:
        self._reply = reply
        self._pending = pending
        self._debt = debt

    async def wait(self) -> WriteReply:
        """Until it is durable."""
        if self._reply is not None:
            return self._reply
        assert self._pending is not None
        landed = await self._pending.wait()
        return WriteReply(landed.newest, paid=self._debt is None or not landed.taken, never=landed.never)


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
        self._land = land
        self.segment_bytes_max = segment_bytes_max
        self.segments = Segments(device)
        self._active: Segment | None = None
        self._queue: deque[Pending] = deque()
        self._batch: list[Pending] = []  # being written
        self._idle: trio.lowlevel.Task | None = None
        self._running = False
        self.end = Position(0, 0)  # of the log: everything before it was landed
        self.batches = 0  # facts for metrics
        self.records = 0

    async def open(self) -> None:
        """Find the segments.  The last one's bytes are made durable before anything in it is believed."""
        await self.segments.find()
        if self.segments.order:
            last = self.segments.order[-1]
            if last.sequence < COMPACTED:
                segment = await self.segments.segment(last.sequence, OpenMode.WRITE)
                await segment.file.sync()
                self._active = segment
                self.end = Position(last.sequence, segment.size)
            else:
                self.end = Position(last.last, 0)

    @property
    def sequences(self) -> list[int]:
        return self.segments.sequences

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
        await self.segments.close()
        self._active = None

    # ---- writing

    def submit(self, record: Record) -> Pending:
        """Queue a record; ``wait`` on what is returned.  DeviceOutOfService; BadInput when its metadata is too long."""
        self._device.check_writable()
        meta = encode_info(record.info)
        if not self._running:
            raise DeviceOutOfService(f"device {self._device.device_id} is not running")
        pending = Pending(record, meta)
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
            for pending in (*self._batch, *self._queue):  # of a batch: when it was cut off by what is no error of the disk
                if not pending.done:
                    pending.settle(DeviceOutOfService(f"device {self._device.device_id} was closed"))
            self._batch.clear()
            self._queue.clear()

    def _stop_idling(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._idle = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def _write_batch(self) -> None:
        batch = self._batch = []
        size = 0
        while self._queue and len(batch) < BATCH_RECORDS_MAX and size < BATCH_BYTES_MAX:
            batch.append(self._queue.popleft())
            size += len(batch[-1].record.data)
        try:
            self._device.check_writable()
            for pending in batch:
                if len(pending.record.data) >= TRY_BYTES_MIN:
                    await self._compress(pending)
            segment, buffers, places = await self._encode(batch)
        except (OSError, DiskFault, DeviceOutOfService) as error:
            self._device.erred(error, f"a segment after {self.end.segment:08x}")
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

    async def _compress(self, pending: Pending) -> None:
        data = pending.record.data
        if pending.record.zstd or pending.record.kind in DESCRIBED:
            return  # it is stored already as it shall be
        if len(data) < OFFLOAD_BYTES:
            frame = compress(data)
        else:
            frame = await self._world.offload.run(compress_apart, data)
        if frame is not None:
            old = pending.record
            pending.record = Record(old.kind, old.hash, old.timestamp, old.info, frame, zstd=True)

    async def _encode(self, batch: list[Pending]) -> tuple[Segment, list[Buffer], list[Place]]:
        """The batch's bytes for the active segment, or for a new one when they do not fit."""
        segment = self._active
        if segment is None or segment.head.version < SEGMENT_VERSION:
            segment = await self._new_segment()
        while True:
            buffers: list[Buffer] = []
            places: list[Place] = []
            at = segment.size
            for pending in batch:
                parts, length, meta = encode_record(pending.record, segment.head.salt, pending.meta)
                buffers += parts
                places.append(Place(segment.head.sequence, at, length, meta))
                at += length
            if at <= self.segment_bytes_max or segment.size == segment.head.length:
                return segment, buffers, places
            segment = await self._new_segment()

    async def _new_segment(self) -> Segment:
        self._active = await self.segments.create(int.from_bytes(self._world.entropy.token(4), "big"))
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
        self._device.erred(error, f"segment {segment.head.sequence:08x}")
        if error.errno in _FULL and await self._cut_back(segment):
            return
        self._active = None
        if self._device.fault:
            return
        await self._cut_back(segment)
        try:
            async with aclosing(scan_medium(segment.file, segment.head.salt, segment.appended_from, segment.size)) as findings:
                async for finding in findings:
                    if isinstance(finding, Damaged):
                        await self._device.lost("acknowledged records were lost when a sync failed")
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

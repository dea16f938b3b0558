"""Group commit: records that wait together become one frame, one append, one sync.

Moves records into the log's segments and says when they are durable; ``settle`` then makes them visible.  An append or sync that
fails seals the segment for good: everybody who waited is told so, nothing is tried again, and no further segment is begun until
``reopen`` says that what was acknowledged out of the sealed one is safe in the tables and that it is gone.

Invariant: only the last segment can end in something torn, because a segment is left only between two frames and a sealed one is
removed before its successor is created.  Neighbours: log (the bytes), books (``settle``), apply (``cut`` and ``reopen``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from ring.errors import RingfortError, Unavailable
from ring.world.interface import Disk, File, OpenMode
from storage.client.node import BookState
from storage.rows.entry import Entry
from storage.rows.log import FRAME_BYTES_MAX, FRAME_HEAD_BYTES, HeaderRecord, Record, encode_frame, encode_head, log_path
from storage.rows.tables import as_fault

FRAME_RECORDS_MAX = 4096
FRAME_FILL_BYTES = 4 << 20  # a frame takes no further record beyond this
QUEUE_BYTES_MAX = 64 << 20


class Pending:
    """A record on its way to the disk."""

    __slots__ = ("_done", "_finished", "error", "length", "record")

    def __init__(self, record: Record, length: int, finished: Callable[[], None]) -> None:
        self.record = record
        self.length = length
        self.error: RingfortError | None = None
        self._finished = finished
        self._done = trio.Event()

    def finish(self, error: RingfortError | None) -> None:
        """Once."""
        assert not self._done.is_set()
        self.error = error
        self._finished()
        self._done.set()

    async def wait(self) -> None:
        """Until it is durable and visible.  Raises DiskFault or Unavailable; then it is not known whether it is in the log."""
        await self._done.wait()
        if self.error is not None:
            raise type(self.error)(self.error.message, hint=self.error.hint)


@dataclass(slots=True)
class Segment:
    path: str
    file: File


class GroupCommit:
    """``settle`` takes durable records, in log order, and finishes each; ``may_go_on`` holds the log back while it is False."""

    def __init__(
        self,
        disk: Disk,
        last_sequence: int,
        settle: Callable[[Sequence[Pending]], None],
        may_go_on: Callable[[], bool],
        on_sealed: Callable[[], None],
    ) -> None:
        self._disk = disk
        self._sequence = last_sequence
        self._settle = settle
        self._may_go_on = may_go_on
        self._on_sealed = on_sealed
        self._queue: list[Pending] = []
        self._queue_bytes = 0
        self._batch: Sequence[Pending] = ()
        self._wake = trio.Event()
        self._segment: Segment | None = None
        self._frame_number = 0
        self._cuts: list[Callable[[Segment | None], None]] = []
        self._refusal: RingfortError | None = Unavailable("the books of this device are not open")
        self.sealed = False
        self.frames = 0  # counters
        self.records = 0

    def start(self) -> None:
        """Accept records."""
        self._refusal = None

    def submit(self, record: Record, finished: Callable[[], None]) -> Pending:
        """Queue a record; wait for it with ``Pending.wait``.  ``finished`` is called however it ends.

        Raises DiskFault or Unavailable when none are taken."""
        if self._refusal is not None:
            raise type(self._refusal)(self._refusal.message, hint=self._refusal.hint)
        length = len(record.header) if isinstance(record, HeaderRecord) else sum(map(len, record.rows)) + 8 * len(record.rows)
        if self._queue_bytes + length > QUEUE_BYTES_MAX:
            raise Unavailable("too many row updates wait for this device")
        pending = Pending(record, length, finished)
        self._queue.append(pending)
        self._queue_bytes += length
        self._wake.set()
        return pending

    @property
    def has_segment(self) -> bool:
        """Whether something was logged since the last cut."""
        return self._segment is not None

    def wake(self) -> None:
        """``may_go_on`` may have changed."""
        self._wake.set()

    def refuse(self, error: RingfortError) -> None:
        """Take no more records, and fail those that are not being written yet."""
        self._refusal = error
        waiting, self._queue, self._queue_bytes = self._queue, [], 0
        for pending in waiting:
            pending.finish(error)

    def cut(self, then: Callable[[Segment | None], None]) -> None:
        """Between two frames (now, or when the one being written is settled) leave the current segment: ``then`` gets it, None if
        there is none.  Later frames go to a new one."""
        self._cuts.append(then)
        if not self._batch:
            self._run_cuts()

    def reopen(self) -> None:
        """Take records again: a sealed segment was cut, its rows are in the tables, and it is gone; or the disk was full and is
        not."""
        assert not self.sealed or self._segment is None
        self.sealed = False
        self._refusal = None
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled; then whoever waits gets Unavailable."""
        try:
            while True:
                while not self._queue or not self._may_go_on():
                    await self._wake.wait()
                    self._wake = trio.Event()
                await self._write(self._take())
        finally:
            stopped = Unavailable("the books of this device are closed")
            for pending in self._batch:
                pending.finish(stopped)
            self._batch = ()
            self._run_cuts()
            self.refuse(stopped)

    async def close(self) -> None:
        """After ``run`` ended."""
        segment, self._segment = self._segment, None
        if segment is not None:
            await segment.file.close()

    def _take(self) -> Sequence[Pending]:
        length = 0
        count = 0
        for pending in self._queue:
            if count == FRAME_RECORDS_MAX or (count and length + pending.length > FRAME_FILL_BYTES):
                break
            length += pending.length
            count += 1
        batch, self._queue = self._queue[:count], self._queue[count:]
        self._queue_bytes -= length
        return batch

    async def _write(self, batch: Sequence[Pending]) -> None:
        self._batch = batch
        try:
            buffers: list[bytes] = []
            if self._segment is None:
                self._sequence += 1  # also when it fails: an empty file may be left, and no name is used twice
                path = log_path(self._sequence)
                self._segment = Segment(path, await self._disk.open(path, OpenMode.CREATE))
                self._frame_number = 0
                buffers.append(encode_head(self._sequence))
            buffers.append(encode_frame(self._sequence, self._frame_number, [pending.record for pending in batch]))
            await self._segment.file.append(buffers, sync=True)
        except OSError as error:
            self._seal(error, batch)
        else:
            self._frame_number += 1
            self.frames += 1
            self.records += len(batch)
            self._settle(batch)
        self._batch = ()
        self._run_cuts()

    def _seal(self, error: OSError, batch: Sequence[Pending]) -> None:
        fault = as_fault(error, "the row log of this device failed")
        for pending in batch:
            pending.finish(fault)
        self.sealed = True
        self.refuse(fault)
        self._on_sealed()

    def _run_cuts(self) -> None:
        while self._cuts:
            segment, self._segment = self._segment, None
            self._cuts.pop(0)(segment)


assert FRAME_FILL_BYTES + FRAME_HEAD_BYTES < FRAME_BYTES_MAX


class Merge:
    """A merge under way: begun without waiting, so that one task can begin it on several devices and then wait for each."""

    __slots__ = ("_entry", "_pending")

    def __init__(self, entry: Entry, pending: Sequence[Pending]) -> None:
        self._entry = entry
        self._pending = pending

    async def wait(self) -> BookState:
        """Until it is durable and visible; the state after.  DiskFault or Unavailable: it is not known whether it happened."""
        for pending in self._pending:
            await pending.wait()
        return self._entry.state

"""LocalStore: control state of one machine, in a log on up to three disks.

The state lives in RAM; the logs make it last.  One task (``_commit``) takes everything that waits, drafts it on the state, sends
one record to every log and, when a majority has synced it, applies it, publishes it and answers: group commit.  Each log has a
task of its own that writes one record, syncs, and only then writes the next (``log.py`` needs that).  Reads are answered from RAM
and see only what is durable.

A log that fails or falls behind is dropped and written anew from RAM a minute later; when too few are left, all that wait
get Unavailable (it is not known what happened to them), watches break, and the store starts over from its logs.  Every start
writes every log anew, under a new generation.  Who owns the folder must be settled before: two stores on one folder are a bug.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import trio

from ring.errors import DiskFault, RingfortError, Unavailable
from ring.kv.feed import Feed, FeedWatch
from ring.kv.interface import Entry, LeaseId, Operation, Outcome, Unchanged, Watch
from ring.kv.lifetime import running
from ring.kv.log import Condition, Found, Head, choose, decode, encode_head, encode_record, quorum
from ring.kv.state import Deadlines, Draft, State, check
from ring.world.interface import Disk, File, OpenMode, World

T = TypeVar("T")
LOGS_MAX = 3
FILE = "control.log"
BATCH_MAX = 64  # requests in one record
BATCH_BYTES_MAX = 16 << 20  # of values; one request may exceed it
WAITING_MAX = 4096  # requests in the queue
BEHIND_BYTES_MAX = 64 << 20  # queued for one log
LOG_BYTES_MAX = 8 << 20  # records behind a snapshot, or twice the snapshot if that is more
REFILL_S = 60.0
RETRY_S = 1.0
CLOSE_S = 1.0


class _Failed(Exception):
    """Too few logs are left; only inside this module."""


@dataclass(slots=True, eq=False)
class _Ticket(Generic[T]):
    """A request that waits for its batch."""

    call: Callable[[Draft], T]
    size: int = 0
    done: trio.Event = field(default_factory=trio.Event)
    results: list[T] = field(default_factory=list)
    error: RingfortError | None = None

    def draft(self, draft: Draft) -> None:
        try:
            self.results.append(self.call(draft))
        except RingfortError as error:
            self.error = error

    def fail(self, reason: str) -> None:
        self.error = Unavailable(reason)
        self.done.set()


class _Log:
    """One log file: its queue, and the task that writes it."""

    def __init__(self, disk: Disk, folder: str, progress: Callable[[], None]) -> None:
        self.disk = disk
        self.trouble = "not open"  # empty while it is written to
        self.accepting = False  # records may be queued: it is written to, or about to be written anew
        self.foreign = False  # another store's: never touched
        self.durable = 0  # sequence
        self._path = f"{folder}/{FILE}"
        self._folder = folder
        self._progress = progress
        self._file: File | None = None
        self._queue: deque[tuple[int, bytes, bool]] = deque()  # (sequence, bytes, whether they replace the file)
        self._queued_bytes = 0
        self._wake = trio.Event()

    async def read(self) -> Found:
        try:
            if await self.disk.info("") is None:
                return Found(Condition.ABSENT, reason="the device's folder is not there")
            if await self.disk.info(self._path) is None:
                return Found(Condition.EMPTY)
            return decode(await self.disk.read_file(self._path))
        except OSError as error:
            return Found(Condition.ABSENT, reason=str(error))

    async def set_aside(self) -> None:
        """Keep a rotten file for people to look at."""
        try:
            await self.disk.rename(self._path, f"{self._path}.rotten")
        except OSError as error:
            self.trouble = str(error)

    async def replace(self, data: bytes, sequence: int) -> None:
        """The file becomes ``data``.  Afterwards ``trouble`` is empty, or says why not."""
        try:
            await self.close()
            await self.disk.make_dirs(self._folder)
            await self.disk.replace_file(self._path, data, mode=0o600)
            self._file = await self.disk.open(self._path, OpenMode.WRITE)
        except OSError as error:
            self._drop(str(error))
        else:
            self.trouble = ""
            self.accepting = True
            self.durable = sequence

    def reset(self) -> None:
        """Forget what was queued."""
        self._queue.clear()
        self._queued_bytes = 0
        self.accepting = False
        self.trouble = "not open"
        self.durable = 0

    def put(self, sequence: int, data: bytes, *, replaces: bool = False) -> None:
        """Queue a record, or a whole new file (which also brings a dropped log back)."""
        if self.foreign or not (self.accepting or replaces):
            return
        if replaces:
            self._queue.clear()
            self._queued_bytes = 0
            self.accepting = True
        self._queue.append((sequence, data, replaces))
        self._queued_bytes += len(data)
        if self._queued_bytes > BEHIND_BYTES_MAX and len(self._queue) > 1:
            self._drop("too far behind the others")
        self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._queue:
                sequence, data, replaces = self._queue.popleft()
                self._queued_bytes -= len(data)
                if replaces:
                    await self.replace(data, sequence)
                else:
                    await self._append(data, sequence)
                self._progress()

    async def _append(self, data: bytes, sequence: int) -> None:
        assert self._file is not None, "records are queued behind an open file"
        try:
            await self._file.append([data], sync=True)
        except OSError as error:
            self._drop(str(error))
        else:
            if self.accepting:  # else its disk is gone meanwhile
                self.durable = sequence

    def leave(self) -> None:
        """What is written to now lies elsewhere than where the next start will look."""
        if not self.trouble:
            self._drop("another disk is in the place of its own, or none")

    def _drop(self, reason: str) -> None:
        self.reset()
        self.trouble = reason

    async def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            await file.close()


class LocalStore:
    """The KV of one machine.  ``async with LocalStore.open(world, disks) as store``, or ``await nursery.start(store.run)``."""

    def __init__(self, world: World, disks: Sequence[Disk], folder: str = "kv") -> None:
        assert 1 <= len(disks) <= LOGS_MAX, "one to three logs"
        self._world = world
        self._logs = [_Log(disk, folder, self._note_progress) for disk in disks]
        self._quorum = quorum(len(disks))
        self._state = State()
        self._head = Head(b"", 0, len(disks), 0, 0)
        self._deadlines = Deadlines()
        self._feed = Feed()
        self._sequence = 0
        self._record_bytes = self._snapshot_bytes = 0  # in the logs
        self._waiting: deque[_Ticket[Any]] = deque()
        self._wake = trio.Event()
        self._progress = trio.Event()
        self._sleep = trio.CancelScope()  # of the task that looks after leases
        self._closed = "the store is not open yet"

    @classmethod
    @asynccontextmanager
    async def open(cls, world: World, disks: Sequence[Disk], folder: str = "kv") -> AsyncIterator[LocalStore]:
        """Raises as ``run`` does."""
        store = cls(world, disks, folder)
        await store._recover()
        async with running(store._live):
            yield store

    @property
    def troubles(self) -> list[str]:
        """For each log why it is out of use, or empty."""
        return [log.trouble for log in self._logs]

    def leave(self, disk: Disk) -> None:
        """The disk is not the one any more that its log was opened on: the log does not count until it was written anew there."""
        for log in self._logs:
            if log.disk is disk:
                log.leave()
        self._note_progress()

    # ---- the KV interface

    async def get(self, key: str) -> Entry | None:
        await trio.lowlevel.checkpoint()
        return self._state.get(key)

    async def range(self, prefix: str, *, limit: int | None = None) -> list[Entry]:
        await trio.lowlevel.checkpoint()
        return self._state.range(prefix, limit)

    async def transact(self, compares: Sequence[Unchanged], operations: Sequence[Operation]) -> Outcome:
        check(compares, operations)
        size = sum(len(getattr(operation, "value", b"")) for operation in operations)
        return await self._submit(lambda draft: draft.transact(compares, operations), size)

    async def grant(self, ttl_s: float) -> LeaseId:
        return await self._submit(lambda draft: draft.grant(ttl_s))

    async def keep_alive(self, lease: LeaseId) -> None:
        await trio.lowlevel.checkpoint()
        self._deadlines.renew(lease, self._state, trio.current_time())

    async def revoke(self, lease: LeaseId) -> None:
        await self._submit(lambda draft: draft.revoke(lease))

    def watch(self, prefix: str) -> AbstractAsyncContextManager[Watch]:
        return self._watch(prefix)

    @asynccontextmanager
    async def _watch(self, prefix: str) -> AsyncIterator[Watch]:
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise Unavailable(self._closed)
        watch = FeedWatch(prefix, self._state.range(prefix), self._state.revision)
        self._feed.add(watch)
        try:
            yield watch
        finally:
            self._feed.discard(watch)

    async def _submit(self, call: Callable[[Draft], T], size: int = 0) -> T:
        if self._closed:
            raise Unavailable(self._closed)
        if len(self._waiting) >= WAITING_MAX:
            raise Unavailable("too many changes of control state are waiting")
        ticket = _Ticket(call, size)
        await self._wait_for(ticket)
        if ticket.error is not None:
            raise ticket.error
        return ticket.results[0]

    async def _wait_for(self, ticket: _Ticket[T]) -> None:
        self._waiting.append(ticket)
        self._wake.set()
        await ticket.done.wait()

    # ---- its life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled.  Started when it can be used.

        At the start: Unavailable when too few logs can be read or written, DiskFault when they are damaged, FormatError when a
        newer version wrote one.  Later it recovers by itself, as soon as enough logs can be read and written again."""
        await self._recover()
        task_status.started()
        await self._live()

    async def _live(self) -> None:
        try:
            while True:
                reason = await self._serve()
                self._close(reason)
                while True:
                    await trio.sleep(RETRY_S)
                    try:
                        await self._recover()
                        break
                    except (Unavailable, DiskFault) as error:
                        self._closed = error.message
        finally:
            self._close("the store was closed")
            with trio.CancelScope(deadline=trio.current_time() + CLOSE_S, shield=True):
                for log in self._logs:
                    await log.close()

    def _close(self, reason: str) -> None:
        self._closed = reason
        while self._waiting:
            self._waiting.popleft().fail(reason)
        self._feed.break_all(reason)

    async def _serve(self) -> str:
        """Commit until too few logs are left; why."""
        async with trio.open_nursery() as nursery:
            for log in self._logs:
                nursery.start_soon(log.run)
            nursery.start_soon(self._tend)
            try:
                while True:
                    await self._wake.wait()
                    self._wake = trio.Event()
                    while self._waiting:
                        await self._commit()
            except _Failed as error:
                nursery.cancel_scope.cancel()
                return str(error)
        raise AssertionError("the commit loop ends only by failing")

    async def _commit(self) -> None:
        """One batch.  Whatever ends it, every request of it is answered."""
        batch: list[_Ticket[Any]] = []
        size = 0
        while self._waiting and len(batch) < BATCH_MAX and (not batch or size + self._waiting[0].size <= BATCH_BYTES_MAX):
            batch.append(self._waiting.popleft())
            size += batch[-1].size
        draft = Draft(self._state, frozenset(self._deadlines.lapsed(trio.current_time())))
        for ticket in batch:
            ticket.draft(draft)
        try:
            if draft.changes:
                await self._write(encode_record(self._sequence + 1, draft.revision, draft.changes))
        except (_Failed, trio.Cancelled):
            for ticket in batch:
                ticket.fail("too few control-state logs answered: it is not known whether it happened")
            raise
        now = trio.current_time()
        for change in draft.changes:
            events = self._state.apply(change)
            self._deadlines.follow(change, now)
            self._feed.publish(events)
        for ticket in batch:
            ticket.done.set()
        self._sleep.deadline = min(self._sleep.deadline, self._deadlines.next())
        if self._record_bytes > max(LOG_BYTES_MAX, 2 * self._snapshot_bytes):
            self._shorten(self._logs)

    async def _write(self, record: bytes) -> None:
        """Durable in a majority of the logs when it returns."""
        self._sequence += 1
        self._record_bytes += len(record)
        for log in self._logs:
            log.put(self._sequence, record)
        while sum(log.durable >= self._sequence for log in self._logs) < self._quorum:
            able = sum(log.durable >= self._sequence or log.accepting for log in self._logs)
            if able < self._quorum:
                troubles = "; ".join(log.trouble for log in self._logs if log.trouble)
                raise _Failed(f"{able} of {len(self._logs)} control-state logs can be written: {troubles}")
            await self._progress.wait()
            self._progress = trio.Event()

    def _shorten(self, logs: Sequence[_Log]) -> None:
        """Write logs anew: a snapshot and no records.  Only between batches, when the state is what the log says."""
        head = Head(self._head.store, self._head.generation, self._head.logs, self._head.opened, self._sequence)
        data = encode_head(head, self._state)
        if len(logs) == len(self._logs):
            self._snapshot_bytes, self._record_bytes = len(data), 0
        for log in logs:
            log.put(self._sequence, data, replaces=True)

    async def _tend(self) -> None:
        """End the leases that lapsed; bring dropped logs back."""
        refill_at = trio.current_time() + REFILL_S
        while True:
            with trio.CancelScope(deadline=min(self._deadlines.next(), refill_at)) as self._sleep:
                await trio.sleep(math.inf)
            for lease in self._deadlines.lapsed(trio.current_time()):
                await self._wait_for(_Ticket(partial(_revoke, lease)))
            if trio.current_time() >= refill_at:
                refill_at = trio.current_time() + REFILL_S
                await self._wait_for(_Ticket(self._refill))

    def _refill(self, draft: Draft) -> None:
        """A request like any other, so that it runs in the commit task; what the batch has drafted before it comes as a record."""
        dropped = [log for log in self._logs if not log.accepting and not log.foreign]
        if dropped:
            self._shorten(dropped)

    def _note_progress(self) -> None:
        self._progress.set()

    # ---- starting

    async def _recover(self) -> None:
        found: list[Found] = [Found(Condition.ABSENT) for _ in self._logs]
        errors: list[RingfortError] = []

        async def read(index: int) -> None:
            try:
                found[index] = await self._logs[index].read()
            except RingfortError as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            for index in range(len(self._logs)):
                nursery.start_soon(read, index)
        if errors:
            raise errors[0]
        best, found = choose(found)
        if best is None:
            head = Head(self._world.entropy.token(16), 1, len(self._logs), 0, 0)
            state = State()
        else:
            head = Head(best.head.store, best.head.generation + 1, len(self._logs), best.sequence, best.sequence)
            state = best.state
        await self._write_all(found, head, encode_head(head, state), grown=best is not None and best.head.logs != head.logs)
        self._state, self._head, self._sequence = state, head, head.sequence
        self._deadlines.restart(state, trio.current_time())
        self._closed = ""

    async def _write_all(self, found: Sequence[Found], head: Head, data: bytes, *, grown: bool) -> None:
        """Give every log the new generation's head.

        Those that hold nothing yet come first: a crash in between must leave enough logs that know how many there are.  When
        their number changes all must be written, or an old one could later pass for the only one."""
        for log, each in zip(self._logs, found, strict=True):
            log.reset()
            log.foreign = each.condition is Condition.FOREIGN
            if log.foreign:
                log.trouble = "it belongs to another cloud"
        usable = [(log, each) for log, each in zip(self._logs, found, strict=True) if not log.foreign]
        needed = len(self._logs) if grown else self._quorum
        holders = [log for log, each in usable if each.valid]
        others = [(log, each) for log, each in usable if not each.valid]

        async def refill(log: _Log, each: Found) -> None:
            if each.condition is Condition.ROTTEN:
                await log.set_aside()
            await log.replace(data, head.sequence)

        async with trio.open_nursery() as nursery:
            for log, each in others:
                nursery.start_soon(refill, log, each)
        if sum(not log.trouble for log, _ in others) + len(holders) >= needed:
            async with trio.open_nursery() as nursery:
                for log in holders:
                    nursery.start_soon(log.replace, data, head.sequence)
        good = [log for log, _ in usable if not log.trouble]
        if len(good) < needed:
            troubles = "; ".join(log.trouble for log in self._logs if log.trouble)
            raise Unavailable(f"{len(good)} of {len(self._logs)} control-state logs can be written: {troubles}")
        self._snapshot_bytes, self._record_bytes = len(data), 0


def _revoke(lease: LeaseId, draft: Draft) -> None:
    draft.revoke(lease)

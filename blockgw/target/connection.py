"""One connection in the full feature phase: receive, perform all of it, send once.

What one receive brings is performed in one tight loop: reads by ``read_now``, writes by ``write_now``, no task and no await for
either, and the answers go out in one send.  What has to wait (a cold read, a full write log, a flush) goes to at most SLOW_MAX
tasks of this connection; answers of theirs go out as they come.  A peer that does not take its answers stops its own
connection and nothing else, and is dropped when nothing moved for DEAD_S.

Neighbours: iscsi.session (all decisions), scsi.action (what to do), server.py (starts and ends this).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import trio

from ring.errors import RingfortError
from ring.world.interface import Stream

from ..iscsi.pdu import ProtocolError
from ..iscsi.session import COMPLETE, LoggedOut, Management, SendTargets, Session
from ..iscsi.transfer import Task
from ..scsi.action import Action, Check, Compare, Discard, Done, Fill, Flush, Read, Write, refuse
from ..scsi.block import BlockDevice
from ..scsi.sense import INTERNAL_FAILURE, MISCOMPARE, sense_of
from .target import Discover

RECEIVE_BYTES = 65536
RECEIVE_BYTES_MAX = 1 << 20
SEND_BYTES = 1 << 20  # answers of one batch beyond this go out before the next is made
SLOW_MAX = 16
STEP_BYTES = 1 << 20  # of long actions: fill, compare, check
PING_S = 15.0  # silent for so long: ask
DEAD_S = 60.0  # nothing moved for so long: over


class Connection:
    """``run`` until the peer goes, errs, or ``close`` is called.  It never raises for anything that the peer does."""

    def __init__(self, stream: Stream, session: Session, device: BlockDevice | None, *, discover: Discover) -> None:
        self.session = session
        self.finished = trio.Event()
        self._stream = stream
        self._device = device
        self._discover = discover
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._sending = trio.Lock()
        self._slow: deque[Task] = deque()
        self._slow_running = 0
        self._performed: dict[Task, tuple[trio.CancelScope, trio.Event]] = {}  # by slow tasks, just now
        self._heard = 0.0  # when bytes came last
        self._moved = 0.0  # when bytes went either way last
        self.reset_others: Callable[[Management], Sequence[Connection]] = lambda management: ()

    def close(self) -> None:
        """End it now; ``finished`` tells when nothing of it touches the device any more."""
        self._scope.cancel()

    async def run(self, initial: bytes = b"") -> None:
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    self._moved = trio.current_time()
                    nursery.start_soon(self._watch)
                    await self._receive(initial)
                    nursery.cancel_scope.cancel()
        finally:
            self.finished.set()

    async def _receive(self, data: bytes | bytearray) -> None:
        session, size = self.session, RECEIVE_BYTES
        try:
            while True:
                try:
                    for event in session.receive(data if isinstance(data, bytes) else bytes(data)):
                        if isinstance(event, Task):
                            self._perform(event)
                            if session.out_bytes > SEND_BYTES:
                                await self._flush()
                        elif isinstance(event, LoggedOut):
                            await self._flush()
                            return
                        else:
                            await self._serve(event)
                except ProtocolError:
                    await self._flush()
                    return
                if session.out:
                    await self._flush()
                # A batch that filled its buffer is likely to have more behind it.
                size = min(size * 2, RECEIVE_BYTES_MAX) if len(data) >= size else RECEIVE_BYTES
                data = await self._stream.receive_some(max(size, session.wanted))
                if not data:
                    return
                self._heard = self._moved = trio.current_time()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def _flush(self) -> None:
        """Send all answers that are ready.  Raises trio.BrokenResourceError."""
        try:
            self._sending.acquire_nowait()
        except trio.WouldBlock:
            await self._sending.acquire()
        try:
            session = self.session
            if session.out:
                data = b"".join(session.out)
                session.out.clear()
                session.out_bytes = 0
                await self._stream.send_all(data)
                self._moved = trio.current_time()
        finally:
            self._sending.release()

    async def _watch(self) -> None:
        while True:
            await trio.sleep(PING_S)
            silent = trio.current_time() - self._moved
            if silent > DEAD_S:
                self._scope.cancel()
            elif silent >= PING_S and not self._sending.locked():
                moved = self._moved
                self.session.ping()
                await self._flush_or_end()
                self._moved = max(moved, self._heard)  # our own question is no sign of life

    async def _flush_or_end(self) -> None:
        """For tasks beside the receiving one."""
        try:
            await self._flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._scope.cancel()

    # ---- commands

    def _perform(self, task: Task) -> None:
        """At once if possible, else by a slow task."""
        action, device = task.action, self._device
        kind = type(action)
        assert device is not None
        try:
            if kind is Read:
                assert isinstance(action, Read)
                if not action.durable:
                    data = device.read_now(action.offset, action.length)
                    if data is not None:
                        self.session.complete_read(task, data)
                        return
            elif kind is Write:
                assert isinstance(action, Write)
                if not action.durable and device.write_now(action.offset, task.data):
                    self.session.complete(task, _DONE)
                    return
                task.data = bytes(task.data)  # what is received next is not held up by it
            elif kind is Done:
                assert isinstance(action, Done)
                self.session.complete(task, action)
                return
            elif kind is Compare:
                task.data = bytes(task.data)
        except RingfortError as error:
            self.session.complete(task, refuse(sense_of(error, writing=kind is Write)))
            return
        self._slow.append(task)
        if self._slow_running < SLOW_MAX:
            assert self._nursery is not None
            self._slow_running += 1
            self._nursery.start_soon(self._work)

    async def _work(self) -> None:
        """A slow task: perform what is queued, then go."""
        try:
            while self._slow:
                await self._perform_slowly(self._slow.popleft())
        finally:
            self._slow_running -= 1

    async def _perform_slowly(self, task: Task) -> None:
        assert self._device is not None
        done = _DONE
        scope, gone = trio.CancelScope(), trio.Event()
        self._performed[task] = scope, gone
        try:
            with scope:
                done = await _perform(self._device, task.action, task.data)
        finally:
            del self._performed[task]
            gone.set()
        self._finish(task, done)
        await self._flush_or_end()

    def _finish(self, task: Task, done: Done) -> None:
        self.session.complete(task, done)
        self._release()

    def _release(self) -> None:
        while tasks := self.session.released():
            for task in tasks:
                self._perform(task)

    # ---- the rest

    async def _serve(self, event: Management | SendTargets) -> None:
        if isinstance(event, SendTargets):
            targets = await self._targets(event.name)
            self.session.answer_targets(event, targets)
            return
        if event.response != COMPLETE:
            self.session.manage(event)
            return
        gone = self.abort(event.tasks)
        for other in self.reset_others(event):
            tasks = tuple(other.session.tasks.values())
            for task in tasks:
                other.session.abort(task)
            gone += other.abort(tasks)
        self._release()
        if not gone:
            self.session.manage(event)
            return
        assert self._nursery is not None
        self._nursery.start_soon(self._manage, event, gone)

    def abort(self, tasks: Sequence[Task]) -> list[trio.Event]:
        """Stop performing them; the events of those that take a moment to stop."""
        gone = []
        for task in tasks:
            if task in self._performed:
                scope, event = self._performed[task]
                scope.cancel()
                gone.append(event)
            elif task in self._slow:
                self._slow.remove(task)
                self.session.complete(task, _DONE)
        return gone

    async def _manage(self, event: Management, gone: Sequence[trio.Event]) -> None:
        for each in gone:
            await each.wait()
        self.session.manage(event)
        await self._flush_or_end()

    async def _targets(self, name: str | None) -> list[tuple[str, str]]:
        try:
            return [target for target in await self._discover() if name is None or target[0] == name]
        except RingfortError:
            return []  # an initiator asks again; an empty list is the protocol's "none that I know of"


_DONE = Done()


async def _perform(device: BlockDevice, action: Action, data: bytes | bytearray | memoryview) -> Done:
    try:
        match action:
            case Read(offset, length, durable):
                if durable:
                    await device.flush()
                return Done(await device.read(offset, length))
            case Write(offset, _, durable):
                await device.write(offset, data, durable=durable)
            case Flush():
                await device.flush()
            case Discard(ranges):
                for offset, length in ranges:
                    await device.discard(offset, length)
            case Fill(offset, length, block):
                step = block * (min(length, STEP_BYTES) // len(block))
                for at in range(0, length, len(step)):
                    await device.write(offset + at, memoryview(step)[: length - at])
            case Check(offset, length):
                for at in range(0, length, STEP_BYTES):
                    await device.read(offset + at, min(STEP_BYTES, length - at))
            case Compare(offset, length):
                for at in range(0, length, STEP_BYTES):
                    part = min(STEP_BYTES, length - at)
                    if await device.read(offset + at, part) != memoryview(data)[at : at + part]:
                        return refuse(MISCOMPARE)
            case _:
                return refuse(INTERNAL_FAILURE)
    except RingfortError as error:
        return refuse(sense_of(error, writing=not isinstance(action, Read | Check | Compare)))
    return _DONE

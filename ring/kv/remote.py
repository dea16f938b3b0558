"""RemoteKV: a store in another process, over its socket.

Connects by itself, and again whenever the connection is lost.  Reads, keep-alives and revocations are asked again on the next
connection; a transact or grant whose answer was lost is Unavailable, because it may have happened.  A lost connection breaks the
watches.  Neighbours: ``wire.py`` (frames), ``server.py`` (the other end), ``view.py`` (watches again by itself).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from ring.errors import FormatError, Unavailable
from ring.kv.feed import FeedWatch
from ring.kv.interface import Entry, LeaseId, Operation, Outcome, Unchanged, Watch
from ring.kv.lifetime import running
from ring.kv.outbox import Outbox
from ring.kv.state import check
from ring.kv.wire import (
    PROTOCOL,
    Done,
    Entries,
    Events,
    Failed,
    Frames,
    Get,
    Grant,
    Greeting,
    KeepAlive,
    Range,
    Reply,
    Request,
    Revoke,
    StartWatch,
    StopWatch,
    Transact,
    encode,
    from_compares,
    from_operation,
    replies,
    to_entry,
    to_error,
    to_event,
)
from ring.world.interface import Address, Stream, World

_Kind = TypeVar("_Kind", Entries, Done)
TIMEOUT_S = 30.0  # for one call, connecting included
CONNECT_S = 5.0
RETRY_S = (0.02, 1.0)  # first and longest pause between attempts to connect


@dataclass(slots=True, eq=False)
class _Call:
    done: trio.Event = field(default_factory=trio.Event)
    reply: Entries | Done | Failed | None = None  # None when done: the connection was lost


class RemoteKV:
    """``async with RemoteKV.open(world, address) as kv``, or ``await nursery.start(kv.run)``."""

    def __init__(self, world: World, address: Address) -> None:
        self._net = world.net
        self._address = address
        self._outbox: Outbox | None = None  # of the connection, when there is one
        self._connected = trio.Event()
        self._calls: dict[int, _Call] = {}
        self._watches: dict[int, FeedWatch] = {}
        self._serial = 0
        self._trouble = "not connected yet"

    @classmethod
    @asynccontextmanager
    async def open(cls, world: World, address: Address) -> AsyncIterator[RemoteKV]:
        """Does not wait for the connection: calls do."""
        kv = cls(world, address)
        async with running(kv.run):
            yield kv

    # ---- the KV interface

    async def get(self, key: str) -> Entry | None:
        entries = (await self._ask_again(lambda serial: Get(serial, key), Entries)).entries
        return to_entry(entries[0]) if entries else None

    async def range(self, prefix: str, *, limit: int | None = None) -> list[Entry]:
        reply = await self._ask_again(lambda serial: Range(serial, prefix, limit), Entries)
        return [to_entry(entry) for entry in reply.entries]

    async def transact(self, compares: Sequence[Unchanged], operations: Sequence[Operation]) -> Outcome:
        check(compares, operations)
        records = [from_operation(operation) for operation in operations]
        reply = await self._ask(lambda serial: Transact(serial, from_compares(compares), records), Done)
        return Outcome(reply.succeeded, reply.number)

    async def grant(self, ttl_s: float) -> LeaseId:
        return LeaseId((await self._ask(lambda serial: Grant(serial, ttl_s), Done)).number)

    async def keep_alive(self, lease: LeaseId) -> None:
        await self._ask_again(lambda serial: KeepAlive(serial, lease), Done)

    async def revoke(self, lease: LeaseId) -> None:
        await self._ask_again(lambda serial: Revoke(serial, lease), Done)

    def watch(self, prefix: str) -> AbstractAsyncContextManager[Watch]:
        return self._watch(prefix)

    @asynccontextmanager
    async def _watch(self, prefix: str) -> AsyncIterator[Watch]:
        watch = FeedWatch(prefix, [], 0)  # its start comes with the reply; it is registered first, so that no event is missed
        serial = 0

        def request(number: int) -> StartWatch:
            nonlocal serial
            serial = number
            self._watches[number] = watch
            return StartWatch(number, prefix)

        try:
            reply = await self._ask(request, Entries)
            watch.entries = [to_entry(entry) for entry in reply.entries]
            watch.revision = reply.revision
            yield watch
        finally:
            watch.break_off("it was closed")
            if self._watches.pop(serial, None) is not None and self._outbox is not None:
                self._put(self._outbox, StopWatch(serial))

    # ---- asking

    async def _ask_again(self, request: Callable[[int], Request], kind: type[_Kind]) -> _Kind:
        """For what may be done twice."""
        deadline = trio.current_time() + TIMEOUT_S
        while True:
            reply = await self._ask_once(request, deadline)
            if reply is not None:
                return _expect(reply, kind)

    async def _ask(self, request: Callable[[int], Request], kind: type[_Kind]) -> _Kind:
        reply = await self._ask_once(request, trio.current_time() + TIMEOUT_S)
        if reply is None:
            raise Unavailable("the connection to the control state was lost: it is not known whether it happened")
        return _expect(reply, kind)

    async def _ask_once(self, request: Callable[[int], Request], deadline: float) -> Entries | Done | Failed | None:
        """None when the connection was lost after it was asked."""
        call = _Call()
        serial = 0
        with trio.CancelScope(deadline=deadline) as scope:
            try:
                while self._outbox is None:
                    await self._connected.wait()
                self._serial = serial = self._serial + 1
                self._calls[serial] = call
                self._put(self._outbox, request(serial))
                await call.done.wait()
            finally:
                self._calls.pop(serial, None)
        if scope.cancelled_caught:
            raise Unavailable(f"the control state did not answer in {TIMEOUT_S:.0f} s: {self._trouble or 'it is slow'}")
        return call.reply

    def _put(self, outbox: Outbox, request: Request) -> None:
        try:
            outbox.put(encode(request))
        except trio.BrokenResourceError as error:
            self._lose(str(error))

    # ---- the connection

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a connection until cancelled.  Started at once: calls wait for the connection."""
        task_status.started()
        pause = RETRY_S[0]
        try:
            while True:
                if await self._connect():
                    pause = RETRY_S[0]
                await trio.sleep(pause)
                pause = min(2 * pause, RETRY_S[1])
        finally:
            self._lose("it was closed")

    async def _connect(self) -> bool:
        """One connection from its beginning to its end; whether there was one."""
        stream: Stream | None = None
        try:
            with trio.move_on_after(CONNECT_S):
                stream = await self._net.connect(self._address)
        except OSError as error:
            self._trouble = f"{self._address}: {error.strerror or error}"
            return False
        if stream is None:
            self._trouble = f"{self._address}: no answer in {CONNECT_S:.0f} s"
            return False
        try:
            return await self._use(stream)
        finally:
            with trio.CancelScope(deadline=trio.current_time() + 1.0, shield=True):
                await stream.aclose()

    async def _use(self, stream: Stream) -> bool:
        outbox = Outbox()
        outbox.put(encode(Greeting(PROTOCOL)))
        greeted = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send, outbox, stream, nursery.cancel_scope)
            frames = Frames(replies)
            reason = "the connection was closed"
            while True:
                try:
                    data = await stream.receive_some()
                    messages: list[Reply] = frames.receive(data)
                except trio.BrokenResourceError:
                    reason = "the connection was lost"
                    break
                except FormatError as error:
                    reason = error.message
                    break
                if not data:
                    break
                if not greeted and messages:
                    first = messages.pop(0)
                    if not (isinstance(first, Greeting) and first.protocol == PROTOCOL):
                        reason = "the other side speaks another protocol"
                        break
                    greeted = True
                    self._outbox, self._trouble = outbox, ""
                    self._connected.set()
                for message in messages:
                    self._deliver(message)
            nursery.cancel_scope.cancel()
        self._lose(reason)
        return greeted

    def _deliver(self, reply: Reply) -> None:
        match reply:
            case Events():
                watch = self._watches.get(reply.id)
                if watch is not None:
                    watch.push([to_event(event) for event in reply.events])
            case Entries() | Done() | Failed():
                call = self._calls.pop(reply.id, None)
                if call is not None:
                    call.reply = reply
                    call.done.set()
                elif isinstance(reply, Failed) and reply.id in self._watches:
                    self._watches.pop(reply.id).break_off(reply.message)
            case Greeting():
                pass

    def _lose(self, reason: str) -> None:
        self._outbox = None
        self._trouble = reason
        self._connected = trio.Event()
        for call in self._calls.values():
            call.done.set()
        self._calls.clear()
        for watch in self._watches.values():
            watch.break_off(reason)
        self._watches.clear()


async def _send(outbox: Outbox, stream: Stream, scope: trio.CancelScope) -> None:
    try:
        await outbox.run(stream)
    except trio.BrokenResourceError:
        scope.cancel()


def _expect(reply: Entries | Done | Failed, kind: type[_Kind]) -> _Kind:
    if isinstance(reply, Failed):
        raise to_error(reply)
    if not isinstance(reply, kind):
        raise Unavailable("the control state answered something else")
    return reply

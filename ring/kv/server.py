"""Serving a store to the other processes of a machine, over a unix socket.

Moves requests to a KV and its answers back; decides nothing.  Reads are answered in the task that read them; changes and watches
have a task each, so that one that waits holds up no other.  The socket's file permissions say who may connect.
Neighbours: ``wire.py`` (frames), ``remote.py`` (the other end).
"""

from __future__ import annotations

import trio

from ring.errors import FormatError, RingfortError
from ring.kv.interface import KV, LeaseId, Unchanged
from ring.kv.outbox import Outbox
from ring.kv.wire import (
    PROTOCOL,
    Done,
    Entries,
    Events,
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
    from_entry,
    from_error,
    from_event,
    requests,
    to_operation,
)
from ring.world.interface import Listener, Stream

CHANGES_MAX = 1024  # of one connection at a time


async def serve(kv: KV, listener: Listener, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Accept and serve until cancelled; closes the listener."""
    try:
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                nursery.start_soon(_Connection(kv, await listener.accept()).run)
    finally:
        with trio.CancelScope(shield=True):
            await listener.aclose()


class _Connection:
    def __init__(self, kv: KV, stream: Stream) -> None:
        self._kv = kv
        self._stream = stream
        self._outbox = Outbox()
        self._watches: dict[int, trio.CancelScope] = {}
        self._changes = trio.Semaphore(CHANGES_MAX)
        self._ended = trio.CancelScope()

    async def run(self) -> None:
        try:
            with self._ended:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send)
                    self._say(Greeting(PROTOCOL))
                    await self._receive(nursery)
                    nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(deadline=trio.current_time() + 1.0, shield=True):
                await self._stream.aclose()

    async def _send(self) -> None:
        try:
            await self._outbox.run(self._stream)
        except trio.BrokenResourceError:
            self._ended.cancel()

    async def _receive(self, nursery: trio.Nursery) -> None:
        """Until the peer goes, or says something that is not of this protocol."""
        frames = Frames(requests)
        greeted = False
        while True:
            try:
                data = await self._stream.receive_some()
                messages: list[Request] = frames.receive(data)
            except (trio.BrokenResourceError, FormatError):
                return
            if not data:
                return
            for message in messages:
                if isinstance(message, Greeting):
                    greeted = message.protocol == PROTOCOL
                if not greeted:
                    return
                await self._handle(message, nursery)

    async def _handle(self, request: Request, nursery: trio.Nursery) -> None:
        match request:
            case Get() | Range():
                await self._read(request)
            case Transact() | Grant() | Revoke() | KeepAlive():
                await self._changes.acquire()
                nursery.start_soon(self._change, request)
            case StartWatch():
                scope = self._watches[request.id] = trio.CancelScope()
                nursery.start_soon(self._watch, request, scope)
            case StopWatch():
                scope_of = self._watches.pop(request.id, None)
                if scope_of is not None:
                    scope_of.cancel()
            case Greeting():
                pass

    def _say(self, reply: Reply) -> None:
        try:
            self._outbox.put(encode(reply))
        except trio.BrokenResourceError:
            self._ended.cancel()

    async def _read(self, request: Get | Range) -> None:
        try:
            if isinstance(request, Get):
                entry = await self._kv.get(request.key)
                entries = [entry] if entry is not None else []
            else:
                entries = await self._kv.range(request.prefix, limit=request.limit)
        except RingfortError as error:
            self._say(from_error(request.id, error))
        else:
            self._say(Entries(request.id, [from_entry(entry) for entry in entries], 0))

    async def _change(self, request: Transact | Grant | Revoke | KeepAlive) -> None:
        try:
            self._say(await self._perform(request))
        except RingfortError as error:
            self._say(from_error(request.id, error))
        finally:
            self._changes.release()

    async def _perform(self, request: Transact | Grant | Revoke | KeepAlive) -> Done:
        match request:
            case Transact():
                outcome = await self._kv.transact(
                    [Unchanged(key, modified) for key, modified in request.compares],
                    [to_operation(record) for record in request.operations],
                )
                return Done(request.id, outcome.succeeded, outcome.revision)
            case Grant():
                return Done(request.id, True, await self._kv.grant(request.ttl_s))
            case Revoke():
                await self._kv.revoke(LeaseId(request.lease))
            case KeepAlive():
                await self._kv.keep_alive(LeaseId(request.lease))
        return Done(request.id, True, 0)

    async def _watch(self, request: StartWatch, scope: trio.CancelScope) -> None:
        with scope:
            try:
                async with self._kv.watch(request.prefix) as watch:
                    self._say(Entries(request.id, [from_entry(entry) for entry in watch.entries], watch.revision))
                    while True:
                        events = await watch.next()
                        self._say(Events(request.id, [from_event(event) for event in events]))
            except RingfortError as error:
                self._watches.pop(request.id, None)
                self._say(from_error(request.id, error))

"""The HTTP/1.1 server: accepts, gives each connection a task, keeps their time limits, drains them at a stop.

What it promises: requests of a connection are answered in order; a small answer is one send; an iterator's body is sent piece by
piece and closed whatever happens; whatever a handler raises becomes a 500 and a log line, and the server lives on.  No task,
nursery or cancel scope is made per request: one sweeper looks at every connection's deadline.  Cancelling ``serve`` drops all
connections at once, as a crash would; the ``stop`` event drains them first.

It never touches sockets (``ring.world``), nor what requests mean (``router`` and the dialects).
Neighbours: ``connection`` (one connection's life), ``engine``.  Standard: RFC 9112 section 9.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from ring.wire.connection import Connection
from ring.wire.engine import HeadLimits, RequestEngine
from ring.wire.httptools_engine import HttptoolsRequests
from ring.wire.message import Handler
from ring.wire.service import DEFAULT_LIMITS, Limits, LogLine, Service
from ring.world.interface import Listener, Stream, World

__all__ = ["DEFAULT_LIMITS", "Limits", "LogLine", "serve"]


async def serve(
    world: World,
    listeners: Sequence[Listener],
    handler: Handler,
    *,
    limits: Limits = DEFAULT_LIMITS,
    on_request: Callable[[LogLine], None] | None = None,
    stop: trio.Event | None = None,
    greet: Callable[[Stream], Awaitable[Stream]] | None = None,
    engine: Callable[[HeadLimits], RequestEngine] = HttptoolsRequests,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``handler`` on ``listeners`` (which are closed at the end) until cancelled, or until ``stop`` is set: then no new
    connection is taken, requests in progress get ``limits.grace_s`` to finish, and serve returns.

    ``greet`` runs first on each connection (TLS, a mutual challenge) and returns the stream that HTTP is spoken on; Refused or a
    lost connection there ends it.  ``on_request`` is called after each request and must not block."""
    service = Service(world, handler, limits, on_request, greet, engine)
    await _Server(service).run(listeners, stop if stop is not None else trio.Event(), task_status)


class _Server:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._connections: dict[Connection, None] = {}  # in order of arrival: what happens to them must not hang on addresses
        self._room = trio.Semaphore(service.limits.connections)
        self._changed = trio.Event()  # the first connection came, or one went

    async def run(self, listeners: Sequence[Listener], stop: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._sweep)
                async with trio.open_nursery() as accepting:
                    for listener in listeners:
                        accepting.start_soon(self._accept, listener, nursery)
                    task_status.started()
                    await stop.wait()
                    accepting.cancel_scope.cancel()
                self._service.stopping = True
                for listener in listeners:
                    await listener.aclose()
                for connection in self._connections:
                    if connection.waiting:
                        connection.scope.cancel()
                with trio.move_on_after(self._service.limits.grace_s):
                    while self._connections:
                        await self._changed.wait()
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True) as scope:
                scope.cancel()  # close without waiting
                for listener in listeners:
                    await listener.aclose()

    async def _accept(self, listener: Listener, nursery: trio.Nursery) -> None:
        while True:
            await self._room.acquire()
            try:
                stream = await listener.accept()
            except OSError as error:  # a connection that died in the queue, or the system is short of something
                self._room.release()
                self._service.log_refusal("", 503, f"accept: {error}")
                await trio.sleep(0.1)
                continue
            connection = Connection(self._service, stream)
            self._connections[connection] = None
            if len(self._connections) == 1:
                self._notify()
            nursery.start_soon(self._serve_connection, connection)

    async def _serve_connection(self, connection: Connection) -> None:
        try:
            await connection.run()
        finally:
            del self._connections[connection]
            self._room.release()
            self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def _sweep(self) -> None:
        """Cut off the connections that are past their deadline; late by a quarter of the shortest limit at most."""
        limits = self._service.limits
        period = max(min(limits.idle_s, limits.head_s, limits.receive_s, limits.send_s) / 4, 0.01)
        while True:
            while not self._connections:
                await self._changed.wait()
            await trio.sleep(period)
            now = trio.current_time()
            for connection in self._connections:
                if connection.deadline <= now:
                    connection.overdue = True
                    connection.scope.cancel()

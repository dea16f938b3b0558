"""The iSCSI portal of a machine: every worker accepts, the worker that owns the volume serves.

The acceptor looks at the first login request without taking it off the socket (MSG_PEEK), finds the target's name in it, and
passes the socket itself (SCM_RIGHTS) to the volume's worker over a unix socket; after that no byte goes through the acceptor.
Who connects and says nothing costs a slot until PEEK_S have passed or somebody newer needs it: silence never keeps others out.
"""

from __future__ import annotations

import array
import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import trio

from blockgw.iscsi.login import first_pdu_bytes, target_name_of
from blockgw.target.server import TargetServer
from blockgw.volume.records import volume_of_iqn, worker_of
from ring.world.real.net import SocketStream, listener_from_socket, stream_from_socket

PEEK_S = 10.0
PEEKING_MAX = 512
PASS_S = 5.0  # for the other worker to take a connection
PAUSE_S = 0.05
DESCRIPTOR = array.array("i", [0]).itemsize


class First(NamedTuple):
    """What a connection's first login request says."""

    target: str | None  # None: a discovery session, or nothing that this target would take


class Portal:
    def __init__(
        self,
        server: TargetServer,
        *,
        worker: int,
        workers: int,
        socket_of: Callable[[int], str],
        log: Callable[[str, str], None],
        peeking_max: int = PEEKING_MAX,
    ) -> None:
        """``socket_of``: the path on which a worker takes connections that are passed to it."""
        self._server = server
        self._worker = worker
        self._workers = workers
        self._socket_of = socket_of
        self._log = log
        self._peeking_max = peeking_max
        self._peeking: dict[trio.CancelScope, None] = {}  # oldest first

    async def run(self, descriptor: int, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept on the inherited listening socket and take passed connections, until cancelled."""
        listener = listener_from_socket(socket.socket(fileno=descriptor))
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._take)
                task_status.started()
                while True:
                    stream = await listener.accept()
                    assert isinstance(stream, SocketStream)
                    if len(self._peeking) >= self._peeking_max:
                        oldest = next(iter(self._peeking))
                        del self._peeking[oldest]
                        oldest.cancel()
                    scope = trio.CancelScope(deadline=trio.current_time() + PEEK_S)
                    self._peeking[scope] = None
                    nursery.start_soon(self._route, stream, scope)
        finally:
            await listener.aclose()

    async def _route(self, stream: SocketStream, scope: trio.CancelScope) -> None:
        first = None
        try:
            with scope:
                first = await _peek(stream.socket)
        except OSError:
            pass  # it went away
        finally:
            self._peeking.pop(scope, None)
            if first is None:
                await stream.aclose()
        if first is None:
            return
        volume_id = volume_of_iqn(first.target) if first.target is not None else None
        owner = worker_of(volume_id, self._workers) if volume_id is not None else self._worker
        if owner == self._worker:
            await self._server.serve_connection(stream)
            return
        try:
            with trio.fail_after(PASS_S):
                await _pass(stream.socket, self._socket_of(owner))
        except (OSError, trio.TooSlowError) as error:
            self._log("iscsi-handoff-failed", f"worker {owner}: {error or 'it takes no connections'}")
        finally:
            await stream.aclose()

    async def _take(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take connections that other workers pass."""
        path = Path(self._socket_of(self._worker))
        taking = trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with taking:
            path.unlink(missing_ok=True)
            with _short(path) as short:
                await taking.bind(short)
            path.chmod(0o600)
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    _, ancillary, _, _ = await taking.recvmsg(1, socket.CMSG_SPACE(DESCRIPTOR))
                    for level, kind, data in ancillary:
                        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                            for descriptor in array.array("i", data[: len(data) - len(data) % DESCRIPTOR]):
                                passed = stream_from_socket(socket.socket(fileno=descriptor))
                                nursery.start_soon(self._server.serve_connection, passed)


async def _peek(connection: socket.socket) -> First | None:
    """Wait until the whole first request is there; None when it never will be.

    SO_RCVLOWAT lets the kernel wake us when enough has come: what was peeked at stays readable, and waiting for "readable" would
    spin."""
    wanted = first_pdu_bytes(b"")
    while True:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wanted)
        await trio.lowlevel.wait_readable(connection)
        try:
            data = connection.recv(wanted, socket.MSG_PEEK)
        except BlockingIOError:
            continue
        if len(data) < wanted:
            if _ended(connection):
                return None
            await trio.sleep(PAUSE_S)  # the kernel is short of memory and wakes early
            continue
        needed = first_pdu_bytes(data)
        if needed <= wanted:  # also 0: it is refused by the target's own rules
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            return First(target_name_of(data))
        wanted = needed


def _ended(connection: socket.socket) -> bool:
    """Whether the other end will send no more."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))


async def _pass(connection: socket.socket, path: str) -> None:
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        with _short(Path(path)) as short:
            await out.connect(short)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [connection.fileno()]))
        await out.sendmsg([b"\0"], [rights])


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A socket's path as the kernel can take it, however long it is: by a descriptor of its folder."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)

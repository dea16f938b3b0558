"""The iSCSI portal of a machine: every worker accepts, the worker that owns the volume serves.

The acceptor looks at the first login request without taking it off the socket (MSG_PEEK), finds the target's name in it, and
passes the socket itself (SCM_RIGHTS) to the volume's worker over a unix socket; after that no byte goes through the acceptor.
"""

from __future__ import annotations

import array
import socket
from collections.abc import Callable

import trio

from blockgw.iscsi.login import target_name_of
from blockgw.target.server import TargetServer
from blockgw.volume.records import volume_of_iqn, worker_of
from ring.world.real.net import stream_from_socket

PEEK_BYTES = 16 << 10
PEEK_S = 10.0
PEEKING_MAX = 256


class Portal:
    def __init__(
        self,
        server: TargetServer,
        *,
        worker: int,
        workers: int,
        socket_of: Callable[[int], str],
        log: Callable[[str, str], None],
    ) -> None:
        """``socket_of``: the path on which a worker takes connections that are passed to it."""
        self._server = server
        self._worker = worker
        self._workers = workers
        self._socket_of = socket_of
        self._log = log
        self._peeking = trio.Semaphore(PEEKING_MAX)

    async def run(self, descriptor: int, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept on the inherited listening socket and take passed connections, until cancelled."""
        listening = trio.socket.from_stdlib_socket(socket.socket(fileno=descriptor))
        async with trio.open_nursery() as nursery:
            await nursery.start(self._take)
            task_status.started()
            while True:
                await self._peeking.acquire()
                connection, _ = await listening.accept()
                nursery.start_soon(self._route, connection)

    async def _route(self, connection: trio.socket.SocketType) -> None:
        try:
            name = None
            with trio.move_on_after(PEEK_S):
                name = await _first_target(connection)
        except OSError:
            connection.close()
            return
        finally:
            self._peeking.release()
        volume_id = volume_of_iqn(name) if name is not None else None
        owner = worker_of(volume_id, self._workers) if volume_id is not None else self._worker
        if owner == self._worker:
            await self._serve(connection)
            return
        try:
            await _pass(connection, self._socket_of(owner))
        except OSError as error:
            self._log("iscsi-handoff-failed", f"worker {owner}: {error}")
        finally:
            connection.close()

    async def _serve(self, connection: trio.socket.SocketType) -> None:
        stream = stream_from_socket(socket.socket(fileno=connection.detach()))
        await self._server.serve_connection(stream)

    async def _take(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take connections that other workers pass."""
        path = self._socket_of(self._worker)
        taking = trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with taking:
            await trio.Path(path).unlink(missing_ok=True)
            await taking.bind(path)
            await trio.Path(path).chmod(0o600)
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    _, ancillary, _, _ = await taking.recvmsg(1, socket.CMSG_SPACE(array.array("i").itemsize))
                    for level, kind, data in ancillary:
                        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                            (descriptor,) = array.array("i", data)
                            passed = trio.socket.from_stdlib_socket(socket.socket(fileno=descriptor))
                            nursery.start_soon(self._serve, passed)


async def _first_target(connection: trio.socket.SocketType) -> str | None:
    """The target's name in the first request; None when it names none (a discovery session)."""
    seen = 0
    while True:
        data = await connection.recv(PEEK_BYTES, socket.MSG_PEEK)
        if not data:
            raise ConnectionResetError("the initiator went away before its first request")
        if len(data) >= 48:
            wanted = 48 + int.from_bytes(data[5:8], "big")
            if len(data) >= min(wanted, PEEK_BYTES):
                return target_name_of(data)
        if len(data) == seen:
            # Readable, but nothing new: peeking does not wait for more, so give the rest a moment to arrive.
            await trio.sleep(0.005)
        seen = len(data)


async def _pass(connection: trio.socket.SocketType, path: str) -> None:
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        await out.connect(path)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [connection.fileno()]))
        await out.sendmsg([b"\0"], [rights])

"""TCP and unix sockets as streams.

Every operation is tried first and waits for the kernel only on EAGAIN, so that a busy connection costs one system call per
operation.  So that it does not starve the others, a stream that went on like this for OPERATIONS_BETWEEN_YIELDS operations
yields once; cancellation is noticed at every operation.

Errors are trio's: BrokenResourceError when the connection is lost, ClosedResourceError after ``aclose`` on this side,
BusyResourceError for two senders or two receivers at once.  Dates, protocols and limits are not known here.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from ring.world.interface import Address, Buffer, File, Listener, Stream, TcpAddress, UnixAddress
from ring.world.real.file import RealFile

RECEIVE_BYTES = 1 << 16
OPERATIONS_BETWEEN_YIELDS = 32
SENDFILE_BYTES_MAX = 1 << 24  # at a time, so that one fast reader does not keep the loop
UNIX_PATH_BYTES_MAX = 107
ACCEPT_PAUSE_S = 0.1
CONNECT_PAUSE_S = 0.005
_TRANSIENT = (errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.EINTR, errno.ENETDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH)
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class SocketStream:
    """A Stream over a connected, non-blocking socket.  ``socket`` may be passed on once nobody uses the stream."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._operations = 0
        self._sending = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await self._turn()
        size = RECEIVE_BYTES if max_bytes is None else max_bytes
        while True:
            try:
                return self.socket.recv(size)
            except BlockingIOError:
                self._operations = 0
                await trio.lowlevel.wait_readable(self.socket.fileno())
            except OSError as error:
                raise self._as_trio(error) from error

    async def send_all(self, data: Buffer) -> None:
        await self._begin_sending()  # no context manager: it would cost as much as the rest of this
        try:
            sent = 0
            view: Buffer = data
            while sent < len(data):
                try:
                    sent += self.socket.send(view)
                except BlockingIOError:
                    self._operations = 0
                    await trio.lowlevel.wait_writable(self.socket.fileno())
                except OSError as error:
                    raise self._as_trio(error) from error
                else:
                    if sent < len(data):
                        view = memoryview(data)[sent:]
        finally:
            self._sending = False

    async def send_eof(self) -> None:
        await self._begin_sending()
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise self._as_trio(error) from error
        finally:
            self._sending = False

    async def send_file(self, file: File, offset: int, length: int) -> None:
        assert isinstance(file, RealFile)
        await self._begin_sending()
        try:
            end = offset + length
            while offset < end:
                try:
                    count = os.sendfile(self.socket.fileno(), file.fileno(), offset, min(end - offset, SENDFILE_BYTES_MAX))
                except BlockingIOError:
                    self._operations = 0
                    await trio.lowlevel.wait_writable(self.socket.fileno())
                except OSError as error:
                    raise self._as_trio(error) from error
                else:
                    if count == 0:
                        raise OSError(errno.EIO, "the file is shorter than what was to be sent of it")
                    offset += count
                    if offset < end:
                        await trio.lowlevel.checkpoint()
        finally:
            self._sending = False

    async def aclose(self) -> None:
        """Never waits.  Tasks that wait on this stream get ClosedResourceError."""
        if self.socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self.socket.fileno())
            self.socket.close()

    async def _turn(self) -> None:
        self._operations += 1
        if self._operations >= OPERATIONS_BETWEEN_YIELDS:
            self._operations = 0
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()

    async def _begin_sending(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        await self._turn()
        self._sending = True

    def _as_trio(self, error: OSError) -> Exception:
        if self.socket.fileno() < 0:
            return trio.ClosedResourceError("the stream was closed on this side")
        return trio.BrokenResourceError(f"the connection is lost: {error.strerror}")


class SocketListener:
    """A Listener over a listening, non-blocking socket."""

    def __init__(self, listening: socket.socket, address: Address, *, unlink: tuple[str, int, int] | None = None) -> None:
        self.socket = listening
        self._address = address
        self._unlink = unlink  # path, device and inode of the socket file that is ours

    @property
    def address(self) -> Address:
        return self._address

    async def accept(self) -> Stream:
        await trio.lowlevel.checkpoint()
        while True:
            try:
                connection, _ = self.socket.accept()
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.socket.fileno())
            except OSError as error:
                if self.socket.fileno() < 0:
                    raise trio.ClosedResourceError("the listener was closed") from error
                if error.errno in _EXHAUSTED:
                    await trio.sleep(ACCEPT_PAUSE_S)  # some connection will end; until then new ones wait in the backlog
                elif error.errno in _TRANSIENT:
                    await trio.lowlevel.checkpoint()  # that client went away; the next one
                else:
                    raise
            else:
                return stream_from_socket(connection)

    async def aclose(self) -> None:
        if self.socket.fileno() < 0:
            return
        trio.lowlevel.notify_closing(self.socket.fileno())
        self.socket.close()
        if self._unlink is not None:
            path, device, inode = self._unlink
            try:
                found = os.stat(path, follow_symlinks=False)
                if (found.st_dev, found.st_ino) == (device, inode):
                    os.unlink(path)
            except FileNotFoundError:
                pass


class RealNet:
    async def listen(self, address: Address, *, backlog: int = 1024) -> Listener:
        await trio.lowlevel.checkpoint()
        if isinstance(address, UnixAddress):
            return _listen_unix(address, backlog)
        family, target = (await _resolve(address, passive=True))[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setblocking(False)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(target)
            listening.listen(backlog)
        except BaseException:
            listening.close()
            raise
        return listener_from_socket(listening)

    async def connect(self, address: Address) -> Stream:
        await trio.lowlevel.checkpoint_if_cancelled()
        if isinstance(address, UnixAddress):
            return await _connect_unix(address.path)
        failure: OSError | None = None
        for family, target in await _resolve(address, passive=False):
            try:
                return await _connect_tcp(family, target)
            except OSError as error:
                failure = error
        assert failure is not None
        raise failure


def stream_from_socket(connection: socket.socket) -> SocketStream:
    """Adopt a connected socket."""
    connection.setblocking(False)
    if connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return SocketStream(connection)


def listener_from_socket(listening: socket.socket) -> SocketListener:
    """Adopt a listening socket, for instance one that was inherited."""
    listening.setblocking(False)
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return SocketListener(listening, UnixAddress(name if isinstance(name, str) else os.fsdecode(name)))
    return SocketListener(listening, TcpAddress(name[0], name[1]))


SockAddr = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


async def _resolve(address: TcpAddress, *, passive: bool) -> list[tuple[int, SockAddr]]:
    flags = socket.AI_PASSIVE if passive else 0
    host = address.host or None
    try:
        found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM, flags=flags | socket.AI_NUMERICHOST)
    except socket.gaierror:
        names = await trio.socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM, flags=flags)
        return [(family, target) for family, _, _, _, target in names]
    return [(family, target) for family, _, _, _, target in found]


async def _connect_tcp(family: int, target: SockAddr) -> SocketStream:
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        try:
            connection.connect(target)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(connection.fileno())
            code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code)) from None
        return stream_from_socket(connection)
    except BaseException:
        trio.lowlevel.notify_closing(connection.fileno())
        connection.close()
        raise


@contextmanager
def _short_path(path: str) -> Iterator[str]:
    """The path as the kernel can take it: one that is too long goes by a descriptor of its folder."""
    if len(os.fsencode(path)) <= UNIX_PATH_BYTES_MAX:
        yield path
        return
    folder = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)


async def _connect_unix(path: str) -> SocketStream:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        while True:
            try:
                with _short_path(path) as short:
                    connection.connect(short)
            except BlockingIOError:  # the backlog is full
                await trio.sleep(CONNECT_PAUSE_S)
            else:
                return stream_from_socket(connection)
    except BaseException:
        connection.close()
        raise


def _listen_unix(address: UnixAddress, backlog: int) -> SocketListener:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        with _short_path(address.path) as short:
            try:
                listening.bind(short)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or not _is_stale(short):
                    raise
                os.unlink(short)
                listening.bind(short)
            found = os.stat(short, follow_symlinks=False)
        listening.listen(backlog)
    except BaseException:
        listening.close()
        raise
    return SocketListener(listening, address, unlink=(os.path.abspath(address.path), found.st_dev, found.st_ino))


def _is_stale(path: str) -> bool:
    """A socket file that nobody answers on: what a killed process leaves behind."""
    if not stat.S_ISSOCK(os.stat(path, follow_symlinks=False).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except BlockingIOError:  # its backlog is full: somebody is there
            return False
    return False

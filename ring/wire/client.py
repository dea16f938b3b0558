"""The HTTP/1.1 client for hops between nodes and workers: pooled connections, small calls in one send, streamed bodies.

``Client.call`` is for small messages, ``Client.request`` for streamed ones.  Whatever keeps an answer away (refused or lost
connection, silence, bytes that are not HTTP) is ring.errors.Unavailable: then nobody knows whether the request was carried out.
It is sent a second time only when a reused connection ended before any byte of an answer and the request may be repeated.

It never follows redirects, keeps cookies or decodes content.  Neighbours: ``pool`` (which connection), ``httptools_engine`` (bytes
to answers), ``encode``.  Standard: RFC 9112 section 9.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import NamedTuple

import trio

from ring.errors import RingfortError, Unavailable
from ring.wire.encode import request_head
from ring.wire.engine import Refused, ResponseHead
from ring.wire.httptools_engine import HttptoolsResponses
from ring.wire.message import FileSlice, Headers, Piece
from ring.wire.pool import Pool
from ring.world.interface import Address, Net, Stream, TcpAddress

_RECEIVE_BYTES = 64 * 1024
_JOIN_BYTES_MAX = 128 * 1024
_REPEATABLE = frozenset(("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"))
_LOST = (trio.BrokenResourceError, trio.ClosedResourceError)
CONNECT_S = 5.0
REPLY_S = 30.0

Fields = Iterable[tuple[str, str]]


class Reply(NamedTuple):
    status: int
    headers: Headers
    body: bytes


class _Stale(Exception):
    """A reused connection was dead: nothing of an answer came."""


class _Connection:
    __slots__ = ("responses", "stream", "used")

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.responses = HttptoolsResponses()
        self.used = False  # a request was answered on it before


class Client:
    """Connections to any number of peers.  One client serves all tasks of a worker.

    ``dial`` opens the stream that HTTP is spoken on, in place of ``net.connect`` (TLS, a mutual challenge); OSError, a lost
    connection or Unavailable there mean that the peer cannot be reached."""

    def __init__(
        self,
        net: Net,
        *,
        dial: Callable[[Address], Awaitable[Stream]] | None = None,
        idle_s: float = 30.0,
        idle_max: int = 32,
    ) -> None:
        self._dial = dial or net.connect
        self._pool: Pool[_Connection] = Pool(idle_s, idle_max)

    async def call(
        self,
        address: Address,
        method: str,
        target: str,
        headers: Fields = (),
        body: bytes = b"",
        *,
        host: str = "",
        connect_s: float = CONNECT_S,
        reply_s: float = REPLY_S,
        body_bytes_max: int = 64 << 20,
        repeatable: bool | None = None,
    ) -> Reply:
        """Send a small request and read the whole answer, within ``reply_s``.  Raises Unavailable.

        ``repeatable``: carrying it out twice does no harm (None: by the method)."""
        length = len(body) if body or method not in _REPEATABLE or method == "PUT" else -1
        head = request_head(method, target, host or _host(address), headers, length)
        repeat = method in _REPEATABLE if repeatable is None else repeatable
        with trio.move_on_after(reply_s):
            connection = await self._connect(address, connect_s)
            try:
                return await self._exchange(address, connection, method, head, body, body_bytes_max)
            except _Stale:
                connection = await self._reconnect(address, connect_s, repeat)
                return await self._exchange(address, connection, method, head, body, body_bytes_max)
        raise Unavailable(f"{address} did not answer {method} within {reply_s:g} s")

    def request(
        self,
        address: Address,
        method: str,
        target: str,
        *,
        headers: Fields = (),
        body: bytes | AsyncIterator[Piece] | None = None,
        length: int | None = None,
        host: str = "",
        connect_s: float = CONNECT_S,
        reply_s: float = REPLY_S,
        repeatable: bool | None = None,
    ) -> ClientRequest:
        """``async with client.request(...) as response``: send, and read the answer's head; its body is read inside the block.

        ``body`` None: none; an iterator goes chunked unless ``length`` is given, and is closed here.  ``reply_s`` bounds each wait:
        for a piece to be taken by the peer, for the head, for each piece of the answer.  Raises Unavailable."""
        repeat = (method in _REPEATABLE if repeatable is None else repeatable) and (body is None or isinstance(body, bytes))
        if body is None:
            length = 0 if method in ("POST", "PUT", "PATCH") else -1
        elif isinstance(body, bytes):
            length = len(body)
        head = request_head(method, target, host or _host(address), headers, length)
        return ClientRequest(self, address, method, head, body, length, connect_s, reply_s, repeat)

    async def aclose(self) -> None:
        """Close the idle connections."""
        await self._close_all(self._pool.clear())

    async def expire(self) -> None:
        """Close what has been idle too long; others do so as they go."""
        await self._close_all(self._pool.expire(trio.current_time()))

    # ---- connections

    async def _connect(self, address: Address, connect_s: float) -> _Connection:
        while (connection := self._pool.take(address, trio.current_time())) is not None:
            if connection.responses.expect():
                return connection
            await _close_now(connection.stream)
        return await self._open(address, connect_s)

    async def _reconnect(self, address: Address, connect_s: float, repeat: bool) -> _Connection:
        """After _Stale: the peer was restarted or is tired of us, so its other idle connections are given up as well."""
        await self._close_all(self._pool.forget(address))
        if not repeat:
            raise Unavailable(f"{address} closed the connection before it answered") from None
        return await self._open(address, connect_s)

    async def _open(self, address: Address, connect_s: float) -> _Connection:
        with trio.move_on_after(connect_s):
            try:
                return _Connection(await self._dial(address))
            except (OSError, *_LOST) as error:
                raise Unavailable(f"{address} cannot be reached: {error}") from error
        raise Unavailable(f"{address} cannot be reached: no answer within {connect_s:g} s")

    async def _keep(self, address: Address, connection: _Connection) -> None:
        """Use it again later.  Its message has ended."""
        connection.used = True
        closing = self._pool.give(address, connection, trio.current_time())
        if closing:
            await self._close_all(closing)

    async def _close_all(self, connections: Iterable[_Connection]) -> None:
        for connection in connections:
            await _close_now(connection.stream)

    async def _exchange(
        self, address: Address, connection: _Connection, method: str, head: bytes, body: bytes, body_bytes_max: int
    ) -> Reply:
        """One small request and its whole answer.  Raises _Stale or Unavailable; the connection is then closed."""
        keep = False
        try:
            await _send_message(connection, head, body)
            answer = await _receive_head(connection, method, address)
            responses = connection.responses
            if answer.length is not None and answer.length > body_bytes_max:
                raise Unavailable(f"{address} answered with more than {body_bytes_max} bytes")
            pieces: list[bytes] = []
            room = body_bytes_max
            while True:
                data = responses.next_data(1 << 20)
                if data is None:
                    await _receive(connection, address)
                    continue
                if not data:
                    break
                pieces.append(data)
                room -= len(data)
                if room < 0:
                    raise Unavailable(f"{address} answered with more than {body_bytes_max} bytes")
            keep = answer.keep_alive
            return Reply(answer.status, answer.headers, pieces[0] if len(pieces) == 1 else b"".join(pieces))
        except Refused as refused:
            raise Unavailable(f"{address} does not speak HTTP: {refused.message}") from refused
        finally:
            if keep:
                await self._keep(address, connection)
            else:
                await _close_now(connection.stream)


class ClientResponse:
    """An answer whose body is still to be read: a Body, with status and headers.

    An answer that breaks off is Unavailable and not BodyBroken, which would be the fault of one's own client."""

    __slots__ = ("_connection", "_exchange", "headers", "length", "status")

    def __init__(self, exchange: ClientRequest, connection: _Connection, head: ResponseHead) -> None:
        self.status = head.status
        self.headers = head.headers
        self.length = head.length
        self._exchange = exchange
        self._connection = connection

    async def read(self, max_bytes: int = 1 << 20) -> bytes:
        """The next 1 to ``max_bytes`` bytes, b"" at the end.  Raises Unavailable when the answer does not come to its end."""
        exchange, responses = self._exchange, self._connection.responses
        try:
            data = responses.next_data(max_bytes)
            while data is None:
                with trio.move_on_after(exchange.reply_s) as scope:
                    await _receive(self._connection, exchange.address, min(max(responses.wanted, 4096), max(max_bytes, 4096)))
                if scope.cancelled_caught:
                    raise Unavailable(f"{exchange.address} sent no more for {exchange.reply_s:g} s")
                data = responses.next_data(max_bytes)
        except Refused as refused:
            raise Unavailable(f"{exchange.address} does not speak HTTP: {refused.message}") from refused
        return data

    async def read_all(self, max_bytes: int) -> bytes:
        """The whole body; Unavailable if it is longer: no answer of this kind is."""
        if self.length is not None and self.length > max_bytes:
            raise Unavailable(f"{self._exchange.address} answered with more than {max_bytes} bytes")
        pieces: list[bytes] = []
        room = max_bytes
        while piece := await self.read(min(room + 1, 1 << 20)):
            room -= len(piece)
            if room < 0:
                raise Unavailable(f"{self._exchange.address} answered with more than {max_bytes} bytes")
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class ClientRequest:
    """The context manager that ``Client.request`` gives."""

    def __init__(
        self,
        client: Client,
        address: Address,
        method: str,
        head: bytes,
        body: bytes | AsyncIterator[Piece] | None,
        length: int | None,
        connect_s: float,
        reply_s: float,
        repeat: bool,
    ) -> None:
        self.address = address
        self.reply_s = reply_s
        self._client = client
        self._method = method
        self._head = head
        self._body = body
        self._length = length
        self._connect_s = connect_s
        self._repeat = repeat
        self._connection: _Connection | None = None
        self._response: ClientResponse | None = None
        self._keep_alive = False

    async def __aenter__(self) -> ClientResponse:
        try:
            self._connection = await self._client._connect(self.address, self._connect_s)
            try:
                return await self._start(self._connection)
            except _Stale:
                await self._close()
                self._connection = await self._client._reconnect(self.address, self._connect_s, self._repeat)
                return await self._start(self._connection)
        except Refused as refused:
            await self._close()
            raise Unavailable(f"{self.address} does not speak HTTP: {refused.message}") from refused
        except BaseException:
            await self._close()
            raise
        finally:
            await _close_iterator(self._body)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        connection, response = self._connection, self._response
        assert connection is not None and response is not None
        if kind is None and self._keep_alive and connection.responses.body_ended:
            self._connection = None
            await self._client._keep(self.address, connection)
        else:
            await self._close()

    async def _close(self) -> None:
        if self._connection is not None:
            await _close_now(self._connection.stream)
            self._connection = None

    async def _start(self, connection: _Connection) -> ClientResponse:
        whole = True
        if self._body is None or isinstance(self._body, bytes):
            with trio.move_on_after(self.reply_s) as scope:
                await _send_message(connection, self._head, self._body or b"")
            self._check(scope, "take the request")
        else:
            whole = await self._send_iterator(connection, self._body)
        with trio.move_on_after(self.reply_s) as scope:
            head = await _receive_head(connection, self._method, self.address)
        self._check(scope, f"answer {self._method}")
        self._keep_alive = head.keep_alive and whole
        self._response = ClientResponse(self, connection, head)
        return self._response

    def _check(self, scope: trio.CancelScope, what: str) -> None:
        if scope.cancelled_caught:
            raise Unavailable(f"{self.address} did not {what} within {self.reply_s:g} s")

    async def _send_iterator(self, connection: _Connection, body: AsyncIterator[Piece]) -> bool:
        """Send head and body; False when the peer stopped listening, which it may do to answer early.

        What the body raises goes to the caller: the peer then sees a body that breaks off."""
        pending = self._head
        left = self._length
        async for piece in body:
            size = piece.length if isinstance(piece, FileSlice) else len(piece)
            if not size:
                continue
            if left is not None:
                left -= size
                if left < 0:
                    raise RingfortError(f"the body is longer than the {self._length} bytes announced")
            with trio.move_on_after(self.reply_s) as scope:
                try:
                    await _send_piece(connection.stream, pending, piece, size, left is None)
                except _LOST:
                    return False
            self._check(scope, "take a piece of the request")
            pending = b""
        if left:
            raise RingfortError(f"the body ended {left} bytes before the {self._length} announced")
        if left is None:
            pending += b"0\r\n\r\n"
        if pending:
            with trio.move_on_after(self.reply_s) as scope:
                try:
                    await connection.stream.send_all(pending)
                except _LOST:
                    return False
            self._check(scope, "take the request")
        return True


# ---- bytes


def _host(address: Address) -> str:
    if not isinstance(address, TcpAddress):
        return "localhost"
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"


async def _send_message(connection: _Connection, head: bytes, body: bytes) -> None:
    """Send it all.  A peer that stops listening may have answered: that is found out by reading."""
    try:
        if len(body) <= _JOIN_BYTES_MAX:
            await connection.stream.send_all(head + body)
        else:
            await connection.stream.send_all(head)
            await connection.stream.send_all(body)
    except _LOST:
        pass  # _receive_head finds the answer, or raises


async def _send_piece(stream: Stream, pending: bytes, piece: Piece, size: int, chunked: bool) -> None:
    if chunked:
        pending += b"%x\r\n" % size
    if isinstance(piece, FileSlice):
        if pending:
            await stream.send_all(pending)
        await stream.send_file(piece.file, piece.offset, size)
    elif size <= _JOIN_BYTES_MAX:
        await stream.send_all(b"%b%b\r\n" % (pending, piece) if chunked else pending + piece)
        return
    else:
        if pending:
            await stream.send_all(pending)
        await stream.send_all(piece)
    if chunked:
        await stream.send_all(b"\r\n")


async def _receive_head(connection: _Connection, method: str, address: Address) -> ResponseHead:
    """Raises _Stale, Unavailable, Refused."""
    responses = connection.responses
    while (head := responses.next_head(method)) is None:
        try:
            data = await connection.stream.receive_some(_RECEIVE_BYTES)
        except _LOST as error:
            if connection.used and responses.untouched:
                raise _Stale from error
            raise Unavailable(f"the connection to {address} was lost before it answered") from error
        responses.receive(data)
        if not data:
            if connection.used and responses.untouched:
                raise _Stale
            raise Unavailable(f"{address} closed the connection before it answered")
    return head


async def _receive(connection: _Connection, address: Address, max_bytes: int = _RECEIVE_BYTES) -> None:
    """More of a body.  Raises Unavailable."""
    responses = connection.responses
    try:
        if not responses.eof:
            responses.receive(await connection.stream.receive_some(max_bytes))
    except _LOST as error:
        raise Unavailable(f"the connection to {address} was lost before its answer ended") from error
    if responses.eof and not responses.body_ended and not responses.to_end:
        raise Unavailable(f"{address} closed the connection before its answer ended")


async def _close_iterator(body: bytes | AsyncIterator[Piece] | None) -> None:
    aclose = getattr(body, "aclose", None)
    if aclose is not None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5.0):
            await aclose()


async def _close_now(stream: Stream) -> None:
    with trio.CancelScope(shield=True) as scope:
        scope.cancel()
        await stream.aclose()

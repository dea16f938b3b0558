"""One server connection: reads requests, calls the handler, sends what it returns, one after another in one task.

    engine (bytes to heads and bodies) -> Request -> handler -> Response -> encode -> Stream

Deadlines are attributes that ``server``'s sweeper looks at, not cancel scopes of their own.  A body that breaks after its head
breaks the connection, so that the client sees a short body and never a wrong one.

Neighbours: ``server`` (which accepts, sweeps and drains), ``engine``, ``encode``.  Standard: RFC 9110, RFC 9112.
"""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator
from math import inf

import trio

from ring.errors import RingfortError, Unavailable
from ring.wire.encode import UnsafeHead, reason, response_head
from ring.wire.engine import Refused, RequestHead
from ring.wire.message import Body, BodyBroken, BodyTooLarge, BytesBody, FileSlice, Headers, Piece, Request, Response
from ring.wire.service import LogLine, Service
from ring.world.interface import Stream

_RECEIVE_BYTES = 64 * 1024
_JOIN_BYTES_MAX = 128 * 1024  # up to here a copy is cheaper than a second send
_LINGER_PIECES_MAX = 64
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_NO_BODY = frozenset((204, 304))
_TRANS_ID_NAMES = frozenset(("x-trans-id", "x-amz-request-id", "x-openstack-request-id"))
_LOST = (trio.BrokenResourceError, trio.ClosedResourceError)


class _RequestBody:
    """A Body that is still on the connection."""

    __slots__ = ("_connection", "_expects_continue", "bytes_read", "length", "over")

    def __init__(self, connection: Connection, length: int | None, expects_continue: bool) -> None:
        self.length = length
        self.bytes_read = 0
        self.over = False  # the request has been answered; what is left belongs to the server
        self._connection = connection
        self._expects_continue = expects_continue

    @property
    def held_back(self) -> bool:
        """The client waits for a 100 that was never sent: it may or may not send the body."""
        return self._expects_continue

    async def read(self, max_bytes: int = 1 << 20) -> bytes:
        if self.over:
            raise BodyBroken("the request is over, its body is gone")
        connection = self._connection
        if self._expects_continue:
            self._expects_continue = False
            await connection.send(_CONTINUE)
        data = await connection.read_body(max_bytes)
        self.bytes_read += len(data)
        limit = connection.service.limits.body_bytes
        if limit is not None and self.bytes_read > limit:
            connection.keep_alive = False
            raise BodyTooLarge(f"the body is longer than {limit} bytes")
        return data

    async def read_all(self, max_bytes: int) -> bytes:
        if self.length is not None and self.length > max_bytes:
            raise BodyTooLarge(f"the body is longer than {max_bytes} bytes")
        pieces: list[bytes] = []
        room = max_bytes
        while piece := await self.read(min(room + 1, 1 << 20)):
            room -= len(piece)
            if room < 0:
                raise BodyTooLarge(f"the body is longer than {max_bytes} bytes")
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class Connection:
    def __init__(self, service: Service, stream: Stream) -> None:
        self.service = service
        self.stream = stream
        self.scope = trio.CancelScope()
        self.deadline = trio.current_time() + service.limits.idle_s
        self.overdue = False
        self.waiting = True  # for a request's first byte: may be dropped at a stop
        self.keep_alive = True
        self._engine = service.engine(service.limits.head)
        self._peer = str(getattr(stream, "peer_address", ""))
        self._head_sent = False
        self._bytes_out = 0
        self._abort = False  # what was sent last is not whole

    async def run(self) -> None:
        """Serve until either side has had enough, and close the stream."""
        clean = False
        try:
            with self.scope:
                if self.service.greet is not None:
                    self.stream = await self.service.greet(self.stream)
                await self._serve_requests()
                clean = not self._abort
            if self.overdue and not self.waiting and not self._head_sent:
                with trio.move_on_after(1.0):
                    await self._refuse(408, "the request did not arrive in time")
        except _LOST:
            pass  # the client is gone; the request, if there was one, has been logged
        except Refused as refused:
            # Only from greet: what _serve_requests refuses it has answered.
            self.service.log_refusal(self._peer, refused.status, refused.message)
        finally:
            if clean:
                await self._close()
            else:
                await _close_now(self.stream)

    async def _serve_requests(self) -> None:
        while self.keep_alive:
            try:
                head = await self._next_head()
            except Refused as refused:
                await self._refuse(refused.status, refused.message)
                return
            if head is None:
                return
            await self._serve_request(head)
            if self.service.stopping:
                return

    async def _next_head(self) -> RequestHead | None:
        engine, limits = self._engine, self.service.limits
        self._head_sent = False
        head = engine.next_head()
        if head is None:
            self.waiting = engine.idle
            self.deadline = trio.current_time() + (limits.idle_s if self.waiting else limits.head_s)
            while head is None:
                if engine.eof:
                    return None
                data = await self.stream.receive_some(_RECEIVE_BYTES)
                engine.receive(data)
                if self.waiting and data:
                    self.waiting = False
                    self.deadline = trio.current_time() + limits.head_s
                head = engine.next_head()
            self.deadline = inf
        return head

    async def read_body(self, max_bytes: int) -> bytes:
        """The next piece of the current request's body, b"" at its end.  Raises BodyBroken."""
        engine = self._engine
        try:
            while (data := engine.next_data(max_bytes)) is None:
                if engine.eof:
                    raise BodyBroken("the client went away before the body ended")
                self.deadline = trio.current_time() + self.service.limits.receive_s
                engine.receive(await self.stream.receive_some(min(max(engine.wanted, 4096), max(max_bytes, 4096), 1 << 20)))
                self.deadline = inf
        except Refused as refused:
            self.keep_alive = False
            raise BodyBroken(refused.message) from None
        except BodyBroken:
            self.keep_alive = False
            raise
        except _LOST:
            self.keep_alive = False
            raise BodyBroken("the connection was lost before the body ended") from None
        return data

    async def send(self, data: bytes) -> None:
        self.deadline = trio.current_time() + self.service.limits.send_s
        await self.stream.send_all(data)
        self.deadline = inf

    # ---- one request

    async def _serve_request(self, head: RequestHead) -> None:
        service = self.service
        begun = trio.current_time()
        started = service.clock.now()
        self.keep_alive = head.keep_alive
        self._bytes_out = 0
        body: Body
        held: _RequestBody | None = None
        if head.length == 0:
            body = BytesBody()
        else:
            body = held = _RequestBody(self, head.length, head.expects_continue)
        request = Request(head.method, head.target, head.headers, body, self._peer, service.trans_id())
        status, error, ended = 0, "", False
        try:
            response, error = await self._answer(request)
            status = response.status
            # An iterator may still read the request's body while it makes the answer's.
            if held is not None and isinstance(response.body, bytes) and not self._may_drain(held):
                self.keep_alive = False
            status, failure = await self._respond(head, request, response)
            error = error or failure
            if held is not None:
                held.over = True
                self.keep_alive = self.keep_alive and self._may_drain(held) and await self._drain()
            ended = True
        except _LOST:
            self.keep_alive = False
            self._abort = ended = True
            error = error or "the client went away"
        finally:
            if service.on_request is not None:
                service.on_request(
                    LogLine(
                        request.trans_id,
                        self._peer,
                        head.method,
                        head.target,
                        status or 499,
                        held.bytes_read if held is not None else 0,
                        self._bytes_out,
                        trio.current_time() - begun,
                        started,
                        head.headers.get("user-agent"),
                        error or ("" if ended else "cut off"),
                    )
                )

    async def _answer(self, request: Request) -> tuple[Response, str]:
        """The handler's response, or the one that stands for its failure, and then what the log shall say."""
        limit = self.service.limits.body_bytes
        if limit is not None and request.body.length is not None and request.body.length > limit:
            return _plain(413, f"the body is longer than {limit} bytes"), ""
        try:
            return await self.service.handler(request), ""
        except BodyTooLarge as error:
            return _plain(413, error.message), error.message
        except BodyBroken as error:
            return _plain(400, error.message), error.message
        except Exception:  # noqa: BLE001 - whatever a handler does, the worker's other connections live on; the log has it all
            return _plain(500, f"internal error, transaction {request.trans_id}"), traceback.format_exc()

    def _may_drain(self, body: _RequestBody) -> bool:
        return self._engine.body_ended or not (body.held_back or self._engine.wanted > self.service.limits.drain_bytes)

    async def _drain(self) -> bool:
        """Read what the handler left of the body; False when that is more than the limit, or broken."""
        left = self.service.limits.drain_bytes
        try:
            while left >= 0:
                piece = await self.read_body(_RECEIVE_BYTES)
                if not piece:
                    return True
                left -= len(piece)
        except BodyBroken:
            return False
        return False

    async def _respond(self, head: RequestHead, request: Request, response: Response) -> tuple[int, str]:
        """Send the response; the status sent, and "" or what went wrong.  Raises _LOST."""
        try:
            if isinstance(response.body, bytes):
                await self._send_bytes(head, request, response, response.body)
                return response.status, ""
            try:
                await self._send_iterator(head, request, response, response.body)
            finally:
                await _close_iterator(response.body)
            return response.status, ""
        except _LOST:
            raise
        except Exception:  # noqa: BLE001 - an iterator may raise anything; the client sees a broken body, the log the cause
            self.keep_alive = False
            text = traceback.format_exc()
            if self._head_sent:
                self._abort = True
                return response.status, text
            substitute = _plain(500, f"internal error, transaction {request.trans_id}")
            assert isinstance(substitute.body, bytes)
            await self._send_bytes(head, request, substitute, substitute.body)
            return 500, text

    async def _send_bytes(self, head: RequestHead, request: Request, response: Response, body: bytes) -> None:
        status = response.status
        bodiless = head.method == "HEAD" or status in _NO_BODY
        length: int | None = len(body)
        if bodiless:
            length = _stated_length(response) if head.method == "HEAD" or status == 304 else None
            body = b""
        lines = self._framing(request, response, length)
        data = response_head(status, response.headers.fields, lines)
        self._head_sent = True
        self.deadline = trio.current_time() + self.service.limits.send_s + len(body) / self.service.limits.send_bytes_per_s
        if len(body) <= _JOIN_BYTES_MAX:
            await self.stream.send_all(data + body)
        else:
            await self.stream.send_all(data)
            await self.stream.send_all(body)
        self.deadline = inf
        self._bytes_out = len(body)

    async def _send_iterator(self, head: RequestHead, request: Request, response: Response, body: AsyncIterator[Piece]) -> None:
        if head.method == "HEAD" or response.status in _NO_BODY:
            await self._send_bytes(head, request, response, b"")
            return
        chunked = response.length is None and head.http_minor == 1
        if response.length is None and not chunked:
            self.keep_alive = False  # HTTP/1.0: the end of the stream ends the body
        piece = await _next_piece(body)  # a failure before the first piece can still be answered with a 500
        lines = self._framing(request, response, response.length, chunked)
        pending = response_head(response.status, response.headers.fields, lines)
        left = response.length
        while piece is not None:
            size = piece.length if isinstance(piece, FileSlice) else len(piece)
            if left is not None:
                left -= size
                if left < 0:
                    raise RingfortError(f"the body is longer than the {response.length} bytes it was announced with")
            self._head_sent = True
            await self._send_piece(pending, piece, size, chunked)
            self._bytes_out += size
            pending = b""
            piece = await _next_piece(body)
        if left:
            raise RingfortError(f"the body ended {left} bytes before the {response.length} it was announced with")
        self._head_sent = True
        if chunked:
            pending += b"0\r\n\r\n"
        if pending:
            await self.send(pending)

    async def _send_piece(self, pending: bytes, piece: Piece, size: int, chunked: bool) -> None:
        """Send what is pending, then the piece, framed.  An empty piece only sends what is pending."""
        stream, limits = self.stream, self.service.limits
        self.deadline = trio.current_time() + limits.send_s + size / limits.send_bytes_per_s
        if chunked and size:
            pending += b"%x\r\n" % size
        if isinstance(piece, FileSlice):
            if pending:
                await stream.send_all(pending)
            if size:
                await stream.send_file(piece.file, piece.offset, size)
                if chunked:
                    await stream.send_all(b"\r\n")
        elif size <= _JOIN_BYTES_MAX:
            data = b"%b%b\r\n" % (pending, piece) if chunked and size else pending + piece
            if data:
                await stream.send_all(data)
        else:
            if pending:
                await stream.send_all(pending)
            await stream.send_all(piece)
            if chunked:
                await stream.send_all(b"\r\n")
        self.deadline = inf

    def _framing(self, request: Request, response: Response, length: int | None, chunked: bool = False) -> list[str]:
        """The lines that are the server's own: length or chunking, Date, X-Trans-Id, Connection."""
        lines = ["Transfer-Encoding: chunked\r\n"] if chunked else []
        if length is not None:
            lines.append(f"Content-Length: {length}\r\n")
        has_id = has_date = False
        for name, value in response.headers.fields:
            if name in _TRANS_ID_NAMES:
                has_id = True
            elif name == "date":
                has_date = True
            elif name == "connection" and "close" in value.lower():
                self.keep_alive = False
            elif name == "transfer-encoding":
                raise UnsafeHead("a handler may not choose the transfer encoding")
        if not has_id:
            lines.append(f"X-Trans-Id: {request.trans_id}\r\n")
        if not has_date:
            lines.append(self.service.date())
        if self.service.stopping:
            self.keep_alive = False
        if not self.keep_alive:
            lines.append("Connection: close\r\n")
        return lines

    # ---- ends

    async def _refuse(self, status: int, message: str) -> None:
        """Answer what is no request, and be done with the connection."""
        self.keep_alive = False
        text = f"{message}\n".encode("latin-1", "replace")
        lines = [f"Content-Length: {len(text)}\r\n", self.service.date(), "Connection: close\r\n"]
        self._head_sent = True
        self.service.log_refusal(self._peer, status, message)
        await self.send(response_head(status, (("content-type", "text/plain"),), lines) + text)

    async def _close(self) -> None:
        """End the stream so that the last answer arrives: bytes left unread at a close would make the system reset it."""
        with trio.move_on_after(2.0):
            try:
                if not self._engine.eof:
                    await self.stream.send_eof()
                    for _ in range(_LINGER_PIECES_MAX):
                        if not await self.stream.receive_some(_RECEIVE_BYTES):
                            break
            except _LOST:
                pass  # then there is nobody to be careful for
        await _close_now(self.stream)


async def _next_piece(body: AsyncIterator[Piece]) -> Piece | None:
    try:
        return await anext(body, None)
    except _LOST as error:  # of the body's source, which is not the client
        raise Unavailable("the source of the body was lost") from error


def _stated_length(response: Response) -> int | None:
    """The Content-Length of an answer that carries none of its body (HEAD, 304)."""
    if response.length is not None:
        return response.length
    stated = response.headers.get("content-length")
    if stated.isascii() and stated.isdigit():
        return int(stated)
    if response.status == 304 or not isinstance(response.body, bytes):
        return None
    return len(response.body)


def _plain(status: int, message: str) -> Response:
    text = f"{reason(status)}: {message}\n".encode("utf-8", "replace")
    return Response(status, Headers([("content-type", "text/plain; charset=utf-8")]), text)


async def _close_iterator(body: AsyncIterator[Piece]) -> None:
    aclose = getattr(body, "aclose", None)
    if aclose is None:
        return
    with trio.move_on_after(5.0) as scope:
        scope.shield = True
        await aclose()


async def _close_now(stream: Stream) -> None:
    """Close without waiting for anything; the peer may see a reset."""
    with trio.CancelScope(shield=True) as scope:
        scope.cancel()
        await stream.aclose()

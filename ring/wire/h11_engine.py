"""The reference engine: h11 behind the same interface.  No I/O.

Slow (about 0.1 ms a request) and by another hand than llhttp: the differential tests hold ``httptools_engine`` against
it.  h11 frames the bodies by its own judgement; only the cutting of heads and the meaning of a parsed head are shared.

Neighbours: ``engine``, ``httptools_engine``.  Standard: RFC 9112.
"""

from __future__ import annotations

import h11

from ring.wire.engine import DEFAULT_HEAD_LIMITS, HeadLimits, Inbox, Refused, RequestHead, settle_request


class H11Requests:
    """A RequestEngine.  Each request gets a connection object of its own, which never answers."""

    __slots__ = ("_connection", "_inbox", "_limits", "_pending", "body_ended", "eof", "wanted")

    def __init__(self, limits: HeadLimits = DEFAULT_HEAD_LIMITS) -> None:
        self.eof = False
        self.body_ended = True
        self.wanted = 0
        self._inbox = Inbox()
        self._limits = limits
        self._connection: h11.Connection | None = None
        self._pending = b""  # of the body, not yet taken

    def receive(self, data: bytes | bytearray) -> None:
        if not data:
            self.eof = True
        elif self._connection is not None:
            self._connection.receive_data(bytes(data))
        else:
            self._inbox.put(data)

    def next_head(self) -> RequestHead | None:
        assert self.body_ended
        raw = self._inbox.take_head(self._limits.head_bytes, skip_empty_lines=True)
        if raw is None:
            return None
        if b"\r\n " in raw or b"\r\n\t" in raw:
            raise Refused(400, "a folded line")  # h11 would unfold it
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.head_bytes)
        connection.receive_data(raw)
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            raise Refused(error.error_status_hint, f"malformed head: {error}") from None
        if not isinstance(event, h11.Request):
            raise Refused(400, "malformed head")
        if event.http_version not in (b"1.0", b"1.1"):
            raise Refused(505, "HTTP/1.1 is spoken here")
        head = settle_request(
            event.method.decode("latin-1"),
            event.target.decode("latin-1"),
            1 if event.http_version == b"1.1" else 0,
            [(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers],
            self._limits,
        )
        if head.length == 0:
            return head
        self._connection = connection
        self.body_ended = False
        if len(self._inbox):
            connection.receive_data(self._inbox.take(len(self._inbox)))
        return head

    def next_data(self, max_bytes: int) -> bytes | None:
        while not self._pending:
            if self._connection is None:
                return b""
            try:
                event = self._connection.next_event()
            except h11.RemoteProtocolError as error:
                raise Refused(400, f"malformed body: {error}") from None
            if event is h11.NEED_DATA:
                return None
            if isinstance(event, h11.EndOfMessage):
                rest, _ = self._connection.trailing_data
                self._connection = None
                self.body_ended = True
                if rest:
                    self._inbox.put(rest)
            elif isinstance(event, h11.Data):
                self._pending = bytes(event.data)
            else:
                raise Refused(400, f"unexpected {event!r} in a body")
        piece, self._pending = self._pending[:max_bytes], self._pending[max_bytes:]
        return piece

    @property
    def idle(self) -> bool:
        return self.body_ended and not len(self._inbox)

"""The hot path's engine: llhttp (by httptools) reads each head, this module the framing.  No I/O.

A head is cut out of the received bytes first and given to a fresh parser in one piece (a parser costs 0.4 microseconds), so
nothing of one message can leak into the next, and a body of known length is handed on as it was received, without a copy.

Neighbours: ``engine`` (the interface, and what heads mean), ``server`` and ``client`` (which carry the bytes), ``h11_engine``
(which it is compared with).  Standard: RFC 9112.
"""

from __future__ import annotations

import re

import httptools

from ring.wire.engine import (
    DEFAULT_HEAD_LIMITS,
    METHODS,
    ChunkedDecoder,
    HeadLimits,
    Inbox,
    Refused,
    RequestHead,
    ResponseHead,
    settle_request,
    settle_response,
)

_REQUEST_LINE = re.compile(rb"([-!#$%&'*+.^_`|~0-9a-zA-Z]+) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?")
_NAMES_MAX = 2048
_names: dict[bytes, str] = {}  # wire name -> lower-case text, for the few that come again and again


def _name(raw: bytes) -> str:
    name = raw.decode("latin-1").lower()
    if len(_names) < _NAMES_MAX and len(raw) <= 64:
        _names[raw] = name
    return name


class _Collector:
    """What a parser calls back with."""

    __slots__ = ("complete", "fields")

    def __init__(self) -> None:
        self.fields: list[tuple[str, str]] = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((_names.get(name) or _name(name), value.decode("latin-1").strip(" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


class HttptoolsRequests:
    """A RequestEngine."""

    __slots__ = ("_chunks", "_inbox", "_limits", "_remaining", "eof")

    def __init__(self, limits: HeadLimits = DEFAULT_HEAD_LIMITS) -> None:
        self.eof = False
        self._inbox = Inbox()
        self._limits = limits
        self._remaining = 0
        self._chunks: ChunkedDecoder | None = None

    def receive(self, data: bytes | bytearray) -> None:
        if data:
            self._inbox.put(data)
        else:
            self.eof = True

    def next_head(self) -> RequestHead | None:
        assert self.body_ended
        raw = self._inbox.take_head(self._limits.head_bytes, skip_empty_lines=True)
        if raw is None:
            return None
        match = _REQUEST_LINE.fullmatch(raw, 0, raw.find(b"\r\n"))
        if match is None:
            raise Refused(400, "malformed request line")
        method, target, major, minor = match.groups()
        if major != b"1" or minor not in b"01":
            raise Refused(505, "HTTP/1.1 is spoken here")
        verb = method.decode("latin-1")
        if verb not in METHODS:  # llhttp frames some of its own (CONNECT, PRI) differently: it shall not see them
            raise Refused(501, f"the method {verb[:20]!r} is not known")
        collector = _Collector()
        parser = httptools.HttpRequestParser(collector)
        try:
            parser.feed_data(raw)
        except httptools.HttpParserUpgrade:
            pass  # an offer that a server may ignore (RFC 9110 section 7.8)
        except httptools.HttpParserError as error:
            raise Refused(400, f"malformed head: {error}") from None
        if not collector.complete:
            raise Refused(400, "malformed head")
        head = settle_request(verb, target.decode("latin-1"), 1 if minor == b"1" else 0, collector.fields, self._limits)
        if head.length is None:
            self._chunks = ChunkedDecoder()
        else:
            self._chunks = None
            self._remaining = head.length
        return head

    def next_data(self, max_bytes: int) -> bytes | None:
        if self._chunks is not None:
            return self._chunks.next_data(self._inbox, max_bytes)
        if not self._remaining:
            return b""
        if not len(self._inbox):
            return None
        piece = self._inbox.take(min(max_bytes, self._remaining))
        self._remaining -= len(piece)
        return piece

    @property
    def idle(self) -> bool:
        return self.body_ended and not len(self._inbox)

    @property
    def body_ended(self) -> bool:
        return self._chunks.ended if self._chunks is not None else not self._remaining

    @property
    def wanted(self) -> int:
        return self._chunks.remaining if self._chunks is not None else self._remaining


class HttptoolsResponses:
    """The answers that arrive on one client connection.  Refused (502) when they are not HTTP."""

    __slots__ = ("_chunks", "_inbox", "_limits", "_remaining", "eof", "to_end", "untouched")

    def __init__(self, limits: HeadLimits = DEFAULT_HEAD_LIMITS) -> None:
        self.eof = False
        self.untouched = True  # no byte of the awaited answer has come
        self._inbox = Inbox()
        self._limits = limits
        self._remaining = 0
        self.to_end = False  # the body ends with the stream
        self._chunks: ChunkedDecoder | None = None

    def receive(self, data: bytes | bytearray) -> None:
        if data:
            self.untouched = False
            self._inbox.put(data)
        else:
            self.eof = True

    def expect(self) -> bool:
        """A request is about to be sent: False when the connection holds bytes nobody asked for, and must not be used."""
        self.untouched = True
        return not self.eof and not len(self._inbox) and self.body_ended

    def next_head(self, method: str) -> ResponseHead | None:
        """The final answer to ``method``; informational ones are passed over.  None while more bytes are needed."""
        while True:
            raw = self._inbox.take_head(self._limits.head_bytes, skip_empty_lines=False)
            if raw is None:
                return None
            match = _STATUS_LINE.fullmatch(raw, 0, raw.find(b"\r\n"))
            if match is None:
                raise Refused(502, "malformed status line")
            status = int(match[2])
            collector = _Collector()
            try:
                httptools.HttpResponseParser(collector).feed_data(raw)
            except httptools.HttpParserUpgrade:
                pass
            except httptools.HttpParserError as error:
                raise Refused(502, f"malformed head of an answer: {error}") from None
            if not collector.complete:
                raise Refused(502, "malformed head of an answer")
            if status == 101:
                raise Refused(502, "the peer switched protocols unasked")
            if status >= 200:
                break
        head = settle_response(method, status, 1 if match[1] == b"1" else 0, collector.fields)
        self._chunks = ChunkedDecoder() if head.chunked else None
        self.to_end = head.length is None and not head.chunked
        self._remaining = head.length or 0
        return head

    def next_data(self, max_bytes: int) -> bytes | None:
        """As RequestEngine.next_data; a body without a length ends with the stream."""
        if self._chunks is not None:
            return self._chunks.next_data(self._inbox, max_bytes)
        if self.to_end:
            return self._inbox.take(max_bytes) if len(self._inbox) else (b"" if self.eof else None)
        if not self._remaining:
            return b""
        if not len(self._inbox):
            return None
        piece = self._inbox.take(min(max_bytes, self._remaining))
        self._remaining -= len(piece)
        return piece

    @property
    def body_ended(self) -> bool:
        if self._chunks is not None:
            return self._chunks.ended
        return self.eof and not len(self._inbox) if self.to_end else not self._remaining

    @property
    def wanted(self) -> int:
        return self._chunks.remaining if self._chunks is not None else self._remaining

"""What a parser of HTTP/1.1 is to the rest of the wire: bytes in; heads and body bytes out.  No I/O, no clock.

A ``RequestEngine`` reads one connection's requests.  ``httptools_engine`` (llhttp) serves the hot path, ``h11_engine`` is the
reference that it is compared with; both cut heads with ``Inbox`` and settle what a head means with ``settle_request``, so that
neither a missing Host nor two lengths can mean two things.  Outgoing heads are made by ``encode``.

What is refused here, beyond what the standard says must be: bare CR or LF, folded lines, Transfer-Encoding beside Content-Length,
repeated or listed Content-Length, transfer codings other than one ``chunked``, HTTP below 1.0 and above 1.1.

Standard: RFC 9112 (sections 2.2, 3, 5, 6, 7), RFC 9110 (sections 7.2, 10.1.1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from ring.errors import BadInput
from ring.wire.message import Headers

HEAD_END = b"\r\n\r\n"
CHUNK_LINE_BYTES_MAX = 4096
METHODS = frozenset(("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "COPY", "TRACE"))
_SETTLED_NAMES = frozenset(("host", "content-length", "transfer-encoding", "connection", "expect"))
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\r\n\x00]*)?")
_TRAILER_LINE = re.compile(rb"[-!#$%&'*+.^_`|~0-9a-zA-Z]+:[\t\x20-\x7e\x80-\xff]*")
_ABSOLUTE = re.compile(r"(?i:https?)://([^/?#]+)(.*)")


class Refused(BadInput):
    """The peer's bytes are not HTTP as spoken here; ``status`` is the answer, and the connection ends with it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True)
class RequestHead:
    method: str
    target: str  # origin form, or "*"
    headers: Headers
    keep_alive: bool
    length: int | None  # of the body; None: chunked
    expects_continue: bool
    http_minor: int  # 1 for HTTP/1.1


@dataclass(slots=True)
class ResponseHead:
    status: int
    headers: Headers
    keep_alive: bool
    length: int | None  # of the body; None: chunked, or to the end of the stream
    chunked: bool


@dataclass(frozen=True, slots=True)
class HeadLimits:
    head_bytes: int = 64 * 1024  # request line and all fields
    target_bytes: int = 16 * 1024
    header_count: int = 200


DEFAULT_HEAD_LIMITS = HeadLimits()


class RequestEngine(Protocol):
    """The requests that arrive on one connection, one after another."""

    eof: bool  # the peer has sent all it will

    def receive(self, data: bytes | bytearray) -> None:
        """Take what the stream gave; b"" is the end of the stream."""

    def next_head(self) -> RequestHead | None:
        """The next request's head; None while more bytes are needed.  Call it only when the body before has ended.

        Raises Refused."""

    def next_data(self, max_bytes: int) -> bytes | None:
        """1 to ``max_bytes`` bytes of the body, b"" at its end, None while more bytes are needed.

        Raises Refused when its framing is wrong."""

    @property
    def idle(self) -> bool:
        """Between messages, with nothing received of the next."""

    @property
    def body_ended(self) -> bool:
        """The current body has been taken to its end."""

    @property
    def wanted(self) -> int:
        """How many more bytes the body surely has; 0 when not known."""


class Inbox:
    """Received bytes not yet taken.  A piece that is taken whole is not copied."""

    __slots__ = ("_at", "_data", "_scanned")

    def __init__(self, data: bytes = b"") -> None:
        self._data = data
        self._at = 0
        self._scanned = 0

    def __len__(self) -> int:
        return len(self._data) - self._at

    def put(self, data: bytes | bytearray) -> None:
        piece = data if type(data) is bytes else bytes(data)
        if self._at == len(self._data):
            self._data = piece
            self._scanned = 0
        else:
            self._data = self._data[self._at :] + piece
            self._scanned = max(self._scanned - self._at, 0)
        self._at = 0

    def take(self, max_bytes: int) -> bytes:
        start = self._at
        if start == 0 and len(self._data) <= max_bytes:
            piece, self._data = self._data, b""
            return piece
        piece = self._data[start : start + max_bytes]
        self._at = start + len(piece)
        return piece

    def take_line(self, bytes_max: int) -> bytes | None:
        """A line without its CRLF; None while it is incomplete.  Raises Refused when it is too long or ends in a bare LF."""
        end = self._data.find(b"\n", self._at)
        if (end if end >= 0 else len(self._data)) - self._at > bytes_max:
            raise Refused(400, "a line of the chunked body is too long")
        if end < 0:
            return None
        if end == self._at or self._data[end - 1] != 0x0D:
            raise Refused(400, "a line of the chunked body does not end in CRLF")
        line = self._data[self._at : end - 1]
        self._at = end + 1
        return line

    def take_head(self, bytes_max: int, *, skip_empty_lines: bool) -> bytes | None:
        """A message's head with its blank line; None while it is incomplete.  Servers skip empty lines before it, clients do not
        (RFC 9112 section 2.2).  Raises Refused: 431 when it is longer than ``bytes_max``, 400 for line ends other than CRLF."""
        data = self._data
        while skip_empty_lines and data.startswith(b"\r\n", self._at):
            self._at += 2
        start = self._at
        end = data.find(HEAD_END, max(start, self._scanned - 3))
        if (end + 4 if end >= 0 else len(data)) - start > bytes_max:
            raise Refused(431, f"the head is longer than {bytes_max} bytes")
        if end < 0:
            self._scanned = len(data)
            self._refuse_hopeless(start)
            return None
        end += 4
        lines = data.count(b"\r\n", start, end)
        if data.count(b"\n", start, end) != lines or data.count(b"\r", start, end) != lines:
            raise Refused(400, "a line of the head does not end in CRLF")
        self._at = end
        return data[start:end]

    def _refuse_hopeless(self, start: int) -> None:
        """Refuse now what can never become a head, instead of waiting for it."""
        data = self._data
        if start == len(data) or data[start:] == b"\r":
            return
        if not 0x41 <= data[start] <= 0x7A:
            raise Refused(400, "this is not HTTP")
        if data.count(b"\n", start) != data.count(b"\r\n", start):
            raise Refused(400, "a line of the head does not end in CRLF")


class ChunkedDecoder:
    """The bytes of a chunked body (RFC 9112 section 7.1).  Extensions and trailer fields are checked and dropped."""

    __slots__ = ("_after_data", "_in_trailer", "_trailer_bytes_left", "ended", "remaining")

    def __init__(self, trailer_bytes_max: int = 16 * 1024) -> None:
        self.ended = False
        self.remaining = 0  # of the current chunk
        self._after_data = False
        self._in_trailer = False
        self._trailer_bytes_left = trailer_bytes_max

    def next_data(self, inbox: Inbox, max_bytes: int) -> bytes | None:
        """1 to ``max_bytes`` bytes, b"" at the end, None while more is needed.  Raises Refused."""
        while not self.ended:
            if self.remaining:
                if not len(inbox):
                    return None
                piece = inbox.take(min(max_bytes, self.remaining))
                self.remaining -= len(piece)
                self._after_data = self.remaining == 0
                return piece
            line = inbox.take_line(self._trailer_bytes_left if self._in_trailer else CHUNK_LINE_BYTES_MAX)
            if line is None:
                return None
            if self._after_data:
                if line:
                    raise Refused(400, "a chunk is longer than its size says")
                self._after_data = False
            elif self._in_trailer:
                if not line:
                    self.ended = True
                elif not _TRAILER_LINE.fullmatch(line):
                    raise Refused(400, "malformed trailer field")
                self._trailer_bytes_left -= len(line) + 2
            else:
                match = _CHUNK_LINE.fullmatch(line)
                if match is None:
                    raise Refused(400, "malformed chunk size")
                self.remaining = int(match[1], 16)
                self._in_trailer = self.remaining == 0
        return b""


def settle_request(
    method: str, target: str, http_minor: int, fields: list[tuple[str, str]], limits: HeadLimits = DEFAULT_HEAD_LIMITS
) -> RequestHead:
    """Decide what a parsed head means: where it goes, how its body is framed, whether the connection may live on.

    ``fields`` have lower-case names and values without surrounding blanks.  Raises Refused."""
    if method not in METHODS:
        raise Refused(501, f"the method {method[:20]!r} is not known")
    if len(target) > limits.target_bytes:
        raise Refused(414, f"the target is longer than {limits.target_bytes} bytes")
    if len(fields) > limits.header_count:
        raise Refused(431, f"more than {limits.header_count} header fields")
    length: int | None = 0
    hosts = 0
    keep_alive = http_minor == 1
    chunked = has_length = expects_continue = False
    for name, value in fields:
        if name not in _SETTLED_NAMES:
            continue
        if name == "host":
            hosts += 1
        elif name == "content-length":
            if has_length or not _LENGTH.fullmatch(value):
                raise Refused(400, "bad or repeated Content-Length")
            length, has_length = int(value), True
        elif name == "transfer-encoding":
            if chunked or value.lower() != "chunked":
                raise Refused(501, "Transfer-Encoding other than chunked")
            chunked = True
        elif name == "connection":
            if "close" in value.lower():
                keep_alive = False
        elif http_minor == 1:
            if value.lower() != "100-continue":
                raise Refused(417, f"unknown expectation {value[:40]!r}")
            expects_continue = True
    if chunked:
        if has_length:
            raise Refused(400, "Transfer-Encoding and Content-Length together")
        if http_minor == 0:
            raise Refused(400, "Transfer-Encoding in HTTP/1.0")
        length = None
    if hosts != 1 and (hosts or http_minor == 1):
        raise Refused(400, "exactly one Host is needed")
    if not target.startswith("/"):
        fields, target = _settle_target(method, target, fields)
    headers = Headers()
    headers.fields = fields
    return RequestHead(method, target, headers, keep_alive, length, expects_continue and length != 0, http_minor)


def _settle_target(method: str, target: str, fields: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], str]:
    """Absolute form becomes origin form and replaces Host (RFC 9112 section 3.2.2); "*" is for OPTIONS alone."""
    if target == "*" and method == "OPTIONS":
        return fields, target
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise Refused(400, "the target is neither a path nor a URL")
    rest = match[2]
    fields = [("host", match[1]) if name == "host" else (name, value) for name, value in fields]
    return fields, rest if rest.startswith("/") else "/" + rest


def settle_response(method: str, status: int, http_minor: int, fields: list[tuple[str, str]]) -> ResponseHead:
    """Decide how the body of an answer to ``method`` is framed (RFC 9112 section 6.3).  Raises Refused."""
    length: int | None = None
    keep_alive = http_minor == 1
    chunked = False
    for name, value in fields:
        if name == "content-length":
            if length is not None or not _LENGTH.fullmatch(value):
                raise Refused(502, "bad or repeated Content-Length in an answer")
            length = int(value)
        elif name == "transfer-encoding":
            if chunked or value.lower() != "chunked":
                raise Refused(502, "Transfer-Encoding other than chunked in an answer")
            chunked = True
        elif name == "connection" and "close" in value.lower():
            keep_alive = False
    headers = Headers()
    headers.fields = fields
    if method == "HEAD" or status == 204 or status == 304 or status < 200:
        return ResponseHead(status, headers, keep_alive, 0, False)
    if chunked:
        if length is not None:
            raise Refused(502, "Transfer-Encoding and Content-Length together in an answer")
        return ResponseHead(status, headers, keep_alive, None, True)
    return ResponseHead(status, headers, keep_alive and length is not None, length, False)

"""Heads that go out: one text per message, checked as a whole, so that no header value can start a line of its own.

Pure.  Neighbours: ``server`` and ``client`` send what is made here.  Standard: RFC 9112 sections 3, 4 and 5, RFC 9110 section 5.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus

from ring.errors import RingfortError

_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9a-zA-Z]+")
_TARGET = re.compile(r"[\x21-\x7e]+")
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_SPELLED = {"etag": "ETag", "www-authenticate": "WWW-Authenticate", "content-md5": "Content-MD5", "te": "TE"}
_NAMES_MAX = 2048
_names: dict[str, str] = {}  # a checked field name -> its spelling on the wire
FRAMING_NAMES = frozenset(("content-length", "transfer-encoding", "connection", "keep-alive"))


class UnsafeHead(RingfortError):
    """A head that must not be sent: a name or value that would break its framing, or that has no bytes on the wire."""


def reason(status: int) -> str:
    """The reason phrase; "" for a status that has none."""
    line = _STATUS_LINES.get(status)
    return line[13:-2] if line else ""


def _spell(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise UnsafeHead(f"not a header name: {name[:60]!r}")
    wire = _SPELLED.get(name) or (name if name.startswith("x-amz-") else name.title())
    if len(_names) < _NAMES_MAX and len(name) <= 64:
        _names[name] = wire
    return wire


def _head(parts: list[str]) -> bytes:
    """Join whole lines and the blank one.  Raises UnsafeHead when a part is more than the one line it should be."""
    parts.append("\r\n")
    text = "".join(parts)
    lines = len(parts)
    if text.count("\n") != lines or text.count("\r") != lines or "\0" in text:
        for part in parts:
            if part.count("\n") != 1 or part.count("\r") != 1 or "\0" in part:
                raise UnsafeHead(f"a line break or NUL in the header {part.partition(':')[0][:60]!r}")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise UnsafeHead(f"a character beyond latin-1 in a header: {text[error.start]!r}") from None


def response_head(status: int, fields: Iterable[tuple[str, str]], framing: Iterable[str]) -> bytes:
    """A response's head.  ``framing`` are whole lines, CRLF and all, made by the server; of ``fields`` those that frame are left
    out.  Raises UnsafeHead."""
    if not 100 <= status <= 599:
        raise UnsafeHead(f"{status} is no status")
    parts = [_STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n"]
    for name, value in fields:
        if name not in FRAMING_NAMES:
            parts.append(f"{_names.get(name) or _spell(name)}: {value}\r\n")
    parts.extend(framing)
    return _head(parts)


def request_head(method: str, target: str, host: str, fields: Iterable[tuple[str, str]], length: int | None) -> bytes:
    """A request's head; ``length`` None is a chunked body, -1 none at all.  ``fields`` may not frame.  Raises UnsafeHead."""
    if not _TOKEN.fullmatch(method) or not _TARGET.fullmatch(target):
        raise UnsafeHead(f"not a request line: {method[:20]!r} {target[:60]!r}")
    parts = [f"{method} {target} HTTP/1.1\r\n", f"Host: {host}\r\n"]
    for name, value in fields:
        name = name.lower()
        if name not in FRAMING_NAMES and name != "host":
            parts.append(f"{_names.get(name) or _spell(name)}: {value}\r\n")
    if length is None:
        parts.append("Transfer-Encoding: chunked\r\n")
    elif length >= 0:
        parts.append(f"Content-Length: {length}\r\n")
    return _head(parts)

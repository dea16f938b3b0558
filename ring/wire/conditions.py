"""Conditional requests: does what the client assumes of the current version hold?

Pure.  A ``Current`` describes what is there (None: nothing); the verdict is a status or None to go on.
Standard: RFC 9110 section 13 (precedence in 13.2.2); ETags are compared without their quotes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ring.wire.dates import parse_date
from ring.wire.message import Headers

_TAG = re.compile(r'[ \t]*(?:(W/)?"([^"]*)"|([^",\s]+))[ \t]*(?:,|$)')


@dataclass(frozen=True, slots=True)
class Current:
    """The version that a condition is about."""

    etag: str  # without quotes
    modified: float  # seconds since 1970; dates on the wire have whole seconds
    weak: bool = False


@dataclass(frozen=True, slots=True)
class Tags:
    """The value of If-Match or If-None-Match."""

    any: bool  # "*"
    strong: tuple[str, ...] = ()
    weak: tuple[str, ...] = ()

    def match(self, current: Current | None, *, strongly: bool) -> bool:
        if current is None:
            return False
        if self.any:
            return True
        if current.etag in self.strong:
            return not (strongly and current.weak)
        return not strongly and current.etag in self.weak


def parse_tags(header: str) -> Tags:
    """Entity tags; those without quotes, which many clients send, are taken as strong.  What is no tag is left out."""
    if header.strip() == "*":
        return Tags(any=True)
    strong: list[str] = []
    weak: list[str] = []
    at = 0
    while at < len(header):
        match = _TAG.match(header, at)
        if match is None:
            at += 1
            continue
        tag = match[2] if match[3] is None else match[3]
        if tag == "*":
            return Tags(any=True)
        (weak if match[1] else strong).append(tag)
        at = max(match.end(), at + 1)
    return Tags(False, tuple(strong), tuple(weak))


def evaluate(method: str, headers: Headers, current: Current | None) -> int | None:
    """304 or 412 when a condition fails, None when all hold; in the order of section 13.2.2.

    Dates are compared only when something is there, and ignored when they are no dates."""
    reading = method in ("GET", "HEAD")
    if "if-match" in headers:
        if not parse_tags(", ".join(headers.all("if-match"))).match(current, strongly=True):
            return 412
    elif current is not None and "if-unmodified-since" in headers:
        since = parse_date(headers.get("if-unmodified-since"))
        if since is not None and int(current.modified) > since:
            return 412
    if "if-none-match" in headers:
        if parse_tags(", ".join(headers.all("if-none-match"))).match(current, strongly=False):
            return 304 if reading else 412
    elif reading and current is not None and "if-modified-since" in headers:
        since = parse_date(headers.get("if-modified-since"))
        if since is not None and int(current.modified) <= since:
            return 304
    return None


def if_range_holds(header: str, current: Current) -> bool:
    """Whether a Range may be honoured: If-Range is absent, or names this very version (section 13.1.5)."""
    header = header.strip()
    if not header:
        return True
    if header.startswith("W/"):
        return False
    since = parse_date(header)
    if since is not None:
        return int(current.modified) == since
    return not current.weak and header.strip('"') == current.etag

"""Log lines: ``time=... level=info worker=0 msg="..." key=value``, one line per event, to a sink.

What is logged is said by key; secrets have no key here: headers are never part of a line, and signatures in a presigned URL's query
are blotted out by ``redact_target``.  The composition root chooses the sink (standard error, a file) and its flushing.

Standard: logfmt, as Go's slog and Grafana Loki read it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import IntEnum
from urllib.parse import unquote

from ring.errors import RingfortError
from ring.world.interface import Clock

_NEEDS_QUOTES = re.compile(r'[\x00-\x20"=\\\x7f-\x9f\u2028\u2029]')
_ESCAPED = re.compile(r'[\x00-\x1f"\\\x7f-\x9f\u2028\u2029]')
_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"}
_KEY = re.compile(r"[a-z][a-z0-9_]*")
_SECRET_PARAMETERS = frozenset(("x-amz-signature", "x-amz-security-token", "signature", "temp_url_sig", "token", "password"))


class Level(IntEnum):
    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


Value = str | int | float | bool | None


class Log:
    """Writes whole lines, without the line end, to ``sink``; lines below ``level`` are not made."""

    def __init__(
        self,
        sink: Callable[[str], None],
        clock: Clock,
        *,
        level: Level = Level.INFO,
        fields: Mapping[str, Value] | None = None,
    ) -> None:
        self.level = level
        self._sink = sink
        self._clock = clock
        self._fields = dict(fields or {})
        self._prefix = _pairs(self._fields)

    def bind(self, **fields: Value) -> Log:
        """A Log whose lines carry these as well."""
        return Log(self._sink, self._clock, level=self.level, fields={**self._fields, **fields})

    def write(self, level: Level, message: str, fields: Mapping[str, Value]) -> None:
        if level < self.level:
            return
        when = datetime.fromtimestamp(self._clock.now(), UTC)
        self._sink(
            f"time={when:%Y-%m-%dT%H:%M:%S}.{when.microsecond // 1000:03d}Z level={level.name.lower()}"
            f"{self._prefix} msg={quote_value(message)}{_pairs(fields)}"
        )

    def debug(self, message: str, **fields: Value) -> None:
        self.write(Level.DEBUG, message, fields)

    def info(self, message: str, **fields: Value) -> None:
        self.write(Level.INFO, message, fields)

    def warning(self, message: str, **fields: Value) -> None:
        self.write(Level.WARNING, message, fields)

    def error(self, message: str, **fields: Value) -> None:
        self.write(Level.ERROR, message, fields)

    def failure(self, message: str, error: RingfortError, **fields: Value) -> None:
        """An error that was met, with its hint."""
        found: dict[str, Value] = {**fields, "error": f"{type(error).__name__}: {error.message}"}
        if error.hint:
            found["hint"] = error.hint
        self.write(Level.ERROR, message, found)


def quote_value(value: Value) -> str:
    """A value as logfmt has it: bare where it can be, else in quotes with escapes, always on one line."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    if not text or _NEEDS_QUOTES.search(text):
        return '"' + _ESCAPED.sub(lambda match: _ESCAPES.get(match[0]) or f"\\u{ord(match[0]):04x}", text) + '"'
    return text


def redact_target(target: str) -> str:
    """A request target without what would let the reader of a log repeat the request."""
    path, mark, query = target.partition("?")
    if not mark:
        return target
    parts = []
    for part in query.split("&"):
        name, equals, _ = part.partition("=")
        parts.append(f"{name}=-" if equals and unquote(name).lower() in _SECRET_PARAMETERS else part)
    return f"{path}?{'&'.join(parts)}"


def _pairs(fields: Mapping[str, Value]) -> str:
    for key in fields:
        assert _KEY.fullmatch(key), f"not a log key: {key!r}"
    return "".join(f" {key}={quote_value(value)}" for key, value in fields.items())

"""Listing pages as Swift writes them: one name a line, JSON, or XML.  Pure.

Neighbours: app.  Source: Swift API reference, "Show account details and list containers" and
"Show container details and list objects".
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.sax.saxutils import escape, quoteattr

import msgspec

from ring.timestamp import TICKS_PER_SECOND, Timestamp
from ring.wire.dates import format_iso
from storage.client.interface import Prefix, Row

TYPES = {
    "plain": "text/plain; charset=utf-8",
    "json": "application/json; charset=utf-8",
    "xml": "application/xml; charset=utf-8",
}


def write(format: str, kind: str, name: str, items: Iterable[Row | Prefix]) -> bytes:
    """``kind`` is "account" (the rows are containers) or "container"."""
    if format == "json":
        return msgspec.json.encode([_fields(kind, item) for item in items])
    if format == "xml":
        return _xml(kind, name, items)
    return "".join([f"{item.name}\n" for item in items]).encode()


def iso(timestamp: Timestamp) -> str:
    """2014-01-15T16:41:49.390270"""
    seconds, ticks = divmod(timestamp.ticks, TICKS_PER_SECOND)
    return f"{format_iso(seconds)}.{ticks:05d}0"


def _fields(kind: str, item: Row | Prefix) -> dict[str, str | int]:
    if isinstance(item, Prefix):
        return {"subdir": item.name}
    if kind == "account":
        return {"name": item.name, "count": item.count, "bytes": item.size, "last_modified": iso(item.timestamp)}
    return {
        "name": item.name,
        "hash": item.etag,
        "bytes": item.size,
        "content_type": item.content_type,
        "last_modified": iso(item.timestamp),
    }


def _xml(kind: str, name: str, items: Iterable[Row | Prefix]) -> bytes:
    row = "container" if kind == "account" else "object"
    parts = [f'<?xml version="1.0" encoding="UTF-8"?>\n<{kind} name={quoteattr(name)}>']
    for item in items:
        if isinstance(item, Prefix):
            parts.append(f"<subdir name={quoteattr(item.name)}><name>{escape(item.name)}</name></subdir>")
            continue
        fields = "".join(f"<{key}>{escape(str(value))}</{key}>" for key, value in _fields(kind, item).items())
        parts.append(f"<{row}>{fields}</{row}>")
    parts.append(f"</{kind}>")
    return "".join(parts).encode()

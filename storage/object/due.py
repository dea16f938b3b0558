"""When the objects of a device are to go: a table of the device in the order of their due times, so that nobody looks through all
objects for those few.  Pure but for reading the table.

Each entry of the index that has an X-Delete-At has a row here: key = due time (8 bytes, big-endian seconds) | the entry's key; no
value.  The index writes both in one transaction, so they agree after any crash, and its rebuilding makes both anew from the log.

The alternative, Swift's, keeps the due times as rows of hidden containers: then every PUT with an X-Delete-At is a second write to
a majority of other devices that can be late or lost, a changed date leaves a row that must be found wrong, and the containers of a
busy hour are hot.  Here a date costs one small row in a commit that happens anyway; the price is that each primary knows of it,
and that they must agree who acts (expirer.py).

Neighbours: index.py (writes it), expirer.py (reads it), storage.client.expiry (what a date is).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ring.world.interface import Tables, Write
from storage.client.expiry import due_of
from storage.object.record import Record, RecordKind

TABLE = "due"
_DUE_BYTES = 8


class Dated(Protocol):
    """An entry of the index and its key."""

    @property
    def key(self) -> bytes: ...

    @property
    def due(self) -> int: ...


def of(record: Record) -> int:
    """Seconds since 1970 when the version it makes or changes is to go; 0: never."""
    return 0 if record.kind is RecordKind.TOMBSTONE else due_of(record.info.metadata)


def row_key(due: int, key: bytes) -> bytes:
    return due.to_bytes(_DUE_BYTES, "big") + key


def writes(before: Dated | None, after: Dated | None) -> Iterable[Write]:
    """What a change of an entry changes here."""
    old = row_key(before.due, before.key) if before is not None and before.due else b""
    new = row_key(after.due, after.key) if after is not None and after.due else b""
    if old != new:
        if old:
            yield Write(TABLE, old, None)
        if new:
            yield Write(TABLE, new, b"")


def page(tables: Tables, after: bytes, until: int, *, limit: int) -> list[tuple[int, bytes]]:
    """(due, the entry's key) in the order of due times, those due at ``until`` or before; ``after``: behind this row (b"": all)."""
    if until < 0:
        return []
    pairs = tables.scan(TABLE, after + b"\0" if after else b"", (until + 1).to_bytes(_DUE_BYTES, "big"), limit=limit)
    return [(int.from_bytes(key[:_DUE_BYTES], "big"), key[_DUE_BYTES:]) for key, _ in pairs]

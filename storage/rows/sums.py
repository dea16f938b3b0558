"""What is written of a book beside its rows, and what is written when a book leaves a device.

Decides nothing.  Neighbours: books, entry (what is summed up), storage.sync.tree (digests).
Format: docs/formats/rows.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import trio

from ring.world.interface import Tables, Write
from storage.rows.entry import Entry
from storage.rows.names import row_key, scan_names
from storage.rows.row import seal, unseal_all
from storage.sync.tree import Toggles

BOOK_SUMS, OWES = b"s", b"d"
_SCAN_ROWS = 10_000


def sums_writes(entry: Entry, toggles: Toggles) -> list[Write]:
    """Its sums; its digest takes the place of the former one in the tree."""
    digest = entry.digest()
    if digest != entry.tree_digest:
        if entry.tree_digest is not None:
            toggles.toggle(entry.book, entry.tree_digest)
        toggles.toggle(entry.book, digest)
        entry.tree_digest = digest
    return [Write("book_state", BOOK_SUMS + entry.book, seal(entry.pack_state()))]


async def leave_page(tables: Tables, entry: Entry, limit: int) -> bool:
    """Its first rows go, at most ``limit``, and the entry knows of them no more; True: those were the last, and the book is gone
    with them.  DiskFault."""
    names, values = scan_names(tables, entry.book, b"", None, limit=limit, reverse=False)
    for packed in unseal_all(values):
        entry.forget_row(packed)
    writes = [Write("rows", row_key(entry.book, name), None) for name in names]
    toggles = Toggles(entry.kind)
    last = len(names) < limit
    writes += _leaving_book(entry, toggles) if last else sums_writes(entry, toggles)
    with trio.CancelScope(shield=True):
        await tables.commit([*writes, *toggles.writes(tables)])
    return last


def _leaving_book(entry: Entry, toggles: Toggles) -> list[Write]:
    """When no row is left."""
    assert entry.count == 0 and entry.rows_digest == 0
    if entry.tree_digest is not None:
        toggles.toggle(entry.book, entry.tree_digest)
    return [
        Write("books", entry.book, None),
        Write("book_state", BOOK_SUMS + entry.book, None),
        Write("book_state", OWES + entry.book, None),
    ]


def owing(tables: Tables) -> Iterator[bytes]:
    """The books that owe their account a report."""
    start = OWES
    while pairs := tables.scan("book_state", start, bytes([OWES[0] + 1]), limit=_SCAN_ROWS):
        yield from (key[1:] for key, _ in pairs)
        start = pairs[-1][0] + b"\0"

"""What is written of a book beside its rows, and what is written when rows or the book leave a device: writes for the tables.

Decides nothing and commits nothing.  Neighbours: books (which commits), entry (what is summed up), storage.sync.tree (digests).
Format: docs/formats/rows.md.
"""

from __future__ import annotations

from ring.world.interface import Tables, Write
from storage.rows.entry import Entry
from storage.rows.names import row_key, scan_names
from storage.rows.row import seal, unseal_all
from storage.sync.tree import Toggles

BOOK_SUMS, OWES = b"s", b"d"


def sums_writes(entry: Entry, toggles: Toggles) -> list[Write]:
    """Its sums; its digest takes the place of the former one in the tree."""
    digest = entry.digest()
    if digest != entry.tree_digest:
        if entry.tree_digest is not None:
            toggles.toggle(entry.book, entry.tree_digest)
        toggles.toggle(entry.book, digest)
        entry.tree_digest = digest
    return [Write("book_state", BOOK_SUMS + entry.book, seal(entry.pack_state()))]


def leaving_rows(tables: Tables, entry: Entry, limit: int) -> list[Write]:
    """Its first rows go, at most ``limit``; the entry knows of them no more."""
    names, values = scan_names(tables, entry.book, b"", None, limit=limit, reverse=False)
    for packed in unseal_all(values):
        entry.forget_row(packed)
    return [Write("rows", row_key(entry.book, name), None) for name in names]


def leaving_book(entry: Entry, toggles: Toggles) -> list[Write]:
    """When no row is left."""
    assert entry.count == 0 and entry.rows_digest == 0
    if entry.tree_digest is not None:
        toggles.toggle(entry.book, entry.tree_digest)
    return [
        Write("books", entry.book, None),
        Write("book_state", BOOK_SUMS + entry.book, None),
        Write("book_state", OWES + entry.book, None),
    ]

"""A look at a book's rows: what the overlays say in front of what the tables say.  Synchronous: one look is one moment.

Neighbours: books (whose tables and overlays these are), names (where rows lie), overlay.
"""

from __future__ import annotations

from collections.abc import Sequence

from ring.errors import BadInput
from ring.world.interface import Tables
from storage.client.node import RowPage
from storage.rows.entry import Entry
from storage.rows.names import row_key, scan_names
from storage.rows.overlay import REMOVED, Overlay
from storage.rows.page import PackedRows
from storage.rows.row import unseal, unseal_all

PAGE_ROWS_MAX = 10_000


def current(tables: Tables, overlays: Sequence[Overlay], book: bytes, name: bytes) -> bytes | None:
    """The packed row as it is now.  ``overlays``: the oldest first."""
    for overlay in reversed(overlays):
        packed = overlay.get(book, name)
        if packed is not None:
            return None if packed is REMOVED else packed
    value = tables.get("rows", row_key(book, name))
    return None if value is None else unseal(value)


def page(
    tables: Tables, overlays: Sequence[Overlay], entry: Entry, start: bytes, end: bytes | None, *, limit: int, reverse: bool
) -> RowPage:
    """As Node.rows."""
    if limit < 1:
        raise BadInput(f"a page has at least one row, not {limit}")
    limit = min(limit, PAGE_ROWS_MAX)
    over = [rows for overlay in overlays if (rows := overlay.books.get(entry.book)) is not None]
    wanted = limit + 1
    while True:
        names, values = scan_names(tables, entry.book, start, end, limit=wanted, reverse=reverse)
        packed = unseal_all(values)
        newer = [rows.between(start, end, limit=wanted, reverse=reverse) for rows in over]
        cut = [found[-1] for found in (names, *newer) if len(found) == wanted]  # what lies behind these was not looked at
        if any(newer):
            merged = dict(zip(names, packed, strict=True))
            for rows, found in zip(over, newer, strict=True):
                merged.update((name, rows.packed[name]) for name in found)
            horizon = (max if reverse else min)(cut, default=b"")
            packed = [
                merged[name]
                for name in sorted(merged, reverse=reverse)
                if merged[name] is not REMOVED and not (cut and (name < horizon if reverse else name > horizon))
            ]
        if len(packed) > limit or not cut:
            return RowPage(entry.state, PackedRows.join(packed[:limit]), complete=len(packed) <= limit)
        wanted *= 4  # many were removed: look further

"""Windows: the rows of one book over one range of names, as this device holds them and as others do.

A page that is not complete speaks for names up to its last one only; so a window ends where the first of the pages does.

Neighbours: storage.rows.books (this device), reclaimer and returning (look through them).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ring.names import Path
from storage.client.interface import Row
from storage.client.node import BookHeader, Node, RowPage
from storage.rows.books import Books

ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Window:
    """Headers are None where the book is not known."""

    mine: Mapping[str, Row]
    header: BookHeader | None
    theirs: Sequence[Mapping[str, Row]]
    headers: Sequence[BookHeader | None]
    after: str | None  # where the next one begins; None: this was the last


async def window(
    books: Books, path: Path, others: Sequence[Node], after: str, end: str = "", *, limit: int = ROWS_AT_ONCE
) -> Window:
    """Names above ``after`` and below ``end`` ("": no bound).  Unavailable and DiskFault as the others give them."""
    pages: list[RowPage | None] = [await books.rows(path, start=after, end=end, limit=limit, reverse=False)]
    for node in others:
        pages.append(await node.rows(path, start=after, end=end, limit=limit, reverse=False))
    ends = [page.rows[-1].name for page in pages if page is not None and not page.complete]
    until = min(ends) if ends else None
    rows = [_until(page, until) for page in pages]
    headers = [None if page is None else page.state.header for page in pages]
    return Window(rows[0], headers[0], rows[1:], headers[1:], until)


def _until(page: RowPage | None, until: str | None) -> Mapping[str, Row]:
    return {} if page is None else {row.name: row for row in page.rows if until is None or row.name <= until}

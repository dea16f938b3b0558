"""What a container owes its account: a report of its sums whenever they changed, or it was made or deleted.  Pure.

Decides what the report says and which containers still owe one; storage.rows.books keeps the marks in its tables, in the same
transaction as the sums, and the updater (storage.client) sends the reports to the account's primaries.  Every replica of the
container reports for itself, and with its own rows counts those in its shards; storage.rows.merge says how an account settles
reports that disagree.
"""

from __future__ import annotations

from dataclasses import dataclass

from ring.names import Path
from ring.timestamp import ZERO, Timestamp
from storage.client.interface import Row
from storage.client.node import BookState
from storage.container.shards import sums_of


@dataclass(frozen=True, slots=True)
class StatsMark:
    """A report to send, and what must still be true of the container for the debt to be paid by it."""

    book: bytes  # the container's hash
    account: Path
    row: Row

    def same(self, other: StatsMark) -> bool:
        """Whether both say the same of the container, whenever it was."""
        return self.account == other.account and _content(self.row) == _content(other.row)


def report(book: bytes, state: BookState, stamp: Timestamp) -> StatsMark:
    """``stamp``: when the report is made; later ones of one life of the container win."""
    header = state.header
    assert header.path.container
    objects, size = sums_of(header.metadata)
    row = Row(
        header.path.container,
        max(header.created or ZERO, header.deleted or ZERO),
        size=state.bytes_used + size,
        etag=f"{stamp.normal}_{stamp.offset:08x}",
        count=state.count + objects,
        deleted=not header.exists,
    )
    return StatsMark(book, header.path.parent, row)


class DirtyStats:
    """Containers that owe a report, by hash.  ``changed`` names those whose durable mark is to be written or removed."""

    def __init__(self) -> None:
        self._owing: dict[bytes, None] = {}
        self.changed: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._owing)

    def __contains__(self, book: bytes) -> bool:
        return book in self._owing

    def load(self, book: bytes) -> None:
        """A durable mark, found at start."""
        self._owing[book] = None

    def touch(self, book: bytes) -> None:
        if book not in self._owing:
            self._owing[book] = None
            self.changed.add(book)

    def clean(self, book: bytes) -> None:
        if book in self._owing:
            del self._owing[book]
            self.changed.add(book)

    def forget(self, book: bytes) -> None:
        """Its mark is gone already."""
        self._owing.pop(book, None)
        self.changed.discard(book)

    def take(self, limit: int) -> list[bytes]:
        """The next ones in turn: those given now are the last to be given again, so that one that cannot be paid stops nobody."""
        books = list(self._owing)[:limit]
        for book in books:
            self._owing[book] = self._owing.pop(book)
        return books

    def take_changed(self) -> list[tuple[bytes, bool]]:
        """What to write since the last call: (book, whether it owes)."""
        changes = [(book, book in self._owing) for book in sorted(self.changed)]
        self.changed.clear()
        return changes


def _content(row: Row) -> tuple[str, Timestamp, int, int, bool]:
    return row.name, row.timestamp, row.size, row.count, row.deleted

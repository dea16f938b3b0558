"""What is durable in the commit log and not yet in the tables: rows in RAM, in order.  Pure.

Books keeps two: the one that merges go to, and the one that is being committed to the tables meanwhile.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, field
from typing import Final

REMOVED: Final = b""  # in place of a packed row: it is to leave the tables


class OverlayRows:
    """Of one book: packed rows by name (UTF-8)."""

    __slots__ = ("names", "packed")

    def __init__(self) -> None:
        self.names: list[bytes] = []  # sorted
        self.packed: dict[bytes, bytes] = {}  # or REMOVED

    def put(self, name: bytes, packed: bytes) -> bool:
        """True when the name is new here."""
        new = name not in self.packed
        self.packed[name] = packed
        if new:
            if self.names and name < self.names[-1]:
                insort(self.names, name)
            else:
                self.names.append(name)
        return new

    def between(self, start: bytes, end: bytes | None, *, limit: int, reverse: bool) -> list[bytes]:
        """Names with start < name < end (b"" and None: no bound), in order from the end asked for."""
        low = bisect_right(self.names, start) if start else 0
        high = len(self.names) if end is None else bisect_left(self.names, end)
        if reverse:
            return self.names[max(low, high - limit) : high][::-1] if high > low else []
        return self.names[low : min(high, low + limit)]


@dataclass(slots=True)
class Overlay:
    books: dict[bytes, OverlayRows] = field(default_factory=dict)  # by hash
    touched: set[bytes] = field(default_factory=set)  # books whose sums changed, or whose marks did
    headers: set[bytes] = field(default_factory=set)  # books whose header changed
    row_count: int = 0

    def __bool__(self) -> bool:
        return bool(self.touched)

    def get(self, book: bytes, name: bytes) -> bytes | None:
        rows = self.books.get(book)
        return None if rows is None else rows.packed.get(name)

    def put(self, book: bytes, name: bytes, packed: bytes) -> None:
        rows = self.books.get(book)
        if rows is None:
            rows = self.books[book] = OverlayRows()
        if rows.put(name, packed):
            self.row_count += 1
        self.touched.add(book)

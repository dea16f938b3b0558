"""A book as one device sums it up: header, counts, and the digest that anti-entropy compares.  Pure.

The sums follow each row that replaces another, so they are exact after any order, any repetition and any replay of merges.
Neighbours: merge (which row holds), books (keeps entries), storage.sync.tree (digests).  Format: docs/formats/rows.md.
"""

from __future__ import annotations

import struct

from ring.errors import FormatError
from storage.client.interface import Row
from storage.client.node import BookHeader, BookState
from storage.container.shards import MAP, is_shard
from storage.rows.merge import merge_headers, normal_header, supersedes
from storage.rows.row import pack_header, unpack_header, unpack_row
from storage.sync.tree import DIGEST_BYTES, digest

_STATE = struct.Struct(">Q16sQ16s")  # count, bytes used, objects, digest of the rows


class Entry:
    """``header`` None: it is being made, and nobody may see it yet."""

    __slots__ = (
        "_state",
        "book",
        "bytes_used",
        "closed",
        "count",
        "draining",
        "header",
        "header_packed",
        "leaving",
        "objects",
        "pins",
        "rows_digest",
        "tree_digest",
    )

    def __init__(self, book: bytes) -> None:
        self.book = book  # hash
        self.header: BookHeader | None = None
        self.header_packed = b""
        self.count = 0
        self.bytes_used = 0
        self.objects = 0
        self.rows_digest = 0
        self.tree_digest: bytes | None = None  # as toggled into the tree; None: not in it
        self.pins = 0  # records under way
        self.leaving = False  # being dropped: takes no records
        self.closed = False  # a shard that was replaced: takes no rows (already when its deletion waits in the log's queue)
        self.draining = False  # its rows are in transit: each device forwards its own, and no two replicas compare them
        self._state: BookState | None = None

    @classmethod
    def load(cls, book: bytes, header_packed: bytes, state_packed: bytes) -> Entry:
        """From the tables.  FormatError."""
        entry = cls(book)
        entry.header = unpack_header(header_packed)
        entry.header_packed = header_packed
        if len(state_packed) != _STATE.size:
            raise FormatError("not the sums of a book")
        entry.count, bytes_used, entry.objects, rows_digest = _STATE.unpack(state_packed)
        entry.bytes_used = int.from_bytes(bytes_used, "big")
        entry.rows_digest = int.from_bytes(rows_digest, "big")
        entry._header_changed()
        entry.tree_digest = entry.digest()
        return entry

    def pack_state(self) -> bytes:
        return _STATE.pack(
            self.count, self.bytes_used.to_bytes(16, "big"), self.objects, self.rows_digest.to_bytes(DIGEST_BYTES, "big")
        )

    def unpin(self) -> None:
        self.pins -= 1

    @property
    def state(self) -> BookState:
        if self._state is None:
            assert self.header is not None
            self._state = BookState(self.header, self.count, self.bytes_used, self.objects)
        return self._state

    @property
    def kind(self) -> str:
        """Of its tree."""
        assert self.header is not None
        return "container" if self.header.path.container else "account"

    def digest(self) -> bytes:
        """Over everything that replicas of the book must agree on."""
        rows_digest = 0 if self.draining else self.rows_digest
        return digest(self.book, self.header_packed + rows_digest.to_bytes(DIGEST_BYTES, "big"))

    def merge_header(self, header_packed: bytes) -> bool:
        """True when it changed something."""
        header = unpack_header(header_packed)
        merged = normal_header(header) if self.header is None else merge_headers(self.header, header)
        packed = pack_header(merged)
        if packed == self.header_packed:
            return False
        self.header, self.header_packed, self._state = merged, packed, None
        self._header_changed()
        return True

    def _header_changed(self) -> None:
        assert self.header is not None
        gone = is_shard(self.header.path) and not self.header.exists
        self.closed = self.closed or gone
        self.draining = gone or MAP in self.header.metadata

    def merge_row(self, packed: bytes, old_packed: bytes | None) -> bool:
        """Take a row over what the book has under its name; True when it holds now."""
        if packed == old_packed:
            return False
        row = unpack_row(packed)
        if old_packed is not None:
            old = unpack_row(old_packed)
            if not supersedes(row, old):
                return False
            self._add(old, old_packed, -1)
        self._add(row, packed, 1)
        return True

    def forget_row(self, packed: bytes) -> None:
        """Of a book, or only a row, that this device lets go of."""
        self._add(unpack_row(packed), packed, -1)

    def _add(self, row: Row, packed: bytes, sign: int) -> None:
        self.rows_digest ^= int.from_bytes(digest(row.name.encode(), packed), "big")
        self._state = None
        if not row.deleted:
            self.count += sign
            self.bytes_used += sign * row.size
            self.objects += sign * row.count

"""PackedRows: a sequence of rows in their packed form, decoded when somebody looks at them.  Pure.

A page of a listing is read from several replicas that nearly always agree; then their bytes are compared and one of them is
decoded, once.  The bytes (a msgpack array of packed rows) are also the page's form between nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import msgspec

from ring.errors import FormatError
from storage.client.interface import Row
from storage.rows.row import pack_row

ROWS_MAX = 65_535
_decode_rows = msgspec.msgpack.Decoder(list[Row]).decode


class PackedRows(Sequence[Row]):
    """``packed``: a msgpack array of packed rows."""

    __slots__ = ("_length", "_rows", "packed")

    def __init__(self, packed: bytes) -> None:
        head = packed[:3]
        if head[:1] == b"\xdc" and len(head) == 3:
            self._length = int.from_bytes(head[1:], "big")
        else:
            raise FormatError("not packed rows")
        self.packed = packed
        self._rows: list[Row] | None = None

    @classmethod
    def join(cls, rows: Sequence[bytes]) -> PackedRows:
        """Of rows packed one by one, at most ROWS_MAX."""
        assert len(rows) <= ROWS_MAX
        return cls(b"\xdc" + len(rows).to_bytes(2, "big") + b"".join(rows))

    @classmethod
    def of(cls, rows: Iterable[Row]) -> PackedRows:
        return cls.join([pack_row(row) for row in rows])

    def decode(self) -> list[Row]:
        """All of them.  FormatError when the bytes are not what they should be (bytes from another node)."""
        if self._rows is None:
            try:
                self._rows = _decode_rows(self.packed)
            except msgspec.MsgspecError as error:
                raise FormatError(f"not packed rows: {error}") from error
        return self._rows

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        return self.decode()[index]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.decode())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PackedRows):
            return self.packed == other.packed
        if isinstance(other, Sequence):
            return self.decode() == list(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # a sequence compared by content, like list

    def __repr__(self) -> str:
        return f"PackedRows({self.decode()!r})"

"""Layout: which bytes of an object are which bytes of which fragment.  Pure arithmetic, all in closed form.

Stripe s is the object's bytes from s x segment_bytes up to the next stripe or the object's end, whichever is first: the last stripe
is shorter, not filled up.  Its pieces have ceil(n / k) bytes for its n bytes: data piece i is the stripe's bytes from i x that size
on, and zeros where the stripe has ended.  Fragment i is its pieces of all stripes, one after another, with nothing between: so all
fragments of an object have one length, and every piece begins where it can be computed.  An empty object has no stripes and empty
fragments.

Neighbours: interface.py (Coding), reader.py and fragment.py (which piece to ask for, and its checksum).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from storage.erasure.interface import Coding, piece_bytes


@dataclass(frozen=True, slots=True)
class PieceRange:
    """Bytes of a data piece, counted from its beginning."""

    index: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Span:
    """What a range of an object has of one stripe; ``pieces``, one after another, are its bytes.  Never empty."""

    stripe: int
    pieces: tuple[PieceRange, ...]

    @property
    def length(self) -> int:
        return sum(piece.end - piece.start for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Layout:
    """Of one object's fragments."""

    coding: Coding
    object_bytes: int

    @property
    def stripe_count(self) -> int:
        return -(-self.object_bytes // self.coding.segment_bytes)

    @property
    def fragment_bytes(self) -> int:
        """Length of every fragment."""
        whole, rest = divmod(self.object_bytes, self.coding.segment_bytes)
        return whole * self.full_piece_bytes + piece_bytes(rest, self.coding.k)

    @property
    def full_piece_bytes(self) -> int:
        """Of every stripe but the last."""
        return piece_bytes(self.coding.segment_bytes, self.coding.k)

    def stripe_bytes(self, stripe: int) -> int:
        """Of the object."""
        assert 0 <= stripe < self.stripe_count
        return min(self.coding.segment_bytes, self.object_bytes - stripe * self.coding.segment_bytes)

    def piece_bytes(self, stripe: int) -> int:
        return piece_bytes(self.stripe_bytes(stripe), self.coding.k)

    def piece_start(self, stripe: int) -> int:
        """Where a stripe's piece begins in a fragment."""
        return stripe * self.full_piece_bytes

    def stripes(self, start: int, end: int) -> range:
        """Those that hold the object's bytes [start, end)."""
        assert 0 <= start <= end <= self.object_bytes
        if start == end:
            return range(0)
        return range(start // self.coding.segment_bytes, (end - 1) // self.coding.segment_bytes + 1)

    def span(self, stripe: int, start: int, end: int) -> Span:
        """What the object's range [start, end) has of a stripe that it meets."""
        begin = stripe * self.coding.segment_bytes
        size = self.piece_bytes(stripe)
        low, high = max(start - begin, 0), min(end - begin, self.stripe_bytes(stripe))
        assert low < high, "the range does not meet the stripe"
        pieces = (
            PieceRange(index, max(low - index * size, 0), min(high - index * size, size))
            for index in range(low // size, (high - 1) // size + 1)
        )
        return Span(stripe, tuple(pieces))

    def spans(self, start: int, end: int) -> Iterator[Span]:
        """The object's range [start, end), stripe by stripe."""
        for stripe in self.stripes(start, end):
            yield self.span(stripe, start, end)

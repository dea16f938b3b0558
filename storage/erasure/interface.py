"""Codec: how a block becomes k + m pieces of one size, and comes back from any k of them.

Pure; a codec holds no state that a call changes, so it may be called from several threads.  Implementations: ``builtin`` and
``liberasurecode``; both pass tests/contract/test_codec.py and give the same bytes.  They trust what they are given: pieces are
verified before (fragment.py).

A block of n bytes has pieces of ceil(n / k) bytes: the data pieces 0 to k - 1 are the block itself, in order, filled up with zeros;
k to k + m - 1 are parity.  Nothing else is in a piece: no header, no length.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from ring.world.interface import Buffer
from storage.erasure.errors import BadCoding, BadPiece, TooFewFragments

RS_CAUCHY = "rs-cauchy"
FRAGMENTS_MAX = 32  # of a stripe; liberasurecode's limit
SEGMENT_BYTES = 1 << 20
SEGMENT_BYTES_MAX = 64 << 20


@dataclass(frozen=True, slots=True)
class Coding:
    """How the objects of a policy are coded.  BadCoding for numbers that cannot be."""

    k: int  # data fragments
    m: int  # parity fragments: so many may be lost
    segment_bytes: int = SEGMENT_BYTES  # of an object in one stripe
    code: str = RS_CAUCHY

    def __post_init__(self) -> None:
        if self.code != RS_CAUCHY:
            raise BadCoding(f"there is no code {self.code[:40]!r}", hint=f"use {RS_CAUCHY!r}; a newer version may know more")
        if self.k < 1 or self.m < 1 or self.k + self.m > FRAGMENTS_MAX:
            raise BadCoding(
                f"{self.k} data and {self.m} parity fragments cannot be",
                hint=f"at least one of each, at most {FRAGMENTS_MAX} together, such as 4+2 or 8+4",
            )
        if not self.k <= self.segment_bytes <= SEGMENT_BYTES_MAX:
            raise BadCoding(
                f"a segment cannot have {self.segment_bytes} bytes",
                hint=f"from one byte for each data fragment to {SEGMENT_BYTES_MAX}; {SEGMENT_BYTES} is usual",
            )

    @property
    def count(self) -> int:
        """Fragments of an object."""
        return self.k + self.m

    def __str__(self) -> str:
        return f"{self.k}+{self.m}"


def piece_bytes(block_bytes: int, k: int) -> int:
    """Size of each piece of a block."""
    return -(-block_bytes // k)


class Codec(Protocol):
    """Of one k and m."""

    @property
    def name(self) -> str: ...
    @property
    def k(self) -> int: ...
    @property
    def m(self) -> int: ...

    def encode(self, block: Buffer) -> list[Buffer]:
        """All k + m pieces.  Data pieces may be views of the block: it must stay as it is while they are used."""

    def decode(self, pieces: Mapping[int, Buffer], length: int) -> Buffer:
        """The block of that many bytes, from any k or more of its pieces by index.  TooFewFragments, BadPiece (sizes, indexes)."""

    def reconstruct(self, pieces: Mapping[int, Buffer], missing: Collection[int]) -> dict[int, Buffer]:
        """The missing pieces, data or parity, by index, from any k or more others.  TooFewFragments, BadPiece."""


# ---- what every implementation does alike


def cut(block: Buffer, k: int) -> list[Buffer]:
    """The data pieces: views of the block, but for those that zeros fill up."""
    view = memoryview(block).cast("B")
    size = piece_bytes(len(view), k)
    pieces: list[Buffer] = [view[at : at + size] for at in range(0, size * k, size)] if size else [b""] * k
    for index in range(len(view) // size if size else k, k):
        pieces[index] = bytes(pieces[index]).ljust(size, b"\0")
    return pieces


def join(pieces: Mapping[int, Buffer], k: int, length: int) -> bytes:
    """The block, from all its data pieces."""
    size = piece_bytes(length, k)
    whole, rest = divmod(length, size) if size else (0, 0)
    parts = [pieces[index] for index in range(whole)]
    if rest:
        parts.append(memoryview(pieces[whole])[:rest])
    return b"".join(parts)


def sources(pieces: Mapping[int, Buffer], k: int, m: int, size: int | None = None) -> tuple[int, ...]:
    """The k pieces to work from, data first, when all of them can be of one block (of pieces of that size).  TooFewFragments,
    BadPiece."""
    for index, piece in pieces.items():
        if not 0 <= index < k + m:
            raise BadPiece(f"{k}+{m} has no piece {index}")
        if size is None:
            size = len(piece)
        if len(piece) != size:
            raise BadPiece(f"piece {index} has {len(piece)} bytes, not {size}")
    if len(pieces) < k:
        raise TooFewFragments(k, set(range(k + m)) - pieces.keys())
    return tuple(sorted(pieces)[:k])


def wanted(missing: Collection[int], k: int, m: int) -> tuple[int, ...]:
    """BadPiece."""
    for index in missing:
        if not 0 <= index < k + m:
            raise BadPiece(f"{k}+{m} has no piece {index}")
    return tuple(sorted(set(missing)))


def restored(codec: Codec, pieces: Mapping[int, Buffer], length: int) -> bytes:
    """The block, from any k pieces: data pieces that are missing are rebuilt first.  TooFewFragments, BadPiece."""
    sources(pieces, codec.k, codec.m, piece_bytes(length, codec.k))
    missing = [index for index in range(codec.k) if index not in pieces]
    if missing:
        pieces = {**pieces, **codec.reconstruct(pieces, missing)}
    return join(pieces, codec.k, length)

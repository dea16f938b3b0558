"""Bodies on their way: small helpers over the two shapes a piece can have (bytes, or a slice of a file).

Neighbours: reading and repair (callers), ring.wire.message (Piece).
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio

from ring.errors import DiskFault
from ring.wire.message import Piece


class OnePiece:
    """A body that is in memory already: nothing about it can fail or must be closed."""

    __slots__ = ("_piece",)

    def __init__(self, piece: bytes) -> None:
        self._piece = piece

    def take(self) -> bytes:
        """All that was not iterated yet, without waiting."""
        piece, self._piece = self._piece, b""
        return piece

    def __len__(self) -> int:
        return len(self._piece)

    def __aiter__(self) -> OnePiece:
        return self

    async def __anext__(self) -> Piece:
        if not self._piece:
            raise StopAsyncIteration
        return self.take()

    async def aclose(self) -> None:
        """As of every body; not calling it does no harm."""
        self._piece = b""


async def drained(pieces: AsyncIterator[Piece]) -> bytes:
    """All the bytes of a small body; closes it."""
    if isinstance(pieces, OnePiece):
        return pieces.take()
    parts: list[bytes] = []
    try:
        async for piece in pieces:
            parts.append(await loaded(piece))
    finally:
        await aclose(pieces)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def aclose(pieces: AsyncIterator[Piece]) -> None:
    """Close a body, if it is of a kind that can be closed (generators are)."""
    close = getattr(pieces, "aclose", None)
    if close is not None and not isinstance(pieces, OnePiece):
        with trio.CancelScope(shield=True):
            await close()


async def loaded(piece: Piece) -> bytes:
    """The bytes of a piece.  DiskFault when the device fails between the check of a block and its reading."""
    if isinstance(piece, bytes):
        return piece
    try:
        return await piece.file.pread(piece.offset, piece.length)
    except OSError as error:
        raise DiskFault(f"a file that was being sent cannot be read: {error.strerror or error}") from error

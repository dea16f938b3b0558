"""Bodies on their way: small helpers over the two shapes a piece can have (bytes, or a slice of a file).

Neighbours: reading and repair (callers), ring.wire.message (Piece).
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio

from ring.wire.message import Piece


async def drained(pieces: AsyncIterator[Piece]) -> bytes:
    """All the bytes of a small body; closes it."""
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
    if close is not None:
        with trio.CancelScope(shield=True):
            await close()


async def loaded(piece: Piece) -> bytes:
    return piece if isinstance(piece, bytes) else await piece.file.pread(piece.offset, piece.length)

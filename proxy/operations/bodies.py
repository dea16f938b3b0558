"""Bodies on their way through the front door: a reading as one bytes object when it is small, and as the source of a write.

Neighbours: objects, large.uploads (copies), storage.client.bodies.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from ring.errors import Unavailable
from ring.wire.message import Piece
from storage.client.bodies import aclose, drained, loaded

SMALL_BYTES = 64 << 10  # up to here a body is collected and sent with its head


async def settled(pieces: AsyncIterator[Piece], length: int) -> bytes | AsyncIterator[Piece]:
    """A small body as bytes (and its reading closed), a large one as it came."""
    if length > SMALL_BYTES:
        return pieces
    data = await drained(pieces)
    if len(data) != length:
        raise Unavailable(f"storage gave {len(data)} of {length} bytes")
    return data


class PiecesBody:
    """A reading as a BodySource; it must be closed."""

    def __init__(self, pieces: AsyncIterator[Piece] | bytes, length: int) -> None:
        self.length: int | None = length
        self._pieces = pieces
        self._rest = pieces if isinstance(pieces, bytes) else b""
        self._left = length

    async def read(self, max_bytes: int = 1 << 20) -> bytes:
        while not self._rest and not isinstance(self._pieces, bytes):
            piece = await anext(self._pieces, None)
            if piece is None:
                break
            self._rest = await loaded(piece)
        data = self._rest[:max_bytes]
        self._rest = self._rest[len(data) :]
        self._left -= len(data)
        if not data and self._left:
            raise Unavailable(f"the source of the copy ended {self._left} bytes early")
        return data

    async def close(self) -> None:
        if not isinstance(self._pieces, bytes):
            await aclose(self._pieces)

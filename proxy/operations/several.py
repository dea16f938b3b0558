"""Several ranges of one object as a multipart/byteranges body: frames, and between them the ranges, opened one after another.

Neighbours: objects (opens the ranges), ring.wire.ranges (the frame).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from ring.wire.message import Piece
from ring.wire.ranges import ByteRange, Multipart
from storage.client.bodies import aclose

Opening = Callable[[ByteRange], Awaitable[AsyncIterator[Piece]]]


class SeveralRanges:
    """The body; it must be closed."""

    def __init__(self, frame: Multipart, ranges: Sequence[ByteRange], opening: Opening) -> None:
        self.length = frame.length(ranges)
        self._frame = frame
        self._todo = list(reversed(ranges))
        self._opening = opening
        self._open: AsyncIterator[Piece] | None = None
        self._next: list[bytes] = []  # a part's head, or the end
        self._first = True

    async def start(self) -> None:
        """Open the first range, so that a failure can still be answered."""
        await self._advance()

    def __aiter__(self) -> SeveralRanges:
        return self

    async def __anext__(self) -> Piece:
        if self._next:
            return self._next.pop()
        if self._open is None:
            raise StopAsyncIteration
        piece = await anext(self._open, None)
        if piece is not None:
            return piece
        await self.aclose()
        await self._advance()
        return self._next.pop()

    async def aclose(self) -> None:
        reading, self._open = self._open, None
        if reading is not None:
            await aclose(reading)

    async def _advance(self) -> None:
        if not self._todo:
            self._next = [self._frame.tail]
            return
        part = self._todo.pop()
        self._open = await self._opening(part)
        self._next = [self._frame.part_head(part, first=self._first)]
        self._first = False

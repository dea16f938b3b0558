"""A budget of body buffers for the whole process: beyond it requests are refused (503, SlowDown) instead of swapped.

A request with a body pays for the buffer that its body needs, an answer that streams pays for a piece.  Pure bookkeeping.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from proxy.errors import Busy
from ring.wire.message import Piece
from storage.client.bodies import aclose

BUFFER_BYTES = 1 << 20


class MemoryBudget:
    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.used_bytes = 0

    def take(self, length: int | None) -> int:
        """Pay for a body of ``length`` bytes (None: unknown); what was paid is to be given back.  Raises Busy."""
        cost = BUFFER_BYTES if length is None or length > BUFFER_BYTES else length
        if self.used_bytes + cost > self.total_bytes:
            raise Busy("Please reduce your request rate.")
        self.used_bytes += cost
        return cost

    def give(self, cost: int) -> None:
        self.used_bytes -= cost
        assert self.used_bytes >= 0

    def lend(self, pieces: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
        """An answer's body that pays until it is closed.  Raises Busy."""
        return _Lent(self, pieces, self.take(None))


class _Lent:
    def __init__(self, budget: MemoryBudget, pieces: AsyncIterator[Piece], cost: int) -> None:
        self._budget = budget
        self._pieces = pieces
        self._cost = cost

    def __aiter__(self) -> _Lent:
        return self

    async def __anext__(self) -> Piece:
        return await anext(self._pieces)

    async def aclose(self) -> None:
        cost, self._cost = self._cost, 0
        self._budget.give(cost)
        await aclose(self._pieces)

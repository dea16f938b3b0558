"""Filling: what a device does when another one asks to be refilled: it compares with it, and brings what is lacking there.

Uses the replicators of the device, which know how to compare and to send; decides only whether it may vouch.  Neighbours: refill
(asks), storage.client.server (brings the question), replicator and storage.container.replicator (send).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ring.device import Device
from ring.errors import Unavailable
from ring.names import Span
from storage.client.filling import Filled
from storage.client.trust import Trust
from storage.container.replicator import BookReplicator
from storage.object.replicator import ObjectReplicator
from storage.rows.books import Books


class DeviceFiller:
    """``movers``: of objects, by ring; ``device``: by id."""

    def __init__(
        self,
        trust: Trust,
        movers: Mapping[str, ObjectReplicator],
        books: Books,
        book_mover: BookReplicator,
        device: Callable[[int], Device | None],
    ) -> None:
        self._trust = trust
        self._movers = movers
        self._books = books
        self._book_mover = book_mover
        self._device = device

    async def fill(self, ring: str, span: Span, target: int) -> Filled:
        device = self._device(target)
        if device is None:
            raise Unavailable(f"device {target} is in no ring here")
        if ring in ("account", "container"):
            await self._books.flush()  # what is compared is what is in the tables
            merged, whole = await self._book_mover.fill(ring, device, span)
            return Filled(merged, 0, whole and self._trust.vouches(ring, span))
        mover = self._movers.get(ring)
        if mover is None:
            raise Unavailable(f"there is no ring {ring} here")
        pushed, pushed_bytes, whole = await mover.fill(device, span)
        return Filled(pushed, pushed_bytes, whole and self._trust.vouches(ring, span))

"""Filling: what a device does when another one asks to be refilled: it compares with it, and brings what is lacking there.

Uses the movers of the device, which know how to compare and to send; decides only whether it may vouch.  Neighbours: refill
(asks), storage.client.server (brings the question), replicator, noting and storage.container.replicator (send).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import trio

from ring.device import Device
from ring.errors import RingfortError, Unavailable
from ring.names import Span
from storage.client.filling import Filled
from storage.client.trust import Trust
from storage.container.replicator import BookReplicator
from storage.rows.books import Books

FILL_S = 1.0
AT_ONCE = 8  # partitions
BOOKS = ("account", "container")


class Mover(Protocol):
    """Of the objects of one policy: storage.object.replicator, or storage.object.noting for an erasure-coded one."""

    async def fill(self, device: Device, span: Span, until: float) -> tuple[int, int, bool | None]: ...


class DeviceFiller:
    """``movers``: of objects, by ring; ``device``: by id; ``known``: refuses
    any edition but the one in force here (ring.service.gate)."""

    def __init__(
        self,
        trust: Trust,
        movers: Mapping[str, Mover],
        books: Books,
        book_mover: BookReplicator,
        device: Callable[[int], Device | None],
        *,
        known: Callable[[int], None] = lambda edition: None,
    ) -> None:
        self._trust = trust
        self._movers = movers
        self._books = books
        self._book_mover = book_mover
        self._device = device
        self._known = known

    async def fill(self, ring: str, part_power: int, partitions: Sequence[int], target: int, edition: int = 0) -> Filled:
        self._known(edition)
        device = self._device(target)
        if device is None:
            raise Unavailable(f"device {target} is in no ring here")
        call = Call(self, ring, part_power, partitions, device)
        if ring in BOOKS:
            await self._books.flush()  # what is compared is what is in the tables
        elif ring not in self._movers:
            raise Unavailable(f"there is no ring {ring} here")
        async with trio.open_nursery() as nursery:
            for _ in range(min(AT_ONCE, len(partitions))):
                nursery.start_soon(call.some)
        if call.failure is not None:
            raise call.failure
        return call.result()

    async def one(self, ring: str, device: Device, span: Span, until: float) -> tuple[int, int, bool | None]:
        """Versions (or books), bytes, whether all is there; None: there is more."""
        if ring in BOOKS:
            merged, whole = await self._book_mover.fill(ring, device, span)
            return merged, 0, whole and self._trust.vouches(ring, span)
        pushed, pushed_bytes, all_there = await self._movers[ring].fill(device, span, until)
        return pushed, pushed_bytes, all_there and self._trust.vouches(ring, span)


class Call:
    """One question, some of its partitions at once."""

    def __init__(self, filler: DeviceFiller, ring: str, part_power: int, partitions: Sequence[int], device: Device) -> None:
        self.failure: RingfortError | None = None
        self._filler = filler
        self._ring = ring
        self._part_power = part_power
        self._device = device
        self._todo = deque(partitions)
        self._until = trio.current_time() + FILL_S
        self._pushed = self._pushed_bytes = 0
        self._whole: list[int] = []
        self._left: list[int] = []

    async def some(self) -> None:
        while self._todo and self.failure is None and trio.current_time() < self._until:
            number = self._todo.popleft()
            try:
                pushed, pushed_bytes, whole = await self._filler.one(
                    self._ring, self._device, Span(self._part_power, number), self._until
                )
            except RingfortError as error:
                self.failure = error
                return
            self._pushed += pushed
            self._pushed_bytes += pushed_bytes
            if whole is None:
                self._left.append(number)
            elif whole:
                self._whole.append(number)

    def result(self) -> Filled:
        return Filled(self._pushed, self._pushed_bytes, self._whole, [*self._left, *self._todo])

"""Watch: one timer for many waits of the same length, so that a small request needs no cancel scope of its own.

Their times come in the order in which they were added, so a queue and one task are enough; the task lives while anything is
watched.  It sleeps until the time of the first one that is not over when it looks: nearly all are over long before their time, and
to wake for each of them would cost more than the requests that they belong to wait for.
Neighbours: payer and fanout.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import trio


class Wait(Protocol):
    @property
    def over(self) -> bool:
        """It ended by itself."""

    def expire(self) -> None:
        """Its time is over; nothing happens when it ended before."""


class Watch:
    def __init__(self, nursery: trio.Nursery, timeout_s: float) -> None:
        self._nursery = nursery
        self._timeout_s = timeout_s
        self._waits: deque[tuple[float, Wait]] = deque()

    def add(self, wait: Wait) -> None:
        if not self._waits:
            self._nursery.start_soon(self._run)
        self._waits.append((trio.current_time() + self._timeout_s, wait))

    async def _run(self) -> None:
        while self._waits:
            await trio.sleep_until(self._waits[0][0])
            now = trio.current_time()
            while self._waits and (self._waits[0][1].over or self._waits[0][0] <= now):
                self._waits.popleft()[1].expire()

"""Patience: a read or a POST that meets the promise of a conditional write waits for it to end, and settles what was left by one
that was cut off.

Neighbours: objects (the caller), register (settles).
"""

from __future__ import annotations

import trio

from ring.names import Path
from storage.client.errors import NoQuorum
from storage.client.reach import Reach
from storage.client.register import Register

SETTLE_MAX = 3  # times that one read or POST settles a key


class Patience:
    """Most are over in a moment.  Where handoffs acknowledge too (storage.client.available) nothing is settled: that could bury
    what they hold.  The devices forget their promises there after a minute."""

    def __init__(self, reach: Reach, register: Register) -> None:
        self._reach = reach
        self._register = register
        self._until = trio.current_time() + reach.settings.promise_wait_s
        self._waits = 0
        self._settled = 0

    async def wait(self, policy: int, path: Path) -> None:
        """A little; or until the key is settled.  NoQuorum."""
        if trio.current_time() < self._until:
            self._waits += 1
            await self._reach.step_aside(min(self._waits, 7))
        elif self._settled < SETTLE_MAX and not self._reach.available(policy):
            self._settled += 1
            await self._register.settle(policy, path)
        else:
            raise NoQuorum(f"{path}: conditional writes of it are in the way")

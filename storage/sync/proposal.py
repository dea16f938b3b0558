"""Proposal: what a device reports of a ring for its horizon: up to where it is clean, and where it would close next.

It would close what is older than ``age_s`` by its own wall clock; the least proposal of all devices is taken
(ring.service.horizon).  Reports go to control state, so one is made when there is something new to say, and else once in a while.

Neighbours: the reclaimers of storage.object and storage.rows; ring.service.agent (Confirmations) carries it.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from ring.placement import Ring
from ring.service.overlap import Overlap
from ring.timestamp import TICKS_PER_SECOND
from ring.world.interface import Clock

RECLAIM_AGE_S = 7 * 86400.0  # Swift's default
EVERY_S = 900.0

Tell = Callable[[Overlap, int, int], None]  # by which rings, clean up to (ticks), would close at (ticks)


class Proposal:
    def __init__(self, clock: Clock, tell: Tell, *, age_s: float = RECLAIM_AGE_S, every_s: float = EVERY_S) -> None:
        self._clock = clock
        self._tell = tell
        self._age_s = age_s
        self._every_s = every_s
        self._said: tuple[int, Ring, Ring] | None = None
        self._again_at = 0.0

    def say(self, overlap: Overlap, clean: int) -> None:
        """Report it, unless just this was reported a little while ago."""
        now, what = trio.current_time(), (clean, overlap.ring, overlap.settled)
        said = self._said
        if said is not None and said[0] == clean and said[1] is what[1] and said[2] is what[2] and now < self._again_at:
            return
        self._said, self._again_at = what, now + self._every_s
        proposal = int((self._clock.now() - self._age_s) * TICKS_PER_SECOND)
        self._tell(overlap, clean, max(0, proposal))

"""Moving: whether a replicator has brought everything that its device holds to where a new ring wants it.

Pure: the caller brings the time.  One *pass* is one walk over all that is held, begun when no write that went by an older edition
is under way any more, in which every partition was found equal with, or was pushed to, all of the new ring's primaries.
Partitions of which that could not be said are looked at again until it can be.  Then the device confirms the ring
(ring.service.settling).

Neighbours: the replicators of storage.object and storage.container; ring.service (gate, overlap, agent).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ring.names import Span
from ring.placement import Ring
from ring.service.overlap import Overlap

AGAIN_S = 2.0  # between two looks at what was not reached
CLEAR_S = 0.2  # ... at whether older writes have ended
FAILED_MAX = 10_000  # beyond it the whole walk is made again


@dataclass(frozen=True, slots=True)
class Watcher:
    """What a replicator is told and tells of rings in service.  ``clear``: whether no write by an edition older than this is under
    way; ``confirm``: a pass by this overlap is complete."""

    clear: Callable[[int], bool] = lambda edition: True
    confirm: Callable[[Overlap], None] = lambda overlap: None


class Moving:
    def __init__(self, watcher: Watcher) -> None:
        self.confirmed = True  # or there is nothing to confirm
        self.walking = False
        self._watcher = watcher
        self._known: tuple[Ring, Ring] | None = None
        self._overlap: Overlap | None = None
        self._open: dict[Span, None] = {}  # not known to be where they should be
        self._round: list[Span] = []
        self._again_at = 0.0

    def wait_s(self, overlap: Overlap) -> float:
        """How long to wait before the pass by a new ring can begin; 0: no longer, or there is none to begin."""
        return CLEAR_S if self._is_new(overlap) and not self._watcher.clear(overlap.claim.edition) else 0.0

    def begins(self, overlap: Overlap) -> bool:
        """True once for each ring that is to be settled: the walk begins now."""
        if not self._is_new(overlap):
            self._overlap = overlap
            return False
        self._overlap, self._known = overlap, (overlap.ring, overlap.settled)
        self._open.clear()
        self._round.clear()
        self.walking, self.confirmed = overlap.moving, not overlap.moving
        return self.walking

    def _is_new(self, overlap: Overlap) -> bool:
        known = self._known
        return known is None or known[0] is not overlap.ring or known[1] is not overlap.settled

    def look(self, span: Span) -> None:
        """It is being looked at: what comes of it is not known until ``found``."""
        if not self.confirmed:
            self._open[span] = None

    def found(self, span: Span) -> None:
        """All that is held of it is at all of the new ring's primaries."""
        self._open.pop(span, None)
        self._end()

    def walked(self, now: float) -> None:
        """The walk is over."""
        if self.walking:
            self.walking = False
            self._again_at = now + AGAIN_S
            self._end()

    @property
    def too_many(self) -> bool:
        """The walk had better be made again from its beginning."""
        return not self.walking and len(self._open) > FAILED_MAX

    def again(self, now: float) -> Span | None:
        """One to look at again now."""
        if self.walking or self.confirmed:
            return None
        if not self._round and now >= self._again_at:
            self._round = list(self._open)
            self._again_at = now + AGAIN_S
        return self._round.pop() if self._round else None

    def progress(self, fraction: float, overlap: Overlap | None = None) -> float:
        """0 to 1, with a walk that has come so far; 1 when the ring (``overlap``: the one in force) is confirmed."""
        if overlap is not None and overlap.moving and self._is_new(overlap):
            return 0.0  # nobody has come to it yet
        if self.confirmed:
            return 1.0
        return 0.99 * fraction if self.walking else 0.99

    def restart(self) -> None:
        self._open.clear()
        self._round.clear()
        self.walking = True

    def _end(self) -> None:
        if not (self.walking or self.confirmed or self._open):
            self.confirmed = True
            assert self._overlap is not None
            self._watcher.confirm(self._overlap)

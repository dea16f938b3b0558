"""Gate: what the devices of this process still take from those who know an older edition.  Nothing: but what was let in before
an edition came into force may end after it, and is counted, so that a replicator knows when its look at a device shows all of it.

Pure.  Neighbours: keeper (moves ``edition`` on), storage.client.local (asks at every call), storage's replicators (wait for
``clear``).
"""

from __future__ import annotations

from collections.abc import Callable

from ring.errors import Unavailable
from ring.service.errors import StaleRing


class Gate:
    """``heard``: told when somebody knows a newer edition than this process."""

    __slots__ = ("_inside", "edition", "heard")

    def __init__(self, heard: Callable[[int], None] = lambda edition: None) -> None:
        self.edition = 0
        self.heard = heard
        self._inside: dict[int, int] = {}  # edition -> writes under way

    def check(self, edition: int) -> None:
        """StaleRing when ``edition`` is no longer in force; 0 claims none and is always taken."""
        if edition == self.edition or not edition:
            return
        if edition > self.edition:
            self.heard(edition)
        else:
            raise StaleRing(f"edition {edition} of the rings was followed by {self.edition}", edition=self.edition)

    def check_known(self, edition: int) -> None:
        """As ``check``; Unavailable when this process does not know ``edition`` yet: what it does meanwhile follows another one."""
        self.check(edition)
        if edition > self.edition:
            raise Unavailable(f"edition {edition} of the rings is not known here yet")

    def enter(self, edition: int) -> int:
        """Let a write in; hand what this returns to ``leave`` when it is durable, or failed.  StaleRing."""
        self.check(edition)
        at = self.edition
        self._inside[at] = self._inside.get(at, 0) + 1
        return at

    def leave(self, at: int) -> None:
        left = self._inside[at] - 1
        if left:
            self._inside[at] = left
        else:
            del self._inside[at]

    def clear(self, edition: int) -> bool:
        """No write that was let in before ``edition`` came into force is under way any more."""
        return self.edition >= edition and all(at >= edition for at in self._inside)

"""Which idle connection to use again, and which to close.

Pure: no I/O, no clock.  ``client`` asks it and does what it says.  Connections are used newest first, so that the surplus grows old
and goes; one that was idle longer than ``idle_s`` is not trusted (the peer may be about to close it).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

C = TypeVar("C")


@dataclass(slots=True)
class Pool(Generic[C]):
    idle_s: float = 30.0
    idle_max: int = 32  # per peer
    _idle: dict[Hashable, list[tuple[float, C]]] = field(default_factory=dict)  # oldest first, with when it became idle

    def take(self, peer: Hashable, now: float) -> C | None:
        """The connection to use, which is then the caller's; None: open one."""
        idle = self._idle.get(peer)
        if not idle or idle[-1][0] + self.idle_s <= now:
            return None
        return idle.pop()[1]

    def give(self, peer: Hashable, connection: C, now: float) -> list[C]:
        """Take back a connection that can serve again; returns those to close now."""
        idle = self._idle.setdefault(peer, [])
        idle.append((now, connection))
        if len(idle) <= self.idle_max and idle[0][0] + self.idle_s > now:
            return []
        surplus = max(len(idle) - self.idle_max, 0)
        closing = [item for at, item in enumerate(idle) if at < surplus or item[0] + self.idle_s <= now]
        self._idle[peer] = idle[len(closing) :]
        return [item[1] for item in closing]

    def forget(self, peer: Hashable) -> list[C]:
        """The peer is not what it was: give up its idle connections; returns them, to be closed."""
        return [item[1] for item in self._idle.pop(peer, [])]

    def expire(self, now: float) -> list[C]:
        """Give up what has been idle too long, of all peers; returns them, to be closed."""
        closing: list[C] = []
        for peer, idle in list(self._idle.items()):
            keep = [item for item in idle if item[0] + self.idle_s > now]
            closing += [item[1] for item in idle[: len(idle) - len(keep)]]
            if keep:
                self._idle[peer] = keep
            else:
                del self._idle[peer]
        return closing

    def clear(self) -> list[C]:
        return [connection for peer in list(self._idle) for connection in self.forget(peer)]

    def count(self, peer: Hashable) -> int:
        return len(self._idle.get(peer, ()))

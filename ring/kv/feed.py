"""The watch feed of one process: events in, to everyone who watches their keys.

Moves events from the one task that commits to the tasks that watch; holds at most EVENTS_MAX for a watcher that does not take them,
then breaks its feed (it watches again and gets a fresh start).  Neighbours: memory.py, local.py, remote.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import trio

from ring.errors import Unavailable
from ring.kv.interface import Entry, Event

EVENTS_MAX = 10_000


class FeedWatch:
    """One watcher; ``next`` is for one task at a time."""

    def __init__(self, prefix: str, entries: list[Entry], revision: int) -> None:
        self.prefix = prefix
        self.entries = entries
        self.revision = revision
        self._waiting: list[Event] = []
        self._broken = ""
        self._wake = trio.Event()

    def push(self, events: Iterable[Event]) -> None:
        """Events of this prefix."""
        self._waiting += events
        if len(self._waiting) > EVENTS_MAX:
            self._waiting.clear()
            self.break_off("the watcher was too slow")
        elif self._waiting:
            self._wake.set()

    def break_off(self, reason: str) -> None:
        """What is waiting is still delivered."""
        self._broken = self._broken or reason
        self._wake.set()

    async def next(self) -> list[Event]:
        await self._wake.wait()
        if not self._waiting:
            raise Unavailable(f"the watch of {self.prefix!r} broke: {self._broken}")
        events, self._waiting = self._waiting, []
        if not self._broken:
            self._wake = trio.Event()
        return events


class Feed:
    def __init__(self) -> None:
        self._watches: dict[int, FeedWatch] = {}

    def add(self, watch: FeedWatch) -> None:
        self._watches[id(watch)] = watch

    def discard(self, watch: FeedWatch) -> None:
        self._watches.pop(id(watch), None)
        watch.break_off("it was closed")

    def publish(self, events: Sequence[Event]) -> None:
        if events:
            for watch in list(self._watches.values()):
                watch.push([event for event in events if event.key.startswith(watch.prefix)])

    def break_all(self, reason: str) -> None:
        for watch in list(self._watches.values()):
            watch.break_off(reason)

"""The object expirer of a device: deletes the objects whose X-Delete-At has come.

A Worker: a few objects at a time, in the order of their due times, out of a table that the index keeps (due.py).  No device
deletes on its own: each deletion is asked of a majority of the object's primaries, which hold the tombstone or keep what is newer
(storage.client.expiring).

Who acts: every primary finds the object due.  The first of them by the ring's order acts at once, the next one ``turn_s`` later,
and so on; a device that is no primary comes last.  Whoever finds a tombstone there has nothing to do, and two who act at once write
the same tombstone.  So a device that is down costs a delay, and no agreement is needed.

When: ``delay_s`` after X-Delete-At, by which time every write that could still have changed it is known to a majority or refused.
A wall clock that jumps ahead is not believed for ``trust_s`` (SteadyClock): a step that is mended in that time deletes nothing
early.  A clock that was wrong from the start cannot be told from a right one.

Neighbours: store (this device), due (what is due), storage.client.expiring (deletes), ring.service.overlap (the order).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from ring.daemon.worker import Busy, Idle, Progress
from ring.errors import DiskFault, Unavailable
from ring.names import Path, partition_of
from ring.service.overlap import Overlap
from ring.timestamp import AHEAD_MAX_S
from ring.world.interface import Clock, World
from storage.object.due import row_key
from storage.object.store import ObjectStore

INTERVAL_S = 30.0
DELAY_S = AHEAD_MAX_S + 30.0  # how far clocks may differ, and longer than a write may take to be acknowledged
TURN_S = 60.0
TRUST_S = 3600.0
PAGE_ROWS = 1000
AT_ONCE = 16
HASH_BYTES = 16


@dataclass(slots=True)
class Pass:
    """What one walk over all that is due has come to."""

    found: int = 0  # objects that are due
    deleted: int = 0
    kept: int = 0  # gone already, or to go at another time: this device had not heard
    failed: int = 0  # too few primaries: another pass
    waiting: int = 0  # another primary's turn
    oldest_due: int = 0  # seconds since 1970; 0: nothing was due
    over: bool = False

    @property
    def left(self) -> int:
        """Of those found, not counting what is due behind the place that the pass has come to."""
        return self.found - self.deleted - self.kept


class SteadyClock:
    """The wall clock, unless it runs ahead of the time that has passed by more than clocks may differ: then what it should say,
    until the lead has stood for ``trust_s``.  A step back is believed at once: it makes everything later."""

    def __init__(self, clock: Clock, *, ahead_max_s: float = AHEAD_MAX_S, trust_s: float = TRUST_S) -> None:
        self._clock = clock
        self._ahead_max_s = ahead_max_s
        self._trust_s = trust_s
        self._anchor: tuple[float, float] | None = None  # trio's time, and wall time then
        self._led_since: float | None = None

    def now(self) -> float:
        """Seconds since 1970."""
        passed, wall = trio.current_time(), self._clock.now()
        if self._anchor is None:
            self._anchor = passed, wall
        expected = self._anchor[1] + passed - self._anchor[0]
        if wall <= expected + self._ahead_max_s:
            self._led_since = None
            if wall < expected:
                self._anchor = passed, wall
            return wall
        if self._led_since is None:
            self._led_since = passed
        if passed - self._led_since < self._trust_s:
            return expected
        self._anchor, self._led_since = (passed, wall), None
        return wall


class Expirer:
    """``overlap`` gives the object ring in force; ``expire`` deletes the object at a path if it still is to go at that time, and
    says whether it did (Unavailable: not now)."""

    def __init__(
        self,
        world: World,
        store: ObjectStore,
        overlap: Callable[[], Overlap],
        expire: Callable[[Path, int], Awaitable[bool]],
        *,
        interval_s: float = INTERVAL_S,
        delay_s: float = DELAY_S,
        turn_s: float = TURN_S,
        trust_s: float = TRUST_S,
        page_rows: int = PAGE_ROWS,
    ) -> None:
        self.name = f"object-expirer d{store.device.device_id}"
        self.deleted = 0  # since the start
        self.unanswered = 0
        self.walk = Pass()
        self._clock = SteadyClock(world.clock, trust_s=trust_s)
        self._store = store
        self._overlap = overlap
        self._expire = expire
        self._interval_s = interval_s
        self._delay_s = delay_s
        self._turn_s = turn_s
        self._page_rows = page_rows
        self._after: bytes | None = None  # rows behind this are the pass's still; None: between passes
        self._todo: deque[tuple[int, bytes]] = deque()

    def progress(self) -> Progress:
        """``left`` does not count what is due behind the place that the pass has come to."""
        now = self.walk
        behind_s = max(self._clock.now() - self._delay_s - now.oldest_due, 0.0) if now.left else 0.0
        facts = {
            "found": now.found,
            "deleted": now.deleted,
            "kept": now.kept,
            "failed": now.failed,
            "left": now.left,
            "behind_s": behind_s,
        }
        return Progress(left=now.left, facts=facts)

    def begin(self) -> None:
        """Called again, it looks at all that is due."""

    async def work(self) -> Busy | Idle:
        """A few objects, or a page of the table.  Unavailable when none of these few could be deleted: the next ones are others."""
        if self._todo:
            return await self._delete([self._todo.popleft() for _ in range(min(AT_ONCE, len(self._todo)))])
        if self._after is None:
            self._after, self.walk = b"", Pass()
        now = self._clock.now()
        page = await self._store.due(self._after, int(now - self._delay_s), limit=self._page_rows)
        if not page:
            self._after, self.walk.over = None, True
            return Idle.after(self._interval_s)
        self._after = row_key(*page[-1])
        progress = self.walk
        progress.found += len(page)
        progress.oldest_due = progress.oldest_due or page[0][0]
        overlap = self._overlap()
        mine = [(due, key) for due, key in page if now >= due + self._delay_s + self._turn(overlap, key) * self._turn_s]
        progress.waiting += len(page) - len(mine)
        self._todo.extend(mine)
        return Busy()

    def _turn(self, overlap: Overlap, key: bytes) -> int:
        """How many devices act before this one."""
        places = overlap.places_at(partition_of(key[:HASH_BYTES], overlap.finest))
        ids = [device.id for device in places.devices]
        own = self._store.device.device_id
        return ids.index(own) if own in ids else len(ids)

    async def _delete(self, some: list[tuple[int, bytes]]) -> Busy:
        failures: list[Unavailable | DiskFault] = []

        async def one(due: int, key: bytes) -> None:
            try:
                path = await self._store.path_of(key)
                gone = path is not None and await self._expire(path, due)
            except (Unavailable, DiskFault) as error:
                failures.append(error)
                return
            self.deleted += gone
            self.walk.deleted += gone
            self.walk.kept += not gone

        async with trio.open_nursery() as nursery:
            for due, key in some:
                nursery.start_soon(one, due, key)
        self.unanswered += len(failures)
        self.walk.failed += len(failures)
        if len(failures) == len(some):
            raise failures[0]
        return Busy(len(some))

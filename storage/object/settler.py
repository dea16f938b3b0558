"""The settler of a device: sees to promises that nobody comes back for.

A conditional write that was cut off (its front door died, or could not say that the condition failed) leaves promises: they keep
older copies of the name from being brought here, and they keep nobody else from writing.  When one has stood for a minute, the key
is settled: its newest version is written again at a majority, above all ballots, which ends them (storage.client.register).  A
device that is no primary of the name any more is not reached by that; it just forgets its promises, which nobody goes by: who knew
it as a primary is refused by its edition.

A device that cannot take what was written above its promise (it is full, can only be read, or its clock is behind) keeps the
promise until it can.  For such a promise the key is settled once, or it would be written again for as long as that lasts.

A Worker: one name at a time, the oldest promise first.  The primaries of a name wait one behind the other, so that mostly one of
them does it.  Neighbours: store.py (its device), promises.py, storage.client.cluster (settles).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ring.daemon.worker import Busy, Idle, Progress
from ring.errors import Unavailable
from ring.names import Path
from ring.service.overlap import Overlap
from ring.timestamp import TICKS_PER_SECOND, Timestamp
from ring.world.interface import Clock, World
from storage.object.store import ObjectStore

INTERVAL_S = 10.0
AGE_S = 60.0  # no conditional write takes that long
TURN_S = 10.0  # later for each primary before this one
LOOK_AT = 1000  # promises in one pass


async def release_old(clock: Clock, store: ObjectStore, path: Path) -> None:
    """Instead of settling a key: this device forgets promises of it that nobody comes back for.  Where a copy of what the primaries
    hold is not to be written above everything else: with the consistency ``available`` what was acknowledged may be on handoffs.
    """
    before = Timestamp(int((clock.now() - AGE_S) * TICKS_PER_SECOND))
    await store.staging.release_old(path, before)


class Settler:
    """``overlap`` gives the object ring in force; ``settle`` settles the key at a path (Unavailable: not now)."""

    def __init__(
        self,
        world: World,
        store: ObjectStore,
        overlap: Callable[[], Overlap],
        settle: Callable[[Path], Awaitable[None]],
        *,
        interval_s: float = INTERVAL_S,
        age_s: float = AGE_S,
        turn_s: float = TURN_S,
    ) -> None:
        self.name = f"object-settler d{store.device.device_id}"
        self.settled = 0  # facts since the start
        self.forgotten = 0  # promises of names that are others' by now
        self.failed = 0
        self._clock = world.clock
        self._store = store
        self._overlap = overlap
        self._settle = settle
        self._interval_s = interval_s
        self._age_s = age_s
        self._turn_s = turn_s
        self._todo: list[tuple[Path, Timestamp]] = []  # the oldest last
        self._over: set[tuple[Path, Timestamp]] = set()  # promises that stand although their key was settled
        self._looked = False
        self._wanted = False

    def progress(self) -> Progress:
        admission = self._store.admission
        facts = {
            "given": admission.given,
            "refused": admission.refused,
            "open": len(self._store.index.promises),
            "settled": self.settled,
            "forgotten": self.forgotten,
            "failed": self.failed,
        }
        return Progress(left=len(self._todo), facts=facts)

    def begin(self) -> None:
        self._wanted = True

    async def work(self) -> Busy | Idle:
        """One name."""
        if not self._todo:
            if self._looked and not self._wanted:
                self._looked = False
                return Idle.after(self._interval_s)
            self._looked, self._wanted = True, False
            before = Timestamp.at(max(0.0, self._clock.now() - self._age_s))
            self._todo = self._store.index.promises.before(before, LOOK_AT)[::-1]
            self._over.intersection_update(self._todo)
            if not self._todo:
                return await self.work()
        path, ballot = self._todo.pop()
        return Busy(await self._see_to(path, ballot))

    async def _see_to(self, path: Path, ballot: Timestamp) -> int:
        if (path, ballot) in self._over or not self._store.admission.is_open(path, ballot):
            return 0  # settled, or it has ended meanwhile
        devices = [device.id for device in self._overlap().places(path).devices]
        own = self._store.device.device_id
        if own not in devices:
            await self._store.release(path, ballot)
            self.forgotten += 1
            return 1
        if self._clock.now() - ballot.seconds < self._age_s + devices.index(own) * self._turn_s:
            return 0  # another one's turn
        try:
            await self._settle(path)
        except Unavailable:
            self.failed += 1
            return 1  # the next pass comes by
        self.settled += 1
        if self._store.admission.is_open(path, ballot):
            self._over.add((path, ballot))
        return 1

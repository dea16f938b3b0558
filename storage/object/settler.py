"""The settler of a device: sees to promises that nobody comes back for.

A conditional write that was cut off (its front door died, or could not say that the condition failed) leaves promises: they keep
older copies of the name from being brought here, and they keep nobody else from writing.  When one has stood for a minute, the key
is settled.  How depends on the policy:

- whole copies, ``quorum``: the newest version is written again at a majority, above all ballots, which ends the promises
  (storage.client.register);
- whole copies, ``available``: this device forgets the promise (``end_promise``).  A copy above everything else could bury what was
  acknowledged on handoffs;
- erasure-coded: what was committed is brought to a majority, which ends the promise; what is only staged is seen to; then this
  device forgets the promise, unless something that the write has staged here may yet be committed (``end_coded``).

A minute is counted from when this device's settler first saw the promise, on a clock that only measures.  What the ballot says, or
the wall clocks of this machine and the writer's, means nothing here.

A device that is no primary of the name any more is not reached by that; it just forgets its promises, which nobody goes by: who
knew it as a primary is refused by its edition.

A device that cannot take what was written above its promise (it is full, can only be read, or its clock is behind) keeps the
promise until it can.  For such a promise the key is settled once, or it would be written again for as long as that lasts.

A Worker: one name at a time, the oldest promise first.  The primaries of a name wait one behind the other, so that mostly one of
them does it.  Neighbours: store.py and staging.py (its device), promises.py, storage.client.cluster and coded_objects (settle).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from ring.daemon.worker import Busy, Idle, Progress
from ring.errors import Unavailable
from ring.names import Path
from ring.service.overlap import Overlap
from ring.timestamp import Timestamp
from storage.client.coded_objects import CodedObjects
from storage.object.store import ObjectStore

INTERVAL_S = 10.0
AGE_S = 60.0  # no conditional write takes that long
TURN_S = 10.0  # later for each primary before this one

Settle = Callable[[Path, Timestamp], Awaitable[None]]


async def end_promise(store: ObjectStore, path: Path, ballot: Timestamp) -> None:
    """``Settle``, where a copy of what the primaries hold is not to be written above everything else."""
    await store.staging.end_promise(path, ballot)


async def end_coded(coded: CodedObjects, store: ObjectStore, policy: int, path: Path, ballot: Timestamp) -> None:
    """``Settle``, of an erasure-coded policy."""
    await coded.look(policy, path)
    if await store.staging.end_promise(path, ballot):
        return
    for seen in await store.staging.staged(path):
        if seen.version.timestamp == ballot:
            await coded.see_to(policy, seen)
    if not await store.staging.end_promise(path, ballot):
        raise Unavailable(f"{path}: it is not decided yet what becomes of the conditional write of {ballot}")


class Settler:
    """``overlap`` gives the object ring in force; ``settle`` settles the key at a path, of which this ballot was promised
    (Unavailable: not now)."""

    def __init__(
        self,
        store: ObjectStore,
        overlap: Callable[[], Overlap],
        settle: Settle,
        *,
        interval_s: float = INTERVAL_S,
        age_s: float = AGE_S,
        turn_s: float = TURN_S,
    ) -> None:
        self.name = f"object-settler d{store.device.device_id}"
        self.settled = 0  # facts since the start
        self.forgotten = 0  # promises of names that are others' by now
        self.failed = 0
        self._store = store
        self._overlap = overlap
        self._settle = settle
        self._interval_s = interval_s
        self._age_s = age_s
        self._turn_s = turn_s
        self._since: dict[tuple[Path, Timestamp], float] = {}  # when a promise was first seen, on trio's clock
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
            self._look()
            if not self._todo:
                return await self.work()
        path, ballot = self._todo.pop()
        return Busy(await self._see_to(path, ballot))

    def _look(self) -> None:
        now = trio.current_time()
        self._since = {promise: self._since.get(promise, now) for promise in self._store.index.promises.all()}
        self._over.intersection_update(self._since)
        old = [promise for promise, since in self._since.items() if now >= since + self._age_s]
        self._todo = sorted(old, key=self._since.__getitem__, reverse=True)

    async def _see_to(self, path: Path, ballot: Timestamp) -> int:
        if (path, ballot) in self._over or not self._store.admission.is_open(path, ballot):
            return 0  # settled, or it has ended meanwhile
        devices = [device.id for device in self._overlap().places(path).devices]
        own = self._store.device.device_id
        if own not in devices:
            self.forgotten += await self._store.staging.end_promise(path, ballot)
            return 1
        if trio.current_time() < self._since[path, ballot] + self._age_s + devices.index(own) * self._turn_s:
            return 0  # another one's turn
        try:
            await self._settle(path, ballot)
        except Unavailable:
            self.failed += 1
            return 1  # the next pass comes by
        self.settled += 1
        if self._store.admission.is_open(path, ballot):
            self._over.add((path, ballot))
        return 1

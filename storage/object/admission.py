"""Admission: what this device does not take, although it is news: what an open promise forbids, and what comes from the far future.

Decided before a record is written, so the log never holds anything that was refused; promises that are on their way to the disk
forbid as if they stood.  A promise is decided again when its record lands: what was written before it in the log counts.

The far future is more than a minute ahead of this machine's clock, unless the name has been there already: what was stored while
clocks were wrong can still be replaced and deleted.  A copy of such a version is not taken by a device that lacks the name before
the time comes near; who has it keeps it, and comes again.

Neighbours: store.py and upload.py (ask before they write), promises.py (which ones are open), packs.py (the log).
"""

from __future__ import annotations

from collections.abc import Sequence

from ring.errors import BadInput, Unavailable
from ring.names import NameHasher, Path
from ring.timestamp import AHEAD_MAX_S, TICKS_PER_SECOND, ZERO, Timestamp
from ring.world.interface import Clock
from storage.client.errors import ClockAhead, ObjectNotFound, PromisedAbove, Superseded
from storage.client.node import OURS_MAX, Named, Promised
from storage.object.entry import Held
from storage.object.index import Index
from storage.object.packs import Packs, Pending
from storage.object.reader import Reader
from storage.object.record import Info, Record, RecordKind

_AHEAD_TICKS_MAX = int(AHEAD_MAX_S * TICKS_PER_SECOND)


class Admission:
    def __init__(self, clock: Clock, hasher: NameHasher, index: Index, packs: Packs, reader: Reader) -> None:
        self.given = 0  # facts since the start
        self.refused = 0
        self._clock = clock
        self._hasher = hasher
        self._index = index
        self._packs = packs
        self._reader = reader
        self._on_their_way: dict[bytes, list[Pending]] = {}  # promises, by hash

    def check(self, name_hash: bytes, version: Timestamp) -> None:
        """Just before a record of this version is written, a POST's included.  PromisedAbove, ClockAhead."""
        above = self._index.promises.above(name_hash)
        if self._on_their_way:
            above = max(above or ZERO, self._coming(name_hash)) or None
        if above is not None and above > version:
            raise PromisedAbove(f"a conditional write was promised that nothing below {above} is taken", above)
        self.check_clock(name_hash, version)

    @property
    def latest(self) -> Timestamp:
        """About the latest timestamp that is taken now."""
        return Timestamp.at(max(0.0, self._clock.now() + AHEAD_MAX_S))

    def check_clock(self, name_hash: bytes, timestamp: Timestamp) -> None:
        """ClockAhead."""
        ahead = timestamp.ticks - round(self._clock.now() * TICKS_PER_SECOND)
        if ahead <= _AHEAD_TICKS_MAX:
            return
        held = self._index.newest(name_hash)
        if held is None or timestamp.ticks - max(held.timestamp, held.modified).ticks > _AHEAD_TICKS_MAX:
            raise ClockAhead(
                f"timestamp {timestamp} is {ahead / TICKS_PER_SECOND:.0f} s ahead of this device's clock",
                hint="the clock of the machine that sent it, or of this one, is wrong: set both (NTP)",
            )

    def is_open(self, path: Path, ballot: Timestamp) -> bool:
        """Whether this promise stands."""
        return self._index.promises.stands(self._hasher.hash(path), ballot)

    def _coming(self, name_hash: bytes) -> Timestamp:
        """The greatest promise that is on its way."""
        waiting = [pending for pending in self._on_their_way.get(name_hash, ()) if not pending.done]
        if not waiting:
            self._on_their_way.pop(name_hash, None)
            return ZERO
        self._on_their_way[name_hash] = waiting
        return max(pending.record.timestamp for pending in waiting)

    async def promise(self, path: Path, ballot: Timestamp, ours: Sequence[Timestamp]) -> Promised:
        """See storage.client.node.Node."""
        if len(ours) > OURS_MAX:
            raise BadInput(f"a promise is asked about at most {OURS_MAX} versions")
        name_hash = self._hasher.hash(path)
        self.check_clock(name_hash, ballot)
        held, told = self._index.newest(name_hash), self._index.doubts.told(name_hash, path)
        floor = _newest(held) if told is None else told.timestamp
        above = max(floor, self._index.promises.above(name_hash) or ZERO, self._coming(name_hash))
        if above >= ballot:
            self.refused += 1
            return Promised(False, above)
        if self._index.promises.full(name_hash):
            raise Unavailable(f"{path}: too many conditional writes are under way")
        info = Info((path.account, path.container, path.object))
        pending = self._packs.submit(Record(RecordKind.PROMISE, name_hash, ballot, info))
        self._on_their_way.setdefault(name_hash, []).append(pending)
        landed = await pending.wait()
        if not landed.taken:
            self.refused += 1
            return Promised(False, landed.newest)
        self.given += 1
        told = self._index.doubts.told(name_hash, path)
        if told is not None:
            return Promised(True, ballot, told)
        held = landed.held
        never = all(self._index.past.never(name_hash, version, None if held is None else held.known) for version in ours)
        if held is None:
            return Promised(True, ballot, None, never)
        return Promised(True, ballot, await self._reader.describe(held, path), never)

    async def release(self, path: Path, ballot: Timestamp) -> None:
        name_hash = self._hasher.hash(path)
        if name_hash in self._index.promises or name_hash in self._on_their_way:
            await self._packs.submit(Record(RecordKind.RELEASE, name_hash, ballot, Info(("", "", "")))).wait()


def check_meant(path: Path, held: Held | None, of: Named | None) -> None:
    """Whether what is held is what a POST was made for.  Superseded when it is newer, ObjectNotFound when it is not here yet."""
    if of is None or held is None or (held.timestamp, held.entry.etag) == of:
        return
    if held.rank > (of[0], False, of[1]):
        raise Superseded(f"{path}: something newer than the version of {of[0]} is here", held.timestamp)
    raise ObjectNotFound(f"{path}: the version of {of[0]} is not here yet")


def _newest(held: Held | None) -> Timestamp:
    return ZERO if held is None else max(held.timestamp, held.modified)

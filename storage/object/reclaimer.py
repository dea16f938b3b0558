"""The reclaimer of a device's objects: says how far the device is clean, lets go of tombstones that everybody may forget, and
compares what a device holds that was away.

A Worker: one partition at a time, in one of three walks (ring.service.horizon has the two steps that they belong to):

- **look**: the ring has closed at C and the device is not known to be clean up to there.  It is, when of every partition, of what
  is not above C: a primary holds exactly what every other primary holds; another device holds nothing; nothing is staged, and no
  row is owed for it.  Then the device's mark moves to C, durably, and it is reported.  Tombstones that may be forgotten already do
  not count.
- **forget**: the ring may forget what is not above H.  A tombstone goes when every other primary answers, is clean up to H itself,
  and holds this very tombstone or nothing of the name.
- **compare**: the device is behind (storage.sync.standing): returning.py.

Why no deletion comes back.  Let T be a tombstone at or below H, and v an older version of its name.  Before H was agreed upon,
each device of the ring was found clean up to H, after a time from which nobody could write at or below H.  So no device that is
not a primary of the name holds v, nor will it: what is brought to such a device is new, and above H.  A primary forgets T only when
none of the others holds v.  So v is nowhere on a device of the ring, and no device brings it: one that does not go by this edition
is refused by those that do (ring.service.gate), also with what it sent earlier; one that was no device of the ring is behind, and
brings nothing of that age.  What is written from now on is above H, and needs no T to be right.

What stands in the way (a device that is out of service, a row that cannot be paid, replicas that differ) keeps tombstones where
they are.  It costs room and nothing else.

Pushing what differs is the replicator's, dropping is a record of the log (store.drop), so a crash at any point leaves a tombstone
or none.  Neighbours: comparing (asks the others), returning, replicator, storage.sync.proposal (reports).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import trio

from ring.daemon.worker import Busy, Idle, Progress, walked
from ring.device import Device
from ring.errors import Conflict
from ring.names import Span
from ring.placement import Ring
from ring.service.overlap import Overlap
from ring.timestamp import Timestamp
from ring.world.interface import Clock
from storage.client.node import Kind, Node
from storage.object.comparing import ask, holders
from storage.object.entry import Held
from storage.object.returning import Returning
from storage.object.store import ObjectStore
from storage.sync.proposal import Proposal
from storage.sync.standing import OBJECTS
from storage.sync.tree import leaf_of

INTERVAL_S = 60.0
FORGET_AGAIN_S = 6 * 3600.0  # a tombstone that was brought back meanwhile (a read repairs with it) goes then
DEBTS_MAX = 10_000
PAGE = 1000


class Task(Enum):
    LOOK = "look"
    FORGET = "forget"
    COMPARE = "compare"


@dataclass(slots=True)
class _Walk:
    task: Task
    ticks: int  # up to here
    ring: Ring
    settled: Ring
    start: bytes | None = b""  # hashes from here on are to be looked at; None: all were
    failed: int = 0  # partitions of which it could not be said


class ObjectReclaimer:
    """``overlap`` gives the object ring in force, ``nodes`` the node of a device, for this store's policy; ``clear``: whether no
    write by an edition older than this is under way (ring.service.gate)."""

    def __init__(
        self,
        clock: Clock,
        device: Device,
        store: ObjectStore,
        overlap: Callable[[], Overlap],
        nodes: Callable[[Device], Node],
        proposal: Proposal,
        *,
        clear: Callable[[int], bool] = lambda edition: True,
        interval_s: float = INTERVAL_S,
        forget_again_s: float = FORGET_AGAIN_S,
    ) -> None:
        self.name = f"object-reclaimer d{device.id}"
        self.reclaimed = 0  # tombstones, since the start
        self.kept = 0  # ... that could not go in the last walk
        self._device = device
        self._store = store
        self._overlap = overlap
        self._nodes = nodes
        self._proposal = proposal
        self._clear = clear
        self._interval_s = interval_s
        self._forget_again_s = forget_again_s
        self._returning = Returning(clock, device, store, nodes)
        self._walk: _Walk | None = None
        self._forgotten = 0  # up to here, by a whole walk of this life
        self._forget_at = 0.0  # then once more

    def progress(self) -> Progress:
        walk, horizon, standing = self._walk, self._overlap().horizon, self._store.standing
        facts = {
            "reclaimed": self.reclaimed,
            "kept": self.kept,
            "behind": int(standing.behind(OBJECTS)),
            "put_aside": self._returning.put_aside,
            "horizon": Timestamp(horizon.reclaimed).seconds,
            "clean": Timestamp(standing.mark(OBJECTS)).seconds,
        }
        return Progress(walked(walk.start) if walk is not None else 1.0, facts=facts)

    def begin(self) -> None:
        """Called again, it looks at what there is to do."""

    async def work(self) -> Busy | Idle:
        overlap = self._overlap()
        walk = self._walk
        if walk is None or walk.ring is not overlap.ring or walk.settled is not overlap.settled:
            walk = self._walk = self._begin(overlap)
        if walk is None:
            self._proposal.say(overlap, self._store.standing.mark(OBJECTS))
            return Idle.after(self._interval_s)
        if walk.start is None:
            self._walk = None
            await self._end(overlap, walk)
            return Idle.after(self._interval_s) if walk.failed else Busy(0)
        span = await self._store.partition_from(walk.start, overlap.ring.part_power)
        if span is None:
            walk.start = None
            return Busy(0)
        walk.start = span.bounds[1]
        try:
            good = await self._partition(overlap, walk, span)
        except BaseException:
            walk.failed += 1
            raise
        walk.failed += not good
        return Busy(1)

    def _begin(self, overlap: Overlap) -> _Walk | None:
        """What is to be done by the horizon in force."""
        horizon, mark = overlap.horizon, self._store.standing.mark(OBJECTS)
        if mark < horizon.reclaimed:
            return _Walk(Task.COMPARE, horizon.reclaimed, overlap.ring, overlap.settled)
        if overlap.moving:
            return None
        if horizon.reclaimed and (horizon.reclaimed > self._forgotten or trio.current_time() >= self._forget_at):
            self.kept = 0
            return _Walk(Task.FORGET, horizon.reclaimed, overlap.ring, overlap.settled)
        if mark < horizon.closed and self._clear(overlap.claim.edition):
            return _Walk(Task.LOOK, horizon.closed, overlap.ring, overlap.settled)
        return None

    async def _end(self, overlap: Overlap, walk: _Walk) -> None:
        match walk.task:
            case Task.FORGET:
                self._forgotten, self._forget_at = walk.ticks, trio.current_time() + self._forget_again_s
                if walk.failed:
                    self._forget_at = trio.current_time() + self._interval_s
            case Task.LOOK | Task.COMPARE:
                if walk.task is Task.LOOK and not self._nothing_pending(walk.ticks):
                    walk.failed += 1
                if not walk.failed:
                    await self._store.standing.move(OBJECTS, walk.ticks)
                self._proposal.say(overlap, self._store.standing.mark(OBJECTS))

    def _nothing_pending(self, ticks: int) -> bool:
        """No row is owed, and nothing staged, for what is not above it."""
        until = Timestamp(ticks)
        if self._store.index.staged.before(until):
            return False
        debts = self._store.unpaid(DEBTS_MAX)
        return len(debts) < DEBTS_MAX and all(version.timestamp > until for _, version, _ in debts)

    async def _partition(self, overlap: Overlap, walk: _Walk, span: Span) -> bool:
        """True when nothing is left to do, or to be waited for, in it."""
        match walk.task:
            case Task.LOOK:
                return await self._look(overlap, span, walk.ticks)
            case Task.FORGET:
                return await self._forget(overlap, span, walk.ticks)
            case Task.COMPARE:
                return await self._returning.look(overlap, span, walk.ticks)

    # ---- look

    async def _look(self, overlap: Overlap, span: Span, closed: int) -> bool:
        devices = holders(overlap, span)
        others = [device for device in devices if device.id != self._device.id]
        answers = await ask(others, self._nodes, overlap, span, clean=overlap.horizon.reclaimed)
        if answers.silent:
            return False
        mine = await self._store.digests(span)
        is_primary = len(others) < len(devices)
        for leaf in sorted(answers.differ(mine) if is_primary else mine.leaves):
            theirs = await answers.leaf(span, leaf)
            if theirs is None:
                return False
            for key, digest in await self._store.leaf(span, leaf):
                if Timestamp.unpack_inverted(key[16:]) > Timestamp(closed) or self._forgettable(overlap, key):
                    continue
                if not is_primary or any(held.get(key[:16]) != (key, digest) for held in theirs):
                    return False
        return True

    def _forgettable(self, overlap: Overlap, key: bytes) -> bool:
        """A tombstone that others may not have any more."""
        if not overlap.horizon.forgets(Timestamp.unpack_inverted(key[16:])):
            return False
        held = self._store.index.get(key)
        return held is None or held.kind is Kind.TOMBSTONE

    # ---- forget

    async def _forget(self, overlap: Overlap, span: Span, until: int) -> bool:
        dead = await self._tombstones(span, Timestamp(until))
        if not dead:
            return True
        others = [device for device in holders(overlap, span) if device.id != self._device.id]
        answers = await ask(others, self._nodes, overlap, span, clean=until)
        if answers.silent:
            self.kept += sum(map(len, dead.values()))
            return False
        good = True
        for leaf, tombstones in sorted(dead.items()):
            theirs = await answers.leaf(span, leaf)
            for held in tombstones:
                same = held.key, held.digest
                if theirs is None or any(there.get(held.hash) not in (None, same) for there in theirs):
                    self.kept += 1
                    good = False
                    continue
                try:
                    self.reclaimed += await self._store.drop(held.key, "reclaimed")
                except Conflict:  # its row is still owed
                    self.kept += 1
                    good = False
        return good

    async def _tombstones(self, span: Span, until: Timestamp) -> dict[int, list[Held]]:
        """Those at or below it, by leaf."""
        found: dict[int, list[Held]] = {}
        start: bytes | None
        start, end = span.bounds
        while start is not None:
            page, start = self._store.index.page(start, end, limit=PAGE)
            for held in page:
                if held.kind is Kind.TOMBSTONE and held.timestamp <= until:
                    found.setdefault(leaf_of(held.hash, span.part_power), []).append(held)
            await trio.lowlevel.checkpoint()
        return found

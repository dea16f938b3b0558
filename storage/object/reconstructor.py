"""The reconstructor of a device: for an erasure-coded policy, what the replicator is for the others.

A Worker.  It walks over the partitions of which its device holds anything.  In each it finds the objects that may not be as they
should be: those in which a primary of the ring in force differs (set-hash trees; the digests leave out which fragment a device
has), and those of which this device itself has the wrong fragment, or none where it should; while a ring moves, all of them.  It
looks at these objects at all primaries, some hundred at a time, and mends those that may lose least first (storage.client.mending).

Who acts: the first primary, in the ring's order, that has data of the object; a device that is no primary, for what it has; and one
that lacks its own.  So a device that is down costs no agreement; who acts twice writes the same.

A device that is no primary drops what it has when every primary has said, after it was mended, that it has all that it is to have;
not while the ring moves and the settled one names this device.  What was staged and not committed for ``leftover_s`` is finished,
refused or let go of by storage.erasure.quorum's ``leftover``, which a majority, or all of the primaries, must bear out.

Neighbours: store and staging (this device), storage.client.{coded_reading,mending} (the others), storage.sync.tree and moving.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import trio

from ring.daemon.worker import Busy, Idle, Progress, walked
from ring.device import Device
from ring.errors import Conflict, DiskFault, NotFound, Unavailable
from ring.names import Path, Span
from ring.service.overlap import Overlap
from ring.timestamp import TICKS_PER_SECOND, Timestamp
from ring.world.interface import World
from storage.client.fragments import Seen
from storage.client.mending import Look, look, mend, settle
from storage.client.node import Kind, Node
from storage.client.reach import Reach
from storage.erasure.interface import Coding
from storage.erasure.quorum import Data, Leftover
from storage.object.entry import Held
from storage.object.record import RecordKind
from storage.object.store import ObjectStore
from storage.sync.comparing import HASH_BYTES, by_hash
from storage.sync.moving import AGAIN_S, Moving, Watcher
from storage.sync.standing import OBJECTS
from storage.sync.tree import differing

INTERVAL_S = 30.0
LEFTOVER_S = 3600.0  # longer than a writer may take from staging to committing
LEFTOVERS_AT_ONCE = 100
LOOKS_AT_ONCE = 256  # ordered by what they may lose
LOOKERS = 8
BYTES_AT_ONCE = 8 << 20  # no more are begun in a unit


@dataclass(frozen=True, slots=True)
class _Job:
    span: Span
    key: bytes
    path: Path
    found: Look
    acts: bool


class Reconstructor:
    """``reach``: that of a ClusterStorage; ``nodes``: a device's node, of this policy."""

    def __init__(
        self,
        world: World,
        device: Device,
        store: ObjectStore,
        reach: Reach,
        policy: int,
        coding: Coding,
        overlap: Callable[[], Overlap],
        nodes: Callable[[Device], Node],
        *,
        interval_s: float = INTERVAL_S,
        leftover_s: float = LEFTOVER_S,
        watcher: Watcher = Watcher(),  # noqa: B008 - frozen
    ) -> None:
        self.name = f"object-reconstructor d{device.id}"
        self.brought = 0  # facts since the start
        self.brought_bytes = 0
        self.dropped = 0
        self.finished = 0  # of what was left staged
        self.refused = 0
        self.forgotten = 0
        self.unanswered = 0
        self.unreadable = 0  # at the last pass: objects with fewer fragments than it takes
        self.at_risk = 0  # ... that one more loss would make so
        self.moving = Moving(watcher)
        self._world = world
        self._device = device
        self._store = store
        self._reach = reach
        self._policy = policy
        self._coding = coding
        self._overlap = overlap
        self._nodes = nodes
        self._interval_s = interval_s
        self._leftover_s = leftover_s
        self._start: bytes | None = b""  # hashes from here on are this pass's still; None: it is over
        self._keys: deque[tuple[Span, bytes]] = deque()  # to be looked at
        self._jobs: deque[_Job] = deque()  # looked at, the most urgent first
        self._open: dict[Span, int] = {}  # how many of a partition's are still to come; -1: something is not whole
        self._risks = [0, 0]  # unreadable and at risk, in this pass

    @property
    def settling(self) -> float:
        """How far it is with the ring in force: 0 to 1, 1 when that is confirmed."""
        return self.moving.progress(walked(self._start), self._overlap())

    def progress(self) -> Progress:
        names = ("brought", "brought_bytes", "dropped", "finished", "refused", "forgotten", "unanswered", "unreadable", "at_risk")
        left = len(self._keys) + len(self._jobs)
        return Progress(walked(self._start), left or None, {name: getattr(self, name) for name in names})

    def begin(self) -> None:
        """Called again, it looks at everything anew."""

    async def work(self) -> Busy | Idle:
        """Find what to look at, look at some hundred objects, or mend some."""
        overlap = self._overlap()
        if wait_s := self.moving.wait_s(overlap):
            return Idle.after(wait_s, over=False)
        if self.moving.begins(overlap):
            self._begin()
        if self._jobs:
            return await self._mend_some(overlap)
        if len(self._keys) >= LOOKS_AT_ONCE or (self._keys and self._start is None):
            return await self._look_at_some()
        now = trio.current_time()
        span = self.moving.again(now)
        if span is None and self._start is None:
            return await self._end(now)
        if span is None:
            assert self._start is not None
            span = await self._store.partition_from(self._start, overlap.ring.part_power)
            if span is None:
                self._start = None
                return Busy(0)
            self._start = span.bounds[1]  # an error must not keep the pass at this one
        await self._find(overlap, span)
        return Busy(1)

    def _begin(self) -> None:
        self._start = b""
        self._keys.clear()
        self._jobs.clear()
        self._open.clear()
        self._risks = [0, 0]

    async def _end(self, now: float) -> Busy | Idle:
        """Of a walk."""
        self.moving.walked(now)
        if not self.moving.confirmed and not self.moving.too_many:
            return Idle.after(AGAIN_S, over=False)
        if not self.moving.confirmed:
            self.moving.restart()
            self._begin()
            return Busy(0)
        await self._leftovers()
        self.unreadable, self.at_risk = self._risks
        self._begin()
        return Idle.after(self._interval_s)

    # ---- what to look at

    async def _find(self, overlap: Overlap, span: Span) -> None:
        """The objects of a partition that may not be as they should be."""
        self.moving.look(span)
        primaries = overlap.ring.primaries(span.partition)
        ids = [device.id for device in primaries]
        own = ids.index(self._device.id) if self._device.id in ids else -1
        keys: dict[bytes, None] = {}
        forgotten: set[bytes] = set()  # tombstones that the others may not have any more
        start, end = span.bounds
        at: bytes | None = start
        while at is not None:
            page, at = self._store.index.page(at, end, limit=1000)
            forgotten |= {held.key for held in page if held.kind is Kind.TOMBSTONE and overlap.horizon.forgets(held.timestamp)}
            every = own < 0 or not self.moving.confirmed
            keys.update((held.key, None) for held in page if held.key not in forgotten and (every or self._misfit(held, own)))
            await trio.lowlevel.checkpoint()
        mine = await self._store.digests(span)
        whole = not self._store.index.doubts.within(span)
        for device in primaries:
            if device.id == self._device.id:
                continue
            node = self._nodes(device)
            if overlap.claim.edition:
                node = node.under(overlap.claim)
            try:
                for leaf in differing(mine, await node.digests("object", span)):
                    theirs = by_hash(await node.leaf("object", span, leaf))
                    for key, digest in await self._store.leaf(span, leaf):
                        held = theirs.get(key[:HASH_BYTES])
                        if held != (key, digest) and (held is not None or key not in forgotten):
                            keys[key] = None
            except (Unavailable, DiskFault, NotFound):
                self.unanswered += 1
                whole = False  # unknown: nothing follows from it
        self._open[span] = len(keys) if whole else -1
        self._keys.extend((span, key) for key in keys)
        if whole and not keys:
            self._found(span)

    def _misfit(self, held: Held, own: int) -> bool:
        """Whether the device, as this primary, is to have something else of the version than it has."""
        entry = held.entry
        if held.kind is Kind.TOMBSTONE:
            return False
        if entry.size <= self._reach.settings.pack_cut_bytes:
            return entry.kind is not RecordKind.OBJECT_INLINE and own <= self._coding.m
        return entry.kind is not RecordKind.FRAGMENT or entry.index != own

    def _found(self, span: Span) -> None:
        self._open.pop(span, None)
        self.moving.found(span)

    def _settled(self, span: Span, *, whole: bool) -> None:
        """One of a partition's was seen to."""
        left = self._open.get(span, -1)
        if not whole or left < 0:
            self._open[span] = -1
        elif left == 1:
            self._found(span)
        else:
            self._open[span] = left - 1

    # ---- looking

    async def _look_at_some(self) -> Busy:
        some = [self._keys.popleft() for _ in range(min(LOOKS_AT_ONCE, len(self._keys)))]
        waiting = deque(some)
        found: list[_Job] = []

        async def one() -> None:
            while waiting:
                span, key = waiting.popleft()
                try:
                    job = await self._look(span, key)
                except (Unavailable, DiskFault):
                    self.unanswered += 1
                    self._settled(span, whole=False)
                    continue
                if job is None:
                    self._settled(span, whole=False)  # replaced meanwhile, by what is to be looked at anew
                else:
                    found.append(job)

        async with trio.open_nursery() as nursery:
            for _ in range(min(LOOKERS, len(waiting))):
                nursery.start_soon(one)
        for job in found:
            redundancy = job.found.urgency(self._coding)[0]
            self._risks[0] += redundancy >= 1 << 30
            self._risks[1] += redundancy == 0
        self._jobs.extend(sorted(found, key=lambda job: job.found.urgency(self._coding)))
        return Busy(len(some))

    async def _look(self, span: Span, key: bytes) -> _Job | None:
        path = await self._store.path_of(key)
        if path is None:
            return None
        own = await self._own(path)
        found = await look(self._reach, self._coding, self._policy, path, own)
        return _Job(span, key, path, found, self._acts(found))

    async def _own(self, path: Path) -> tuple[Node, Seen] | None:
        """But for what may have been deleted while this device was away."""
        doubts = self._store.standing.doubts
        seen = [one for one in await self._store.staging.here(path) if one.committed]
        seen = [one for one in seen if not doubts(OBJECTS, one.version.timestamp)]
        return (self._nodes(self._device), seen[0]) if seen else None

    def _acts(self, found: Look) -> bool:
        primaries = found.replicas.nodes[: self._coding.count]
        own = next((replica for replica, node in enumerate(primaries) if node.device.id == self._device.id), -1)
        if own < 0:
            return True
        mine = found.of(own)
        small = found.version is not None and found.version.size <= self._reach.settings.pack_cut_bytes
        if mine is not None and mine.stamp.tombstone is False:
            fits = (mine.data is Data.COPY or own > self._coding.m) if small else mine.index == own
            if not fits:
                return True
        for replica in range(len(primaries)):
            one = found.of(replica)
            if one is not None and one.committed and (one.data is not Data.NONE or one.stamp.tombstone):
                return replica == own
        return True

    # ---- mending

    async def _mend_some(self, overlap: Overlap) -> Busy:
        items = done_bytes = 0
        while self._jobs and done_bytes < BYTES_AT_ONCE:
            job = self._jobs.popleft()
            try:
                brought_bytes, whole = await self._mend(overlap, job)
            except (Unavailable, DiskFault):
                self.unanswered += 1
                brought_bytes, whole = 0, False
            self._settled(job.span, whole=whole)
            items += 1
            done_bytes += brought_bytes
        return Busy(items, done_bytes)

    async def _mend(self, overlap: Overlap, job: _Job) -> tuple[int, bool]:
        """Bytes brought, and whether everything is where it belongs."""
        brought_bytes, whole = 0, job.found.whole(self._reach, self._coding)
        if not whole and job.acts:
            done = await mend(self._reach, self._coding, job.found)
            self.brought += done.brought
            self.brought_bytes += done.brought_bytes
            brought_bytes, whole = done.brought_bytes, done.whole
        belongs = {node.device.id for node in job.found.replicas.nodes[: self._coding.count]}
        if overlap.moving:
            belongs |= overlap.settled_at(job.span)
        if whole and self._device.id not in belongs:
            again = await look(self._reach, self._coding, self._policy, job.path, await self._own(job.path))
            if again.whole(self._reach, self._coding):
                with suppress(Conflict):  # its container row is still owed: the updater first
                    self.dropped += await self._store.drop(job.key, "handed off")
        return brought_bytes, whole

    # ---- what is left staged

    async def _leftovers(self) -> None:
        before = Timestamp(max(0, int((self._world.clock.now() - self._leftover_s) * TICKS_PER_SECOND)))
        for staged in await self._store.staging.waiting(before, LEFTOVERS_AT_ONCE):
            try:
                found = await look(self._reach, self._coding, self._policy, staged.version.path)
                verdict = await settle(self._reach, self._coding, found, staged)
                if verdict is Leftover.REFUSE:  # and then at once: by the next pass primaries may have let go of their refusals
                    self.refused += 1
                    found = await look(self._reach, self._coding, self._policy, staged.version.path)
                    verdict = await settle(self._reach, self._coding, found, staged)
                if all(node.device.id != self._device.id for node in found.replicas.nodes):
                    await self._let_go(found, staged, verdict)
                match verdict:
                    case Leftover.COMMIT | Leftover.FINISH:
                        self.finished += 1
                    case Leftover.DROP:
                        self.forgotten += 1
                    case Leftover.REFUSE | Leftover.KEEP:
                        pass
            except (Unavailable, DiskFault):
                self.unanswered += 1

    async def _let_go(self, found: Look, staged: Seen, verdict: Leftover) -> None:
        """Of what a device has staged that is no primary any more: nobody else tells it.  If the primaries do not need it."""
        needless = verdict is Leftover.COMMIT and found.whole(self._reach, self._coding)
        if needless or verdict is Leftover.DROP:
            await self._store.staging.refuse(staged.version)
            await self._store.staging.forget(staged.version)

"""The object replicator of a device: brings what the device holds to the primaries that lack it.

A Worker.  It compares set-hash trees (root, leaves, keys) with each other primary and pushes versions that are missing or older
there; what is newer there, the other side pushes here.  What has the fewest copies goes first (storage.sync.order): a *look* at a
partition finds, for each version that somebody lacks, how many of the primaries hold it; one level of that is sent, some versions
at a time, then whatever is worst off comes next, here or in another partition.  Of several holders one sends; the others help when
they have sent their own.  What few primaries hold owes its row anew (owing.py).

A device that is no primary of a partition (a handoff, or one that the ring moved it away from) drops a version only when every
primary has said that it holds this very version with this very digest, or a newer one.  A primary that does not answer has said
nothing: then nothing is dropped.  Nor while a new ring is not settled and the one before it names this device.

Neighbours: store (this device), storage.client nodes (the others), storage.sync.tree (what is compared), storage.client.repair
(copies).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import trio

from ring.daemon.worker import Busy, Idle, Progress
from ring.device import Device
from ring.errors import Conflict, DiskFault, NotFound, RingfortError, Unavailable
from ring.names import Span
from ring.placement import Ring
from ring.service.overlap import Overlap
from ring.timestamp import Timestamp
from storage.client.bodies import aclose
from storage.client.errors import ClockAhead, Doubted, PromisedAbove, Superseded
from storage.client.node import NOT_WHOLE, Kind, Node, NodeReading
from storage.client.quorum import rank
from storage.client.repair import copy
from storage.object.owing import at_minority, owe_anew
from storage.object.store import SYSTEM_METADATA, ObjectStore
from storage.sync import order
from storage.sync.comparing import HASH_BYTES, by_hash
from storage.sync.moving import AGAIN_S, Moving, Watcher
from storage.sync.order import Order, Push
from storage.sync.standing import OBJECTS
from storage.sync.tree import differing, leaf_of

INTERVAL_S = 30.0
RETRY_S = 2.0  # first, while something has too few copies
PARTITIONS_AT_ONCE = 256  # listed in one unit
VERSIONS_AT_ONCE = 64  # sent in one unit
BYTES_AT_ONCE = 8 << 20  # no more are begun in a unit
SENDERS = 16
LOOK_VERSIONS = 10_000  # found in one look; the rest in the next
LEAVES_AT_ONCE = 16
LOOKS_AT_ONCE = 8


_Missing = list[tuple[bool, Push[int]]]  # whether this device is to send it; what to which device


@dataclass(slots=True)
class _Look:
    """At one partition: who answered, and what they lack."""

    overlap: Overlap
    span: Span
    primaries: int  # other than this device
    is_primary: bool
    voters: frozenset[int] = frozenset()  # of the partition, by the settled ring, when this device is one of them
    refilled: set[int] = field(default_factory=set)  # devices that are: what they lack they may have held
    reached: dict[int, Node] = field(default_factory=dict)  # by device id; who fails is taken out
    pushes: deque[Push[int]] = field(default_factory=deque)  # to device ids, those with the fewest copies first
    left: int | None = None  # the fewest copies of what is left for another look; None: nothing is
    kept: bool = False  # something was not taken there yet (a conditional write is in the way), or replaced: it is to be brought
    refused: bool = False  # a device that let itself be compared took nothing
    doubtful: bool = False  # something is held that may have been deleted, and goes nowhere (storage.sync.standing)

    @property
    def whole(self) -> bool:
        return len(self.reached) == self.primaries and not (self.doubtful or self.kept)

    def leave(self, copies: int) -> None:
        self.left = copies if self.left is None else min(self.left, copies)


class ObjectReplicator:
    """``overlap`` gives the object ring in force; ``nodes`` the node of a device."""

    def __init__(
        self,
        device: Device,
        store: ObjectStore,
        overlap: Callable[[], Overlap],
        nodes: Callable[[Device], Node],
        *,
        interval_s: float = INTERVAL_S,
        pack_cut_bytes: int = 256 << 10,
        watcher: Watcher = Watcher(),  # noqa: B008 - frozen
    ) -> None:
        self.name = f"object-replicator d{device.id}"
        self.pushed = 0  # facts since the start
        self.dropped = 0
        self.unanswered = 0  # comparisons that a node did not answer
        self.order = Order()
        self.moving = Moving(watcher)
        self._device = device
        self._store = store
        self._overlap = overlap
        self._nodes = nodes
        self._interval_s = interval_s
        self._pack_cut_bytes = pack_cut_bytes
        self._ring: Ring | None = None  # by which partitions were listed
        self._looks: list[_Look] = []  # that are under way
        self._retry_s = RETRY_S
        self._pushed_before = 0

    @property
    def settling(self) -> float:
        """How far it is with the ring in force: 0 to 1, 1 when that is confirmed."""
        return self.moving.progress(self.order.fraction, self._overlap())

    def progress(self) -> Progress:
        facts = {
            "pushed": self.pushed,
            "dropped": self.dropped,
            "unanswered": self.unanswered,
            "short_partitions": self.order.short(),  # with too few copies of something, at the last look
            "single_partitions": self.order.short(1),  # with one copy of something
        }
        return Progress(self.order.fraction, facts=facts)

    def begin(self) -> None:
        """Called again, it looks at everything anew."""

    async def work(self) -> Busy | Idle:
        """List some partitions, look at some, or send some versions."""
        overlap = self._overlap()
        if wait_s := self.moving.wait_s(overlap):
            return Idle.after(wait_s, over=False)
        looks, self._looks = self._looks, []
        if self.moving.begins(overlap) or self._ring is not overlap.ring:
            self._ring = overlap.ring  # its partitions may be numbered in another way
            self.order.begin()
            looks = []
        elif looks and looks[0].overlap is not overlap:
            for look in looks:
                self.order.back(look.span, 1)
            looks = []
        if looks or (looks := await self._look(overlap)):
            return await self._send(looks)
        if self.order.start is not None:
            return await self._list(overlap, self.order.start)
        self.moving.walked(trio.current_time())
        if not self.moving.confirmed and not self.moving.too_many:
            return Idle.after(AGAIN_S, over=False)
        self.order.begin()
        if self.moving.confirmed:
            return Idle.after(self._rest_s())
        self.moving.restart()
        return Busy(0)

    async def fill(self, device: Device, span: Span, until: float) -> tuple[int, int, bool | None]:
        """Bring one device what it lacks of what is held here: versions, bytes, and whether it has all now; None: there is more
        than could be sent until then (trio's clock).  Asked by no edition, for it speaks of one device only.  Unavailable,
        DiskFault."""
        node = self._nodes(device)
        look = _Look(self._overlap(), span, 1, True, reached={device.id: node})
        mine = await self._store.digests(span)
        doubts = self._store.index.doubts
        if not mine.leaves:
            return 0, 0, not doubts.within(span)
        theirs = await node.digests("object", span)
        differs = {leaf: {device.id: leaf in theirs.leaves} for leaf in sorted(differing(mine, theirs))}
        waiting = deque(differs)
        versions = versions_bytes = 0
        while (waiting or look.pushes) and device.id in look.reached and trio.current_time() < until:
            while waiting and len(look.pushes) < VERSIONS_AT_ONCE:
                some: dict[int, _Missing] = {waiting.popleft(): [] for _ in range(min(LEAVES_AT_ONCE, len(waiting)))}
                await self._missing_of(look, differs, some)
                look.pushes.extend(push for pushes in some.values() for _, push in pushes)
            pushed, pushed_bytes = await self._push_some(look)
            versions, versions_bytes = versions + pushed, versions_bytes + pushed_bytes
        if device.id not in look.reached:
            raise Unavailable(f"{device} does not take what it lacks")
        more = bool(waiting or look.pushes) or look.left is not None
        return versions, versions_bytes, None if more else look.whole and not doubts.within(span)

    def _rest_s(self) -> float:
        """Between passes: short at first while something has too few copies, since who did not answer may do so soon."""
        if self.pushed != self._pushed_before or not self.order.short():
            self._retry_s = RETRY_S
        self._pushed_before = self.pushed
        if not self.order.short():
            return self._interval_s
        wait_s, self._retry_s = min(self._retry_s, self._interval_s), self._retry_s * 2
        return wait_s

    async def _list(self, overlap: Overlap, start: bytes) -> Busy:
        for _ in range(PARTITIONS_AT_ONCE):
            span = await self._store.partition_from(start, overlap.ring.part_power)
            if span is None:
                self.order.listed()
                return Busy(0)
            ids = {device.id for device in overlap.ring.primaries(span.partition)}
            if overlap.moving:
                ids &= overlap.settled_at(span)  # the others have it yet to get
            self.order.add(span, ids - {self._device.id})
            end = span.bounds[1]
            if end is None:
                self.order.listed()
                return Busy(0)
            start = self.order.start = end
        return Busy(0)

    # ---- what is missing where

    async def _look(self, overlap: Overlap) -> list[_Look]:
        """At some partitions of one level, at once."""
        spans = self.order.take(partial(self.moving.again, trio.current_time()), LOOKS_AT_ONCE)
        looks: dict[Span, _Look] = {}
        failures: list[RingfortError] = []

        async def one(span: Span) -> None:
            self.moving.look(span)
            try:
                looks[span] = await self._compare(overlap, span)
            except RingfortError as error:
                failures.append(error)

        async with trio.open_nursery() as nursery:
            for span in spans:
                nursery.start_soon(one, span)
        found = [looks[span] for span in spans if span in looks]
        if failures:  # what could be looked at goes on in the next unit; the others come in the next pass
            self._looks = found
            raise failures[0]
        return found

    async def _compare(self, overlap: Overlap, span: Span) -> _Look:
        assert span.part_power == overlap.ring.part_power
        devices = overlap.ring.primaries(span.partition)
        others = [device for device in devices if device.id != self._device.id]
        look = _Look(overlap, span, len(others), len(others) < len(devices))
        if self._device.id in (voters := frozenset(overlap.settled_at(span))):
            look.voters = voters
        mine = await self._store.digests(span)
        differs: dict[int, dict[int, bool]] = {}  # leaf: who has something else there: whether it has anything at all
        for device in others:
            node = self._nodes(device)
            if overlap.claim.edition:
                node = node.under(overlap.claim)
            try:
                theirs = await node.digests("object", span)
            except (Unavailable, DiskFault, NotFound):
                self.unanswered += 1  # unknown: nothing follows from it
                self.order.away(device.id)
                continue
            self.order.answers(device.id)
            if mine.leaves and not theirs.leaves:
                self.order.empty(device.id, span)
            look.reached[device.id] = node
            if theirs.clean == NOT_WHOLE:
                look.refilled.add(device.id)
            for leaf in differing(mine, theirs):
                differs.setdefault(leaf, {})[device.id] = leaf in theirs.leaves
        found: _Missing = []
        urgency, answered = self.order.urgency, len(look.reached)
        waiting = deque(sorted(differs, key=lambda leaf: (-len(differs[leaf]), leaf)))  # where the fewest agree, first
        while waiting:
            copies = 1 + answered - len(differs[waiting[0]])  # at least, of what is in it
            if len(found) >= LOOK_VERSIONS or (urgency is not None and urgency < copies):
                look.leave(copies)
                break
            some: dict[int, _Missing] = {waiting.popleft(): [] for _ in range(min(LEAVES_AT_ONCE, len(waiting)))}
            await self._missing_of(look, differs, some)
            for pushes in some.values():
                found += pushes
        if any(mine for mine, _ in found):
            for is_mine, push in found:
                if not is_mine:
                    look.leave(push.copies)
            found = [(is_mine, push) for is_mine, push in found if is_mine]
        look.pushes.extend(order.rank([push for _, push in found]))
        return look

    async def _missing_of(self, look: _Look, differs: Mapping[int, Mapping[int, bool]], found: dict[int, _Missing]) -> None:
        """Fills in what is missing of these leaves."""
        failures: list[RingfortError] = []

        async def one(leaf: int) -> None:
            try:
                found[leaf] = await self._missing(look, leaf, differs[leaf])
            except RingfortError as error:
                failures.append(error)

        async with trio.open_nursery() as nursery:
            for leaf in found:
                nursery.start_soon(one, leaf)
        if failures:
            raise failures[0]

    async def _missing(self, look: _Look, leaf: int, others: Mapping[int, bool]) -> _Missing:
        """What those devices lack of a leaf in which they differ, and whether it is this device that is to send it."""
        theirs: dict[int, Mapping[bytes, tuple[bytes, bytes]]] = {}
        for device_id, has_any in others.items():
            node = look.reached.get(device_id)
            try:
                if node is not None:
                    theirs[device_id] = by_hash(await node.leaf("object", look.span, leaf)) if has_any else {}
            except (Unavailable, DiskFault, NotFound):
                self._lost(look, device_id)
        agreeing = look.reached.keys() - others.keys()
        found = []
        for key, digest in await self._store.leaf(look.span, leaf):
            held = {device_id: versions.get(key[:HASH_BYTES]) for device_id, versions in theirs.items()}
            lacking = [device_id for device_id, version in held.items() if version is None or not _covers(version, key, digest)]
            old = look.overlap.horizon.forgets(Timestamp.unpack_inverted(key[HASH_BYTES:]))
            if lacking and old:
                lacking = self._old(look, key, held, lacking)
            without = {one for one in lacking if (version := held[one]) is None or version[0] != key} - look.refilled
            minority = not old and at_minority(look.voters, without)
            holders = [*agreeing, *(held.keys() - set(lacking))]
            mine = order.is_mine(key, self._device.id, holders, is_primary=look.is_primary)
            for device_id in lacking:
                found.append((mine, Push(1 + len(holders), key, held[device_id], device_id, minority)))
                holders.append(device_id)
        return found

    def _old(self, look: _Look, key: bytes, held: Mapping[int, object], lacking: Sequence[int]) -> list[int]:
        """Of a version that is not above the horizon: who is to have it.  Those who know nothing of the name are not brought a
        tombstone, which they may have forgotten; nor, by a device that is behind, what may have been deleted."""
        own = self._store.index.get(key)
        doubtful = self._store.standing.behind(OBJECTS)
        if not doubtful and (own is None or own.kind is not Kind.TOMBSTONE):
            return list(lacking)
        known = [device_id for device_id in lacking if held[device_id] is not None]
        look.doubtful |= doubtful and len(known) < len(lacking)
        return known

    def _lost(self, look: _Look, device_id: int) -> None:
        if look.reached.pop(device_id, None) is not None:
            self.unanswered += 1
            self.order.away(device_id)

    # ---- bringing it there

    async def _send(self, looks: Sequence[_Look]) -> Busy:
        """Some of what has the fewest copies; the rest, if nothing else is worse off, in the next unit."""
        pushed, pushed_bytes = await self._push_some(*looks)
        urgency = self.order.urgency
        for look in looks:
            if not look.pushes:
                await self._end(look)
            elif urgency is not None and urgency < look.pushes[0].copies:
                self.order.back(look.span, look.pushes[0].copies)
            else:
                self._looks.append(look)
        return Busy(max(len(looks), pushed), pushed_bytes)

    async def _push_some(self, *looks: _Look) -> tuple[int, int]:
        """(versions, bytes) of one level."""
        level = min((look.pushes[0].copies for look in looks if look.pushes), default=0)
        waiting: deque[tuple[_Look, Push[int]]] = deque()
        for look in looks:
            while look.pushes and len(waiting) < VERSIONS_AT_ONCE and look.pushes[0].copies == level:
                waiting.append((look, look.pushes.popleft()))
        done: list[int] = []
        failures: list[RingfortError] = []

        async def some() -> None:
            while waiting and not failures and sum(done) < BYTES_AT_ONCE:
                look, push = waiting.popleft()
                node = look.reached.get(push.target)
                if node is None:
                    continue
                try:
                    sent = await self._push(push, node)
                except (PromisedAbove, ClockAhead):
                    look.kept = True
                except (Unavailable, DiskFault, NotFound):
                    look.refused = True
                    self._lost(look, push.target)
                except RingfortError as error:
                    failures.append(error)
                else:
                    if sent is None:
                        look.kept = True  # replaced meanwhile, by what the next pass finds
                    else:
                        done.append(sent)

        async with trio.open_nursery() as nursery:
            for _ in range(min(SENDERS, len(waiting))):
                nursery.start_soon(some)
        if failures:
            raise failures[0]
        for look, push in reversed(waiting):
            look.pushes.appendleft(push)
        self.pushed += len(done)
        return len(done), sum(done)

    async def _push(self, push: Push[int], node: Node) -> int | None:
        """Its bytes; None: it is not here any more.  Raises Unavailable."""
        if push.minority:  # its row may have been on one disk only, which is gone
            await owe_anew(self._store, push.key)
        reading = await self._store.object_by_key(push.key)
        if reading is None:
            return None
        if push.held is not None and push.held[0] == push.key:
            await self._settle(reading, push.key, node)
        else:
            await copy(reading, node, self._pack_cut_bytes)
        return reading.version.size

    async def _end(self, look: _Look) -> None:
        """All that the look found was sent."""
        if look.left is not None and not (look.kept or look.refused):  # who takes nothing now is not asked again in this pass
            self.order.back(look.span, look.left)
            return
        await self._doubts(look)
        if (
            look.whole
            and not look.is_primary
            and not (look.overlap.moving and self._device.id in look.overlap.settled_at(look.span))
        ):
            await self._drop(look.span, list(look.reached.values()))
        self.order.found(look.span, None if look.whole else max(1, 1 + len(look.reached) - look.kept))
        if look.whole and self._overlap() is look.overlap:
            self.moving.found(look.span)

    async def _doubts(self, look: _Look) -> None:
        """What this device lost, and cannot bring: the look is not whole before the others have it all the same."""
        stays = look.is_primary or (look.overlap.moving and self._device.id in look.overlap.settled_at(look.span))
        for name_hash, doubt in self._store.index.doubts.within(look.span):
            key, digest = doubt.key_digest(name_hash)
            leaf = leaf_of(name_hash, look.span.part_power)
            there = len(look.reached) == look.primaries
            for device_id, node in list(look.reached.items()):
                try:
                    held = by_hash(await node.leaf("object", look.span, leaf)).get(name_hash)
                except (Unavailable, DiskFault, NotFound):
                    self._lost(look, device_id)
                    held = None
                there = there and held is not None and _covers(held, key, digest)
            if not there:
                look.kept = True
            elif not stays:
                self._store.index.doubts.end(name_hash)

    async def _settle(self, reading: NodeReading, key: bytes, node: Node) -> None:
        """One version that is not the same here and there: its metadata differs, or two writes were given one timestamp.  The
        higher
        goes to the other side, whichever that is; data that is there already stays where it is."""
        mine = reading.version
        try:
            theirs = await node.head(mine.path)
        except Doubted:  # it has the version again, and not its newest metadata yet
            again = await node.object_by_key(key)
            theirs = None if again is None else again.version
            if again is not None:
                await aclose(again.pieces)
        if theirs is not None and theirs.timestamp == mine.timestamp and rank(theirs) > rank(mine):
            await aclose(reading.pieces)
            target: Node | ObjectStore = self._store
            best = theirs
        else:
            target, best = node, mine
        if theirs is not None and theirs.etag == mine.etag and best.size > self._pack_cut_bytes:
            await aclose(reading.pieces)
            if best.metadata_timestamp is not None:
                metadata = {name: value for name, value in best.metadata.items() if not name.startswith(SYSTEM_METADATA)}
                with suppress(NotFound, Superseded):  # it was replaced there meanwhile
                    await target.post(best.path, metadata, best.content_type, best.metadata_timestamp, best.named)
            return
        found = reading if best is mine else await node.object_by_key(key)
        if found is not None:
            await copy(found, target, self._pack_cut_bytes)

    async def _drop(self, span: Span, primaries: Sequence[Node]) -> None:
        """Let go of what every primary holds.  Asks them anew: what was sent is not what was acknowledged."""
        mine = await self._store.digests(span)
        for leaf in mine.leaves:
            try:
                theirs = [by_hash(await node.leaf("object", span, leaf)) for node in primaries]
            except (Unavailable, DiskFault):
                self.unanswered += 1
                return
            for key, digest in await self._store.leaf(span, leaf):
                copies = [held.get(key[:HASH_BYTES]) for held in theirs]
                if all(held is not None and _covers(held, key, digest) for held in copies):
                    try:
                        self.dropped += await self._store.drop(key, "handed off")
                    except Conflict:
                        continue  # its container row is still owed: the updater first
            await trio.lowlevel.checkpoint()


def _covers(held: tuple[bytes, bytes], key: bytes, digest: bytes) -> bool:
    """Whether ``held`` makes ours superfluous: it is newer, or it is the same with the same content."""
    return held[0] < key or held == (key, digest)

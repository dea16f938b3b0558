"""The object replicator of a device: brings what the device holds to the primaries that lack it.

A Worker: one partition, or part of a large one, at a time.  It compares set-hash trees (root, leaves, keys) with each other
primary and pushes versions that are missing or older there; what is newer there, the other side pushes here.  A device that is
no primary of a partition (a handoff, or one that the ring moved it away from) drops a version only when every primary has said
that it holds this very version with this very digest, or a newer one.  A primary that does not answer has said nothing: then
nothing is dropped.  Nor while a new ring is not settled and the one before it names this device.

Neighbours: store (this device), storage.client nodes (the others), storage.sync.tree (what is compared), storage.client.repair
(copies).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import trio

from ring.daemon.worker import Busy, Idle, Progress, walked
from ring.device import Device
from ring.errors import Conflict, DiskFault, NotFound, Unavailable
from ring.names import Span
from ring.service.overlap import Overlap
from storage.client.bodies import aclose
from storage.client.node import Node, NodeReading
from storage.client.quorum import rank
from storage.client.repair import copy
from storage.object.store import SYSTEM_METADATA, ObjectStore
from storage.sync.moving import AGAIN_S, Moving, Watcher
from storage.sync.tree import differing

INTERVAL_S = 30.0
KEYS_AT_ONCE = 200  # pushed to one target in one unit
HASH_BYTES = 16


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
        self._device = device
        self._store = store
        self._overlap = overlap
        self._nodes = nodes
        self._interval_s = interval_s
        self._pack_cut_bytes = pack_cut_bytes
        self.moving = Moving(watcher)
        self._start: bytes | None = b""  # hashes from here on are this pass's still; None: it is over

    @property
    def settling(self) -> float:
        """How far it is with the ring in force: 0 to 1, 1 when that is confirmed."""
        return self.moving.progress(self._start, self._overlap())

    def progress(self) -> Progress:
        facts = {"pushed": self.pushed, "dropped": self.dropped, "unanswered": self.unanswered}
        return Progress(walked(self._start), facts=facts)

    def begin(self) -> None:
        """Called again, it looks at everything anew."""

    async def work(self) -> Busy | Idle:
        """One partition."""
        overlap = self._overlap()
        if wait_s := self.moving.wait_s(overlap):
            return Idle.after(wait_s, over=False)
        if self.moving.begins(overlap):
            self._start = b""
        span = self.moving.again(trio.current_time())
        if span is not None:
            pushed, pushed_bytes, _ = await self._look(overlap, span)
            return Busy(max(1, pushed), pushed_bytes)
        if self._start is None:
            self.moving.walked(trio.current_time())
            if not self.moving.confirmed and not self.moving.too_many:
                return Idle.after(AGAIN_S, over=False)
            self._start = b""
            if self.moving.confirmed:
                return Idle.after(self._interval_s)
            self.moving.restart()
        span = await self._store.partition_from(self._start, overlap.ring.part_power)
        if span is None:
            self._start = None
            return await self.work()
        start, self._start = span.bounds  # an error must not keep the pass at this one
        pushed, pushed_bytes, more = await self._look(overlap, span)
        if more:
            self._start = start
        return Busy(max(1, pushed), pushed_bytes)

    async def _look(self, overlap: Overlap, span: Span) -> tuple[int, int, bool]:
        self.moving.look(span)
        pushed, pushed_bytes, more, whole = await self._partition(overlap, span)
        if whole and self._overlap() is overlap:
            self.moving.found(span)
        return pushed, pushed_bytes, more

    async def _partition(self, overlap: Overlap, span: Span) -> tuple[int, int, bool, bool]:
        """(versions, bytes, whether some are left, whether all of it is at all primaries)."""
        primaries = overlap.ring.primaries(span.partition)
        is_primary = any(device.id == self._device.id for device in primaries)
        total, total_bytes, more = 0, 0, False
        reached: list[Node] = []
        for device in primaries:
            if device.id == self._device.id:
                continue
            node = self._nodes(device)
            if overlap.claim.edition:
                node = node.under(overlap.claim)
            try:
                pushed, pushed_bytes, left = await self._push(span, node)
            except (Unavailable, DiskFault, NotFound):
                self.unanswered += 1  # unknown: nothing follows from it
                continue
            reached.append(node)
            total, total_bytes, more = total + pushed, total_bytes + pushed_bytes, more or left
        whole = not more and len(reached) == len(primaries) - is_primary
        if whole and not is_primary and not (overlap.moving and self._device.id in overlap.settled_at(span)):
            await self._drop(span, reached)
        return total, total_bytes, more, whole

    async def _push(self, span: Span, node: Node) -> tuple[int, int, bool]:
        """(versions, bytes, whether some are left).  Raises Unavailable."""
        pushed = pushed_bytes = 0
        replaced = False
        leaves = differing(await self._store.digests(span), await node.digests("object", span))
        for leaf in leaves:
            theirs = _by_hash(await node.leaf("object", span, leaf))
            for key, digest in await self._store.leaf(span, leaf):
                held = theirs.get(key[:HASH_BYTES])
                if held is not None and _covers(held, key, digest):
                    continue
                if pushed == KEYS_AT_ONCE:
                    return pushed, pushed_bytes, True
                reading = await self._store.object_by_key(key)
                if reading is None:
                    replaced = True  # meanwhile, by what is to be looked at anew
                    continue
                if held is not None and held[0] == key:
                    await self._settle(reading, key, node)
                else:
                    await copy(reading, node, self._pack_cut_bytes)
                pushed += 1
                pushed_bytes += reading.version.size
                self.pushed += 1
        return pushed, pushed_bytes, replaced

    async def _settle(self, reading: NodeReading, key: bytes, node: Node) -> None:
        """One version that is not the same here and there: its metadata differs, or two writes were given one timestamp.  The
        higher
        goes to the other side, whichever that is; data that is there already stays where it is."""
        mine = reading.version
        theirs = await node.head(mine.path)
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
                await target.post(best.path, metadata, best.content_type, best.metadata_timestamp)
            return
        found = reading if best is mine else await node.object_by_key(key)
        if found is not None:
            await copy(found, target, self._pack_cut_bytes)

    async def _drop(self, span: Span, primaries: Sequence[Node]) -> None:
        """Let go of what every primary holds.  Asks them anew: what was sent is not what was acknowledged."""
        mine = await self._store.digests(span)
        for leaf in mine.leaves:
            try:
                theirs = [_by_hash(await node.leaf("object", span, leaf)) for node in primaries]
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


def _by_hash(keys: Sequence[tuple[bytes, bytes]]) -> Mapping[bytes, tuple[bytes, bytes]]:
    """The newest version of each name: its key is the least, versions being inverted timestamps."""
    newest: dict[bytes, tuple[bytes, bytes]] = {}
    for key, digest in sorted(keys, reverse=True):
        newest[key[:HASH_BYTES]] = (key, digest)
    return newest


def _covers(held: tuple[bytes, bytes], key: bytes, digest: bytes) -> bool:
    """Whether ``held`` makes ours superfluous: it is newer, or it is the same with the same content."""
    return held[0] < key or held == (key, digest)

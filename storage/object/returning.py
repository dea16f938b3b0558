"""Returning: comparing what a device holds that was away while tombstones were forgotten.

Of what is not above the horizon, partition by partition:

- a device that is clean holds it exactly so: then it was not deleted, and stays;
- such a device holds something older of the name: then it was not deleted either (that device would have forgotten the older one
  too), and the replicator pushes it;
- such a device holds something newer: what is here is out of date.  It is waited for that the newer one comes, or that the
  replicator hands it off; of an erasure-coded policy, where nobody brings anything to a device that does not answer, it is told
  (a note: storage.object.noting), as a commit of the newer one would have done;
- every other device that is to hold it answers, is clean, and knows nothing of the name: it was deleted, or all who had it are
  gone.  It is put aside (returned.py), and reported; a tombstone just goes.  Of an erasure-coded policy also where they know of
  something older only: what was acknowledged, one of them knows of, and a fragment by itself can be brought to nobody;
- else nothing follows, and it is looked at again.

Where there is no other device to ask, there is nothing to compare with, and what is here is what there is.

Neighbours: reclaimer (calls it, and moves the mark in the end), comparing, storage.object.replicator (what it may push meanwhile).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ring.device import Device
from ring.errors import Conflict, DiskFault, NotFound, Unavailable
from ring.names import Span
from ring.service.overlap import Overlap
from ring.timestamp import Timestamp
from ring.world.interface import Clock
from storage.client.errors import ClockAhead, PromisedAbove
from storage.client.node import Kind, Node
from storage.client.quorum import rank
from storage.object.returned import put_aside, put_fragment_aside
from storage.object.store import ObjectStore
from storage.sync.comparing import HASH_BYTES, KeyDigest, ask, holders


class Returning:
    def __init__(
        self, clock: Clock, device: Device, store: ObjectStore, nodes: Callable[[Device], Node], *, coded: bool = False
    ) -> None:
        self.put_aside = 0  # versions, since the start
        self._clock = clock
        self._device = device
        self._store = store
        self._nodes = nodes
        self._coded = coded

    async def look(self, overlap: Overlap, span: Span, until: int) -> bool:
        """True when all that is held of the partition at or below ``until`` (ticks) is known not to have been deleted."""
        others = [device for device in holders(overlap, span) if device.id != self._device.id]
        if not others:
            return True
        answers = await ask(others, self._nodes, overlap, span, clean=until)
        if not answers.answers:
            return False
        mine = await self._store.digests(span)
        good = True
        for leaf in sorted(answers.differ_all(mine)):
            theirs = await answers.leaf(span, leaf)
            if theirs is None:
                return False
            for key, digest in await self._store.leaf(span, leaf):
                if Timestamp.unpack_inverted(key[16:]) <= Timestamp(until):
                    known = [
                        (answer.node, newest)
                        for answer, there in zip(answers.answers, theirs, strict=True)
                        if (newest := there.get(key[:HASH_BYTES])) is not None
                    ]
                    good &= await self._version(key, digest, known, all_answered=not answers.silent)
        return good

    async def _version(self, key: bytes, digest: bytes, known: Sequence[tuple[Node, KeyDigest]], *, all_answered: bool) -> bool:
        """``known``: who of the others has which version of the name."""
        if any(newest == (key, digest) for _, newest in known):
            return True
        if self._coded and known:
            if any(newest[0] == key for _, newest in known):
                return True  # with other metadata, which the reconstructor sees to
            newer = [node for node, newest in known if newest[0] < key]
            if newer:
                return await self._learn(key, newer[0])
        elif known:
            return False
        if not all_answered:
            return False
        held = self._store.index.get(key)
        if held is None:
            return True
        try:
            if held.kind is Kind.TOMBSTONE:
                self._store.mark_paid([key])
                return await self._store.drop(key, "reclaimed")
            if held.entry.whole:
                self.put_aside += await put_aside(self._store, key, self._clock.now())
            else:
                self.put_aside += await put_fragment_aside(self._store, key, self._clock.now())
        except Conflict:
            return False
        return True

    async def _learn(self, key: bytes, node: Node) -> bool:
        """Of something newer than what is held here: that there is it.  Its data is the reconstructor's, when this device counts
        again.  Raises Unavailable."""
        path = await self._store.path_of(key)
        if path is None:
            return True  # replaced meanwhile
        try:
            seen = await node.fragments().sightings(path)
        except (Unavailable, DiskFault, NotFound):
            return False
        version = max((one.version for one in seen if one.committed), key=rank, default=None)
        if version is None:
            return False
        try:
            if version.kind is Kind.TOMBSTONE:
                await self._store.put_small(version, b"", None)
            else:
                await self._store.staging.stage(version, None, seen=True)
                await self._store.staging.commit(version, None, seen=True)
        except (PromisedAbove, ClockAhead, Conflict):
            return False
        return self._store.index.get(key) is None

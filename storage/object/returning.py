"""Returning: comparing what a device holds that was away while tombstones were forgotten.

Of what is not above the horizon, partition by partition:

- a device that is clean holds it exactly so: then it was not deleted, and stays;
- such a device holds something older of the name: then it was not deleted either (that device would have forgotten the older one
  too), and the replicator pushes it;
- such a device holds something newer: what is here is out of date.  It is waited for that the newer one comes, or that the
  replicator hands it off;
- every other device that is to hold it answers, is clean, and knows nothing of the name: it was deleted, or all who had it are
  gone.  It is put aside (returned.py), and reported; a tombstone just goes;
- else nothing follows, and it is looked at again.

Where there is no other device to ask, there is nothing to compare with, and what is here is what there is.

Neighbours: reclaimer (calls it, and moves the mark in the end), comparing, storage.object.replicator (what it may push meanwhile).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ring.device import Device
from ring.errors import Conflict
from ring.names import Span
from ring.service.overlap import Overlap
from ring.timestamp import Timestamp
from ring.world.interface import Clock
from storage.client.node import Kind, Node
from storage.object.returned import put_aside
from storage.object.store import ObjectStore
from storage.sync.comparing import KeyDigest, ask, holders


class Returning:
    def __init__(self, clock: Clock, device: Device, store: ObjectStore, nodes: Callable[[Device], Node]) -> None:
        self.put_aside = 0  # versions, since the start
        self._clock = clock
        self._device = device
        self._store = store
        self._nodes = nodes

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
                    good &= await self._version(key, digest, theirs, all_answered=not answers.silent)
        return good

    async def _version(self, key: bytes, digest: bytes, theirs: Sequence[Mapping[bytes, KeyDigest]], *, all_answered: bool) -> bool:
        known = [newest for there in theirs if (newest := there.get(key[:16])) is not None]
        if (key, digest) in known:
            return True
        if known or not all_answered:
            return False
        held = self._store.index.get(key)
        if held is None:
            return True
        try:
            if held.kind is Kind.TOMBSTONE:
                self._store.mark_paid([key])
                return await self._store.drop(key, "reclaimed")
            if not held.entry.whole:
                return False  # a fragment by itself is no version; what it is of is the reconstructor's
            self.put_aside += await put_aside(self._store, key, self._clock.now())
        except Conflict:
            return False
        return True

"""The reclaimer of a device's objects: says how far the device is clean, lets go of tombstones that everybody may forget, and
compares what a device holds that was away.

The walks are those of storage.sync.reclaimer:

- **look**: the device is clean up to C when of every partition, of what is not above C: a primary holds exactly what every other
  primary holds; another device holds nothing; nothing is staged, and no row is owed for it.  Tombstones that may be forgotten
  already do not count.
- **forget**: a tombstone goes when every other primary answers, is clean up to H itself, and holds this very tombstone or nothing
  of the name.
- **compare**: returning.py.

Of an erasure-coded policy what counts is which versions a device knows of, not which fragment it has of them: digests leave that
out.  A fragment lies at primaries, or its device is not clean; so where all of them hold the tombstone or nothing, no fragment of
what it hid is left to be put together with others.

Why no deletion comes back.  Let T be a tombstone at or below H, and v an older version of its name.  Before H was agreed upon,
each device of the ring was found clean up to H, after a time from which nobody could write at or below H.  So no device that is
not a primary of the name holds v, nor will it: what is brought to such a device is new, and above H.  A primary forgets T only when
none of the others holds v.  So v is nowhere on a device of the ring, and no device brings it: one that does not go by this edition
is refused by those that do (ring.service.gate), also with what it sent earlier; one that was no device of the ring is behind, and
brings nothing of that age.  What is written from now on is above H, and needs no T to be right.

What stands in the way (a device that is out of service, a row that cannot be paid, replicas that differ) keeps tombstones where
they are.  It costs room and nothing else.

Pushing what differs is the replicator's, dropping is a record of the log (store.drop), so a crash at any point leaves a tombstone
or none.  Neighbours: storage.sync.reclaimer (when), storage.sync.comparing (asks the others), returning, replicator, reconstructor.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from ring.device import Device
from ring.errors import Conflict
from ring.names import Span
from ring.service.overlap import Overlap
from ring.timestamp import Timestamp
from ring.world.interface import Clock
from storage.client.node import Kind, Node
from storage.object.entry import Held
from storage.object.returning import Returning
from storage.object.store import ObjectStore
from storage.sync.comparing import ask, holders
from storage.sync.proposal import Proposal
from storage.sync.reclaimer import FORGET_AGAIN_S, INTERVAL_S, Reclaimer
from storage.sync.standing import OBJECTS
from storage.sync.tree import leaf_of

DEBTS_MAX = 10_000
PAGE = 1000


class ObjectReclaimer(Reclaimer):
    """``overlap`` gives the object ring in force, ``nodes`` the node of a device, for this store's policy; ``coded``: that is
    an erasure-coded one; ``clear`` as of Reclaimer."""

    def __init__(
        self,
        clock: Clock,
        device: Device,
        store: ObjectStore,
        overlap: Callable[[], Overlap],
        nodes: Callable[[Device], Node],
        proposal: Proposal,
        *,
        coded: bool = False,
        clear: Callable[[int], bool] = lambda edition: True,
        interval_s: float = INTERVAL_S,
        forget_again_s: float = FORGET_AGAIN_S,
    ) -> None:
        super().__init__(
            f"object-reclaimer d{device.id}",
            OBJECTS,
            device,
            store.standing,
            overlap,
            proposal,
            Returning(clock, device, store, nodes, coded=coded),
            clear=clear,
            interval_s=interval_s,
            forget_again_s=forget_again_s,
        )
        self._store = store
        self._nodes = nodes

    async def _next(self, start: bytes, part_power: int) -> Span | None:
        return await self._store.partition_from(start, part_power)

    def _nothing_pending(self, ticks: int) -> bool:
        """No row is owed, and nothing staged, for what is not above it."""
        until = Timestamp(ticks)
        if self._store.index.staged.before(Timestamp(ticks + 1)):
            return False
        debts = self._store.unpaid(DEBTS_MAX)
        return len(debts) < DEBTS_MAX and all(version.timestamp > until for _, version, _ in debts)

    async def _settle(self) -> None:
        await self._store.index.commit()  # a crash would bring back what was owed, when its row's tombstone may be gone

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

"""The object updater of a device: sends again the container rows that its objects still owe.

A Worker: one batch at a time.  A row goes where the record says; when the container has moved away from there, to all of its
primaries (while it moves, of the settled ring too); when it names a shard that was replaced, to all of the container's, which
forward it (storage.container.sharder).  Rows are last-write-wins, so sending twice does no harm.  A debt is settled
only when every device it names took the row: one that does not answer, or knows of no such container, leaves it owed.

Neighbours: store (keeps the debts), storage.client.payer (pays them at once, most of the time), the container's nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ring.daemon.worker import Busy, Idle, Progress
from ring.device import Device
from ring.errors import DiskFault, Unavailable
from ring.names import Path
from ring.service.overlap import Overlap
from ring.world.interface import World
from storage.client.node import Debt, Node
from storage.object.store import ObjectStore
from storage.sync.standing import OBJECTS

INTERVAL_S = 5.0
GRACE_S = 3.0  # a write that is under way pays its row itself
DEBTS_AT_ONCE = 10_000
ROWS_AT_ONCE = 500


class ObjectUpdater:
    """``overlap`` gives the container ring in force."""

    def __init__(
        self,
        world: World,
        store: ObjectStore,
        overlap: Callable[[], Overlap],
        nodes: Callable[[Device], Node],
        *,
        interval_s: float = INTERVAL_S,
        grace_s: float = GRACE_S,
    ) -> None:
        self.name = f"object-updater d{store.device.device_id}"
        self.paid = 0  # facts since the start
        self.unpaid = 0  # at the last pass
        self._world = world
        self._store = store
        self._overlap = overlap
        self._nodes = nodes
        self._interval_s = interval_s
        self._grace_s = grace_s

    def progress(self) -> Progress:
        return Progress(left=self.unpaid, facts={"paid": self.paid})

    def begin(self) -> None:
        """Called again, it looks at all that is owed."""

    async def work(self) -> Busy | Idle:
        """All debts that are old enough, in batches per device and container."""
        now = self._world.clock.now()
        overlap = self._overlap()  # what is owed is as of now: nobody takes it who goes by newer rings
        debts: dict[bytes, Debt] = {}
        for key, version, debt in self._store.unpaid(DEBTS_AT_ONCE):
            if self._store.standing.doubts(OBJECTS, version.timestamp):
                continue  # it may have been deleted, and its row with it
            if not 0 <= now - version.timestamp.seconds < self._grace_s:
                debts[key] = debt
        owing, refused = await self._pay(overlap, debts)
        elsewhere = {key: replace(debts[key], shard="", device_ids=()) for key in refused if debts[key].shard}
        owing |= (await self._pay(overlap, elsewhere))[0]
        settled = [key for key, unpaid in owing.items() if not unpaid]
        self._store.mark_paid(settled)
        self.paid += len(settled)
        self.unpaid = len(owing) - len(settled)
        return Busy(len(settled)) if settled else Idle.after(self._interval_s)

    async def _pay(self, overlap: Overlap, debts: Mapping[bytes, Debt]) -> tuple[dict[bytes, set[int]], set[bytes]]:
        """By key: the devices that did not take the row.  And the keys that some device has no such book for."""
        owing: dict[bytes, set[int]] = {}
        refused: set[bytes] = set()
        batches: dict[tuple[Device, Path], list[bytes]] = {}
        for key, debt in debts.items():
            targets = _targets(overlap, debt)
            owing[key] = {device.id for device in targets}
            for device in targets:
                batches.setdefault((device, debt.book), []).append(key)
        for (device, book), keys in batches.items():
            node = self._nodes(device)
            if overlap.claim.edition:
                node = node.under(overlap.claim)
            for at in range(0, len(keys), ROWS_AT_ONCE):
                some = keys[at : at + ROWS_AT_ONCE]
                try:
                    took = await node.merge_rows(book, [debts[key].row for key in some]) is not None
                except (Unavailable, DiskFault):
                    break  # unknown: they stay owed, and the rest of them would not get there either
                if not took:
                    refused.update(keys[at:])
                    break
                for key in some:
                    owing[key].discard(device.id)
        return owing, refused


def _targets(overlap: Overlap, debt: Debt) -> Sequence[Device]:
    primaries = overlap.places(debt.book).devices
    named = [device for device in primaries if device.id in debt.device_ids]
    return named if named and len(named) == len(debt.device_ids) else primaries

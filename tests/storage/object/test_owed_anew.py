"""A row that was paid to a disk which is gone: who brings its version from a minority to the others owes it anew."""

from __future__ import annotations

import trio

from ring.daemon.worker import once
from ring.names import Path
from ring.service.horizon import Horizon
from ring.service.overlap import Overlap
from ring.timestamp import Timestamp
from storage.client.local import LocalNode
from storage.client.node import Debt, Kind, Version
from storage.client.reach import Settings
from storage.client.shapes import row_of
from storage.client.trust import Trust
from storage.object.replicator import ObjectReplicator
from storage.object.updater import ObjectUpdater
from tests.storage.client.ground import HASHER, Ground

CONTAINER = Path("AUTH_a", "c")
PATHS = [Path("AUTH_a", "c", f"o{number}") for number in range(40)]
WRITTEN = 1_700_000_000 * 100_000


class Scene:
    """``told`` is the container's only device that hears of the object, and no primary of it; ``holder`` wrote it."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        ring = ground.rings.objects[0].ring
        self.books = [device.id for device in ground.rings.container.places(CONTAINER).devices]
        for path in PATHS:
            self.primaries = [device.id for device in ring.primaries(ring.partition(path))]
            if set(self.primaries) != set(self.books):
                self.path = path
                break
        (self.told,) = set(self.books) - set(self.primaries)
        self.holder = next(number for number in self.primaries if number not in self.books)

    @classmethod
    async def make(cls, nursery: trio.Nursery) -> Scene:
        ground = await Ground.with_engines(nursery, Settings(pack_cut_bytes=4096, repair_delay_s=1e6))
        await ground.storage.put_container(CONTAINER, {})
        return cls(ground)

    async def write(self, *numbers: int, kind: Kind = Kind.OBJECT) -> None:
        data = b"x" if kind is Kind.OBJECT else b""
        version = Version(self.path, Timestamp(WRITTEN), kind, len(data), "e")
        for number in numbers:
            debt = Debt(row_of(version), CONTAINER, (self.told,)) if number == self.holder else None
            assert (await self.ground.nodes[number].put_small(version, data, debt)).paid

    async def replicate(self) -> None:
        device = self.ground.rings.objects[0].ring.device(self.holder)
        store = self.ground.engines[self.holder][0]
        await once(ObjectReplicator(device, store, lambda: self.ground.rings.objects[0], lambda one: self.ground.nodes[one.id]))
        assert all([await self.ground.nodes[number].head(self.path) is not None for number in self.primaries])

    async def update(self) -> None:
        store = self.ground.engines[self.holder][0]
        updater = ObjectUpdater(
            self.ground.world, store, lambda: self.ground.rings.container, lambda one: self.ground.nodes[one.id], grace_s=0
        )
        await once(updater)

    @property
    def debts(self) -> list[Debt]:
        return [debt for store, _ in self.ground.engines for _, _, debt in store.unpaid(10)]

    async def listed_at(self, number: int) -> list[str]:
        page = await self.ground.nodes[number].rows(CONTAINER, start="", end="", limit=10, reverse=False)
        return [row.name for row in page.rows] if page is not None else []


async def test_a_row_that_was_on_one_disk_only(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    scene = await Scene.make(nursery)
    await scene.write(scene.holder)
    assert [await scene.listed_at(number) for number in scene.books].count([scene.path.object]) == 1
    await scene.ground.reformat(scene.told)
    await scene.replicate()
    key = HASHER.hash(scene.path) + Timestamp(WRITTEN).pack_inverted()
    assert scene.ground.engines[scene.holder][0].device.tables.get("owed", key) is not None  # a crash forgets nothing
    await scene.update()
    others = [number for number in scene.books if number != scene.told]
    assert [await scene.listed_at(number) for number in others] == [[scene.path.object]] * 2
    state = await scene.ground.nodes[others[0]].book(CONTAINER)
    assert state is not None
    await scene.ground.nodes[scene.told].merge_header(state.header)  # as the book replicator does
    await scene.update()
    assert await scene.listed_at(scene.told) == [scene.path.object] and not scene.debts


async def test_a_deletion_likewise(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    scene = await Scene.make(nursery)
    await scene.write(scene.holder, kind=Kind.TOMBSTONE)
    await scene.replicate()
    (debt,) = scene.debts
    assert debt.row.deleted and debt.row.timestamp == Timestamp(WRITTEN) and debt.book == CONTAINER


async def test_what_a_majority_has_owes_nothing(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    scene = await Scene.make(nursery)
    await scene.write(*scene.primaries[:2], scene.holder)
    await scene.replicate()
    assert not scene.debts


async def test_a_refill_owes_nothing(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    scene = await Scene.make(nursery)
    await scene.write(scene.holder)
    for number in scene.primaries:
        node = scene.ground.nodes[number]
        assert isinstance(node, LocalNode)
        if number != scene.holder:
            node.trust = Trust(HASHER, refills=True)
    await scene.replicate()
    assert not scene.debts


async def test_nor_does_what_may_have_been_deleted_since(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    scene = await Scene.make(nursery)
    await scene.write(scene.holder)
    ring = scene.ground.rings.objects[0].ring
    scene.ground.rings.objects = {0: Overlap(ring, ring, horizon=Horizon(WRITTEN, WRITTEN))}
    await scene.replicate()
    assert not scene.debts

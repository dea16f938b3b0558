"""A row that is late goes by the edition in which it came to be owed: a device that goes by a newer one may have forgotten the
tombstone that it would have met.  It stays owed, and is sent again by who knows the newer one, if it still is."""

from __future__ import annotations

import trio

from ring.daemon.worker import once
from ring.names import Path
from ring.service.gate import Gate
from ring.service.overlap import Claim, Overlap
from ring.timestamp import Timestamp
from ring.world.sim import SimWorld
from storage.client.interface import Row
from storage.client.local import LocalNode
from storage.client.node import BookHeader, Debt, Kind, Node, Version
from storage.client.payer import RowPayer
from storage.container.updater import ContainerUpdater
from storage.object.store import ObjectStore
from storage.object.updater import ObjectUpdater
from storage.rows.books import Books
from tests.storage.client.ground import make_device, make_ring, open_engines

CONTAINER = Path("a", "c")
ROW = Row("o", Timestamp(100), 1, "e")
DEBT = Debt(ROW, CONTAINER, (0,))


class Rig:
    """One device; ``claim`` is by what it sends, ``gate.edition`` by what it takes."""

    def __init__(self, nursery: trio.Nursery, store: ObjectStore, books: Books) -> None:
        self.store, self.books = store, books
        self.gate = Gate()
        self.gate.edition = 1
        self.claim = Claim(1)
        self.nodes: dict[int, Node] = {}
        self.hears = False  # of the next edition, when the next row goes
        self.payer = RowPayer(nursery, self.find, claim=lambda: self.claim)
        self.nodes[0] = LocalNode(make_device(0), store, books, self.payer, self.gate)

    @classmethod
    async def make(cls, nursery: trio.Nursery, world: SimWorld) -> Rig:
        rig = cls(nursery, *await open_engines(nursery, world, 0))
        await rig.books.merge_header(BookHeader(CONTAINER, Timestamp(1), None))
        await rig.books.merge_header(BookHeader(CONTAINER.parent, Timestamp(1), None))
        return rig

    def find(self, device_id: int) -> Node | None:
        if self.hears:
            self.gate.edition, self.claim = 2, Claim(2)
        return self.nodes.get(device_id)

    def overlap(self) -> Overlap:
        ring = make_ring(1, 1)
        return Overlap(ring, ring, self.claim)

    async def rows(self, book: Path = CONTAINER) -> list[str]:
        page = await self.books.rows(book, start="", end="", limit=10, reverse=False)
        assert page is not None
        return [row.name for row in page.rows]


async def test_a_row_that_is_paid_by_an_older_edition_is_refused(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    rig = await Rig.make(nursery, SimWorld(1))
    rig.gate.edition = 2
    assert not await rig.payer.pay(DEBT) and not await rig.rows()
    rig.claim = Claim(2)
    assert await rig.payer.pay(DEBT) and await rig.rows() == ["o"]


async def test_what_waits_keeps_its_edition(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    """The process that owes it has heard of the newer one by the time the row goes."""
    rig = await Rig.make(nursery, SimWorld(1))
    rig.hears = True
    assert not await rig.payer.pay(DEBT) and not await rig.rows()
    assert rig.gate.edition == 2


async def test_an_object_updater_goes_by_its_edition(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    world = SimWorld(1)
    rig = await Rig.make(nursery, world)
    version = Version(Path("a", "c", "o"), ROW.timestamp, Kind.OBJECT, 1, "e")
    await rig.store.put_small(version, b"x", DEBT)
    await trio.sleep(10)
    rig.gate.edition = 2
    updater = ObjectUpdater(world, rig.store, rig.overlap, lambda device: rig.nodes[device.id])
    await once(updater)
    assert updater.unpaid == 1 and not await rig.rows()
    rig.claim = Claim(2)
    await once(updater)
    assert updater.paid == 1 and await rig.rows() == ["o"]


async def test_a_container_updater_goes_by_its_edition(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    rig = await Rig.make(nursery, SimWorld(1))
    rig.gate.edition = 2
    updater = ContainerUpdater(make_device(0), rig.books, rig.overlap, lambda device: rig.nodes[device.id])
    await once(updater)
    assert [updater.reported, await rig.rows(CONTAINER.parent)] == [0, []]
    rig.claim = Claim(2)
    await once(updater)
    assert [updater.reported, await rig.rows(CONTAINER.parent)] == [1, ["c"]]

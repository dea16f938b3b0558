"""Tombstones of an erasure-coded policy go when everybody may forget them; a fragment that is brought back is compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import pytest
import trio

from ring.daemon.worker import once
from ring.errors import Unavailable
from ring.service.horizon import Horizon
from ring.service.overlap import Overlap
from ring.timestamp import TICKS_PER_SECOND
from ring.world.sim.clock import EPOCH
from storage.client.errors import NoQuorum, ObjectNotFound
from storage.client.node import Kind
from storage.object.reclaimer import ObjectReclaimer
from storage.object.returned import FRAGMENT_BODY_SUFFIX, FRAGMENT_SUFFIX, decode, listing
from storage.object.store import ObjectStore
from storage.sync.proposal import Proposal
from storage.sync.standing import OBJECTS
from tests.storage.client.ground import Distant, Ground
from tests.storage.client.test_coded import OBJECT, all_lines, get, make, noise, put, reconstruct, seen

pytestmark = pytest.mark.usefixtures("autojump_clock")
SMALL, LARGE = 100, 9000
NOW = int(EPOCH * TICKS_PER_SECOND)
LATER = NOW + 3600 * TICKS_PER_SECOND


@dataclass
class Cloud:
    """4+2 over eight devices; ``lines`` are those of the object's primaries."""

    ground: Ground
    lines: list[Distant]
    reports: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    async def of(cls, nursery: trio.Nursery) -> Cloud:
        ground, lines = await make(nursery)
        cloud = cls(ground, lines)
        cloud.at(Horizon())
        return cloud

    def at(self, horizon: Horizon) -> None:
        ring = self.ground.rings.objects[1].ring
        self.ground.rings.objects = {**self.ground.rings.objects, 1: Overlap(ring, ring, horizon=horizon)}
        for part in self.ground.parts:
            part.standing.horizon = lambda name: horizon

    def part(self, line: Distant) -> ObjectStore:
        return self.ground.parts[line.device.id]

    async def paid(self) -> None:
        await trio.sleep(5)
        for part in self.ground.parts:
            part.mark_paid([key for key, _, _ in part.unpaid(100)])

    async def reclaim(self, *numbers: int) -> list[ObjectReclaimer]:
        workers = []
        for number in numbers or range(len(self.ground.parts)):
            proposal = Proposal(self.ground.world.clock, partial(self._tell, number), age_s=60.0)
            workers.append(
                ObjectReclaimer(
                    self.ground.world.clock,
                    self.ground.nodes[number].device,
                    self.ground.parts[number],
                    lambda: self.ground.rings.objects[1],
                    lambda device: self.ground.nodes[device.id].of(1),
                    proposal,
                    coded=True,
                )
            )
            await once(workers[-1])
        return workers

    def _tell(self, number: int, overlap: Overlap, clean: int, proposed: int) -> None:
        self.reports.append((number, clean))

    def marks(self) -> list[int]:
        return [part.standing.mark(OBJECTS) for part in self.ground.parts]

    async def mark(self, ticks: int, *, but: int = -1) -> None:
        for number, part in enumerate(self.ground.parts):
            if number != but:
                await part.standing.move(OBJECTS, ticks)

    def held(self) -> list[Kind]:
        """By whom anything is held of the name."""
        found = [part.index.newest(part.hash(OBJECT)) for part in self.ground.parts]
        return [one.kind for one in found if one is not None]


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_a_tombstone_goes_when_all_have_it(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, size: int) -> None:
    cloud = await Cloud.of(nursery)
    await put(cloud.ground, noise(size))
    await delete(cloud.ground)
    await cloud.paid()
    cloud.at(Horizon(LATER))
    await cloud.reclaim()
    assert cloud.marks() == [LATER] * 8
    cloud.at(Horizon(LATER, LATER))
    workers = await cloud.reclaim()
    assert sum(worker.reclaimed for worker in workers) == 6 and not cloud.held()
    with pytest.raises(ObjectNotFound):
        await get(cloud.ground)


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_what_is_deleted_where_one_does_not_hear_of_it_stays_deleted(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, size: int
) -> None:
    cloud = await Cloud.of(nursery)
    await put(cloud.ground, noise(size))
    cloud.lines[0].cut = True
    await delete(cloud.ground)
    await cloud.paid()
    cloud.lines[0].cut = False
    cloud.at(Horizon(LATER))
    await cloud.reclaim()
    assert cloud.marks().count(0) == 6  # a fragment is left
    await cloud.mark(LATER)  # were it not so ...
    cloud.at(Horizon(LATER, LATER))
    workers = await cloud.reclaim()
    assert not sum(worker.reclaimed for worker in workers)  # ... it would be seen now
    await reconstruct(cloud.ground, 2)
    await cloud.reclaim()
    assert not cloud.held()


async def test_what_one_has_forgotten_is_not_brought_back(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    cloud = await Cloud.of(nursery)
    await delete_something(cloud)
    await cloud.mark(LATER)
    cloud.at(Horizon(LATER, LATER))
    await cloud.reclaim(cloud.lines[0].device.id)
    assert len(cloud.held()) == 5
    await reconstruct(cloud.ground, 2)
    assert len(cloud.held()) == 5
    await cloud.reclaim()
    assert not cloud.held()


async def delete(ground: Ground) -> None:
    await ground.storage.delete_object(OBJECT)


async def delete_something(cloud: Cloud) -> None:
    await put(cloud.ground, noise(SMALL))
    await delete(cloud.ground)
    await cloud.paid()


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_what_is_staged_keeps_its_device_from_being_clean(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, size: int
) -> None:
    """And it is not finished for its writer, where the ring has closed, but refused."""
    cloud = await Cloud.of(nursery)

    def rule(name: str) -> None:
        if name == "commit":
            raise Unavailable("the writer is dead")

    for line in all_lines(cloud.ground):
        line.rule = rule
    with pytest.raises(Unavailable):
        await put(cloud.ground, noise(size))
    for line in all_lines(cloud.ground):
        line.rule = lambda name: None
    await cloud.paid()
    cloud.at(Horizon(LATER))
    await cloud.reclaim()
    assert cloud.marks().count(LATER) < 8
    await reconstruct(cloud.ground, 6, leftover_s=0)
    assert not any([await seen(line) for line in all_lines(cloud.ground)])
    await cloud.reclaim()
    assert cloud.marks() == [LATER] * 8


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_nothing_is_staged_where_the_ring_has_closed(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, size: int
) -> None:
    cloud = await Cloud.of(nursery)
    for part in cloud.ground.parts:
        part.standing.horizon = lambda name: Horizon(LATER)
    with pytest.raises(Unavailable):  # this front door has not heard of it: it gives old timestamps
        await put(cloud.ground, noise(size))
    assert not any([await seen(line) for line in all_lines(cloud.ground)])


# ---- a device that was away


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_what_nobody_knows_is_put_aside(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, size: int) -> None:
    cloud = await Cloud.of(nursery)
    away = cloud.lines[0]
    await put(cloud.ground, noise(size))
    away.cut = True
    await delete(cloud.ground)
    away.cut = False
    for line in cloud.lines[1:]:
        part = cloud.part(line)
        part.mark_paid([key for key, _, _ in part.unpaid(100)])
        held = part.index.newest(part.hash(OBJECT))
        assert held is not None and await part.drop(held.key, "reclaimed")
    part = cloud.part(away)
    part.mark_paid([key for key, _, _ in part.unpaid(100)])
    await cloud.mark(LATER, but=away.device.id)
    cloud.at(Horizon(LATER, LATER))
    with pytest.raises(Unavailable, match="was away"):
        await part.staging.sightings(OBJECT)
    with pytest.raises((ObjectNotFound, NoQuorum)):
        await get(cloud.ground)
    await reconstruct(cloud.ground, 2)
    assert len(cloud.held()) == 1  # brought to nobody
    await cloud.reclaim(away.device.id)
    assert not cloud.held() and not part.standing.behind(OBJECTS)
    disk = part.device.disk
    names = await disk.list_dir("quarantine")
    if size == SMALL:
        assert [one.version.path for one in await listing(disk)] == [OBJECT]
    else:
        (name,) = [name.removesuffix(FRAGMENT_SUFFIX) for name in names if name.endswith(FRAGMENT_SUFFIX)]
        assert decode(await disk.read_file(f"quarantine/{name}{FRAGMENT_SUFFIX}"), name).version.path == OBJECT
        assert f"{name}{FRAGMENT_BODY_SUFFIX}" in names


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("deleted", [False, True])
async def test_of_what_is_newer_elsewhere_it_is_told(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, size: int, deleted: bool
) -> None:
    cloud = await Cloud.of(nursery)
    away = cloud.lines[0]
    await put(cloud.ground, noise(size, 1))
    away.cut = True
    if deleted:
        await delete(cloud.ground)
    else:
        await put(cloud.ground, noise(size, 2))
    await cloud.paid()
    away.cut = False
    await cloud.mark(LATER, but=away.device.id)
    cloud.at(Horizon(LATER, LATER))
    await cloud.reclaim(away.device.id)
    assert not cloud.part(away).standing.behind(OBJECTS)
    assert not any("returned" in name for name in await cloud.part(away).device.disk.list_dir("quarantine"))
    await reconstruct(cloud.ground, 2)
    if deleted:
        with pytest.raises(ObjectNotFound):
            await get(cloud.ground)
    else:
        assert await get(cloud.ground) == noise(size, 2)


async def test_what_a_clean_device_knows_stays(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    cloud = await Cloud.of(nursery)
    await put(cloud.ground, noise(LARGE))
    await cloud.paid()
    await cloud.mark(LATER, but=cloud.lines[0].device.id)
    cloud.at(Horizon(LATER, LATER))
    await cloud.reclaim()
    assert cloud.marks() == [LATER] * 8 and len(cloud.held()) == 6
    assert await get(cloud.ground) == noise(LARGE)

"""Tombstones go when everybody may forget them, and not before; what a device brings back that was away is compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import pytest
import trio

from ring.daemon.worker import once
from ring.device import Device
from ring.errors import Unavailable
from ring.names import Path, Span
from ring.service.horizon import Horizon
from ring.service.overlap import Overlap
from ring.timestamp import TICKS_PER_SECOND, Timestamp
from ring.wire.message import BytesBody
from ring.world.sim.clock import EPOCH
from storage.client.interface import NewObject, Row
from storage.client.local import LocalNode
from storage.client.node import Debt, Kind, Node, Version
from storage.client.reach import Settings
from storage.client.trust import Trust
from storage.object.reclaimer import ObjectReclaimer
from storage.object.replicator import ObjectReplicator
from storage.object.returned import body_of, decode, encode, listing
from storage.object.store import ObjectStore
from storage.sync.proposal import Proposal
from storage.sync.standing import OBJECTS
from tests.storage.client.ground import HASHER, Ground
from tests.storage.object.object_rig import GOLDEN
from tests.storage.silent import Silent

CONTAINER = Path("AUTH_a", "c")
NAME = Path("AUTH_a", "c", "o")
CUT = 4096
NOW = int(EPOCH * TICKS_PER_SECOND)
OLD, DELETED, CLOSED = NOW - 3000, NOW - 2000, NOW - 1000  # ticks


@dataclass
class Cloud:
    """Four devices, one name: its primaries are ``holders``, the other device is ``stranger``."""

    ground: Ground
    reports: list[tuple[int, int, int]] = field(default_factory=list)  # device, clean, proposal
    silent: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        ring = self.ground.rings.objects[0].ring
        self.holders = [device.id for device in ring.primaries(ring.partition(NAME))]
        self.stranger = next(number for number in range(4) if number not in self.holders)
        self.at(Horizon())

    def store(self, number: int) -> ObjectStore:
        return self.ground.engines[number][0]

    def at(self, horizon: Horizon) -> None:
        ring = self.ground.rings.objects[0].ring
        self.ground.rings.objects = {0: Overlap(ring, ring, horizon=horizon)}
        for number in range(4):
            self.store(number).standing.horizon = lambda name: horizon

    def overlap(self) -> Overlap:
        return self.ground.rings.objects[0]

    def node(self, device: Device) -> Node:
        return cast(Node, Silent(device)) if device.id in self.silent else self.ground.nodes[device.id]

    def reclaimer(self, number: int) -> ObjectReclaimer:
        def tell(overlap: Overlap, clean: int, proposal: int) -> None:
            self.reports.append((number, clean, proposal))

        device = self.overlap().ring.device(number)
        proposal = Proposal(self.ground.world.clock, tell, age_s=60.0)
        return ObjectReclaimer(self.ground.world.clock, device, self.store(number), self.overlap, self.node, proposal)

    async def reclaim(self, *numbers: int) -> list[ObjectReclaimer]:
        workers = [self.reclaimer(number) for number in numbers or range(4)]
        for worker in workers:
            await once(worker)
        return workers

    async def replicate(self, number: int) -> None:
        device = self.overlap().ring.device(number)
        await once(ObjectReplicator(device, self.store(number), self.overlap, self.node, pack_cut_bytes=CUT))

    async def put(self, ticks: int, *numbers: int, size: int = 5, path: Path = NAME) -> None:
        for number in numbers or self.holders:
            version = Version(path, Timestamp(ticks), Kind.OBJECT, size, f"etag{ticks}", "text/plain", {"x-object-meta-a": "1"})
            await self.store(number).put_small(version, b"x" * size, None)

    async def delete(self, ticks: int, *numbers: int, debt: Debt | None = None) -> None:
        for number in numbers or self.holders:
            await self.store(number).put_small(Version(NAME, Timestamp(ticks), Kind.TOMBSTONE), b"", debt)

    def held(self, number: int) -> Timestamp | None:
        held = self.store(number).index.newest(self.store(number).key(NAME, Timestamp(0))[:16])
        return None if held is None else held.timestamp

    async def mark(self, ticks: int, *numbers: int) -> None:
        for number in numbers or range(4):
            await self.store(number).standing.move(OBJECTS, ticks)


@pytest.fixture
async def cloud(nursery: trio.Nursery) -> Cloud:
    ground = await Ground.with_engines(nursery, Settings(pack_cut_bytes=CUT, repair_delay_s=1e6))
    await ground.storage.put_container(CONTAINER, {})
    return Cloud(ground)


# ---- whether it is clean


async def test_clean_are_replicas_that_hold_the_same(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    await cloud.put(OLD)
    await cloud.put(CLOSED + 5, cloud.holders[0], path=Path("AUTH_a", "c", "new"))  # above: nobody's business yet
    cloud.at(Horizon(CLOSED, 0))
    await cloud.reclaim()
    assert [cloud.store(number).standing.mark(OBJECTS) for number in range(4)] == [CLOSED] * 4
    assert {(number, clean) for number, clean, _ in cloud.reports} == {(number, CLOSED) for number in range(4)}
    assert all(abs(proposal - (NOW - 60 * TICKS_PER_SECOND)) < 10 * TICKS_PER_SECOND for _, _, proposal in cloud.reports)


async def a_replica_lacks_it(cloud: Cloud) -> None:
    await cloud.put(OLD, *cloud.holders[:2])


async def a_replica_has_an_older_one(cloud: Cloud) -> None:
    await cloud.put(OLD)
    await cloud.delete(DELETED, *cloud.holders[:2])


async def a_stranger_has_one(cloud: Cloud) -> None:
    await cloud.put(OLD, *cloud.holders, cloud.stranger)


async def a_replica_is_silent(cloud: Cloud) -> None:
    await cloud.put(OLD)
    cloud.silent.add(cloud.holders[2])


async def a_row_is_owed(cloud: Cloud) -> None:
    row = Row("o", Timestamp(DELETED), deleted=True)
    await cloud.delete(DELETED, debt=Debt(row, CONTAINER, (0,)))


@pytest.mark.parametrize(
    "make", [a_replica_lacks_it, a_replica_has_an_older_one, a_stranger_has_one, a_replica_is_silent, a_row_is_owed]
)
async def test_what_is_not_clean(cloud: Cloud, make: Callable[[Cloud], object], autojump_clock: trio.testing.MockClock) -> None:
    await make(cloud)  # type: ignore[misc]  # they are coroutines
    cloud.at(Horizon(CLOSED, 0))
    await cloud.reclaim()
    marks = [cloud.store(number).standing.mark(OBJECTS) for number in [*cloud.holders, cloud.stranger]]
    assert 0 in marks
    if make is a_stranger_has_one:
        assert marks == [CLOSED, CLOSED, CLOSED, 0]


async def test_nothing_is_looked_at_while_older_writes_are_under_way(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    cloud.at(Horizon(CLOSED, 0))
    worker = cloud.reclaimer(0)
    worker._clear = lambda edition: False
    await once(worker)
    assert cloud.store(0).standing.mark(OBJECTS) == 0


async def test_what_was_paid_stays_so_before_the_mark_moves(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    """Else a crash would bring the debt back, to a device that is known to owe nothing so old, and its row to where the tombstone
    above it is forgotten."""
    store = cloud.store(cloud.holders[0])
    for number in cloud.holders:
        debt = Debt(Row("o", Timestamp(OLD), 1), CONTAINER, (0,)) if number == cloud.holders[0] else None
        version = Version(NAME, Timestamp(OLD), Kind.OBJECT, 1, "e")
        await cloud.store(number).put_small(version, b"x", debt)
    await store.index.commit()
    cloud.at(Horizon(CLOSED, 0))
    worker = cloud.reclaimer(cloud.holders[0])
    while worker._walk is None or worker._walk.start is not None:
        await worker.work()
    store.mark_paid([store.key(NAME, Timestamp(OLD))])  # just when the walk has seen all
    await worker.work()
    assert store.standing.mark(OBJECTS) == CLOSED
    assert store.device.tables.get("owed", store.key(NAME, Timestamp(OLD))) is None


# ---- forgetting


async def test_a_tombstone_goes_when_all_hold_it(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    await cloud.put(OLD)
    await cloud.delete(DELETED)
    await cloud.mark(CLOSED)
    workers = await cloud.reclaim()
    assert not any(worker.reclaimed for worker in workers)  # no horizon, nothing goes
    cloud.at(Horizon(CLOSED, CLOSED))
    workers = await cloud.reclaim()
    assert sum(worker.reclaimed for worker in workers) == 3
    assert [cloud.held(number) for number in cloud.holders] == [None] * 3
    span = Span.of(cloud.store(0).key(NAME, Timestamp(0)), 4)
    assert {(await cloud.store(number).digests(span)).root for number in cloud.holders} == {bytes(16)}


async def test_a_tombstone_above_the_horizon_stays(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    await cloud.delete(DELETED)
    await cloud.mark(CLOSED)
    cloud.at(Horizon(CLOSED, DELETED - 1))
    workers = await cloud.reclaim()
    assert not any(worker.reclaimed for worker in workers)


@pytest.mark.parametrize("what", ["older data", "silent", "behind", "owed"])
async def test_what_keeps_a_tombstone(cloud: Cloud, what: str, autojump_clock: trio.testing.MockClock) -> None:
    last = cloud.holders[2]
    debt = Debt(Row("o", Timestamp(DELETED), deleted=True), CONTAINER, (0,)) if what == "owed" else None
    await cloud.put(OLD)
    await cloud.delete(DELETED, *cloud.holders[: 2 if what == "older data" else 3], debt=debt)
    await cloud.mark(CLOSED, *(cloud.holders[:2] if what == "behind" else range(4)))
    if what == "silent":
        cloud.silent.add(last)
    cloud.at(Horizon(CLOSED, CLOSED))
    workers = await cloud.reclaim(*cloud.holders[:2])
    assert not any(worker.reclaimed for worker in workers)
    assert all(worker.kept == 1 for worker in workers)
    assert [cloud.held(number) for number in cloud.holders[:2]] == [Timestamp(DELETED)] * 2


async def test_it_goes_also_where_others_have_forgotten_it(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    await cloud.delete(DELETED, cloud.holders[1], cloud.stranger)
    await cloud.mark(CLOSED)
    cloud.at(Horizon(CLOSED, CLOSED))
    await cloud.replicate(cloud.holders[1])
    assert cloud.held(cloud.holders[0]) is None  # it is not brought to who may have forgotten it
    workers = await cloud.reclaim(cloud.holders[1], cloud.stranger)
    assert sum(worker.reclaimed for worker in workers) == 2


async def test_older_data_somewhere_still_gets_the_tombstone(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    await cloud.put(OLD, cloud.holders[2])
    await cloud.delete(DELETED, cloud.holders[0])
    await cloud.mark(CLOSED)
    cloud.at(Horizon(CLOSED, CLOSED))
    await cloud.replicate(cloud.holders[0])
    assert cloud.held(cloud.holders[2]) == Timestamp(DELETED)


# ---- a device that was away


async def back(cloud: Cloud, *numbers: int) -> None:
    """All but these are clean, and the horizon is above everything."""
    await cloud.mark(CLOSED, *(number for number in range(4) if number not in numbers))
    cloud.at(Horizon(CLOSED, CLOSED))


@pytest.mark.parametrize("size", [5, 50_000])
@pytest.mark.parametrize("who", ["primary", "stranger"])
async def test_what_nobody_knows_is_put_aside(cloud: Cloud, size: int, who: str, autojump_clock: trio.testing.MockClock) -> None:
    away = cloud.holders[0] if who == "primary" else cloud.stranger
    await cloud.put(OLD, away, size=size)
    await back(cloud, away)
    with pytest.raises(Unavailable, match="was away"):
        await cloud.store(away).head(NAME)
    await cloud.replicate(away)
    assert all(cloud.held(number) is None for number in range(4) if number != away)  # not pushed
    await cloud.reclaim(away)
    assert cloud.held(away) is None and not cloud.store(away).standing.behind(OBJECTS)
    (returned,) = await listing(cloud.store(away).device.disk)
    assert (returned.version.path, returned.version.timestamp, returned.version.size) == (NAME, Timestamp(OLD), size)
    assert b"".join([piece async for piece in body_of(cloud.store(away).device.disk, returned)]) == b"x" * size
    assert await cloud.store(away).head(NAME) is None  # it answers again


async def test_what_a_clean_one_holds_stays(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    away = cloud.holders[0]
    await cloud.put(OLD)
    await back(cloud, away)
    cloud.silent.add(cloud.holders[2])  # one that holds it is enough
    await cloud.reclaim(away)
    assert cloud.held(away) == Timestamp(OLD) and not cloud.store(away).standing.behind(OBJECTS)


@pytest.mark.parametrize("what", ["silent", "behind too", "being refilled"])
async def test_absence_of_evidence_puts_nothing_aside(cloud: Cloud, what: str, autojump_clock: trio.testing.MockClock) -> None:
    away, other = cloud.holders[:2]
    await cloud.put(OLD, away)
    await back(cloud, away, *([other] if what == "behind too" else []))
    if what == "silent":
        cloud.silent.add(other)
    if what == "being refilled":
        node = cloud.ground.nodes[other]
        assert isinstance(node, LocalNode)
        node.trust = Trust(HASHER, refills=True)
    await cloud.reclaim(away)
    assert cloud.held(away) == Timestamp(OLD) and cloud.store(away).standing.behind(OBJECTS)
    assert not await listing(cloud.store(away).device.disk)


async def test_what_is_above_what_a_clean_one_holds_is_pushed(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    away = cloud.holders[0]
    await cloud.put(OLD)
    await cloud.put(DELETED, away)  # they missed it: had it been deleted, they would not hold the older one
    await back(cloud, away)
    await cloud.reclaim(away)
    assert cloud.store(away).standing.behind(OBJECTS)
    await cloud.replicate(away)
    await cloud.reclaim(away)
    assert [cloud.held(number) for number in cloud.holders] == [Timestamp(DELETED)] * 3
    assert not cloud.store(away).standing.behind(OBJECTS)


async def test_what_is_above_the_horizon_is_pushed_at_once(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    away = cloud.stranger
    await cloud.put(CLOSED + 1, away)
    await back(cloud, away)
    await cloud.replicate(away)
    assert [cloud.held(number) for number in cloud.holders] == [Timestamp(CLOSED + 1)] * 3


async def test_an_outdated_version_waits_for_the_newer_one(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    away = cloud.holders[0]
    await cloud.put(OLD, away)
    await cloud.put(DELETED, *cloud.holders[1:])
    await back(cloud, away)
    await cloud.reclaim(away)
    assert cloud.store(away).standing.behind(OBJECTS) and cloud.held(away) == Timestamp(OLD)
    await cloud.replicate(cloud.holders[1])
    await cloud.reclaim(away)
    assert not cloud.store(away).standing.behind(OBJECTS) and cloud.held(away) == Timestamp(DELETED)


async def test_a_new_disk_is_not_behind(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    number = cloud.holders[0]
    await back(cloud)
    horizon = cloud.overlap().horizon
    store = cloud.store(number)
    await store.standing._write({})  # as of a disk that was just formatted
    await store.standing.opened((OBJECTS,), empty=True)
    assert store.standing.mark(OBJECTS) == horizon.reclaimed


# ---- what is closed


async def test_clients_write_above_where_it_closed(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    closed = NOW + 30 * TICKS_PER_SECOND  # as if this clock were behind
    cloud.at(Horizon(closed, 0))
    stored = await cloud.ground.storage.put_object(NAME, NewObject(), BytesBody(b"x"))
    assert stored.meta.timestamp > Timestamp(closed)
    await cloud.ground.storage.delete_object(NAME)
    assert all((held := cloud.held(number)) is not None and held > stored.meta.timestamp for number in cloud.holders)


async def test_a_late_write_is_refused_and_a_copy_is_not(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    cloud.at(Horizon(CLOSED, 0))
    store = cloud.store(cloud.holders[0])
    version = Version(NAME, Timestamp(OLD), Kind.OBJECT, 1, "e")
    debt = Debt(Row("o", version.timestamp, 1, "e"), CONTAINER, (0,))
    reply = await store.put_small(version, b"x", debt)
    assert reply.newest == Timestamp(CLOSED + 1) and cloud.held(cloud.holders[0]) is None
    upload = await store.put_large(NAME, 1)
    await upload.write(b"x")
    assert (await upload.commit(version, debt)).newest == Timestamp(CLOSED + 1)
    await store.put_small(version, b"x", None)  # a replicator brings what others have
    assert cloud.held(cloud.holders[0]) == Timestamp(OLD)
    assert (await store.put_small(version, b"x", debt)).newest == Timestamp(OLD)  # what is there is there


def test_the_bytes_of_what_is_put_aside() -> None:
    data = (GOLDEN / "returned-1.json").read_bytes()
    returned = decode(data, "name")
    assert encode(returned.version, returned.put_aside_at) == data
    assert returned.version.path == Path("AUTH_test", "photos", "cat.jpg") and returned.version.size == 5

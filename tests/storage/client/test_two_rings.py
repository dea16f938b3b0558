"""Operations while a partition moves: majorities of both rings, devices that refuse older editions, bodies on their way; and
reads that bring what a minority holds to a majority before they show it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import trio
from trio.testing import MockClock

from ring.errors import Unavailable
from ring.names import Path
from ring.placement import Ring
from ring.service.errors import StaleRing
from ring.service.gate import Gate
from ring.service.overlap import Claim, Overlap
from ring.timestamp import TimestampSource
from ring.wire.message import BytesBody
from ring.world.sim import SimWorld
from storage.client.bodies import drained
from storage.client.cluster import ClusterStorage
from storage.client.errors import NoQuorum, ObjectNotFound
from storage.client.fake_node import FakeBooks, FakeObjects
from storage.client.interface import NewObject, Query
from storage.client.local import LocalNode
from storage.client.node import Kind, Node, Version
from storage.client.payer import RowPayer
from storage.client.reach import Rings, Settings
from tests.storage.client.ground import HASHER, Distant, distant, make_device, make_ring

CONTAINER = Path("a", "c")
OBJECT = Path("a", "c", "o")
CUT = 100
LARGE = 1000
DEVICES = 8
SETTINGS = Settings(read_timeout_s=1, write_timeout_s=2, pack_cut_bytes=CUT, chunk_bytes=100, container_cache_s=0)


@dataclass
class Door:
    """A front door with its own idea of the rings; ``newer``: what it can fetch."""

    storage: ClusterStorage
    rings: Rings
    newer: list[dict[str, Overlap]]
    renewed: int = 0

    async def renew(self, claim: Claim) -> bool:
        if not self.newer:
            return False
        self.renewed += 1
        self.rings.take(self.newer.pop(0))
        return True


class Town:
    """Eight devices in RAM; each keeps to an edition of its own."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.world = SimWorld(1)
        self.nursery = nursery
        self.objects = [FakeObjects(HASHER) for _ in range(DEVICES)]
        self.books = [FakeBooks(HASHER) for _ in range(DEVICES)]
        self.gates = [Gate() for _ in range(DEVICES)]
        self.nodes: list[Node] = []
        payer = RowPayer(nursery, lambda device_id: self.nodes[device_id])
        for n in range(DEVICES):
            self.nodes.append(distant(LocalNode(make_device(n), self.objects[n], self.books[n], payer, self.gates[n])))

    def door(self, overlaps: dict[str, Overlap], *newer: dict[str, Overlap]) -> Door:
        rings = Rings.of(overlaps)
        timestamps = TimestampSource(self.world.clock)
        storage = ClusterStorage(self.world, self.nursery, rings, lambda d: self.nodes[d.id], timestamps, settings=SETTINGS)
        door = Door(storage, rings, list(newer))
        door.storage.reach.renew = door.renew
        return door

    def line(self, number: int) -> Distant:
        node = self.nodes[number]
        assert isinstance(node, Distant)
        return node

    def keep_to(self, edition: int, *devices: int) -> None:
        for number in devices or range(DEVICES):
            self.gates[number].edition = edition


def rings_of(edition: int, ring: Ring, settled: Ring | None = None) -> dict[str, Overlap]:
    """One ring under all names."""
    claim = Claim(edition)
    return {name: Overlap(ring, settled or ring, claim) for name in ("account", "container", "object")}


OLD = make_ring(DEVICES)
NEXT = make_ring(DEVICES, shift=1)  # one replica of each partition moves
FAR = make_ring(DEVICES, shift=4)  # all of them


def primaries(ring: Ring, path: Path = OBJECT) -> list[int]:
    return [device.id for device in ring.primaries(ring.partition(path))]


@pytest.fixture
async def town(nursery: trio.Nursery, autojump_clock: MockClock) -> AsyncIterator[Town]:
    made = Town(nursery)
    made.keep_to(1)
    door = made.door(rings_of(1, OLD))
    await door.storage.put_container(CONTAINER, {})
    yield made


async def put(door: Door, data: bytes, path: Path = OBJECT) -> None:
    await door.storage.put_object(path, NewObject(), BytesBody(data))


async def get(door: Door, path: Path = OBJECT) -> bytes:
    return await drained((await door.storage.get_object(path)).pieces)


# ---- joint majorities


@pytest.mark.parametrize("new", [NEXT, FAR])
@pytest.mark.parametrize("size", [10, LARGE])
async def test_what_one_wrote_the_other_reads(new: Ring, size: int, town: Town, autojump_clock: MockClock) -> None:
    """By the old ring and by the new one, in both directions, before anything was moved."""
    old, moving = town.door(rings_of(1, OLD)), town.door(rings_of(1, new, OLD))
    await put(old, b"1" * size)
    assert await get(moving) == b"1" * size
    await put(moving, b"2" * size)
    assert await get(old) == b"2" * size
    assert [item.name for item in (await moving.storage.list_container(CONTAINER, Query())).items] == ["o"]
    await old.storage.delete_object(OBJECT)
    with pytest.raises(ObjectNotFound):
        await get(moving)


async def test_rings_that_follow_each_other_before_the_first_has_settled(town: Town, autojump_clock: MockClock) -> None:
    """Two rebalances on, with every replica elsewhere: both front doors still ask the settled ring's majority."""
    one, two = town.door(rings_of(1, NEXT, OLD)), town.door(rings_of(1, FAR, OLD))
    assert not set(primaries(NEXT)) & set(primaries(FAR))
    for number in range(4):
        await put(one, b"one %d" % number)
        assert await get(two) == b"one %d" % number
        await put(two, b"two %d" % number)
        assert await get(one) == b"two %d" % number


async def test_a_majority_by_the_new_ring_alone_is_none(town: Town, autojump_clock: MockClock) -> None:
    moving = town.door(rings_of(1, FAR, OLD))
    for number in primaries(OLD)[:2]:
        town.line(number).cut = True
    with pytest.raises(NoQuorum):
        await put(moving, b"x")
    with pytest.raises(NoQuorum):
        await get(moving)
    town.line(primaries(OLD)[0]).cut = False
    await put(moving, b"y")
    assert await get(moving) == b"y"


async def test_while_nothing_moves_nobody_else_is_asked(town: Town, autojump_clock: MockClock) -> None:
    door = town.door(rings_of(1, OLD))
    for number in range(DEVICES):
        town.line(number).calls.clear()
    await put(door, b"x")
    asked = {number for number in range(DEVICES) if "put_small" in town.line(number).calls}
    assert asked == set(primaries(OLD))


# ---- editions


async def test_a_late_front_door_is_told_and_nobody_notices(town: Town, autojump_clock: MockClock) -> None:
    town.keep_to(2)
    late = town.door(rings_of(1, OLD), rings_of(2, FAR, OLD))
    await put(late, b"x")
    assert late.renewed == 1
    assert {number for number in range(DEVICES) if HASHER.hash(OBJECT) in town.objects[number].held} == {
        *primaries(OLD),
        *primaries(FAR),
    }
    assert await get(late) == b"x"


@pytest.mark.parametrize("call", ["head", "get", "delete", "post", "list", "put_container", "head_container", "head_account"])
async def test_every_verb_goes_on_by_the_newer_rings(call: str, town: Town, autojump_clock: MockClock) -> None:
    await put(town.door(rings_of(1, OLD)), b"x")
    town.keep_to(2)
    late = town.door(rings_of(1, OLD), rings_of(2, FAR, OLD))
    storage = late.storage
    match call:
        case "head":
            await storage.head_object(OBJECT)
        case "get":
            assert await get(late) == b"x"
        case "delete":
            await storage.delete_object(OBJECT)
        case "post":
            await storage.post_object(OBJECT, {"x-object-meta-a": "1"})
        case "list":
            assert len((await storage.list_container(CONTAINER, Query())).items) == 1
        case "put_container":
            assert await storage.put_container(Path("a", "d"), {})
        case "head_container":
            await storage.head_container(CONTAINER)
        case "head_account":
            await storage.head_account(Path("a"))
    assert late.renewed == 1


async def test_a_minority_that_knows_more_stops_nobody(town: Town, autojump_clock: MockClock) -> None:
    town.keep_to(2, primaries(OLD)[0])
    late = town.door(rings_of(1, OLD))
    await put(late, b"x")
    assert await get(late) == b"x"
    assert late.storage.reach.rings.container.claim.outdated is not None  # it knows that there is something to fetch


async def test_without_the_newer_rings_it_is_unavailable(town: Town, autojump_clock: MockClock) -> None:
    town.keep_to(2)
    late = town.door(rings_of(1, OLD))
    with pytest.raises(NoQuorum, match="primaries"):
        await put(late, b"x")


@pytest.mark.parametrize("moment", ["body", "commit"])
@pytest.mark.parametrize("new", [NEXT, FAR])
async def test_a_large_body_that_is_on_its_way_when_rings_change(
    new: Ring, moment: str, town: Town, autojump_clock: MockClock
) -> None:
    """It is committed where it lies, and copied to the devices that the new ring names."""
    late = town.door(rings_of(1, OLD), rings_of(2, new, OLD))
    data = bytes(range(256)) * 8

    class Slow(BytesBody):
        async def read(self, max_bytes: int = 1 << 20) -> bytes:
            if moment == "body":
                town.keep_to(2)  # devices adopt the new rings in the middle of the body
            return await super().read(max_bytes)

    if moment == "commit":
        for number in primaries(OLD)[1:]:  # the first one commits by the old rings
            town.line(number).before_commit = lambda: town.keep_to(2)

    await late.storage.put_object(OBJECT, NewObject(), Slow(data))
    holders = {number for number in range(DEVICES) if HASHER.hash(OBJECT) in town.objects[number].held}
    assert len(holders & set(primaries(OLD))) >= 2 and len(holders & set(primaries(new))) >= 2
    after = town.door(rings_of(2, new, OLD))
    assert await get(after) == data
    assert [item.name for item in (await after.storage.list_container(CONTAINER, Query())).items] == ["o"]


async def test_an_upload_outlives_a_refused_commit(town: Town, autojump_clock: MockClock) -> None:
    number = primaries(OLD)[0]
    line = town.line(number)
    node = line.node.under(Claim(1))
    upload = await node.put_large(OBJECT, 3)
    await upload.write(b"abc")
    town.keep_to(2, number)
    version = Version(OBJECT, TimestampSource(town.world.clock).next(), Kind.OBJECT, 3, "e")
    with pytest.raises(StaleRing):
        await upload.commit(version, None)
    upload.claim = Claim(2)
    assert (await upload.commit(version, None)).newest == version.timestamp


# ---- what a minority holds


async def minority(town: Town, data: bytes, *, at: int = 0) -> None:
    """A write that only one primary took."""
    door = town.door(rings_of(1, OLD))
    others = [number for place, number in enumerate(primaries(OLD)) if place != at]
    for number in others:
        town.objects[number].broken = True
    with pytest.raises(NoQuorum):
        await put(door, data)
    for number in others:
        town.objects[number].broken = False


@pytest.mark.parametrize("size", [10, LARGE])
async def test_what_was_shown_stays(size: int, town: Town, autojump_clock: MockClock) -> None:
    door = town.door(rings_of(1, OLD))
    await put(door, b"1" * size)
    await minority(town, b"2" * size)
    seen = await get(door)
    town.objects[primaries(OLD)[0]].broken = True  # the only one that took it at first
    assert await get(door) == seen


async def test_a_minority_that_cannot_be_brought_to_more_is_not_shown(town: Town, autojump_clock: MockClock) -> None:
    door = town.door(rings_of(1, OLD))
    await put(door, b"1")
    await minority(town, b"2")
    holder, *others = primaries(OLD)

    async def full(*args: object) -> None:
        raise NoQuorum("the disk is full")

    for number in others:
        town.objects[number].put_small = full  # type: ignore[method-assign,assignment]
    with pytest.raises(NoQuorum, match="too few primaries hold"):
        await get(door)
    town.objects[holder].broken = True
    assert await get(door) == b"1"  # nobody had seen the newer one


async def test_a_deletion_that_a_minority_holds_is_brought_to_a_majority(town: Town, autojump_clock: MockClock) -> None:
    door = town.door(rings_of(1, OLD))
    await put(door, b"1")
    holder, *others = primaries(OLD)
    for number in others:
        town.line(number).cut = True
    with pytest.raises(NoQuorum):
        await door.storage.delete_object(OBJECT)
    for number in others:
        town.line(number).cut = False
    await town.nodes[holder].put_small(Version(OBJECT, TimestampSource(town.world.clock).next(), Kind.TOMBSTONE), b"", None)
    with pytest.raises(ObjectNotFound):
        await get(door)
    town.objects[holder].broken = True
    with pytest.raises(ObjectNotFound):
        await get(door)


async def left_at(town: Town, data: bytes, *numbers: int) -> None:
    """What a write left that came to its end at these only."""
    version = Version(OBJECT, TimestampSource(town.world.clock).next(), Kind.OBJECT, len(data), "e")
    for number in numbers:
        upload = await town.line(number).node.put_large(OBJECT, len(data))
        await upload.write(data)
        await upload.commit(version, None)


async def test_a_large_body_comes_to_the_new_ring_first(town: Town, autojump_clock: MockClock) -> None:
    """What the new ring's primaries refuse does not lie at those that only the settled one names: a reader would be shown there
    what nobody moves any more when their walks are over."""
    moving = town.door(rings_of(1, FAR, OLD))

    def fail() -> None:
        raise Unavailable("the disk is gone")

    for number in primaries(FAR)[1:]:
        town.line(number).before_commit = fail
    with pytest.raises(NoQuorum):
        await put(moving, b"1" * LARGE)
    await trio.sleep(10)
    assert not any(HASHER.hash(OBJECT) in town.objects[number].held for number in primaries(OLD))


async def test_what_is_shown_of_a_minority_is_at_the_new_ring(town: Town, autojump_clock: MockClock) -> None:
    """A majority of the settled ring's, to which a read brought it, is not enough to show it."""
    moving = town.door(rings_of(1, FAR, OLD))
    await put(moving, b"1" * LARGE)
    holder, *others = primaries(FAR)
    await left_at(town, b"2" * LARGE, holder)

    async def full(*args: object) -> None:
        raise NoQuorum("the disk is full")

    for number in others:
        town.objects[number].put_large = full  # type: ignore[method-assign,assignment]
    with pytest.raises(NoQuorum, match="too few primaries hold"):
        await get(moving)
    town.objects[holder].broken = True
    assert await get(moving) == b"1" * LARGE


async def test_what_lies_where_it_was_is_shown_before_it_is_moved(town: Town, autojump_clock: MockClock) -> None:
    await left_at(town, b"1" * LARGE, *primaries(OLD)[:2])
    assert await get(town.door(rings_of(1, FAR, OLD))) == b"1" * LARGE
    assert not any(HASHER.hash(OBJECT) in town.objects[number].held for number in primaries(FAR))

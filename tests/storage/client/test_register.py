"""The register of a key, step by step: what is left behind at each, and what others make of it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import trio
import trio.testing

from ring.errors import BadInput, Unavailable
from ring.names import Path
from ring.timestamp import Timestamp
from ring.wire.message import BytesBody
from storage.client.bodies import drained
from storage.client.cluster import ClusterStorage
from storage.client.errors import ClockAhead, NoQuorum, ObjectNotFound, PreconditionFailed
from storage.client.interface import Condition, NewObject
from storage.client.node import Kind, Version
from storage.client.reach import Settings
from storage.client.register import SmallContent
from storage.client.repair import Repairer
from tests.storage.client.ground import HASHER, Ground

OBJECT = Path("AUTH_a", "c", "o")
CUT = 64
SETTINGS = Settings(
    read_timeout_s=1.0, write_timeout_s=1.0, row_wait_s=0.05, promise_wait_s=0.5, pack_cut_bytes=CUT, chunk_bytes=CUT
)
ABSENT = Condition(if_none_match=("*",))
SIZES = [10, 3 * CUT]


def etag(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


@pytest.fixture
async def ground(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> Ground:
    ground = Ground.make(nursery, settings=SETTINGS)
    await ground.storage.put_container(OBJECT.parent, {})
    return ground


def primaries(ground: Ground) -> list[int]:
    return [device.id for device in ground.rings.objects[0].places(OBJECT).devices]


async def put(ground: Ground, data: bytes, condition: Condition | None = None, storage: ClusterStorage | None = None) -> Timestamp:
    storage = storage or ground.storage
    return (await storage.put_object(OBJECT, NewObject(condition=condition), BytesBody(data))).meta.timestamp


async def get(ground: Ground) -> bytes | None:
    try:
        return await drained((await ground.storage.get_object(OBJECT)).pieces)
    except ObjectNotFound:
        return None


async def hold(ground: Ground, place: int, timestamp: Timestamp, data: bytes) -> Version:
    """What a write that went no further has left on one primary."""
    version = Version(OBJECT, timestamp, Kind.OBJECT, len(data), etag(data))
    await ground.objects[primaries(ground)[place]].put_small(version, data, None)
    return version


def now(ground: Ground, ahead_s: float = 0) -> Timestamp:
    return Timestamp.at(ground.world.clock.now() + ahead_s)


async def promise(ground: Ground, ballot: Timestamp, *places: int) -> None:
    """A conditional write that went no further."""
    for place in places:
        assert (await ground.objects[primaries(ground)[place]].promise(OBJECT, ballot, ())).given


def open_promises(ground: Ground) -> int:
    return sum(len(objects.promised.get(HASHER.hash(OBJECT), ())) for objects in ground.objects)


@pytest.mark.parametrize("size", SIZES)
async def test_a_condition_that_fails_leaves_nothing(ground: Ground, autojump_clock: trio.testing.MockClock, size: int) -> None:
    first = await put(ground, b"1" * size, ABSENT)
    assert first.offset == 1  # a ballot is nobody's plain timestamp
    with pytest.raises(PreconditionFailed):
        await put(ground, b"2" * size, ABSENT)
    with pytest.raises(PreconditionFailed):
        await ground.storage.register.write(0, _content(b"2"), _refuse)
    await trio.sleep(1)
    assert open_promises(ground) == 0
    assert (await ground.storage.head_object(OBJECT)).timestamp == first
    again = await put(ground, b"2" * size, Condition(if_match=(etag(b"1" * size),)))
    assert again > first and await get(ground) == b"2" * size
    await ground.storage.delete_object(OBJECT, condition=Condition(if_match=("*",)))
    assert await get(ground) is None
    with pytest.raises(ObjectNotFound):
        await ground.storage.delete_object(OBJECT, condition=ABSENT)
    assert open_promises(ground) == 0
    with pytest.raises(BadInput):
        await ground.storage.put_object(OBJECT, NewObject(condition=ABSENT, timestamp=now(ground)), BytesBody(b"x"))


def _refuse(found: Version | None) -> None:
    raise PreconditionFailed("never")


def _content(data: bytes) -> SmallContent:
    return SmallContent(Version(OBJECT, Timestamp(0), Kind.OBJECT, len(data), etag(data)), data)


@pytest.mark.parametrize("size", SIZES)
async def test_what_too_few_hold_is_copied_and_then_looked_at(
    ground: Ground, autojump_clock: trio.testing.MockClock, size: int
) -> None:
    """It may yet be acknowledged, or be read: the condition has to see it."""
    data = b"g" * size
    ghost = await hold(ground, 2, now(ground), data)
    with pytest.raises(PreconditionFailed):
        await put(ground, b"n", ABSENT)
    meta = await ground.storage.head_object(OBJECT)
    assert meta.etag == ghost.etag and meta.timestamp >= ghost.timestamp
    assert await get(ground) == data


async def test_a_copy_keeps_who_it_is_and_its_metadata(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    await put(ground, b"data")
    await ground.storage.post_object(OBJECT, {"x-object-meta-a": "1"}, content_type="text/x")
    before = await ground.storage.head_object(OBJECT)
    for _ in range(2):
        await ground.storage.settle_object(0, OBJECT)
    after = await ground.storage.head_object(OBJECT)
    assert (after.etag, after.content_type, dict(after.metadata)) == (before.etag, "text/x", {"x-object-meta-a": "1"})
    assert after.timestamp > before.modified and after.metadata_timestamp is None
    held = ground.objects[primaries(ground)[0]].held[HASHER.hash(OBJECT)][0]
    assert held.origin == before.timestamp
    assert (
        await ground.objects[primaries(ground)[0]].put_small(replace(held, timestamp=before.timestamp), b"data", None)
    ).newest == (before.timestamp)


async def test_a_plain_write_goes_above_a_promise(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    ballot = Timestamp(now(ground, 20).ticks, 1)
    await promise(ground, ballot, 0, 1, 2)
    assert await put(ground, b"plain") > ballot
    assert await get(ground) == b"plain" and open_promises(ground) == 0


async def test_a_plain_write_of_which_a_part_was_taken_is_found_and_finished(
    ground: Ground, autojump_clock: trio.testing.MockClock
) -> None:
    """Two primaries promised a ballot above it; the third took it before it was asked."""
    await promise(ground, Timestamp(now(ground, 20).ticks, 1), 0, 1)
    assert (await put(ground, b"plain")).offset == 1
    assert await get(ground) == b"plain"
    assert ground.storage.register.unknown == 0


async def test_a_read_waits_for_a_conditional_write_and_then_settles_what_it_left(
    ground: Ground, autojump_clock: trio.testing.MockClock
) -> None:
    await put(ground, b"old")
    ghost = await hold(ground, 0, now(ground, 1), b"ghost")
    ballot = Timestamp(now(ground, 5).ticks, 1)
    await promise(ground, ballot, 1, 2)
    begun = trio.current_time()
    assert await get(ground) == b"ghost"
    assert trio.current_time() - begun >= SETTINGS.promise_wait_s
    assert (await ground.storage.head_object(OBJECT)).timestamp > ballot > ghost.timestamp
    assert open_promises(ground) == 0
    late = Version(OBJECT, ballot, Kind.OBJECT, 4, etag(b"late"))  # what the promise was for comes after all
    for place in (0, 1, 2):
        assert (await ground.objects[primaries(ground)[place]].put_small(late, b"late", None)).newest > ballot
    assert await get(ground) == b"ghost"


async def test_a_read_goes_on_when_the_conditional_write_ends(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    await put(ground, b"old")
    await hold(ground, 0, now(ground, 1), b"ghost")
    ballot = Timestamp(now(ground, 5).ticks, 1)
    await promise(ground, ballot, 1, 2)
    new = Version(OBJECT, ballot, Kind.OBJECT, 3, etag(b"new"))
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            assert await get(ground) == b"new"

        nursery.start_soon(read)
        await trio.sleep(0.1)
        for place in (1, 2):
            await ground.objects[primaries(ground)[place]].put_small(new, b"new", None)
    assert ground.storage.register.copies == 0


async def test_a_post_waits_too_and_is_in_the_copy(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    await put(ground, b"old")
    await promise(ground, Timestamp(now(ground, 5).ticks, 1), 0, 1)
    await ground.storage.post_object(OBJECT, {"x-object-meta-a": "1"})
    assert dict((await ground.storage.head_object(OBJECT)).metadata) == {"x-object-meta-a": "1"}
    assert open_promises(ground) == 0


async def test_repair_below_a_promise_comes_again(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    old = await hold(ground, 0, now(ground), b"old")
    await ground.objects[primaries(ground)[1]].put_small(old, b"old", None)
    ballot = Timestamp(now(ground, 5).ticks, 1)
    await promise(ground, ballot, 2)
    repairer: Repairer = ground.storage.repairer
    replicas = ground.storage.reach.objects(0, OBJECT)
    assert await repairer.repair(replicas, OBJECT) == 0
    await ground.objects[primaries(ground)[2]].release(OBJECT, ballot)
    assert await repairer.repair(replicas, OBJECT) == 1


async def test_a_write_that_was_replaced_says_that_it_does_not_know(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    ours = await hold(ground, 0, now(ground), b"ours")
    await ground.objects[primaries(ground)[1]].put_small(ours, b"ours", None)  # it was at a majority
    for place in (0, 1, 2):
        await hold(ground, place, now(ground, 1), b"theirs")
    register = ground.storage.register
    with pytest.raises(NoQuorum, match="whether it was done is not known"):
        await register.write(0, _content(b"ours"), None, ours=[ours.timestamp])
    assert register.unknown == 1
    assert await get(ground) == b"theirs"


async def test_a_write_that_nobody_can_have_seen_begins_anew(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    ours = await hold(ground, 0, now(ground), b"ours")
    for place in (0, 1, 2):
        await hold(ground, place, now(ground, 1), b"theirs")
    register = ground.storage.register
    with pytest.raises(PreconditionFailed):
        await register.write(0, _content(b"ours"), _refuse, ours=[ours.timestamp])
    await register.write(0, _content(b"ours"), None, ours=[ours.timestamp])
    assert await get(ground) == b"ours"


async def test_what_a_clock_ahead_has_left_does_not_come_up_later(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    await hold(ground, 1, now(ground, 30), b"ahead")
    assert await put(ground, b"data") > now(ground, 30)
    for _ in range(3):
        assert await get(ground) == b"data"


async def test_a_front_door_whose_clock_is_ahead_is_told_so(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    ground = await Ground.with_engines(nursery, SETTINGS)
    await ground.storage.put_container(OBJECT.parent, {})
    ground.storage.reach.timestamps.next(Timestamp(now(ground, 600).ticks))
    for condition in (None, ABSENT):
        with pytest.raises(ClockAhead, match="ahead of this device's clock") as refused:
            await put(ground, b"data", condition)
        assert "NTP" in refused.value.hint and isinstance(refused.value, Unavailable)


async def test_many_front_doors_one_winner(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    ground = Ground.make(nursery, settings=SETTINGS)
    await ground.storage.put_container(OBJECT.parent, {})
    doors = [Ground.make(nursery, settings=SETTINGS) for _ in range(6)]
    for door in doors:
        door.nodes[:] = ground.nodes
    told: list[str] = []

    async def race(number: int) -> None:
        try:
            await put(ground, b"%d" % number, ABSENT, doors[number].storage)
            told.append(f"won {number}")
        except PreconditionFailed:
            told.append("lost")

    async with trio.open_nursery() as racing:
        for number in range(len(doors)):
            racing.start_soon(race, number)
    assert sorted(told)[:-1] == ["lost"] * 5
    assert await get(ground) == sorted(told)[-1].removeprefix("won ").encode()

"""The two consistencies side by side: what each does when primaries are away, or know different things."""

from __future__ import annotations

import hashlib

import pytest
import trio
import trio.testing

from ring.errors import BadInput, Unavailable
from ring.names import Path
from ring.policy import Consistency, Policies, Policy
from ring.timestamp import Timestamp
from ring.wire.message import BytesBody
from storage.client.bodies import drained
from storage.client.errors import NoQuorum, ObjectNotFound, PreconditionFailed
from storage.client.interface import Condition, NewObject
from storage.client.node import Kind, Version
from storage.client.reach import Settings
from tests.storage.client.ground import HASHER, Ground

OBJECT = Path("AUTH_a", "c", "o")
CUT = 64
SIZES = [10, 5 * CUT]
SETTINGS = Settings(read_timeout_s=1.0, write_timeout_s=1.0, row_wait_s=0.05, pack_cut_bytes=CUT, chunk_bytes=CUT, stall_s=0.2)


async def make(nursery: trio.Nursery, consistency: Consistency) -> Ground:
    policies = Policies([Policy(0, "one", 3, consistency=consistency)])
    ground = Ground.make(nursery, settings=SETTINGS, policies=policies, device_count=6)
    await ground.storage.put_container(OBJECT.parent, {})
    return ground


@pytest.fixture
async def ground(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> Ground:
    return await make(nursery, Consistency.AVAILABLE)


@pytest.fixture
async def strict(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> Ground:
    return await make(nursery, Consistency.QUORUM)


def primaries(ground: Ground) -> list[int]:
    return [device.id for device in ground.rings.objects[0].places(OBJECT).devices]


def away(ground: Ground, *places: int, back: bool = False) -> None:
    """The object half of these primaries."""
    for place in places:
        ground.objects[primaries(ground)[place]].broken = not back


async def put(ground: Ground, data: bytes, condition: Condition | None = None) -> None:
    await ground.storage.put_object(OBJECT, NewObject(condition=condition), BytesBody(data))


async def get(ground: Ground, *, newest: bool = False) -> bytes | None:
    try:
        return await drained((await ground.storage.get_object(OBJECT, newest=newest)).pieces)
    except ObjectNotFound:
        return None


async def hold(ground: Ground, place: int, ahead_s: float, data: bytes | None) -> None:
    at = Timestamp.at(ground.world.clock.now() + ahead_s)
    version = Version(OBJECT, at, Kind.TOMBSTONE)
    if data is not None:
        version = Version(OBJECT, at, Kind.OBJECT, len(data), hashlib.md5(data).hexdigest())
    await ground.objects[primaries(ground)[place]].put_small(version, data or b"", None)


@pytest.mark.parametrize("size", SIZES)
async def test_without_a_majority(ground: Ground, strict: Ground, autojump_clock: trio.testing.MockClock, size: int) -> None:
    for one in (ground, strict):
        away(one, 0, 1)
    with pytest.raises(Unavailable):
        await put(strict, b"d" * size)
    await put(ground, b"d" * size)
    for newest in (False, True):
        assert await get(ground, newest=newest) == b"d" * size
    away(ground, 2)
    assert await get(ground) == b"d" * size  # from a handoff
    await put(ground, b"e" * size)  # on handoffs alone
    assert await get(ground, newest=True) == b"e" * size
    await ground.storage.delete_object(OBJECT)
    assert await get(ground) is None


@pytest.mark.parametrize("size", SIZES)
async def test_when_nobody_can_take_it_it_is_refused(ground: Ground, autojump_clock: trio.testing.MockClock, size: int) -> None:
    await put(ground, b"old")
    for objects in ground.objects:
        objects.broken = True
    with pytest.raises(Unavailable):
        await put(ground, b"d" * size)
    with pytest.raises(NoQuorum):
        await get(ground)


async def test_the_first_good_answer_serves_and_x_newest_asks_all(
    ground: Ground, strict: Ground, autojump_clock: trio.testing.MockClock
) -> None:
    for one in (ground, strict):
        await hold(one, 0, 1, b"old")
        await hold(one, 1, 2, b"new")
        await hold(one, 2, 2, b"new")
    assert await get(ground) == b"old"
    assert await get(ground, newest=True) == b"new"
    assert (await ground.storage.head_object(OBJECT)).etag == hashlib.md5(b"old").hexdigest()
    assert (await ground.storage.head_object(OBJECT, newest=True)).etag == hashlib.md5(b"new").hexdigest()
    for newest in (False, True):
        assert await get(strict, newest=newest) == b"new"


async def test_a_deletion_hides_what_is_older(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    await hold(ground, 0, 2, None)
    await hold(ground, 1, 1, b"old")
    assert await get(ground) is None
    await hold(ground, 2, 3, b"new")
    assert await get(ground) == b"new"


async def test_that_nothing_is_there_takes_a_majority(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    away(ground, 0)
    assert await get(ground) is None
    away(ground, 1)
    with pytest.raises(NoQuorum):
        await get(ground)
    await hold(ground, 2, 1, None)  # its deletion is known to one
    assert await get(ground) is None


async def test_a_write_goes_above_what_it_meets(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    await hold(ground, 0, 30, b"ahead")
    await put(ground, b"data")
    for newest in (False, True):
        assert await get(ground, newest=newest) == b"data"


@pytest.mark.parametrize("size", SIZES)
async def test_conditional_writes_need_the_primaries(ground: Ground, autojump_clock: trio.testing.MockClock, size: int) -> None:
    absent = Condition(if_none_match=("*",))
    away(ground, 0, 1)
    with pytest.raises(Unavailable):
        await put(ground, b"d" * size, absent)
    away(ground, 0, back=True)
    await put(ground, b"d" * size, absent)
    with pytest.raises(PreconditionFailed):
        await put(ground, b"e" * size, absent)
    assert await get(ground) == b"d" * size


async def test_only_whole_copies_can_be_available() -> None:
    with pytest.raises(BadInput, match="erasure-coded"):
        Policies([Policy(0, "ec", 3, k=2, m=1, consistency=Consistency.AVAILABLE)])


async def test_what_a_majority_has_not_heard_of_does_not_expire_with_what_it_replaced(
    ground: Ground, autojump_clock: trio.testing.MockClock
) -> None:
    due = int(ground.world.clock.now()) + 10
    await ground.storage.put_object(OBJECT, NewObject(metadata={"x-delete-at": str(due)}), BytesBody(b"old"))
    await trio.sleep(2)
    away(ground, 0, 1)
    await put(ground, b"new")  # at one primary and at handoffs
    away(ground, 0, 1, back=True)
    away(ground, 2)
    await trio.sleep(200)
    assert await ground.storage.expire_object(0, OBJECT, due)  # all that a majority knows of
    away(ground, 2, back=True)
    assert await get(ground, newest=True) == b"new"
    assert not await ground.storage.expire_object(0, OBJECT, due)


async def on_handoffs(ground: Ground, data: bytes) -> Version:
    """Acknowledged while no primary could be reached."""
    away(ground, 0, 1, 2)
    await put(ground, data)
    away(ground, 0, 1, 2, back=True)
    name_hash = HASHER.hash(OBJECT)
    etag = hashlib.md5(data).hexdigest()
    return next(o.held[name_hash][0] for o in ground.objects if name_hash in o.held and o.held[name_hash][0].etag == etag)


def above(ground: Ground, version: Version) -> list[Version]:
    """What primaries hold that would hide it, when it is brought to them."""
    held = [ground.objects[number].held.get(HASHER.hash(OBJECT)) for number in primaries(ground)]
    return [one[0] for one in held if one is not None and one[0].timestamp > version.timestamp]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("old", [0, 1, 3])
async def test_a_conditional_write_sees_what_lies_on_handoffs_and_hides_none_of_it(
    ground: Ground, autojump_clock: trio.testing.MockClock, size: int, old: int
) -> None:
    for place in range(old):
        await hold(ground, place, -5, b"old")
    newer = await on_handoffs(ground, b"n" * size)
    with pytest.raises(PreconditionFailed):
        await put(ground, b"d" * size, Condition(if_none_match=("*",)))
    with pytest.raises(PreconditionFailed):
        await put(ground, b"d" * size, Condition(if_match=(hashlib.md5(b"old").hexdigest(),)))
    with pytest.raises(PreconditionFailed):
        await ground.storage.delete_object(OBJECT, condition=Condition(if_match=(hashlib.md5(b"old").hexdigest(),)))
    assert above(ground, newer) == []
    await put(ground, b"d" * size, Condition(if_match=(newer.etag,)))
    assert await get(ground, newest=True) == b"d" * size


async def test_what_nobody_can_be_asked_about_is_not_hidden_by_a_condition_that_fails(
    ground: Ground, autojump_clock: trio.testing.MockClock
) -> None:
    """The handoffs that have it are away.  It is no better than with a plain write when the condition holds."""
    await hold(ground, 0, -5, b"old")
    newer = await on_handoffs(ground, b"new")
    others = [number for number in range(6) if number not in primaries(ground)]
    for number in others:
        ground.objects[number].broken = True
    with pytest.raises(PreconditionFailed):
        await put(ground, b"data", Condition(if_none_match=("*",)))
    assert above(ground, newer) == []
    await put(ground, b"data", Condition(if_match=("*",)))
    assert await get(ground, newest=True) == b"data"


async def test_a_post_behind_a_conditional_write_that_died_hides_nothing(
    ground: Ground, autojump_clock: trio.testing.MockClock
) -> None:
    await put(ground, b"old")
    newer = await on_handoffs(ground, b"new")
    ballot = Timestamp(Timestamp.at(ground.world.clock.now() + 5).ticks, 1)
    for number in primaries(ground):
        assert (await ground.objects[number].promise(OBJECT, ballot, ())).given
    with pytest.raises(NoQuorum, match="conditional writes of it are in the way"):
        await ground.storage.post_object(OBJECT, {"x-object-meta-a": "b"})
    assert above(ground, newer) == []

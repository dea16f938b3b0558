"""What rotted at run time: the device that lost it is in no majority that knows of nothing, and everything is brought back."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from ring.daemon.worker import once
from ring.errors import Unavailable
from ring.names import Path, Span
from ring.timestamp import Timestamp
from ring.wire.message import BytesBody
from ring.world.sim import SimWorld
from storage.client.errors import Doubted, ObjectNotFound
from storage.client.interface import NewObject
from storage.client.node import Kind
from storage.client.repair import copy
from storage.object.replicator import ObjectReplicator
from storage.object.store import ObjectStore
from tests.storage.client.ground import HASHER, make_device
from tests.storage.object.object_rig import in_doubt, path, prepare, put, put_file, read, serving, version
from tests.storage.object.test_refill import make
from tests.storage.object.test_refill_votes import CONTAINER, OBJECT, Door

ROOT = "d1"
ALL = Span(0, 0)
A = HASHER.hash(path("a"))


async def lose(store: ObjectStore, name_hash: bytes) -> None:
    held = store.newest(name_hash)
    assert held is not None
    assert await store.quarantine(held.key)


# ---- one device


async def test_it_gives_no_answer_until_it_is_brought_back(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    await prepare(world, ROOT)
    async with serving(world, ROOT) as store:
        await put(store, "a", 10, b"data")
        await lose(store, A)
    for restart in range(2):  # also from the tables, and from the log alone
        if restart:
            await world.open_disk(ROOT).unlink("tables/data.mdb")
        async with serving(world, ROOT) as store:
            with pytest.raises(Doubted):
                await store.head(path("a"))
            with pytest.raises(Doubted):
                await store.get(path("a"), None, 0, None)
            with pytest.raises(Doubted):
                await store.get(path("a"), Timestamp(10), 0, None)
            with pytest.raises(Doubted):
                await store.post(path("a"), {}, "", Timestamp(20))
            with pytest.raises(Doubted):
                await store.promise(path("a"), Timestamp(20), [])
            with pytest.raises(Doubted):
                await store.staging.sightings(path("a"))
            assert await store.get(path("a"), Timestamp(9), 0, None) is None  # that one it never had
            reply = await put(store, "a", 5, b"older")
            assert reply.newest == Timestamp(10)
            assert not reply.never
            assert await in_doubt(store, "a")
            assert store.index.page(b"", None, limit=10)[0] == []  # no copy, to whoever compares or drops
    async with serving(world, ROOT) as store:
        await put(store, "a", 10, b"data")
        assert await read(store, "a") == b"data"
        await lose(store, A)
        await put(store, "a", 11, None)
        head = await store.head(path("a"))
        assert head is not None and head.kind is Kind.TOMBSTONE
    async with serving(world, ROOT) as store:
        assert not store.index.doubts.within(ALL)


async def test_of_a_tombstone_all_is_known(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    await prepare(world, ROOT)
    async with serving(world, ROOT) as store:
        await put(store, "a", 10, None)
        await lose(store, A)
        tombstone = version("a", 10, None)
        assert await store.head(path("a")) == tombstone
        assert [one.version for one in await store.staging.sightings(path("a"))] == [tombstone]
        promised = await store.promise(path("a"), Timestamp(20), [])
        assert (promised.given, promised.newest, promised.never) == (True, tombstone, False)
        assert (await put(store, "a", 9, b"older")).newest == Timestamp(10)
        assert await store.leaf(ALL, 0) == []


async def test_its_newest_metadata_is_missed_too(autojump_clock: MockClock) -> None:
    """A copy that came without the POST that was acknowledged here is not what was lost."""
    world = SimWorld(1)
    await prepare(world, ROOT)
    async with serving(world, ROOT) as store:
        await put(store, "a", 10, b"data")
        await store.post(path("a"), {"x-object-meta-p": "1"}, "", Timestamp(20))
        await lose(store, A)
        await put(store, "a", 10, b"data")
        assert await in_doubt(store, "a")
        assert await read(store, "a") == b"data"  # its body is here
        with pytest.raises(Doubted):
            await store.post(path("a"), {"x-object-meta-p": "0"}, "", Timestamp(15))
        await store.post(path("a"), {"x-object-meta-p": "1"}, "", Timestamp(20))
        assert not await in_doubt(store, "a")


async def test_what_was_let_go_of_for_another_reason_is_in_no_doubt(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    await prepare(world, ROOT)
    async with serving(world, ROOT) as store:
        await put_file(store, "a", 10, b"data")
        await store.drop(store.key(path("a"), Timestamp(10)), "handed off")
        assert await store.head(path("a")) is None
        await put_file(store, "a", 10, b"data")
        await lose(store, A)
        await put_file(store, "a", 10, b"data")
        await store.drop(store.key(path("a"), Timestamp(10)), "handed off")
        assert await store.head(path("a")) is None
    await world.open_disk(ROOT).unlink("tables/data.mdb")
    async with serving(world, ROOT) as store:
        assert await store.head(path("a")) is None


# ---- a front door


async def rotten(nursery: trio.Nursery, *, deleted: bool = False) -> Door:
    """Devices 0 and 1 acknowledged the newest; then 0's rots, 2 is there again, and 1 is not reached."""
    rig = await make(nursery)
    door = Door(rig)
    await door.storage.put_account(Path("AUTH_test"), {})
    await door.storage.put_container(CONTAINER, {})
    if deleted:
        await door.storage.put_object(OBJECT, NewObject(), BytesBody(b"deleted"))
        await trio.sleep(1)
    door.lines[2].cut = True
    if deleted:
        await door.storage.delete_object(OBJECT)
    else:
        await door.storage.put_object(OBJECT, NewObject(), BytesBody(b"acknowledged"))
    await lose(rig.engines[0][0], HASHER.hash(OBJECT))
    door.lines[2].cut = False
    door.lines[1].cut = True
    return door


async def test_one_that_says_it_has_nothing_makes_it_vanish(autojump_clock: MockClock) -> None:
    """What this is all for."""
    async with trio.open_nursery() as nursery:
        door = await rotten(nursery)
        door.rig.engines[0][0].index.doubts.end(HASHER.hash(OBJECT))
        with pytest.raises(ObjectNotFound):
            await door.get()
        nursery.cancel_scope.cancel()


async def test_one_that_knows_what_it_lost_does_not(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        door = await rotten(nursery)
        with pytest.raises(Unavailable):
            await door.get()
        door.lines[1].cut, door.lines[2].cut = False, True
        assert await door.get() == b"acknowledged"  # the one that has it brings it, so two have it again
        door.lines[1].cut, door.lines[2].cut = True, False
        assert await door.get() == b"acknowledged"
        nursery.cancel_scope.cancel()


async def test_nor_comes_back_what_was_deleted(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        door = await rotten(nursery, deleted=True)
        with pytest.raises(ObjectNotFound):
            await door.get()
        door.lines[1].cut = False
        with pytest.raises(ObjectNotFound):
            await door.get()
        nursery.cancel_scope.cancel()


async def test_what_all_have_lost_can_be_deleted_and_written(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        door = await rotten(nursery)
        door.lines[1].cut = False
        await lose(door.rig.engines[1][0], HASHER.hash(OBJECT))
        with pytest.raises(Unavailable):
            await door.get()
        await door.storage.delete_object(OBJECT)
        with pytest.raises(ObjectNotFound):
            await door.get()
        nursery.cancel_scope.cancel()


# ---- replicators


def mover(door: Door, number: int) -> ObjectReplicator:
    rig = door.rig
    store = rig.engines[number][0]
    return ObjectReplicator(make_device(number), store, lambda: rig.overlaps["object"], lambda one: rig.nodes[one.id])


async def test_replicators_bring_it_back_with_its_metadata(autojump_clock: MockClock) -> None:
    """The first to come has not got the POST."""
    async with trio.open_nursery() as nursery:
        rig = await make(nursery)
        door = Door(rig)
        await door.storage.put_account(Path("AUTH_test"), {})
        await door.storage.put_container(CONTAINER, {})
        await door.storage.put_object(OBJECT, NewObject(), BytesBody(b"acknowledged"))
        await trio.sleep(2)
        door.lines[2].cut = True
        await door.storage.post_object(OBJECT, {"x-object-meta-p": "1"})
        store = rig.engines[0][0]
        await lose(store, HASHER.hash(OBJECT))
        older = await rig.engines[2][0].get(OBJECT, None, 0, None)
        assert older is not None
        await copy(older, rig.nodes[0], 1 << 18)
        with pytest.raises(Doubted):
            await store.head(OBJECT)
        await once(mover(door, 1))
        head = await store.head(OBJECT)
        assert head is not None and head.metadata["x-object-meta-p"] == "1"
        nursery.cancel_scope.cancel()


async def test_who_lost_something_vouches_for_nothing_there(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        door = await rotten(nursery)
        span = Span.of(HASHER.hash(OBJECT), 4)
        replicator = mover(door, 0)
        _, _, whole = await replicator.fill(make_device(2), span, trio.current_time() + 10)
        assert whole is False
        await once(mover(door, 1))
        _, _, whole = await replicator.fill(make_device(2), span, trio.current_time() + 10)
        assert whole is True
        nursery.cancel_scope.cancel()

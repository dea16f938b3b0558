"""The facade when devices fail, hang, forget or lie.  Primaries of an object's partition p are devices p, p+1, p+2 (mod 4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import pytest
import trio

from ring.errors import Unavailable
from ring.names import Path
from ring.timestamp import Timestamp
from ring.wire.message import BytesBody
from storage.client.bodies import drained
from storage.client.cluster import ClusterStorage
from storage.client.errors import NoQuorum, ObjectNotFound, Superseded
from storage.client.fake_node import FakeBooks
from storage.client.interface import NewObject, Query, Row
from storage.client.node import BookState, Debt, Kind, Node, NodeReading, Version
from storage.client.quorum import Outcome, Reply, Verdict, WriteQuorum
from storage.client.reach import Settings
from tests.storage.client.ground import HASHER, Distant, Ground, distant

CONTAINER = Path("AUTH_a", "c")
OBJECT = Path("AUTH_a", "c", "o")
CUT = 4096
SETTINGS = Settings(pack_cut_bytes=CUT, chunk_bytes=1000, repair_delay_s=0.1)
SIZES = [10, 3 * CUT]


def primaries(ground: Ground, path: Path = OBJECT) -> list[int]:
    ring = ground.rings.objects[0].ring
    return [device.id for device in ring.primaries(ring.partition(path))]


def handoff(ground: Ground) -> int:
    return next(number for number in range(4) if number not in primaries(ground))


def holders(ground: Ground, path: Path = OBJECT) -> list[int]:
    return [number for number, store in enumerate(ground.objects) if HASHER.hash(path) in store.held]


async def put(ground: Ground, data: bytes, path: Path = OBJECT) -> bool:
    return (await ground.storage.put_object(path, NewObject(), BytesBody(data))).listed


async def get(ground: Ground, path: Path = OBJECT) -> bytes:
    return await drained((await ground.storage.get_object(path)).pieces)


@pytest.fixture
async def ground(nursery: trio.Nursery) -> Ground:
    ground = Ground.make(nursery, settings=SETTINGS)
    await ground.storage.put_container(CONTAINER, {})
    return ground


@pytest.fixture
async def far(nursery: trio.Nursery) -> Ground:
    """Every device is behind a line."""
    ground = Ground.make(nursery, settings=SETTINGS, wrap=distant)
    await ground.storage.put_container(CONTAINER, {})
    return ground


def lines(ground: Ground, numbers: Sequence[int]) -> list[Distant]:
    found: list[Distant] = []
    for number in numbers:
        node = ground.nodes[number]
        assert isinstance(node, Distant)
        found.append(node)
    return found


# ---- one device out


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("which", [0, 1, 2])
async def test_one_primary_out_of_service(ground: Ground, size: int, which: int) -> None:
    data = b"d" * size
    out = primaries(ground)[which]
    ground.break_device(out)
    await put(ground, data)
    assert await get(ground) == data
    await trio.testing.wait_all_tasks_blocked()
    assert set(holders(ground)) == {*primaries(ground), handoff(ground)} - {out}
    await ground.storage.delete_object(OBJECT)
    with pytest.raises(ObjectNotFound):
        await get(ground)


@pytest.mark.parametrize("size", SIZES)
async def test_two_primaries_out_of_service(ground: Ground, size: int) -> None:
    await put(ground, b"old" * size)
    for number in primaries(ground)[:2]:
        ground.break_device(number)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: put(ground, b"n" * size),
        lambda: get(ground),
        lambda: ground.storage.head_object(OBJECT),
        lambda: ground.storage.delete_object(OBJECT),
        lambda: ground.storage.post_object(OBJECT, {}),
    ]
    for call in calls:
        with pytest.raises(Unavailable):
            await call()
    for number in primaries(ground):
        ground.break_device(number, False)
    assert await get(ground) in (b"old" * size, b"n" * size)


@pytest.mark.parametrize("size", SIZES)
async def test_a_hanging_primary_delays_but_does_not_fail(autojump_clock: trio.testing.MockClock, far: Ground, size: int) -> None:
    for which in range(3):
        (line,) = lines(far, primaries(far)[which : which + 1])
        line.hangs = True
        start = trio.current_time()
        await put(far, b"%d" % which * size)
        assert await get(far) == b"%d" % which * size
        assert trio.current_time() - start < SETTINGS.stall_s + SETTINGS.row_wait_s + 1
        line.hangs = False


async def test_when_a_majority_hangs_the_answer_is_no_quorum_in_time(autojump_clock: trio.testing.MockClock, far: Ground) -> None:
    await put(far, b"data")
    for line in lines(far, primaries(far)[1:]):
        line.hangs = True
    start = trio.current_time()
    with pytest.raises(NoQuorum):
        await get(far)
    assert trio.current_time() - start <= SETTINGS.read_timeout_s + 0.1
    with pytest.raises(Unavailable):
        await put(far, b"more")
    with pytest.raises(NoQuorum):
        await put(far, b"more" * CUT)


# ---- the newest wins


@pytest.mark.parametrize("size", SIZES)
async def test_a_write_goes_above_a_newer_version_of_one_primary(ground: Ground, size: int) -> None:
    ahead = Timestamp.at(ground.world.clock.now() + 30)
    await ground.objects[primaries(ground)[2]].put_small(Version(OBJECT, ahead, Kind.OBJECT, 1, "e"), b"x", None)
    await put(ground, b"d" * size)
    assert (await ground.storage.head_object(OBJECT)).timestamp > ahead
    assert await get(ground) == b"d" * size


async def test_a_large_write_that_meets_a_newer_one_at_its_commit_is_written_again(far: Ground) -> None:
    ahead = Timestamp.at(far.world.clock.now() + 30)
    store = far.objects[primaries(far)[2]]

    class Meanwhile(BytesBody):
        async def read(self, max_bytes: int = 1 << 20) -> bytes:
            piece = await super().read(max_bytes)
            if not piece:
                await store.put_small(Version(OBJECT, ahead, Kind.OBJECT, 1, "e"), b"x", None)
            return piece

    body = Meanwhile(b"d" * 3 * CUT)
    body.length = None
    stored = await far.storage.put_object(OBJECT, NewObject(), body)
    assert stored.meta.timestamp > ahead
    assert await get(far) == b"d" * 3 * CUT


class Interrupted:
    """A node before whose next reading something happens, once for all nodes that share ``todo``."""

    def __init__(self, node: Node, todo: list[Callable[[], Awaitable[object]]]) -> None:
        self._node = node
        self._todo = todo

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    async def get(self, path: Path, timestamp: Timestamp | None, offset: int, length: int | None) -> NodeReading | None:
        while self._todo:
            await self._todo.pop()()
        return await self._node.get(path, timestamp, offset, length)


@pytest.mark.parametrize("size", SIZES)
async def test_what_happens_between_the_look_and_the_reading_is_the_answer(ground: Ground, size: int) -> None:
    todo: list[Callable[[], Awaitable[object]]] = []
    await put(ground, b"a" * size)
    for number, node in enumerate(ground.nodes):
        ground.nodes[number] = cast(Node, Interrupted(node, todo))
    todo.append(lambda: put(ground, b"b" * size))
    assert await get(ground) == b"b" * size
    stored = (await ground.storage.head_object(OBJECT)).timestamp
    todo.append(lambda: put(ground, b"c" * size))
    with pytest.raises(ObjectNotFound):  # that version is gone
        await ground.storage.get_object(OBJECT, version=stored)
    todo.append(lambda: ground.storage.delete_object(OBJECT))
    with pytest.raises(ObjectNotFound):
        await get(ground)


async def test_many_writers_of_one_key_all_get_through(autojump_clock: trio.testing.MockClock, far: Ground) -> None:
    bodies = [bytes([number]) * size for number, size in enumerate([10] * 12 + [3 * CUT] * 3)]
    async with trio.open_nursery() as nursery:
        for body in bodies:
            nursery.start_soon(put, far, body)
    assert await get(far) in bodies


async def test_a_delete_is_above_what_it_deletes(ground: Ground) -> None:
    await ground.storage.put_object(OBJECT, NewObject(timestamp=Timestamp.at(ground.world.clock.now() + 30)), BytesBody(b"x"))
    await ground.storage.delete_object(OBJECT)
    with pytest.raises(ObjectNotFound):
        await get(ground)
    assert (await ground.storage.list_container(CONTAINER, Query())).items == []


async def test_a_write_at_the_time_of_a_deletion_goes_above_it(nursery: trio.Nursery) -> None:
    """Two front doors whose clocks are behind give out one timestamp: the later write must stand, here and in listings."""
    ground = await Ground.with_engines(nursery, SETTINGS)
    await ground.storage.put_container(CONTAINER, {})
    await put(ground, b"old")
    at = Timestamp.at(ground.world.clock.now() + 30)
    for number in primaries(ground):
        debt = Debt(Row("o", at, deleted=True), CONTAINER, (number,))
        await ground.nodes[number].put_small(Version(OBJECT, at, Kind.TOMBSTONE), b"", debt)
    with pytest.raises(Superseded):
        await ground.storage.put_object(OBJECT, NewObject(timestamp=at), BytesBody(b"new"))
    await put(ground, b"new")
    assert await get(ground) == b"new"
    assert len((await ground.storage.list_container(CONTAINER, Query())).items) == 1


async def test_what_one_primary_missed_is_read_from_the_others_and_repaired(
    autojump_clock: trio.testing.MockClock, ground: Ground
) -> None:
    out = primaries(ground)[0]
    await put(ground, b"old")
    ground.break_device(out)
    await put(ground, b"new")
    ground.break_device(out, False)
    assert await get(ground) == b"new"
    await trio.sleep(1)
    held = ground.objects[out].held[HASHER.hash(OBJECT)]
    assert held[1] == b"new"
    ground.break_device(out)
    await ground.storage.delete_object(OBJECT)
    ground.break_device(out, False)
    with pytest.raises(ObjectNotFound):
        await get(ground)
    await trio.sleep(1)
    assert ground.objects[out].held[HASHER.hash(OBJECT)][0].kind is Kind.TOMBSTONE


async def test_an_emptied_device_does_not_speak_for_absence(autojump_clock: trio.testing.MockClock, ground: Ground) -> None:
    """One primary missed the write, another was emptied afterwards: only the third knows."""
    one, two, _ = primaries(ground)
    ground.break_device(one)
    await put(ground, b"data")
    ground.break_device(one, False)
    ground.objects[two].held.clear()
    assert await get(ground) == b"data"
    await trio.sleep(1)
    assert set(primaries(ground)) <= set(holders(ground))


# ---- bodies


@pytest.mark.parametrize("size", SIZES)
async def test_a_bad_block_is_read_from_another_replica(ground: Ground, size: int) -> None:
    data = bytes(i % 251 for i in range(size))
    await put(ground, data)
    for number in primaries(ground)[:2]:
        ground.objects[number].damaged.add(OBJECT)
    assert await get(ground) == data
    ground.objects[primaries(ground)[2]].damaged.add(OBJECT)
    with pytest.raises(Unavailable):
        await get(ground)


async def test_a_replica_that_breaks_in_the_middle_is_followed_by_another(ground: Ground) -> None:
    data = bytes(i % 251 for i in range(200_000))
    await put(ground, data)
    reading = await ground.storage.get_object(OBJECT, offset=100)
    got = b""
    async for piece in reading.pieces:
        assert isinstance(piece, bytes)
        got += piece
        if len(got) < 150_000:
            for number in primaries(ground)[:2]:
                ground.objects[number].damaged.add(OBJECT)
    assert got == data[100:]


async def test_a_replica_that_cannot_keep_up_is_left_behind_and_repaired(
    autojump_clock: trio.testing.MockClock, far: Ground
) -> None:
    (slow,) = lines(far, primaries(far)[1:2])

    class Slow(BytesBody):
        async def read(self, max_bytes: int = 1 << 20) -> bytes:
            slow.hangs = True
            return await super().read(max_bytes)

    data = bytes(i % 251 for i in range(10 * CUT))
    stored = await far.storage.put_object(OBJECT, NewObject(), Slow(data))
    assert stored.meta.size == len(data)
    assert primaries(far)[1] not in holders(far)
    slow.hangs = False
    await trio.sleep(10)
    assert primaries(far)[1] in holders(far)


async def test_a_cancelled_write_leaves_no_upload(autojump_clock: trio.testing.MockClock, far: Ground) -> None:
    class Stuck(BytesBody):
        async def read(self, max_bytes: int = 1 << 20) -> bytes:
            return await trio.sleep_forever()

    with trio.move_on_after(1):
        await far.storage.put_object(OBJECT, NewObject(), Stuck(b"d" * 3 * CUT))
    with pytest.raises(ObjectNotFound):
        await get(far)


# ---- rows


async def test_a_row_that_is_late_is_said_to_be_late(far: Ground) -> None:
    ring = far.rings.container.ring
    listed_at = [device.id for device in ring.primaries(ring.partition(CONTAINER))]
    await far.storage.head_container(CONTAINER)
    await put(far, b"data")  # its container is known now
    for number in listed_at[:2]:
        far.books[number].broken = True
    assert not await put(far, b"data")
    assert sum(len(store.owed) for store in far.objects) == 2
    for number in listed_at[:2]:
        far.books[number].broken = False
    assert await put(far, b"data", Path("AUTH_a", "c", "p"))
    assert sum(len(store.owed) for store in far.objects) == 2


async def test_a_hanging_container_device_costs_at_most_the_wait_for_rows(
    autojump_clock: trio.testing.MockClock, far: Ground
) -> None:
    ring = far.rings.container.ring
    listed_at = [device.id for device in ring.primaries(ring.partition(CONTAINER))]
    (line,) = lines(far, listed_at[:1])

    class Hanging(FakeBooks):
        async def merge_rows(self, book: Path, rows: Sequence[Row]) -> BookState | None:
            return await trio.sleep_forever()

    line.node.books = Hanging(HASHER)
    start = trio.current_time()
    assert await put(far, b"data")
    assert trio.current_time() - start < SETTINGS.row_wait_s + 0.5


async def test_many_rows_of_one_container_travel_together(far: Ground) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(put, far, b"x", Path("AUTH_a", "c", f"o{number}"))
    merges = sum(line.calls.count("merge_rows") for line in lines(far, range(4)))
    assert merges < 50
    assert len((await far.storage.list_container(CONTAINER, Query())).items) == 50


async def test_a_row_for_a_book_that_a_device_lacks_stays_owed(far: Ground) -> None:
    debt = Debt(Row("o", Timestamp(1)), Path("AUTH_a", "no such container"), (0, 1))
    assert not await far.payer.pay(debt)


async def test_objects_are_read_while_their_container_cannot_be_asked(
    autojump_clock: trio.testing.MockClock, ground: Ground
) -> None:
    await put(ground, b"data")
    for books in ground.books:
        books.broken = True
    await trio.sleep(60)
    assert await get(ground) == b"data"
    with pytest.raises(NoQuorum):
        await get(ground, Path("AUTH_a", "c", "perhaps"))
    with pytest.raises(NoQuorum):
        await get(ground, Path("AUTH_a", "never seen", "o"))
    with pytest.raises(Unavailable):
        await put(ground, b"more")


# ---- mutants


class AckAtOne(WriteQuorum):
    def receive(self, replica: int, reply: Reply) -> Verdict | None:
        return Verdict.STORED if reply.outcome is Outcome.STORED else None


async def test_the_quorum_is_a_parameter(nursery: trio.Nursery) -> None:
    ground = Ground.make(nursery, settings=SETTINGS, write_quorum=AckAtOne)
    await ground.storage.put_container(CONTAINER, {})
    for number in primaries(ground)[1:]:
        ground.objects[number].broken = True
    await put(ground, b"acknowledged by one")


async def test_it_can_run_with_a_nursery_of_its_own(ground: Ground) -> None:
    reach = ground.storage.reach
    async with ClusterStorage.running(ground.world, reach.rings, reach.nodes, reach.timestamps, settings=SETTINGS) as storage:
        await storage.put_object(OBJECT, NewObject(), BytesBody(b"x"))

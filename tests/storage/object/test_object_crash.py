"""Crashes and failing disks: what was acknowledged is there afterwards, what was not is absent or whole."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from ring.errors import DiskFault, DiskFull
from ring.timestamp import Timestamp
from ring.world.interface import World, Write
from ring.world.sim import SimNode, SimWorld
from storage.client.node import Kind
from storage.object.errors import DeviceOutOfService
from storage.object.packs import Pending
from storage.object.record import Record, RecordKind, info_of
from storage.object.store import ObjectStore
from tests.storage.object.object_rig import HASHER, SPANS, body, noise, path, prepare, put, put_file, read, serving, version

ROOT = "d1"
SEGMENT_BYTES = 300_000  # so that segments roll
LARGE = b"\x07\x00large" * 250_000  # 1.75 MB: two blocks


@dataclass
class History:
    """Per name: every version that was tried, and the newest that was acknowledged."""

    tried: dict[str, dict[int, bytes | None]] = field(default_factory=dict)
    acked: dict[str, int] = field(default_factory=dict)

    async def put(self, store: ObjectStore, name: str, ticks: int, data: bytes | None, *, large: bool = False) -> None:
        self.tried.setdefault(name, {})[ticks] = data
        if large and data is not None:
            reply = await put_file(store, name, ticks, data)
        else:
            reply = await put(store, name, ticks, data)
        self.acked[name] = max(self.acked.get(name, 0), reply.newest.ticks)

    async def check(self, store: ObjectStore) -> None:
        for name, tried in self.tried.items():
            head = await store.head(path(name))
            if head is None:
                assert name not in self.acked, f"{name} is lost"
                continue
            assert head.timestamp.ticks >= self.acked.get(name, 0), f"{name} went back"
            data = tried[head.timestamp.ticks]
            assert head == version(name, head.timestamp.ticks, data)
            assert await read(store, name) == data
            assert await body(await store.object_by_key(store.key(path(name), head.timestamp))) == (data or b"")


async def _crash_during(node: SimNode, after_s: float, power: bool, work: Callable[[ObjectStore], Awaitable[None]]) -> bool:
    """Run ``work`` on the store and crash the node that much later; whether it was still at work."""
    done = False

    async def main(world: World) -> None:
        nonlocal done
        async with serving(world, ROOT, segment_bytes_max=SEGMENT_BYTES) as store, trio.open_nursery() as nursery:

            @nursery.start_soon
            async def kill() -> None:
                await trio.sleep(after_s)
                node.crash(power=power)

            await work(store)
            done = True
            nursery.cancel_scope.cancel()

    await node.run(main)
    if node.up:
        node.crash(power=power)
    node.restart()
    return not done


OPERATIONS: dict[str, tuple[float, Callable[[History, ObjectStore], Awaitable[None]]]] = {
    "small put": (0.002, lambda history, store: history.put(store, "a", 20, b"small" * 100)),
    "large put": (0.03, lambda history, store: history.put(store, "a", 20, LARGE, large=True)),
    "delete": (0.002, lambda history, store: history.put(store, "a", 20, None)),
}


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("before", ["nothing", "small", "large"])
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_killed_at_every_step(operation: str, before: str, power: bool, autojump_clock: MockClock) -> None:
    seconds, work = OPERATIONS[operation]
    interrupted = 0
    for step in range(24):
        world = SimWorld(step)
        node = world.node
        await prepare(world, ROOT)
        history = History()
        if before != "nothing":

            async def first(store: ObjectStore, history: History = history) -> None:
                await history.put(store, "a", 10, b"before" * 9, large=before == "large")

            await _crash_during(node, 100.0, power, first)
        interrupted += await _crash_during(node, seconds * step / 20, power, lambda store, history=history: work(history, store))  # type: ignore[misc]
        async with serving(node.world, ROOT) as store:
            await history.check(store)
            assert not store.report.damaged
            await history.put(store, "a", 30, b"goes on")
            assert await read(store, "a") == b"goes on"
    assert 3 <= interrupted < 24


@pytest.mark.parametrize("seed", range(16))
async def test_many_writers_and_many_crashes(seed: int, autojump_clock: MockClock) -> None:
    """Rounds of concurrent writes, each ended by a crash; in some the index is gone too."""
    rng = random.Random(seed)
    world = SimWorld(seed)
    node = world.node
    await prepare(world, ROOT)
    history = History()
    ticks = 100

    def next_ticks() -> int:
        nonlocal ticks
        ticks += 1
        return ticks

    async def client(store: ObjectStore, number: int) -> None:
        while True:
            name = f"n{rng.randrange(12)}"
            dice = rng.random()
            data = None if dice < 0.15 else bytes([number]) * rng.choice((0, 10, 5000, 40_000))
            await history.put(store, name, next_ticks(), data, large=dice > 0.85)
            if rng.random() < 0.02:
                await trio.sleep(1.5)  # the index is committed meanwhile

    async def work(store: ObjectStore) -> None:
        await history.check(store)
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(client, store, number)

    for _ in range(6):
        assert await _crash_during(node, 0.02 + rng.random() * rng.choice((0.02, 0.1, 0.2)), rng.random() < 0.7, work)
        if rng.random() < 0.3:
            await node.world.open_disk(ROOT).unlink("tables/data.mdb")
    async with serving(node.world, ROOT) as store:
        await history.check(store)
        await _check_tree(store)


async def test_what_was_read_after_a_kill_survives_the_next_power_loss(autojump_clock: MockClock) -> None:
    """A kill leaves unsynced records in the page cache: they are made durable before anybody is shown them."""
    shown = 0
    for step in range(40):
        world = SimWorld(step)
        node = world.node
        await prepare(world, ROOT)

        async def write(store: ObjectStore, step: int = step) -> None:
            begin = trio.current_time()
            await put(store, "first", 10, b"the segment is there")
            await trio.sleep_until(begin + 0.1 - step * 25e-6)  # so that the node is killed in the midst of it
            await put(store, "a", 10, b"1")

        await _crash_during(node, 0.1, False, write)
        seen: list[bytes | None] = []

        async def look(store: ObjectStore, seen: list[bytes | None] = seen) -> None:
            seen.append(await read(store, "a"))

        await _crash_during(node, 1.0, True, look)
        async with serving(node.world, ROOT) as store:
            if seen[0] is not None:
                shown += 1
                assert await read(store, "a") == b"1"
    assert 5 <= shown < 40


async def _check_tree(store: ObjectStore) -> None:
    """The tree is that of a device that got the same versions in any other way."""
    for span in SPANS:
        digests = await store.digests(span)
        for leaf, value in digests.leaves.items():
            total = 0
            for _, digest in await store.leaf(span, leaf):
                total ^= int.from_bytes(digest, "big")
            assert total.to_bytes(16, "big") == value


async def test_a_failed_sync_seals_the_segment(autojump_clock: MockClock) -> None:
    world = SimWorld(3)
    await prepare(world, ROOT)
    async with serving(world, ROOT) as store:
        await put(store, "a", 10, b"acked")
        world.node.disk(ROOT).sync_errors = 1
        with pytest.raises(DiskFault):
            await put(store, "a", 20, b"not acked")
        assert await read(store, "a") == b"acked"
        await put(store, "b", 30, b"goes on in a new segment")
        assert store.packs.sequences == [1, 2]
        world.node.disk(ROOT).sync_errors = 1
        with pytest.raises(DiskFault):
            await put(store, "a", 40, b"not acked either")
        with pytest.raises(DeviceOutOfService):
            await put(store, "a", 50, b"the device is out of service")
        with pytest.raises(DeviceOutOfService):
            await store.head(path("a"))
    world.node.crash(power=True)
    world.node.restart()
    async with serving(world.node.world, ROOT) as store:
        assert await read(store, "a") == b"acked"
        assert await read(store, "b") == b"goes on in a new segment"


@pytest.mark.parametrize("step", range(12))
async def test_who_waits_for_a_write_that_is_cut_off_is_told(step: int, autojump_clock: MockClock) -> None:
    """Also who is shielded: otherwise its process, or a machine that is played, would never come to an end."""
    world = SimWorld(step)
    await prepare(world, ROOT)
    waiting: list[Pending] = []

    async def work(store: ObjectStore) -> None:
        new = version("a", 10, b"data")
        info = info_of(new, None)
        waiting.append(store.packs.submit(Record(RecordKind.OBJECT_INLINE, HASHER.hash(new.path), new.timestamp, info, b"data")))
        await trio.sleep(1)

    await _crash_during(world.node, step * 0.0002, power=False, work=work)
    assert all(pending.done for pending in waiting)


async def test_what_the_medium_lost_is_noticed_after_a_failed_sync(autojump_clock: MockClock) -> None:
    """The drive lost its own cache: what it had acknowledged is gone, and the page cache still shows it."""
    world = SimWorld(12)
    await prepare(world, ROOT)
    async with serving(world, ROOT) as store:
        await put(store, "a", 10, b"acked")
        medium = world.node.disk(ROOT)
        medium.sync_errors, medium.forgets_bytes = 1, 20
        with pytest.raises(DiskFault):
            await put(store, "b", 20, b"not acked")
        with pytest.raises(DeviceOutOfService, match="acknowledged records were lost"):
            await read(store, "a")


async def test_a_full_disk_refuses_and_recovers(autojump_clock: MockClock) -> None:
    world = SimWorld(4)
    await prepare(world, ROOT)
    medium = world.node.disk(ROOT)
    async with serving(world, ROOT) as store:
        await put(store, "a", 10, b"before")
        medium.room_bytes = 20_000
        with pytest.raises(DiskFull):
            await put(store, "b", 20, noise(1, 30_000))
        with pytest.raises(DiskFull):
            await put_file(store, "c", 20, LARGE)
        with pytest.raises(DiskFull):
            await put_file(store, "c", 20, LARGE, size=len(LARGE))
        await trio.sleep(10)
        medium.room_bytes = None
        await put(store, "b", 30, b"after")
        assert await read(store, "a") == b"before"
        assert await read(store, "b") == b"after"
        assert await store.head(path("c")) is None
        assert store.packs.sequences == [1]


async def test_a_dead_disk_says_unavailable_and_never_not_found(autojump_clock: MockClock) -> None:
    world = SimWorld(5)
    await prepare(world, ROOT)
    medium = world.node.disk(ROOT)
    async with serving(world, ROOT) as store:
        await put_file(store, "a", 10, LARGE)
        medium.dead = True
        for _ in range(3):
            with pytest.raises((DiskFault, DeviceOutOfService)):
                await put(store, "b", 20, b"x")
        with pytest.raises((DiskFault, DeviceOutOfService)):
            await read(store, "a")
        await trio.sleep(60)
        medium.dead = False
    async with serving(world, ROOT) as store:
        assert await read(store, "a") == LARGE


async def test_rot_in_the_log_costs_only_what_lay_there(autojump_clock: MockClock) -> None:
    """A bad record in the middle is skipped and reported, whether the tail is replayed or everything is."""
    world = SimWorld(6)
    await prepare(world, ROOT)
    medium = world.node.disk(ROOT)
    places = {}
    async with serving(world, ROOT) as store:
        for number in range(9):
            await put(store, f"n{number}", 10, b"%d" % number * 100)
            held = store.index.get(store.key(path(f"n{number}"), Timestamp(10)))
            assert held is not None
            places[number] = held.entry.place
    node = medium.file("packs/00000001.pack")
    for at in (places[3].offset + 2, places[6].offset + places[6].length - 20):
        node.content[at] ^= 1
        node.durable[at] ^= 1
    await world.open_disk(ROOT).unlink("tables/data.mdb")
    async with serving(world, ROOT) as store:
        assert [damage[1:] for damage in store.report.damaged] == [
            (place.offset, place.offset + place.length) for place in (places[3], places[6])
        ]
        assert store.report.torn_bytes == 0
        for number in range(9):
            assert await read(store, f"n{number}") == (None if number in (3, 6) else b"%d" % number * 100)
        await put(store, "more", 10, b"1")


async def test_a_rotten_segment_head_is_read_from_its_copy(autojump_clock: MockClock) -> None:
    world = SimWorld(7)
    await prepare(world, ROOT)
    async with serving(world, ROOT) as store:
        await put(store, "a", 10, b"1")
    node = world.node.disk(ROOT).file("packs/00000001.pack")
    node.content[20] ^= 1
    node.durable[20] ^= 1
    async with serving(world, ROOT) as store:
        assert await read(store, "a") == b"1"


async def test_an_index_that_is_ahead_of_the_log_is_made_anew(autojump_clock: MockClock) -> None:
    """A drive that lied about its syncs lost the end of the log, but not of the tables."""
    world = SimWorld(8)
    await prepare(world, ROOT)
    async with serving(world, ROOT) as store:
        await put(store, "a", 10, b"1")
        size = store.packs.end.offset
        await put(store, "b", 20, b"2")
    node = world.node.disk(ROOT).file("packs/00000001.pack")
    del node.content[size:]
    del node.durable[size:]
    async with serving(world, ROOT) as store:
        assert store.report.rebuilt
        assert await read(store, "a") == b"1"
        assert await store.head(path("b")) is None
        assert len([leaf for span in SPANS for leaf in (await store.digests(span)).leaves]) == 1


async def test_a_damaged_index_is_made_anew(autojump_clock: MockClock) -> None:
    """An entry is rotten: the device goes out of service, and comes back with an index made from the log."""
    world = SimWorld(10)
    await prepare(world, ROOT)
    async with serving(world, ROOT) as store:
        for name in "abc":
            await put(store, name, 10, name.encode())
        await store.index.commit()
        key = store.key(path("b"), Timestamp(10))
        await store.device.tables.commit([Write("index", key, b"\xc1rot")])
        assert await read(store, "a") == b"a"
        with pytest.raises(DeviceOutOfService):
            await read(store, "b")
        with pytest.raises(DeviceOutOfService):
            await read(store, "a")
        await trio.sleep(5)
    async with serving(world, ROOT) as store:
        assert store.report.rebuilt
        assert [await read(store, name) for name in "abc"] == [b"a", b"b", b"c"]


async def test_a_failed_device_does_not_take_its_worker_down(autojump_clock: MockClock) -> None:
    """Background tasks find the device failed while they have work left."""
    world = SimWorld(11)
    await prepare(world, ROOT)
    async with serving(world, ROOT) as store:
        await put_file(store, "a", 10, LARGE)
        await put(store, "a", 20, b"small")
        store.device.fail("for a test")
        await trio.sleep(60)
        with pytest.raises(DeviceOutOfService, match="for a test"):
            await read(store, "a")
    async with serving(world, ROOT) as store:
        assert await read(store, "a") == b"small"


async def test_missing_packs_are_no_empty_device(autojump_clock: MockClock) -> None:
    world = SimWorld(9)
    await prepare(world, ROOT)
    async with serving(world, ROOT) as store:
        await put(store, "a", 10, None)
        head = await store.head(path("a"))
        assert head is not None
        assert head.kind is Kind.TOMBSTONE
    world.node.disk(ROOT).unmount()
    with pytest.raises(DeviceOutOfService):
        async with serving(world, ROOT):
            pass

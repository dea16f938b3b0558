"""ObjectStore on both worlds: what is put is read, the newest version wins, nothing is told twice."""

from __future__ import annotations

import zlib
from contextlib import AbstractAsyncContextManager
from pathlib import Path as FilePath

import pytest
import trio
from trio.testing import MockClock

from ring.errors import BadInput, Conflict, DiskFault
from ring.names import Span
from ring.timestamp import ZERO, Timestamp
from ring.wire.message import FileSlice
from ring.world.interface import OpenMode, World
from ring.world.real import make_world
from ring.world.sim import SimWorld
from storage.client.errors import ObjectNotFound
from storage.client.node import Kind, Version, WriteReply
from storage.object.errors import DeviceOutOfService
from storage.object.store import ObjectStore
from tests.storage.object.object_rig import (
    HASHER,
    SPANS,
    body,
    debt,
    in_doubt,
    noise,
    partitions,
    path,
    prepare,
    put,
    put_file,
    read,
    real_root,
    serving,
    version,
)

BIG = bytes(range(256)) * 4096 * 3 + b"tail"  # 3 MiB and a bit


class Rig:
    def __init__(self, world: World, root: str) -> None:
        self.world = world
        self.root = root

    def serving(self, **options: int) -> AbstractAsyncContextManager[ObjectStore]:
        return serving(self.world, self.root, **options)

    async def files(self, name: str) -> list[str]:
        return await self.world.open_disk(self.root).list_dir(f"files/{HASHER.hash(path(name)).hex()[:3]}")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> FilePath:
    return tmp_path_factory.mktemp("objects")


@pytest.fixture(params=["sim", "real"])
def clock(request: pytest.FixtureRequest) -> MockClock | None:
    """Virtual time for the simulated world.  The test itself must ask for it, else it runs in real time."""
    return MockClock(autojump_threshold=0) if request.param == "sim" else None


@pytest.fixture
async def rig(clock: MockClock | None, base: FilePath) -> Rig:
    rig = Rig(SimWorld(1), "d1") if clock is not None else Rig(make_world(), real_root(base))
    await prepare(rig.world, rig.root)
    return rig


async def test_small_objects(rig: Rig, clock: object) -> None:
    async with rig.serving() as store:
        assert await put(store, "a", 10, b"hello") == WriteReply(Timestamp(10), paid=True)
        assert await store.head(path("a")) == version("a", 10, b"hello")
        assert await read(store, "a") == b"hello"
        assert await read(store, "a", 1, 3) == b"ell"
        assert await read(store, "a", 4, 100) == b"o"
        assert await read(store, "a", 9) == b""
        assert await read(store, "b") is None
        assert await store.head(path("b")) is None
        await put(store, "empty", 11, b"")
        assert await read(store, "empty") == b""
    async with rig.serving() as store:
        assert store.report.replayed == 0  # the index was committed when it closed
        assert await store.head(path("a")) == version("a", 10, b"hello")
        assert await read(store, "a") == b"hello"


async def test_newest_wins(rig: Rig, clock: object) -> None:
    async with rig.serving() as store:
        await put(store, "a", 20, b"second")
        assert await put(store, "a", 10, b"first") == WriteReply(Timestamp(20), paid=True, never=True)
        assert await read(store, "a") == b"second"
        assert await put(store, "a", 20, b"second") == WriteReply(Timestamp(20), paid=True)  # told again
        assert await put(store, "a", 30, None) == WriteReply(Timestamp(30), paid=True)
        assert await read(store, "a") is None
        head = await store.head(path("a"))
        assert head is not None
        assert (head.kind, head.timestamp) == (Kind.TOMBSTONE, Timestamp(30))
        assert await put(store, "a", 25, b"late") == WriteReply(Timestamp(30), paid=True, never=True)
        await put(store, "a", 40, b"again")
        assert await read(store, "a") == b"again"
        assert await store.get(path("a"), Timestamp(20), 0, None) is None
        assert await body(await store.get(path("a"), Timestamp(40), 0, None)) == b"again"


async def test_equal_timestamps_are_ordered_by_content(rig: Rig, clock: object) -> None:
    bodies = [b"one", b"two", b"three"]
    greatest = max(bodies, key=lambda data: version("x", 1, data).etag)
    async with rig.serving() as store:
        for name, order in (("a", bodies), ("b", bodies[::-1])):
            for data in order:
                await put(store, name, 10, data)
            assert await read(store, name) == greatest
            await put(store, name, 10, None)  # a deletion of the same instant wins, as it does in listings
            assert (await put(store, name, 10, bodies[0])).newest > Timestamp(10)
            head = await store.head(path(name))
            assert head is not None and head.kind is Kind.TOMBSTONE


async def test_large_objects(rig: Rig, clock: object) -> None:
    async with rig.serving() as store:
        for name, size in (("sized", len(BIG)), ("unsized", None), ("wrongly sized", 7)):
            assert await put_file(store, name, 10, BIG, size=size) == WriteReply(Timestamp(10), paid=True)
            assert await store.head(path(name)) == version(name, 10, BIG)
            assert await read(store, name) == BIG
            assert await read(store, name, (1 << 20) - 2, 4) == BIG[(1 << 20) - 2 : (1 << 20) + 2]
            assert await read(store, name, len(BIG) - 3) == BIG[-3:]
        reading = await store.get(path("sized"), None, 3, 3 << 20)
        assert reading is not None
        pieces = [piece async for piece in reading.pieces]
        assert all(isinstance(piece, FileSlice) for piece in pieces)
        assert sum(piece.length for piece in pieces if isinstance(piece, FileSlice)) == 3 << 20
    async with rig.serving() as store:
        assert await read(store, "unsized") == BIG


async def test_uploads_that_come_to_nothing(rig: Rig, clock: object) -> None:
    async with rig.serving() as store:
        upload = await store.put_large(path("a"), 1000)
        await upload.write(b"x" * 10)
        with pytest.raises(BadInput, match="10 bytes"):
            await upload.commit(version("a", 10, b"x" * 11), None)
        await upload.abort()
        await upload.abort()
        with pytest.raises(Conflict):
            await upload.write(b"more")
        assert await store.head(path("a")) is None
        await put(store, "a", 20, b"newer")
        assert await put_file(store, "a", 10, BIG) == WriteReply(Timestamp(20), paid=True, never=True)
        assert await read(store, "a") == b"newer"
        upload = await store.put_large(path("a"), None)  # superseded while it is on its way
        await upload.write(b"large")
        await put(store, "a", 40, b"newest")
        assert await upload.commit(version("a", 30, b"large"), None) == WriteReply(Timestamp(40), paid=True, never=True)
        assert await put(store, "a", 50, b"") == WriteReply(Timestamp(50), paid=True)
    assert await rig.files("a") == []


async def test_replaced_while_it_is_read(rig: Rig, clock: object) -> None:
    async with rig.serving() as store:
        await put_file(store, "large", 10, BIG)
        await put(store, "small", 10, b"old")
        large = await store.get(path("large"), None, 0, None)
        small = await store.get(path("small"), None, 0, None)
        await put_file(store, "large", 20, b"new" * 1000)
        await put(store, "small", 20, b"new")
        await trio.sleep(0.1)  # the old file is unlinked meanwhile
        assert await body(large) == BIG
        assert await body(small) == b"old"
        assert await read(store, "large") == b"new" * 1000
        assert len(await rig.files("large")) == 1


async def test_post(rig: Rig, clock: object) -> None:
    async with rig.serving() as store:
        with pytest.raises(ObjectNotFound):
            await store.post(path("a"), {}, "", Timestamp(5))
        sysmeta = {"x-sysmeta-k": "kept", "x-object-meta-old": "1"}
        new = version("a", 10, b"data", metadata=sysmeta)
        await store.put_small(new, b"data", None)
        assert (await store.post(path("a"), {"x-object-meta-b": "2" * 300}, "image/png", Timestamp(20))).newest == Timestamp(20)
        assert (await store.post(path("a"), {"x-object-meta-c": "late"}, "", Timestamp(15))).newest == Timestamp(20)
        expected = Version(
            new.path, Timestamp(10), Kind.OBJECT, 4, new.etag, "image/png",
            {"x-sysmeta-k": "kept", "x-object-meta-b": "2" * 300}, Timestamp(20),
        )  # fmt: skip
        assert await store.head(path("a")) == expected
        await store.post(path("a"), {"x-object-meta-d": "3"}, "", Timestamp(30))
        reading = await store.get(path("a"), None, 0, None)
        assert reading is not None
        assert reading.version.metadata == {"x-sysmeta-k": "kept", "x-object-meta-d": "3"}
        assert await body(reading) == b"data"
    async with rig.serving() as store:
        assert (await store.head(path("a")) or new).metadata == {"x-sysmeta-k": "kept", "x-object-meta-d": "3"}
        await put(store, "a", 25, b"older than the post, newer than the data")
        assert await read(store, "a") == b"older than the post, newer than the data"
        await put(store, "a", 40, None)
        with pytest.raises(ObjectNotFound):
            await store.post(path("a"), {}, "", Timestamp(50))


async def test_a_copy_with_newer_metadata_brings_only_the_metadata(rig: Rig, clock: object) -> None:
    async with rig.serving() as store:
        await put_file(store, "a", 10, BIG)
        plain = version("a", 10, BIG)
        posted = version("a", 10, BIG, metadata={"x-object-meta-p": "1"}, metadata_timestamp=Timestamp(12))
        upload = await store.put_large(path("a"), None)
        await upload.write(BIG)
        await upload.commit(posted, None)
        assert await store.head(path("a")) == posted
        assert await store.put_small(version("b", 1, b"1"), b"1", None)
        assert await store.put_small(version("b", 1, b"1", metadata_timestamp=Timestamp(2)), b"1", None)
        head = await store.head(path("b"))
        assert head is not None
        assert head.metadata_timestamp == Timestamp(2)
        assert plain != posted
        assert await read(store, "a") == BIG


async def test_debts(rig: Rig, clock: object) -> None:
    async with rig.serving() as store:
        assert await put(store, "a", 10, b"1", owe=True) == WriteReply(Timestamp(10), paid=False)
        assert await put(store, "a", 10, b"1", owe=True) == WriteReply(Timestamp(10), paid=False)
        key = store.key(path("a"), Timestamp(10))
        first = version("a", 10, b"1")
        assert store.unpaid(10) == [(key, first, debt(first))]
        with pytest.raises(Conflict):
            await store.drop(key, "handed off")
        await put(store, "b", 11, b"1", owe=True)
        await store.settle(path("b"), Timestamp(11))
        await put(store, "a", 20, b"2", owe=True)  # its row replaces that of the first
        assert [item[1].timestamp.ticks for item in store.unpaid(10)] == [20]
        await put(store, "a", 30, None, owe=True)
        assert [item[1].kind for item in store.unpaid(10)] == [Kind.TOMBSTONE]
        await put(store, "a", 40, b"copy from a peer")
        assert [item[1].timestamp.ticks for item in store.unpaid(10)] == [30]
    async with rig.serving() as store:
        assert [item[1].timestamp.ticks for item in store.unpaid(10)] == [30]
        store.mark_paid([item[0] for item in store.unpaid(10)])
        assert store.unpaid(10) == []
    async with rig.serving() as store:
        assert store.unpaid(10) == []
        assert await put(store, "a", 40, b"copy from a peer", owe=True) == WriteReply(Timestamp(40), paid=True)


async def test_drop_and_refill(rig: Rig, clock: object) -> None:
    async with rig.serving() as store:
        await put(store, "a", 10, b"small")
        await put_file(store, "b", 10, BIG)
        key_a, key_b = store.key(path("a"), Timestamp(10)), store.key(path("b"), Timestamp(10))
        assert await store.drop(key_a, "handed off")
        assert await store.drop(key_b, "handed off")
        assert not await store.drop(key_a, "handed off")
        assert await store.head(path("a")) is None
        assert await partitions(store) == []
        await put(store, "a", 10, b"small")
        await put_file(store, "b", 10, BIG)
    async with rig.serving() as store:
        assert await read(store, "a") == b"small"
        assert await read(store, "b") == BIG
        assert await store.quarantine(key_b)
        assert await in_doubt(store, "b")
    assert len(await rig.world.open_disk(rig.root).list_dir("quarantine")) == 1


async def test_digests_follow_what_is_held(rig: Rig, clock: object) -> None:
    names = [f"n{number}" for number in range(40)]

    async def state(store: ObjectStore) -> tuple[object, ...]:
        digests = [await store.digests(span) for span in SPANS]
        leaves = []
        for span, digest in zip(SPANS, digests, strict=True):
            for leaf, value in digest.leaves.items():
                items = await store.leaf(span, leaf)
                total = 0
                for key, item in items:
                    assert key in span
                    total ^= int.from_bytes(item, "big")
                assert total.to_bytes(16, "big") == value
                leaves += [key for key, _ in items]
        return [digest.root for digest in digests], sorted(leaves)

    async with rig.serving() as store:
        for number, name in enumerate(names):
            await put(store, name, 100 + number, name.encode())
        before = await state(store)
        for part_power in (0, 1, 4, 13, 24):
            assert await partitions(store, part_power) == sorted(
                {Span.of(store.key(path(name), ZERO), part_power) for name in names}
            )
        await put(store, "n1", 500, b"changed")
        await put(store, "n2", 500, None)
        await store.post(path("n3"), {"x-object-meta-a": "b"}, "", Timestamp(500))
        changed = await state(store)
        assert changed != before
        await store.drop(store.key(path("n4"), Timestamp(104)), "handed off")
        after = await state(store)
    async with rig.serving() as store:
        assert await state(store) == after
        with pytest.raises(BadInput):
            await store.digests(Span(25, 0))
        with pytest.raises(BadInput):
            await store.partition_from(b"", 25)
        with pytest.raises(BadInput):
            await store.leaf(SPANS[0], 4096)


async def test_replicas_that_hold_the_same_have_the_same_digests(autojump_clock: object) -> None:
    """However it came: small or in a file, in another order, with a POST of its own or with its metadata at once."""
    world = SimWorld(1)
    await prepare(world, "one")
    await prepare(world, "other")
    async with serving(world, "one") as one, serving(world, "other") as other:
        await put(one, "a", 10, b"data")
        await put(one, "b", 10, b"gone")
        await put(one, "b", 20, None)
        await one.post(path("a"), {"x-object-meta-p": "1"}, "", Timestamp(15))
        await put(other, "b", 20, None)
        upload = await other.put_large(path("a"), None)
        await upload.write(b"data")
        await upload.commit(version("a", 10, b"data", metadata={"x-object-meta-p": "1"}, metadata_timestamp=Timestamp(15)), None)
        for span in SPANS:
            assert await one.digests(span) == await other.digests(span)


async def test_object_by_key(rig: Rig, clock: object) -> None:
    async with rig.serving() as store:
        await put(store, "a", 10, b"data")
        await put(store, "gone", 10, None)
        reading = await store.object_by_key(store.key(path("a"), Timestamp(10)))
        assert reading is not None
        assert reading.version == version("a", 10, b"data")
        assert await body(reading) == b"data"
        reading = await store.object_by_key(store.key(path("gone"), Timestamp(10)))
        assert reading is not None
        assert reading.version == version("gone", 10, None)
        assert await body(reading) == b""
        assert await store.object_by_key(store.key(path("a"), Timestamp(11))) is None


async def test_segments_roll_and_many_writers_share_a_sync(rig: Rig, clock: object) -> None:
    async with rig.serving(segment_bytes_max=128 << 10) as store:
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(put, store, f"n{number}", 10, noise(number, 1500))
        assert store.packs.records == 200
        assert store.packs.batches <= 20
        assert len(store.packs.sequences) > 2
        for sequence in store.packs.sequences:
            assert (await store.segments.segment(sequence)).size <= 128 << 10
    async with rig.serving() as store:
        for number in range(200):
            assert await read(store, f"n{number}") == noise(number, 1500)


async def test_a_caller_that_gives_up_harms_nobody(rig: Rig, clock: object) -> None:
    async with rig.serving() as store:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(put, store, "a", 10, b"1")
            with trio.CancelScope() as scope:
                nursery.start_soon(put, store, "b", 10, b"2")
                await trio.lowlevel.checkpoint()
                scope.cancel()
                await put(store, "c", 10, b"3")
        assert await read(store, "a") == b"1"
        assert await read(store, "b") == b"2"
        assert await read(store, "c") in (None, b"3")


async def test_the_index_is_a_cache(rig: Rig, clock: object) -> None:
    """Throw the tables away: everything comes back from the log."""
    async with rig.serving(segment_bytes_max=256 << 10) as store:
        for number in range(300):
            await put(store, f"n{number % 100}", 10 + number, b"%d" % number * 100)
        await put(store, "n5", 900, None, owe=True)
        await put_file(store, "large", 10, BIG)
        await store.post(path("n6"), {"x-object-meta-a": "b"}, "", Timestamp(901))
        await store.drop(store.key(path("n7"), Timestamp(217)), "handed off")
        roots = [await store.digests(span) for span in SPANS]
        heads = {f"n{number}": await store.head(path(f"n{number}")) for number in range(100)}
    disk = rig.world.open_disk(rig.root)
    for name in await disk.list_dir("tables"):
        await disk.unlink(f"tables/{name}")
    async with rig.serving(segment_bytes_max=256 << 10) as store:
        assert store.report.rebuilt
        assert [await store.digests(span) for span in SPANS] == roots
        assert {f"n{number}": await store.head(path(f"n{number}")) for number in range(100)} == heads
        assert await read(store, "large") == BIG
        assert [item[1].path.object for item in store.unpaid(10)] == ["n5"]


async def test_a_bad_block_stops_the_reading_before_its_bytes_leave(rig: Rig, clock: object) -> None:
    async with rig.serving() as store:
        await put_file(store, "a", 10, BIG)
        disk = rig.world.open_disk(rig.root)
        key = store.key(path("a"), Timestamp(10))
        (name,) = await disk.list_dir(f"files/{key.hex()[:3]}")
        file = await disk.open(f"files/{key.hex()[:3]}/{name}", OpenMode.WRITE)
        await file.pwrite((1 << 20) + 5, b"\xee")
        assert await read(store, "a", 0, 1 << 20) == BIG[: 1 << 20]  # touches only the first block
        reading = await store.get(path("a"), None, 0, None)
        assert reading is not None
        first = await anext(reading.pieces)
        assert isinstance(first, FileSlice)
        with pytest.raises(DiskFault, match="checksum"):
            await anext(reading.pieces)
        await file.close()
        await trio.sleep(0.2)  # the store looks at what the reader found
        assert await in_doubt(store, "a")
        assert await disk.list_dir("quarantine") == [name]
        assert zlib.crc32(await disk.read_file(f"quarantine/{name}")) != zlib.crc32(BIG)


async def test_refused_when_it_does_not_run(rig: Rig, clock: object) -> None:
    async with rig.serving() as store:
        await put(store, "a", 10, b"1")
    with pytest.raises(DeviceOutOfService):
        await store.head(path("a"))
    with pytest.raises(DeviceOutOfService):
        await put(store, "a", 20, b"1")
    async with rig.serving() as store:
        with pytest.raises(BadInput):
            await store.put_small(version("a", 30, b"12"), b"1", None)

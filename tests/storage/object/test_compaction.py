"""Compaction gives back what is dead and nothing else: whatever was written before, and when the index is lost at any step."""

from __future__ import annotations

import random
import struct
import zlib

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from ring.daemon.worker import Busy, Idle, once
from ring.errors import BadInput, DiskFault
from ring.timestamp import Timestamp
from ring.world.sim import SimWorld, run
from storage.client.node import Kind, Version
from storage.object.device import Label
from storage.object.record import HEAD_BYTES, Info, Record, RecordKind, encode_record
from storage.object.segment import COMPACTED, SegmentHead, plain
from storage.object.store import ObjectStore
from tests.storage.object.compaction_rig import amplification, assert_as_rebuilt, compactor, everything
from tests.storage.object.object_rig import (
    CLUSTER,
    HASHER,
    debt,
    in_doubt,
    noise,
    path,
    prepare,
    put,
    put_file,
    read,
    serving,
    version,
)

ROOT = "d1"
SEGMENT_BYTES = 20_000


async def held(store: ObjectStore, name: str) -> Version | None:
    """What is here, whatever is in doubt."""
    found = store.newest(HASHER.hash(path(name)))
    return None if found is None else await store.reader.describe(found, path(name))


async def _roll(store: ObjectStore, ticks: int = 10**6) -> None:
    """Begin a new segment, so that all before it can be compacted."""
    store.packs.seal()
    await put(store, "last", ticks, b"in the last segment")


async def test_overwritten_and_deleted_objects_give_their_room_back(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    await prepare(world, ROOT)
    async with serving(world, ROOT, segment_bytes_max=SEGMENT_BYTES) as store:
        for number in range(200):
            await put(store, f"n{number % 20}", 10 + number, noise(number, 2000))
        for number in range(5):
            await put(store, f"n{number}", 1000, None)
        await _roll(store)
        before = await amplification(store)
        worker = compactor(world, store)
        await once(worker)
        assert before > 8
        assert await amplification(store) < 1.4
        assert worker.reclaimed_bytes > 300_000
        assert not world.node.disk(ROOT).trip
        await assert_as_rebuilt(world, store)
    async with serving(world, ROOT) as store:
        assert not store.report.rebuilt
        for number in range(20):
            assert await read(store, f"n{number}") == (None if number < 5 else noise(180 + number, 2000))
        tombstone = await store.head(path("n0"))
        assert tombstone is not None and tombstone.kind is Kind.TOMBSTONE


async def test_every_step_leaves_a_log_that_says_the_same(autojump_clock: MockClock) -> None:
    """All kinds of records; after each unit the index is made anew from what lies there."""
    world = SimWorld(2)
    await prepare(world, ROOT)
    rng = random.Random(2)
    async with serving(world, ROOT, segment_bytes_max=SEGMENT_BYTES) as store:
        for number in range(300):
            name = f"n{rng.randrange(25)}"
            dice = rng.random()
            if dice < 0.5:
                await put(store, name, number + 1, noise(number, rng.randrange(2000)), owe=dice < 0.1)
            elif dice < 0.6:
                await put_file(store, name, number + 1, noise(number, 3000))
            elif dice < 0.7:
                await put(store, name, number + 1, None, owe=dice < 0.65)
            elif dice < 0.8:
                head = await held(store, name)
                if head is not None and head.kind is Kind.OBJECT:
                    await store.post(path(name), {"x-object-meta-p": str(number)}, "", Timestamp(number + 1))
            else:
                head = await held(store, name)
                if head is not None:
                    if dice < 0.9:
                        store.mark_paid([store.key(path(name), head.timestamp)])
                    if dice < 0.9 and not store.index.owes(store.key(path(name), head.timestamp)):
                        await store.drop(store.key(path(name), head.timestamp), "handed off")
                    else:
                        await store.quarantine(store.key(path(name), head.timestamp))
        await _roll(store)
        before = everything(store.index)
        worker = compactor(world, store)
        steps = 0
        while isinstance(await worker.work(), Busy):
            steps += 1
            await assert_as_rebuilt(world, store)
            now = everything(store.index)
            assert now.keys() == before.keys() and all(now[key].says(before[key]) for key in now)
        assert steps > 10
        assert worker.compactions and not worker.kept
        assert any(sequence >= COMPACTED for sequence in store.segments.sequences)


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(("put", "put", "put", "delete", "post", "drop", "pay", "file")), st.integers(0, 2), st.integers(1, 40)
        ),
        st.tuples(st.sampled_from(("roll", "roll", "compact", "unit", "unit", "restart")), st.just(0), st.just(0)),
    ),
    min_size=10,
    max_size=60,
)


@given(STEPS, st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_history_brings_back_what_is_gone(steps: list[tuple[str, int, int]], seed: int) -> None:
    run(seed, _play, steps, seed)


async def _play(steps: list[tuple[str, int, int]], seed: int) -> None:
    world = SimWorld(seed)
    disk = world.open_disk(ROOT)
    await disk.make_dirs("")
    await disk.make_dirs_many(["packs", "quarantine", *(f"files/{HASHER.hash(path(f'n{n}')).hex()[:3]}" for n in range(3))])
    await disk.replace_file("device.json", Label(CLUSTER, 1).encode())
    remaining = list(steps)
    while remaining:
        async with serving(world, ROOT) as store:
            worker = compactor(world, store)
            while remaining:
                kind, name_number, number = remaining.pop(0)
                name = f"n{name_number}"
                if kind == "restart":
                    break
                await _step(store, kind, name, number)
                if kind == "compact":
                    await once(worker)
                elif kind == "unit":
                    await worker.work()
                if kind in ("compact", "unit", "drop"):
                    await assert_as_rebuilt(world, store)
            await assert_as_rebuilt(world, store)
            before = everything(store.index)
        async with serving(world, ROOT) as store:
            assert all(held.says(before[key]) for key, held in everything(store.index).items())
            assert len(before) == len(everything(store.index))
            assert not store.report.rebuilt or not before


async def _step(store: ObjectStore, kind: str, name: str, number: int) -> None:
    head = await held(store, name)
    key = store.key(path(name), head.timestamp) if head is not None else b""
    match kind:
        case "put":
            await put(store, name, number, b"%d" % number * 50, owe=number % 3 == 0)
        case "file":
            await put_file(store, name, number, b"%d" % number)
        case "delete":
            await put(store, name, number, None, owe=number % 3 == 0)
        case "post" if head is not None and head.kind is Kind.OBJECT:
            await store.post(path(name), {"x-object-meta-p": str(number)}, "", Timestamp(number))
        case "drop" if head is not None:
            if number % 2 or store.index.owes(key):
                await store.quarantine(key)
            else:
                await store.drop(key, "reclaimed")
        case "pay" if head is not None:
            store.mark_paid([item[0] for item in store.unpaid(100)][:2])
        case "roll":
            store.packs.seal()


async def test_drops_leave_when_nothing_older_of_their_name_is_left(autojump_clock: MockClock) -> None:
    world = SimWorld(3)
    await prepare(world, ROOT)
    async with serving(world, ROOT, segment_bytes_max=6000) as store:
        await put(store, "old", 1, noise(1, 300))
        await put(store, "alive", 1, noise(2, 3000))  # most of the first segment
        store.packs.seal()
        await put(store, "old", 2, noise(3, 1000))
        await store.drop(store.key(path("old"), Timestamp(2)), "handed off")
        await _roll(store)
        worker = compactor(world, store, threshold=0.5)
        await once(worker)  # the second segment only: in the first something older of that name lies
        assert [name.first for name in store.segments.order if name.sequence >= COMPACTED] == [2]
        assert sum(weight.drops for _, weight in store.index.weights.all())
        await assert_as_rebuilt(world, store)
        await once(compactor(world, store, threshold=0.05))
        assert not sum(weight.drops for _, weight in store.index.weights.all())
        await assert_as_rebuilt(world, store)
        assert await store.head(path("old")) is None
        assert await read(store, "alive") == noise(2, 3000)


async def test_a_debt_keeps_a_dead_record_until_it_is_paid(autojump_clock: MockClock) -> None:
    world = SimWorld(4)
    await prepare(world, ROOT)
    async with serving(world, ROOT) as store:
        await put(store, "a", 1, noise(1, 300), owe=True)
        await store.quarantine(store.key(path("a"), Timestamp(1)))
        await _roll(store)
        await once(compactor(world, store))
        await assert_as_rebuilt(world, store)
        assert [item[1].path.object for item in store.unpaid(10)] == ["a"]
    await world.open_disk(ROOT).unlink("tables/data.mdb")
    async with serving(world, ROOT) as store:
        assert store.report.rebuilt
        assert [item[1].path.object for item in store.unpaid(10)] == ["a"]
        assert await in_doubt(store, "a")
        store.mark_paid([store.key(path("a"), Timestamp(1))])
        await put(store, "a", 1, noise(1, 300))  # brought back: now the drop may leave, too
        await _roll(store, 10**7)
        await once(compactor(world, store))
        await assert_as_rebuilt(world, store)
        assert await amplification(store) < 2


async def test_writes_during_a_compaction_win(autojump_clock: MockClock) -> None:
    world = SimWorld(5)
    await prepare(world, ROOT)
    rng = random.Random(5)
    async with serving(world, ROOT, segment_bytes_max=SEGMENT_BYTES) as store:
        model: dict[str, bytes | None] = {}
        ticks = 0
        worker = compactor(world, store)
        done = 0

        async def compact() -> None:
            nonlocal done
            while True:
                done += isinstance(await worker.work(), Busy)
                await trio.sleep(rng.random() * 0.002)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(compact)
            for _ in range(1500):
                ticks += 1
                name = f"n{rng.randrange(30)}"
                model[name] = noise(ticks, 500) if rng.random() < 0.8 else None
                await put(store, name, ticks, model[name])
                name = rng.choice(sorted(model))
                assert await read(store, name) == model[name]
            nursery.cancel_scope.cancel()
        assert done > 100
        await once(worker)
        for name, data in model.items():
            assert await read(store, name) == data
        await assert_as_rebuilt(world, store)
        assert await amplification(store) < 3


async def test_a_reader_holds_on_to_what_is_taken_away(autojump_clock: MockClock) -> None:
    world = SimWorld(6)
    await prepare(world, ROOT)
    medium = world.node.disk(ROOT)
    async with serving(world, ROOT) as store:
        await put(store, "a", 1, noise(1, 4000))
        await put(store, "b", 1, noise(2, 4000))
        await put(store, "b", 2, noise(3, 4000))
        await _roll(store)
        held = store.index.get(store.key(path("a"), Timestamp(1)))
        superseded = store.index.get(store.key(path("b"), Timestamp(2)))
        assert held is not None and superseded is not None
        await put(store, "b", 3, noise(4, 4000))
        medium.slow_s = 0.01
        async with store.segments.reading(1) as segment:
            await once(compactor(world, store))
            assert 1 not in store.segments.sequences
            assert len(await segment.file.pread(0, 100)) == 100
        with pytest.raises(trio.ClosedResourceError):
            await segment.file.pread(0, 100)
        record = await store.reader.record(held)  # looked up before, read after
        assert bytes(record.data) == noise(1, 4000)
        assert await store.reader.open(superseded, 0, None) is None  # look again
        assert await read(store, "b") == noise(4, 4000)


# ---- what is not as it should be


async def test_a_record_of_a_newer_format_keeps_its_segment(autojump_clock: MockClock) -> None:
    world = SimWorld(7)
    await prepare(world, ROOT)
    async with serving(world, ROOT) as store:
        for number in range(10):
            await put(store, "a", number + 1, noise(number, 300))
        head = (await store.segments.segment(1)).head
    buffers, length, _ = encode_record(Record(RecordKind.DROP, b"h" * 16, Timestamp(5), Info(("", "", ""))), head.salt)
    foreign = bytearray(b"".join(buffers))
    foreign[40] = 77  # its kind
    foreign[8:12] = zlib.crc32(foreign[12:-4], zlib.crc32(foreign[4:8], head.salt)).to_bytes(4, "big")
    foreign[-4:] = zlib.crc32(b"", struct.unpack(">I", foreign[8:12])[0]).to_bytes(4, "big")
    node = world.node.disk(ROOT).file("packs/00000001.pack")
    for content in (node.content, node.durable):
        content += foreign
    async with serving(world, ROOT) as store:
        assert [damage[1:] for damage in store.report.damaged] == [(len(node.content) - length, len(node.content))]
        await _roll(store)
        worker = compactor(world, store)
        await once(worker)
        assert worker.kept == {1: "it holds a record of a newer format"}
        assert 1 in store.segments.sequences
        assert await read(store, "a") == noise(9, 300)


async def test_rotten_bytes_go_when_nothing_alive_lies_there(autojump_clock: MockClock) -> None:
    world = SimWorld(8)
    await prepare(world, ROOT)
    medium = world.node.disk(ROOT)
    async with serving(world, ROOT, segment_bytes_max=SEGMENT_BYTES) as store:
        places = []
        for number in range(10):
            await put(store, f"n{number % 5}", number + 1, noise(number, 1000))
            held = store.index.newest(HASHER.hash(path(f"n{number % 5}")))
            assert held is not None
            places.append(held.entry.place)
        await _roll(store)
        node = medium.file("packs/00000001.pack")
        for number in (2, 7):  # a dead one and a living one
            at = places[number].offset + HEAD_BYTES + 20
            node.content[at] ^= 1
            node.durable[at] ^= 1
        worker = compactor(world, store)
        await once(worker)
        assert worker.kept == {1: "the index still names something in it"}
        assert 1 in store.segments.sequences
        assert not await store.examine(store.key(path("n2"), Timestamp(8)))  # as the auditor does
        await once(compactor(world, store))
        assert 1 not in store.segments.sequences
        assert await in_doubt(store, "n2")
        assert all([await read(store, f"n{number}") == noise(5 + number, 1000) for number in (0, 1, 3, 4)])


async def test_a_write_that_the_drive_lost_is_noticed_before_the_old_segment_goes(autojump_clock: MockClock) -> None:
    world = SimWorld(9)
    await prepare(world, ROOT)
    medium = world.node.disk(ROOT)
    async with serving(world, ROOT) as store:
        for number in range(10):
            await put(store, f"n{number % 5}", number + 1, noise(number, 1000))
        await _roll(store)
        worker = compactor(world, store)
        medium.writes_to_lose = 2  # room for the head, and the records
        with pytest.raises(DiskFault, match="not as it was written"):
            await once(worker)
        assert store.segments.sequences == [1, 2]
        await once(worker)
        assert 1 not in store.segments.sequences
        for number in range(5):
            assert await read(store, f"n{number}") == noise(5 + number, 1000)


async def test_the_page_cache_is_not_believed_about_the_new_segment(autojump_clock: MockClock) -> None:
    """A sync failed, the next one said that all is well, and the pages look right."""
    world = SimWorld(10)
    await prepare(world, ROOT)
    medium = world.node.disk(ROOT)
    async with serving(world, ROOT) as store:
        for number in range(10):
            await put(store, f"n{number % 5}", number + 1, noise(number, 1000))
        await _roll(store)
        worker = compactor(world, store)
        assert isinstance(await worker.work(), Busy)
        medium.ignores_sync = True
        made = []
        original = medium.beneath
        medium.beneath = lambda node: made.append(node) or bytes(len(original(node)))  # type: ignore[method-assign,func-returns-value]  # the platter is empty
        with pytest.raises(DiskFault, match="not as it was written"):
            await once(worker)
        assert made
        medium.beneath = original  # type: ignore[method-assign]
        medium.ignores_sync = False
        assert store.segments.sequences == [1, 2]


async def test_segments_of_the_first_format_are_compacted_into_the_second(autojump_clock: MockClock) -> None:
    world = SimWorld(11)
    await prepare(world, ROOT)
    head = struct.Struct(">8sHxxIIIxxxxI").pack(b"RFPACK\r\n", 1, 1, 1, 99, 0)[:-4]
    data = head + zlib.crc32(head).to_bytes(4, "big")
    for number in range(6):
        new = version(f"n{number % 3}", number + 1, noise(number, 400))
        info = Info(("AUTH_test", "photos", f"n{number % 3}"), 400, new.etag, "text/plain", dict(new.metadata))
        record = Record(RecordKind.OBJECT_INLINE, HASHER.hash(new.path), new.timestamp, info, noise(number, 400))
        data += b"".join(encode_record(record, 99)[0])
    file = await world.open_disk(ROOT).open_unnamed("packs")
    await file.append([data], sync=True)
    await world.open_disk(ROOT).link(file, plain(1).path)
    await file.close()
    async with serving(world, ROOT) as store:
        await put(store, "new", 1, noise("new", 400))
        assert store.segments.sequences == [1, 2]  # nobody appends to the old one
        await once(compactor(world, store))
        assert store.segments.sequences == [2, COMPACTED + 1]
        await assert_as_rebuilt(world, store)
        for number in range(3):
            assert await read(store, f"n{number}") == noise(3 + number, 400)


# ---- room


async def test_a_full_disk_is_not_made_fuller(autojump_clock: MockClock) -> None:
    world = SimWorld(12)
    await prepare(world, ROOT)
    medium = world.node.disk(ROOT)
    async with serving(world, ROOT, segment_bytes_max=SEGMENT_BYTES) as store:
        for number in range(60):
            await put(store, f"n{number % 40}", number + 1, noise(number, 1000))
        await _roll(store)
        medium.capacity_bytes = medium.used_bytes() + 10_000
        before = medium.space().free_bytes
        worker = compactor(world, store, headroom_bytes=8_000)
        least = before
        while isinstance(await worker.work(), Busy):
            least = min(least, medium.space().free_bytes)
        assert medium.space().free_bytes >= before
        assert least >= before // 2
        assert worker.compactions  # what fits was done
        for number in range(40):
            assert await read(store, f"n{number}") == noise(number + 40 if number < 20 else number, 1000)


async def test_what_is_wholly_dead_goes_even_when_the_disk_is_full(autojump_clock: MockClock) -> None:
    world = SimWorld(13)
    await prepare(world, ROOT)
    medium = world.node.disk(ROOT)
    async with serving(world, ROOT, segment_bytes_max=SEGMENT_BYTES) as store:
        for number in range(60):
            await put(store, f"n{number % 3}", number + 1, noise(number, 1000))
        await _roll(store)
        medium.room_bytes = 5_000
        worker = compactor(world, store)
        await once(worker)
        assert worker.reclaimed_bytes > 30_000
        medium.room_bytes = None
        await assert_as_rebuilt(world, store)


async def test_small_segments_are_put_together(autojump_clock: MockClock) -> None:
    world = SimWorld(14)
    await prepare(world, ROOT)
    async with serving(world, ROOT, segment_bytes_max=SEGMENT_BYTES) as store:
        for number in range(40):
            await put(store, f"n{number}", 1, noise(number, 100))
            store.packs.seal()
        assert len(store.segments.order) == 40
        await once(compactor(world, store))
        assert len(store.segments.order) < 12
        await assert_as_rebuilt(world, store)


# ---- metadata


async def test_metadata_that_is_too_long_is_refused_before_anything_is_written(autojump_clock: MockClock) -> None:
    world = SimWorld(15)
    await prepare(world, ROOT)
    async with serving(world, ROOT) as store:
        await put(store, "a", 1, b"1")
        end = store.packs.end
        long = {"x-object-meta-long": "x" * (1 << 20)}
        with pytest.raises(BadInput, match="metadata"):
            await store.put_small(version("b", 1, b"1", metadata=long), b"1", None)
        with pytest.raises(BadInput, match="metadata"):
            await store.post(path("a"), long, "", Timestamp(5))
        upload = await store.put_large(path("c"), None)
        await upload.write(b"large")
        with pytest.raises(BadInput, match="metadata"):
            await upload.commit(version("c", 1, b"large", metadata=long), debt(version("c", 1, b"large")))
        assert store.packs.end == end
        assert await world.open_disk(ROOT).list_dir(f"files/{HASHER.hash(path('c')).hex()[:3]}") == []
        await put(store, "d", 1, b"goes on")
        assert await read(store, "d") == b"goes on"


async def test_it_is_idle_when_there_is_nothing_to_do(autojump_clock: MockClock) -> None:
    world = SimWorld(16)
    await prepare(world, ROOT)
    async with serving(world, ROOT) as store:
        worker = compactor(world, store)
        assert isinstance(await worker.work(), Idle)
        await put(store, "a", 1, b"1")
        assert isinstance(await worker.work(), Idle)
        assert worker.progress().fraction == 1.0
        assert SegmentHead(1, 1, 1).length == 64

"""The auditor alone finds what has rotted, on both worlds; nobody else looks in these tests."""

from __future__ import annotations

import random
from pathlib import Path as FilePath

import pytest
import trio
from trio.testing import MockClock

from ring.daemon.worker import Busy, Idle, once
from ring.timestamp import Timestamp
from ring.world.interface import OpenMode, World
from ring.world.real import make_world
from ring.world.sim import SimWorld
from storage.object.auditor import Auditor
from tests.storage.object.object_rig import HASHER, SPANS, in_doubt, noise, path, prepare, put, put_file, read, real_root, serving

BIG = b"block" * 700_000  # 3.5 MB


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> FilePath:
    return tmp_path_factory.mktemp("auditor")


@pytest.fixture(params=["sim", "real"])
def clock(request: pytest.FixtureRequest) -> MockClock | None:
    """Virtual time for the simulated world.  The test itself must ask for it, else it runs in real time."""
    return MockClock(autojump_threshold=0) if request.param == "sim" else None


@pytest.fixture
async def place(clock: MockClock | None, base: FilePath) -> tuple[World, str]:
    world: World = SimWorld(1) if clock is not None else make_world()
    root = "d1" if clock is not None else real_root(base)
    await prepare(world, root)
    return world, root


async def _harm(world: World, root: str, file_path: str, offset: int) -> None:
    file = await world.open_disk(root).open(file_path, OpenMode.WRITE)
    old = await file.pread(offset, 1)
    await file.pwrite(offset, bytes([old[0] ^ 0x10]))
    await file.sync()
    await file.close()


def _file(name: str, ticks: int) -> str:
    digest = HASHER.hash(path(name)).hex()
    return f"files/{digest[:3]}/{digest}-{Timestamp(ticks).pack().hex()}"


async def test_a_sound_device_is_read_and_left_alone(place: tuple[World, str], clock: object) -> None:
    world, root = place
    async with serving(world, root, segment_bytes_max=100_000) as store:
        for number in range(100):
            await put(store, f"n{number % 60}", number, noise(number, 4000))
        await put_file(store, "big", 1, BIG)
        before = [await store.digests(span) for span in SPANS]
        auditor = Auditor(world, store)
        done = await once(auditor)
        assert done.done_bytes > 100 * 4000 + len(BIG)
        assert (auditor.damaged, auditor.orphans) == (0, 0)
        assert [await store.digests(span) for span in SPANS] == before
        assert isinstance(await auditor.work(), Idle)
        assert isinstance(await Auditor(world, store).work(), Idle)  # another process knows that a pass is done
        assert isinstance(await Auditor(world, store, interval_s=0).work(), Busy)


@pytest.mark.parametrize("where", ["data", "metadata", "head"])
async def test_a_rotten_record(place: tuple[World, str], clock: object, where: str) -> None:
    world, root = place
    async with serving(world, root) as store:
        for number in range(20):
            await put(store, f"n{number}", 10, noise(number, 2000))
        held = store.index.get(store.key(path("n7"), Timestamp(10)))
        assert held is not None
        lies = held.entry.place
        offset = {"data": lies.offset + lies.length - 100, "metadata": lies.offset + 60, "head": lies.offset + 5}[where]
        await _harm(world, root, "packs/00000001.pack", offset)
        auditor = Auditor(world, store)
        await once(auditor)
        assert auditor.damaged == 1
        assert await in_doubt(store, "n7")
        assert all([await read(store, f"n{number}") == noise(number, 2000) for number in range(20) if number != 7])
        await put(store, "n7", 10, noise(7, 2000))  # as the replicator does
    async with serving(world, root) as store:
        assert await read(store, "n7") == noise(7, 2000)
        again = Auditor(world, store, interval_s=0)
        await once(again)
        assert again.damaged == 0


async def test_a_rotten_file_and_one_that_is_gone(place: tuple[World, str], clock: object) -> None:
    world, root = place
    disk = world.open_disk(root)
    async with serving(world, root) as store:
        for name in ("rotten", "gone", "short", "sound"):
            await put_file(store, name, 10, BIG)
        await _harm(world, root, _file("rotten", 10), 2_500_000)
        await disk.unlink(_file("gone", 10))
        file = await disk.open(_file("short", 10), OpenMode.WRITE)
        await file.truncate(len(BIG) - 1)
        await file.close()
        auditor = Auditor(world, store)
        await once(auditor)
        assert auditor.damaged == 3
        assert [await in_doubt(store, name) for name in ("rotten", "gone", "short", "sound")] == [True, True, True, False]
        assert len(await disk.list_dir("quarantine")) == 2
        await put_file(store, "rotten", 10, BIG)
        assert await read(store, "rotten") == BIG
        assert await read(store, "sound") == BIG


async def test_a_rotten_post(place: tuple[World, str], clock: object) -> None:
    world, root = place
    async with serving(world, root) as store:
        await put(store, "a", 10, b"data")
        await store.post(path("a"), {"x-object-meta-a": "1"}, "", Timestamp(20))
        held = store.index.get(store.key(path("a"), Timestamp(10)))
        assert held is not None
        assert held.entry.posted is not None
        await _harm(world, root, "packs/00000001.pack", held.entry.posted.offset + 50)
        await once(Auditor(world, store))
        assert await in_doubt(store, "a")


async def test_orphans(place: tuple[World, str], clock: object) -> None:
    """Files without a record: superseded ones are removed, others put aside, young ones left alone."""
    world, root = place
    disk = world.open_disk(root)

    async def orphan(name: str, ticks: int) -> None:
        file = await disk.open_unnamed(_file(name, ticks).rpartition("/")[0])
        await file.append([b"left behind"], sync=True)
        await disk.link(file, _file(name, ticks))
        await file.close()

    async with serving(world, root) as store:
        await put(store, "a", 20, b"newer")
        await orphan("a", 10)
        await orphan("b", 10)
        await orphan("in doubt", 10)
        store.in_doubt.add(_file("in doubt", 10))
        young = Auditor(world, store)
        await once(young)
        assert young.orphans == 0
        old = Auditor(world, store, interval_s=0, orphan_grace_s=-1.0)
        await once(old)
        assert old.orphans == 2
        assert await disk.info(_file("a", 10)) is None
        assert await disk.info(_file("b", 10)) is None
        assert await disk.list_dir("quarantine") == [_file("b", 10).rpartition("/")[2]]
        assert await disk.info(_file("in doubt", 10)) is not None


async def test_it_goes_on_where_it_was(place: tuple[World, str], clock: object) -> None:
    """Cancelled at any point, begun again by another process: everything is read, hardly anything twice."""
    world, root = place
    rng = random.Random(1)
    total = 0
    async with serving(world, root, segment_bytes_max=2 << 20) as store:
        for number in range(30):
            await put(store, f"n{number}", 10, noise(number, 400_000))
        await put_file(store, "big", 10, BIG)
        auditor = Auditor(world, store)
        for _ in range(100_000):
            with trio.move_on_after(rng.choice((1e-5, 1.0))):
                done = await auditor.work()
                if isinstance(done, Idle):
                    break
                total += done.done_bytes
                if rng.random() < 0.2:
                    await auditor._save(auditor._place)  # type: ignore[arg-type]
                    auditor = Auditor(world, store)
        assert total >= 30 * 400_000 + len(BIG)
        assert auditor.damaged == 0


async def test_what_a_drive_did_not_write_is_found(autojump_clock: object) -> None:
    """Writes that were acknowledged and lost, as some controllers do."""
    world = SimWorld(2)
    await prepare(world, "d1")
    async with serving(world, "d1") as store:
        await put(store, "a", 10, b"kept")
        world.node.disk("d1").writes_to_lose = 1
        await put(store, "b", 10, b"lost")
        await put(store, "c", 10, b"kept")
        auditor = Auditor(world, store)
        await once(auditor)
        assert auditor.damaged == 1
        assert [await in_doubt(store, name) for name in "abc"] == [False, True, False]

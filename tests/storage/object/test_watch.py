"""A watched device: out of service by itself, back by itself, and nothing written to or believed of what is in its place."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from ring.errors import DiskFull, RingfortError
from ring.timestamp import Timestamp
from ring.world.interface import HUNG_S
from ring.world.sim import SimWorld
from ring.world.sim.medium import FolderNode, Medium
from storage.client.interface import Row
from storage.client.node import BookHeader
from storage.object.device import format_device
from storage.object.errors import DeviceOutOfService
from storage.object.health import Reserve, State
from storage.object.refill_mark import REFILL_PATH
from storage.object.store import ObjectStore
from tests.storage.object.object_rig import CLUSTER, noise, path, put, put_file, read
from tests.storage.object.watch_host import Host

ROOT = "/srv/d1"
SOON_S = 3.0  # a look, and what follows from it
RESERVE = Reserve(50_000, 1.0)
OUT, BACK = (State.IN_SERVICE, State.OUT), (State.OUT, State.IN_SERVICE)


def medium_of(hosted: Host) -> Medium:
    assert isinstance(hosted.world, SimWorld)
    return hosted.world.node.disk(ROOT)


@asynccontextmanager
async def host() -> AsyncIterator[Host]:
    world = SimWorld(1)
    disk = world.open_disk(ROOT)
    await disk.make_dirs("")
    await format_device(disk, CLUSTER, 1)
    hosted = Host(world, ROOT, RESERVE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hosted.watch.keep, hosted.serve)
        await hosted.watch.tried()
        yield hosted
        nursery.cancel_scope.cancel()


async def settle(hosted: Host, state: State) -> None:
    await trio.sleep(SOON_S)
    assert hosted.state is state, hosted.watch.health.reason
    assert (hosted.store is None) is (state is State.OUT)


async def test_an_empty_folder_in_its_place(autojump_clock: MockClock) -> None:
    async with host() as hosted:
        await put(hosted.open, "a", 1, b"kept")
        await put_file(hosted.open, "large", 1, noise(1, 400_000))
        mounted = medium_of(hosted).root
        beneath = medium_of(hosted).root = FolderNode()  # unmounted: the folder of the file system below is seen
        # before anybody has looked: nothing by a name, in either direction
        with pytest.raises(RingfortError):
            await put_file(hosted.open, "new", 2, noise(2, 400_000))
        await settle(hosted, State.OUT)
        assert "another folder" in hosted.watch.health.reason or "no label" in hosted.watch.health.reason
        await trio.sleep(60)
        assert hosted.openings == 1
        assert beneath.entries == {}  # nothing was written there
        medium_of(hosted).root = mounted
        await settle(hosted, State.IN_SERVICE)
        assert hosted.openings == 2
        assert await read(hosted.open, "a") == b"kept"
        assert await read(hosted.open, "large") == noise(1, 400_000)
        assert hosted.open.quarantined == 0


async def test_nothing_mounted_and_a_read_at_once(autojump_clock: MockClock) -> None:
    """A large object whose file cannot be opened is not damaged: nothing is put aside."""
    async with host() as hosted:
        await put_file(hosted.open, "large", 1, noise(1, 400_000))
        mounted, medium_of(hosted).root = medium_of(hosted).root, None
        with pytest.raises(RingfortError):
            await read(hosted.open, "large")
        await settle(hosted, State.OUT)
        medium_of(hosted).root = mounted
        await settle(hosted, State.IN_SERVICE)
        assert await read(hosted.open, "large") == noise(1, 400_000)
        assert hosted.open.quarantined == 0


@pytest.mark.parametrize(("cluster", "number"), [("another", 1), (CLUSTER, 2)])
async def test_another_disk_in_its_place(autojump_clock: MockClock, cluster: str, number: int) -> None:
    async with host() as hosted:
        await put(hosted.open, "a", 1, b"kept")
        other = SimWorld(2)
        disk = other.open_disk(ROOT)
        await disk.make_dirs("")
        await format_device(disk, cluster, number)
        medium_of(hosted).swap(other.node.disk(ROOT))
        theirs = medium_of(hosted).files()
        await settle(hosted, State.OUT)
        await trio.sleep(30)
        assert medium_of(hosted).files() == theirs
        medium_of(hosted).swap(other.node.disk(ROOT))
        await settle(hosted, State.IN_SERVICE)
        assert await read(hosted.open, "a") == b"kept"


async def test_read_only_it_is_read_and_not_written(autojump_clock: MockClock) -> None:
    async with host() as hosted:
        await put(hosted.open, "a", 1, b"kept")
        await put_file(hosted.open, "large", 1, noise(1, 400_000))
        assert hosted.books is not None
        await hosted.books.merge_header(BookHeader(path("").parent, Timestamp(1), None))
        medium_of(hosted).read_only = True
        with pytest.raises(RingfortError):
            await put(hosted.open, "b", 2, b"new")
        await settle(hosted, State.READ_ONLY)
        await trio.sleep(60)
        assert hosted.openings == 1
        for data in (b"small", None):
            with pytest.raises(DeviceOutOfService):
                await put(hosted.open, "c", 3, data)
        with pytest.raises(DeviceOutOfService):
            await put_file(hosted.open, "d", 3, noise(3, 400_000))
        with pytest.raises(RingfortError):
            await hosted.books.merge_header(BookHeader(path("").parent, Timestamp(9), None))
        assert await read(hosted.open, "a") == b"kept"
        assert await read(hosted.open, "large") == noise(1, 400_000)
        state = await hosted.books.book(path("").parent)
        assert state is not None and state.header.created == Timestamp(1)
        medium_of(hosted).read_only = False
        await settle(hosted, State.IN_SERVICE)
        assert hosted.openings == 2  # its engines had stopped writing
        await put(hosted.open, "b", 4, b"new")
        assert await read(hosted.open, "a") == b"kept"
        assert await read(hosted.open, "b") == b"new"


@pytest.mark.parametrize("seed", range(4))  # what was being done happened, or not
async def test_a_disk_that_hangs(autojump_clock: MockClock, seed: int) -> None:
    async with host() as hosted:
        medium = medium_of(hosted)
        medium.rng.seed(seed)
        await put(hosted.open, "a", 1, b"kept")
        await put_file(hosted.open, "large", 1, noise(1, 400_000))
        medium.hung = True
        store, began = hosted.open, trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(fails, store, f"new{number}")
        assert trio.current_time() - began < 2 * HUNG_S
        await settle(hosted, State.OUT)
        await trio.sleep(10 * HUNG_S)
        assert hosted.openings == 1
        assert "does not answer" in hosted.watch.health.reason
        medium.hung = False
        await trio.sleep(60)  # tried again at least so often
        await settle(hosted, State.IN_SERVICE)
        assert hosted.changes == [OUT, BACK]
        assert await read(hosted.open, "a") == b"kept"
        assert await read(hosted.open, "large") == noise(1, 400_000)
        assert await read(hosted.open, "new0") in (b"new", None)
        await put(hosted.open, "new0", 3, b"newer")
        assert await read(hosted.open, "new0") == b"newer"


async def fails(store: ObjectStore, name: str) -> None:
    with pytest.raises(RingfortError):
        await put(store, name, 2, b"new")


async def test_it_is_not_opened_while_it_is_read_only(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    disk = world.open_disk(ROOT)
    await disk.make_dirs("")
    await format_device(disk, CLUSTER, 1)
    hosted = Host(world, ROOT, RESERVE)
    medium_of(hosted).read_only = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hosted.watch.keep, hosted.serve)
        await hosted.watch.tried()
        await settle(hosted, State.OUT)
        assert "read-only" in hosted.watch.health.reason
        medium_of(hosted).read_only = False
        await settle(hosted, State.IN_SERVICE)
        nursery.cancel_scope.cancel()


async def test_a_full_one_takes_deletes_and_no_data(autojump_clock: MockClock) -> None:
    async with host() as hosted:
        await put(hosted.open, "a", 1, b"kept")
        assert hosted.books is not None
        container = path("").parent
        await hosted.books.merge_header(BookHeader(container, Timestamp(1), None))
        medium_of(hosted).room_bytes = RESERVE.size_bytes - 1
        await settle(hosted, State.FULL)
        with pytest.raises(DiskFull, match="no new data"):
            await put(hosted.open, "b", 2, b"new")
        with pytest.raises(DiskFull):
            await put_file(hosted.open, "large", 2, noise(1, 400_000))
        with pytest.raises(DiskFull):
            await hosted.open.post(path("a"), {}, "", Timestamp(2))
        with pytest.raises(DiskFull):
            await hosted.books.merge_rows(container, [Row("b", Timestamp(2), 1, "e", "t")])
        with pytest.raises(DiskFull):
            await hosted.books.merge_header(BookHeader(container, Timestamp(9), None))
        assert await read(hosted.open, "a") == b"kept"
        await put(hosted.open, "a", 3, None)
        await hosted.books.merge_rows(container, [Row("a", Timestamp(3), 0, "", "", deleted=True)])
        medium_of(hosted).room_bytes = RESERVE.size_bytes + 1  # not enough more
        await settle(hosted, State.FULL)
        medium_of(hosted).room_bytes = None
        await settle(hosted, State.IN_SERVICE)
        assert hosted.openings == 1  # nothing had to be opened anew
        await put(hosted.open, "b", 4, b"new")
        assert await read(hosted.open, "b") == b"new"


async def test_clients_cannot_use_what_is_kept_back(autojump_clock: MockClock) -> None:
    """Also between two looks, and with bodies of unknown length."""
    async with host() as hosted:
        medium_of(hosted).room_bytes = 200_000
        await trio.sleep(SOON_S)
        stored = 0
        for number in range(100):
            try:
                if number % 2:
                    await put(hosted.open, f"{number}", 1, noise(number, 9_000))
                else:
                    await put_file(hosted.open, f"{number}", 1, noise(number, 9_000), piece=4_000)
                stored += 1
            except DiskFull:
                continue
        assert stored == 16
        room = medium_of(hosted).room_bytes
        assert room is not None and room > RESERVE.size_bytes * 0.9  # records have heads and metadata, too
        for number in range(100):
            await put(hosted.open, f"{number}", 2, None)


async def test_a_disk_that_fails_twice_is_out_and_comes_back(autojump_clock: MockClock) -> None:
    async with host() as hosted:
        await put(hosted.open, "a", 1, b"kept")
        medium_of(hosted).sync_errors = 1
        with pytest.raises(RingfortError):
            await put(hosted.open, "b", 2, b"lost")
        assert hosted.changes == []  # once may happen: what was acknowledged was read back
        await put(hosted.open, "b", 3, b"new")
        medium_of(hosted).sync_errors = 1
        with pytest.raises(RingfortError):
            await put(hosted.open, "c", 4, b"lost")
        assert hosted.changes == [OUT]
        await trio.sleep(SOON_S)
        assert hosted.changes == [OUT, BACK]
        for name, data in (("a", b"kept"), ("b", b"new")):
            assert await read(hosted.open, name) == data


async def test_a_dead_disk_is_tried_again_and_again(autojump_clock: MockClock) -> None:
    async with host() as hosted:
        await put(hosted.open, "a", 1, b"kept")
        medium_of(hosted).dead = True
        for number in range(3):
            with pytest.raises(RingfortError):
                await put(hosted.open, "b", 2 + number, b"lost")
            if hosted.changes:
                break
        await settle(hosted, State.OUT)
        await trio.sleep(600)
        assert hosted.changes == [OUT]
        medium_of(hosted).dead = False
        await trio.sleep(62)
        assert hosted.changes == [OUT, BACK]
        assert await read(hosted.open, "a") == b"kept"


async def test_what_it_lost_is_marked_before_it_comes_back(autojump_clock: MockClock) -> None:
    async with host() as hosted:
        await put(hosted.open, "a", 1, noise(1, 5_000))
        medium_of(hosted).sync_errors = 1
        medium_of(hosted).forgets_bytes = 4_000  # of what was acknowledged, too
        with pytest.raises(RingfortError):
            await put(hosted.open, "b", 2, b"lost")
        assert hosted.changes == [OUT]
        assert "acknowledged" in hosted.watch.health.reason
        await trio.sleep(SOON_S)
        assert hosted.changes == [OUT, BACK]
        assert REFILL_PATH in await hosted.open.device.disk.list_dir("")  # so it is no voter

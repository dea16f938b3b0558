"""A watched device: out of service by itself, back by itself, and nothing written to or believed of what is in its place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from ring.errors import DiskFull, RingfortError
from ring.timestamp import Timestamp
from ring.world.sim import SimWorld
from ring.world.sim.medium import FolderNode, Medium
from storage.client.interface import Row
from storage.client.node import BookHeader
from storage.object.device import REFILL_PATH, OpenDevice, format_device
from storage.object.errors import DeviceOutOfService
from storage.object.health import Change, Reserve, State
from storage.object.store import ObjectStore
from storage.object.watch import DeviceWatch
from storage.rows.books import Books
from tests.storage.object.object_rig import CLUSTER, HASHER, noise, path, put, put_file, read

ROOT = "/srv/d1"
SOON_S = 3.0  # a look, and what follows from it
RESERVE = Reserve(50_000, 1.0)
OUT, BACK = (State.IN_SERVICE, State.OUT), (State.OUT, State.IN_SERVICE)


class Host:
    """Serves one watched device, as a worker does."""

    def __init__(self, world: SimWorld) -> None:
        self.world = world
        self.medium: Medium = world.node.disk(ROOT)
        self.store: ObjectStore | None = None
        self.books: Books | None = None
        self.openings = 0
        self.changes: list[tuple[State, State]] = []
        self.watch = DeviceWatch(world, ROOT, CLUSTER, 1, reserve=RESERVE, note=self.note)

    def note(self, change: Change) -> None:
        if change.before is not change.after:
            self.changes.append((change.before, change.after))

    @property
    def state(self) -> State:
        return self.watch.health.state

    @property
    def open(self) -> ObjectStore:
        assert self.store is not None
        return self.store

    async def serve(self, device: OpenDevice, serves: Callable[[], None]) -> None:
        store, books = ObjectStore(self.world, device, HASHER), Books(self.world, device, HASHER)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(store.run)
                await nursery.start(books.run)
                self.store, self.books = store, books
                self.openings += 1
                serves()
                await trio.sleep_forever()
        finally:
            self.store = self.books = None
            with trio.CancelScope(shield=True):
                for close in (store.close, books.close, device.close):
                    try:
                        await close()
                    except (OSError, RingfortError):
                        continue


@asynccontextmanager
async def host() -> AsyncIterator[Host]:
    world = SimWorld(1)
    disk = world.open_disk(ROOT)
    await disk.make_dirs("")
    await format_device(disk, CLUSTER, 1)
    hosted = Host(world)
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
        mounted = hosted.medium.root
        beneath = hosted.medium.root = FolderNode()  # unmounted: the folder of the file system below is seen
        # before anybody has looked: nothing by a name, in either direction
        with pytest.raises(RingfortError):
            await put_file(hosted.open, "new", 2, noise(2, 400_000))
        await settle(hosted, State.OUT)
        assert "another folder" in hosted.watch.health.reason or "no label" in hosted.watch.health.reason
        await trio.sleep(60)
        assert hosted.openings == 1
        assert beneath.entries == {}  # nothing was written there
        hosted.medium.root = mounted
        await settle(hosted, State.IN_SERVICE)
        assert hosted.openings == 2
        assert await read(hosted.open, "a") == b"kept"
        assert await read(hosted.open, "large") == noise(1, 400_000)
        assert hosted.open.quarantined == 0


async def test_nothing_mounted_and_a_read_at_once(autojump_clock: MockClock) -> None:
    """A large object whose file cannot be opened is not damaged: nothing is put aside."""
    async with host() as hosted:
        await put_file(hosted.open, "large", 1, noise(1, 400_000))
        mounted, hosted.medium.root = hosted.medium.root, None
        with pytest.raises(RingfortError):
            await read(hosted.open, "large")
        await settle(hosted, State.OUT)
        hosted.medium.root = mounted
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
        hosted.medium.swap(other.node.disk(ROOT))
        theirs = hosted.medium.files()
        await settle(hosted, State.OUT)
        await trio.sleep(30)
        assert hosted.medium.files() == theirs
        hosted.medium.swap(other.node.disk(ROOT))
        await settle(hosted, State.IN_SERVICE)
        assert await read(hosted.open, "a") == b"kept"


async def test_read_only_it_is_read_and_not_written(autojump_clock: MockClock) -> None:
    async with host() as hosted:
        await put(hosted.open, "a", 1, b"kept")
        await put_file(hosted.open, "large", 1, noise(1, 400_000))
        assert hosted.books is not None
        await hosted.books.merge_header(BookHeader(path("").parent, Timestamp(1), None))
        hosted.medium.read_only = True
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
        hosted.medium.read_only = False
        await settle(hosted, State.IN_SERVICE)
        assert hosted.openings == 2  # its engines had stopped writing
        await put(hosted.open, "b", 4, b"new")
        assert await read(hosted.open, "a") == b"kept"
        assert await read(hosted.open, "b") == b"new"


async def test_it_is_not_opened_while_it_is_read_only(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    disk = world.open_disk(ROOT)
    await disk.make_dirs("")
    await format_device(disk, CLUSTER, 1)
    hosted = Host(world)
    hosted.medium.read_only = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hosted.watch.keep, hosted.serve)
        await hosted.watch.tried()
        await settle(hosted, State.OUT)
        assert "read-only" in hosted.watch.health.reason
        hosted.medium.read_only = False
        await settle(hosted, State.IN_SERVICE)
        nursery.cancel_scope.cancel()


async def test_a_full_one_takes_deletes_and_no_data(autojump_clock: MockClock) -> None:
    async with host() as hosted:
        await put(hosted.open, "a", 1, b"kept")
        assert hosted.books is not None
        container = path("").parent
        await hosted.books.merge_header(BookHeader(container, Timestamp(1), None))
        hosted.medium.room_bytes = RESERVE.size_bytes - 1
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
        hosted.medium.room_bytes = RESERVE.size_bytes + 1  # not enough more
        await settle(hosted, State.FULL)
        hosted.medium.room_bytes = None
        await settle(hosted, State.IN_SERVICE)
        assert hosted.openings == 1  # nothing had to be opened anew
        await put(hosted.open, "b", 4, b"new")
        assert await read(hosted.open, "b") == b"new"


async def test_clients_cannot_use_what_is_kept_back(autojump_clock: MockClock) -> None:
    """Also between two looks, and with bodies of unknown length."""
    async with host() as hosted:
        hosted.medium.room_bytes = 200_000
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
        room = hosted.medium.room_bytes
        assert room is not None and room > RESERVE.size_bytes * 0.9  # records have heads and metadata, too
        for number in range(100):
            await put(hosted.open, f"{number}", 2, None)


async def test_a_disk_that_fails_twice_is_out_and_comes_back(autojump_clock: MockClock) -> None:
    async with host() as hosted:
        await put(hosted.open, "a", 1, b"kept")
        hosted.medium.sync_errors = 1
        with pytest.raises(RingfortError):
            await put(hosted.open, "b", 2, b"lost")
        assert hosted.changes == []  # once may happen: what was acknowledged was read back
        await put(hosted.open, "b", 3, b"new")
        hosted.medium.sync_errors = 1
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
        hosted.medium.dead = True
        for number in range(3):
            with pytest.raises(RingfortError):
                await put(hosted.open, "b", 2 + number, b"lost")
            if hosted.changes:
                break
        await settle(hosted, State.OUT)
        await trio.sleep(600)
        assert hosted.changes == [OUT]
        hosted.medium.dead = False
        await trio.sleep(62)
        assert hosted.changes == [OUT, BACK]
        assert await read(hosted.open, "a") == b"kept"


async def test_what_it_lost_is_marked_before_it_comes_back(autojump_clock: MockClock) -> None:
    async with host() as hosted:
        await put(hosted.open, "a", 1, noise(1, 5_000))
        hosted.medium.sync_errors = 1
        hosted.medium.forgets_bytes = 4_000  # of what was acknowledged, too
        with pytest.raises(RingfortError):
            await put(hosted.open, "b", 2, b"lost")
        assert hosted.changes == [OUT]
        assert "acknowledged" in hosted.watch.health.reason
        await trio.sleep(SOON_S)
        assert hosted.changes == [OUT, BACK]
        assert REFILL_PATH in await hosted.open.device.disk.list_dir("")  # so it is no voter

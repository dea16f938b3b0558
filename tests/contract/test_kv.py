"""What every key-value store does: memory, local (a log on three simulated disks), and local served over a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from ring.errors import BadInput, NotFound, Unavailable
from ring.kv.interface import KV, Delete, Entry, Event, LeaseId, Operation, Outcome, Put, Unchanged
from ring.kv.local import LocalStore
from ring.kv.memory import MemoryKV
from ring.kv.remote import RemoteKV
from ring.kv.server import serve
from ring.world.interface import Disk, UnixAddress, World
from ring.world.sim import SimWorld

MakeKV = Callable[[], AbstractAsyncContextManager[KV]]


async def disks_of(world: World) -> list[Disk]:
    disks = [world.open_disk(f"/d{i}") for i in range(3)]
    for disk in disks:
        await disk.make_dirs("")
    return disks


@asynccontextmanager
async def memory() -> AsyncIterator[KV]:
    yield MemoryKV()


@asynccontextmanager
async def local() -> AsyncIterator[KV]:
    world = SimWorld(1)
    async with LocalStore.open(world, await disks_of(world)) as store:
        yield store


@asynccontextmanager
async def remote() -> AsyncIterator[KV]:
    world = SimWorld(2)
    async with LocalStore.open(world, await disks_of(world)) as store, trio.open_nursery() as nursery:
        listener = await world.net.listen(UnixAddress("/run/kv"))
        nursery.start_soon(serve, store, listener)
        async with RemoteKV.open(world, UnixAddress("/run/kv")) as kv:
            yield kv
        nursery.cancel_scope.cancel()


@pytest.fixture(params=[memory, local, remote], ids=["memory", "local", "remote"])
def make_kv(request: pytest.FixtureRequest) -> MakeKV:
    made: MakeKV = request.param
    return made


async def test_put_get_delete(make_kv: MakeKV, autojump_clock: MockClock) -> None:
    async with make_kv() as kv:
        assert await kv.get("a") is None
        first = await kv.transact([], [Put("a", b"1")])
        assert first == Outcome(True, 1)
        assert await kv.get("a") == Entry("a", b"1", 1, 1)
        assert await kv.transact([], [Put("a", b"2"), Put("b", b"")]) == Outcome(True, 2)
        assert await kv.get("a") == Entry("a", b"2", 1, 2)
        assert await kv.transact([], [Delete("a")]) == Outcome(True, 3)
        assert await kv.get("a") is None
        assert await kv.get("b") == Entry("b", b"", 2, 2)
        assert await kv.transact([], [Put("a", b"3")]) == Outcome(True, 4)
        assert await kv.get("a") == Entry("a", b"3", 4, 4)


async def test_what_changes_nothing_has_no_revision(make_kv: MakeKV, autojump_clock: MockClock) -> None:
    async with make_kv() as kv:
        await kv.transact([], [Put("a", b"1")])
        assert await kv.transact([], [Delete("b")]) == Outcome(True, 1)
        assert await kv.transact([], []) == Outcome(True, 1)
        assert await kv.transact([Unchanged("a", 1)], []) == Outcome(True, 1)


@pytest.mark.parametrize(
    ("compares", "succeeds"),
    [
        ([], True),
        ([Unchanged("a", 1)], True),
        ([Unchanged("a", 2)], False),
        ([Unchanged("a", 0)], False),
        ([Unchanged("b", 0)], True),
        ([Unchanged("b", 1)], False),
        ([Unchanged("a", 1), Unchanged("b", 0)], True),
        ([Unchanged("a", 1), Unchanged("b", 1)], False),
    ],
)
async def test_compares(make_kv: MakeKV, autojump_clock: MockClock, compares: list[Unchanged], succeeds: bool) -> None:
    async with make_kv() as kv:
        await kv.transact([], [Put("a", b"1")])
        assert await kv.transact(compares, [Put("c", b"x"), Delete("a")]) == Outcome(succeeds, 2 if succeeds else 1)
        assert (await kv.get("c") is not None) == succeeds
        assert (await kv.get("a") is None) == succeeds


async def test_ranges_are_in_key_order(make_kv: MakeKV, autojump_clock: MockClock) -> None:
    async with make_kv() as kv:
        for key in ("b/2", "a/1", "b/1", "b", "b/10", "c/ö", "b0"):
            await kv.transact([], [Put(key, b"")])
        assert [e.key for e in await kv.range("b/")] == ["b/1", "b/10", "b/2"]
        assert [e.key for e in await kv.range("b/", limit=2)] == ["b/1", "b/10"]
        assert [e.key for e in await kv.range("")] == ["a/1", "b", "b/1", "b/10", "b/2", "b0", "c/ö"]
        assert await kv.range("nothing") == []


async def test_limits(make_kv: MakeKV, autojump_clock: MockClock) -> None:
    async with make_kv() as kv:
        assert (await kv.transact([], [Put("k" * 1024, b"x" * (1 << 20))])).succeeded
        assert (await kv.transact([], [Put(f"k{i}", b"") for i in range(100)])).succeeded
        too_much: list[list[Operation]] = [
            [Put("k" * 1025, b"")],
            [Put("", b"")],
            [Put("k", b"x" * ((1 << 20) + 1))],
            [Put(f"k{i}", b"") for i in range(101)],
            [Put("k", b""), Delete("k")],
        ]
        for operations in too_much:
            with pytest.raises(BadInput):
                await kv.transact([], operations)


async def test_one_winner_of_many(make_kv: MakeKV, autojump_clock: MockClock) -> None:
    won: list[int] = []
    async with make_kv() as kv:

        async def claim(number: int) -> None:
            if (await kv.transact([Unchanged("leader", 0)], [Put("leader", b"%d" % number)])).succeeded:
                won.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(claim, number)
        assert len(won) == 1
        entry = await kv.get("leader")
        assert entry is not None
        assert entry.value == b"%d" % won[0]


async def test_a_counter_loses_nothing(make_kv: MakeKV, autojump_clock: MockClock) -> None:
    async with make_kv() as kv:

        async def add() -> None:
            for _ in range(5):
                while True:
                    entry = await kv.get("n")
                    value, modified = (int(entry.value), entry.modified) if entry else (0, 0)
                    if (await kv.transact([Unchanged("n", modified)], [Put("n", b"%d" % (value + 1))])).succeeded:
                        break

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(add)
        entry = await kv.get("n")
        assert entry is not None
        assert entry.value == b"40"


async def collect(kv: KV, prefix: str, until: int, result: list[Event], *, task_status: trio.TaskStatus[None]) -> None:
    async with kv.watch(prefix) as watch:
        task_status.started()
        while not result or result[-1].revision < until:
            result += await watch.next()


async def test_a_watch_starts_with_what_is_there_and_leaves_nothing_out(make_kv: MakeKV, autojump_clock: MockClock) -> None:
    async with make_kv() as kv:
        await kv.transact([], [Put("w/a", b"1"), Put("x", b"")])
        async with kv.watch("w/") as watch:
            assert watch.entries == [Entry("w/a", b"1", 1, 1)]
            assert watch.revision == 1
            await kv.transact([], [Put("w/b", b"2"), Put("x", b"1")])
            assert await watch.next() == [Event("w/b", Entry("w/b", b"2", 2, 2), 2)]
            await kv.transact([], [Put("x", b"2")])
            await kv.transact([], [Delete("w/a"), Put("w/b", b"3")])
            assert await watch.next() == [Event("w/a", None, 4), Event("w/b", Entry("w/b", b"3", 2, 4), 4)]


async def test_two_watchers_see_all_events_in_order(make_kv: MakeKV, autojump_clock: MockClock) -> None:
    async with make_kv() as kv:
        seen: list[list[Event]] = [[], []]
        async with trio.open_nursery() as nursery:
            for each in seen:
                await nursery.start(collect, kv, "w/", 30, each)

            async def put(base: int) -> None:
                for i in range(10):
                    await kv.transact([], [Put(f"w/{base + i}", b"")])

            for base in (0, 100, 200):
                nursery.start_soon(put, base)
        assert [event.revision for event in seen[0]] == list(range(1, 31))
        assert seen[0] == seen[1]


async def test_a_lease_takes_its_keys_with_it(make_kv: MakeKV, autojump_clock: MockClock) -> None:
    async with make_kv() as kv:
        lease = await kv.grant(10.0)
        await kv.transact([], [Put("l/a", b"", lease), Put("l/b", b"", lease), Put("l/c", b"")])
        entry = await kv.get("l/a")
        assert entry is not None
        assert entry.lease == lease
        async with kv.watch("l/") as watch:
            start = trio.current_time()
            await trio.sleep(9)
            await kv.keep_alive(lease)
            await trio.sleep(9)
            assert len(await kv.range("l/")) == 3
            assert [(e.key, e.entry) for e in await watch.next()] == [("l/a", None), ("l/b", None)]
            assert 18.9 < trio.current_time() - start < 20.5
        assert [e.key for e in await kv.range("l/")] == ["l/c"]
        with pytest.raises(NotFound):
            await kv.keep_alive(lease)
        with pytest.raises(NotFound):
            await kv.transact([], [Put("l/a", b"", lease)])


async def test_a_watcher_that_was_there_before_the_lease_sees_it_lapse(make_kv: MakeKV, autojump_clock: MockClock) -> None:
    async with make_kv() as kv:
        seen: list[Event] = []
        async with trio.open_nursery() as nursery:
            await nursery.start(collect, kv, "l/", 2, seen)
            lease = await kv.grant(5.0)
            await kv.transact([], [Put("l/a", b"", lease)])
        assert [event.entry is None for event in seen] == [False, True]


async def test_revoke(make_kv: MakeKV, autojump_clock: MockClock) -> None:
    async with make_kv() as kv:
        lease = await kv.grant(10.0)
        other = await kv.grant(10.0)
        assert lease != other
        await kv.transact([], [Put("a", b"", lease)])
        await kv.transact([], [Put("b", b"", lease)])
        await kv.transact([], [Put("b", b"", other)])
        await kv.transact([], [Put("c", b"", lease)])
        await kv.transact([], [Put("c", b"")])
        await kv.revoke(lease)
        await kv.revoke(lease)
        await kv.revoke(LeaseId(999))
        assert [e.key for e in await kv.range("")] == ["b", "c"]
        assert (await kv.transact([], [])).revision == 6
        for ttl_s in (0.0, -1.0, float("nan"), float("inf")):
            with pytest.raises(BadInput):
                await kv.grant(ttl_s)


async def test_a_closed_watch_says_so(make_kv: MakeKV, autojump_clock: MockClock) -> None:
    async with make_kv() as kv:
        async with kv.watch("") as watch:
            pass
        with pytest.raises(Unavailable):
            await watch.next()

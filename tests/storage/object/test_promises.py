"""Promises of a device: over restarts, a lost index and compaction; what forbids while it is on its way; the far future."""

from __future__ import annotations

import errno
from contextlib import AbstractAsyncContextManager
from functools import partial

import pytest
import trio
import trio.testing

from ring.daemon.worker import once
from ring.errors import DiskFull, Unavailable
from ring.names import Path
from ring.service.overlap import Overlap
from ring.timestamp import TICKS_PER_SECOND, Timestamp
from ring.world.interface import Space
from ring.world.sim import SimWorld
from storage.client.errors import ClockAhead, PromisedAbove
from storage.client.node import Kind, Version
from storage.object.compaction import Compactor
from storage.object.health import RESERVE_BYTES, State
from storage.object.past import NAMES_MAX, VERSIONS_MAX, Past
from storage.object.promises import OPEN_MAX
from storage.object.settler import Settler, end_promise
from storage.object.store import ObjectStore
from tests.storage.client.ground import make_ring
from tests.storage.object.object_rig import path, prepare, put, put_file, read, serving

BIG = b"b" * 300_000


class Rig:
    def __init__(self) -> None:
        self.world = SimWorld(1)

    def serving(self, **options: int) -> AbstractAsyncContextManager[ObjectStore]:
        return serving(self.world, "d1", **options)

    async def forget_tables(self) -> None:
        disk = self.world.open_disk("d1")
        for name in await disk.list_dir("tables"):
            await disk.unlink(f"tables/{name}")


@pytest.fixture
async def rig(autojump_clock: trio.testing.MockClock) -> Rig:
    rig = Rig()
    await prepare(rig.world, "d1")
    return rig


def ballot(ticks: int) -> Timestamp:
    return Timestamp(ticks, 1)


async def refused(store: ObjectStore, name: str, ticks: int) -> Timestamp:
    with pytest.raises(PromisedAbove) as error:
        await put(store, name, ticks, b"old")
    return error.value.ballot


async def test_they_outlive_a_restart(rig: Rig, autojump_clock: trio.testing.MockClock) -> None:
    async with rig.serving() as store:
        await put(store, "a", 5, b"five")
        assert (await store.promise(path("a"), ballot(9), [])).given
        assert (await store.promise(path("b"), ballot(9), [])).given
        assert (await store.promise(path("c"), ballot(9), [])).given
        await put(store, "b", 10, b"ten")
        await store.release(path("c"), ballot(9))
    async with rig.serving() as store:
        assert await refused(store, "a", 8) == ballot(9)
        await put(store, "c", 8, b"eight")
        assert len(store.index.promises) == 1
        assert (await put(store, "b", 9, b"nine")).newest == Timestamp(10)


async def test_they_are_found_again_without_the_index(rig: Rig, autojump_clock: trio.testing.MockClock) -> None:
    async with rig.serving() as store:
        for number in range(5):
            assert (await store.promise(path("a"), ballot(10 + number), [])).given
        await store.release(path("a"), ballot(14))
        await store.promise(path("b"), ballot(9), [])
        await put(store, "b", 12, b"twelve")
        before = store.index.promises.all()
        weights = store.index.weights.all()
    await rig.forget_tables()
    async with rig.serving() as store:
        assert store.report.rebuilt
        assert store.index.promises.all() == before == [(path("a"), ballot(10 + number)) for number in range(4)]
        assert store.index.weights.all() == weights
        assert await refused(store, "a", 12) == ballot(13)


async def test_compaction_keeps_what_is_open_and_nothing_else(rig: Rig, autojump_clock: trio.testing.MockClock) -> None:
    async with rig.serving(segment_bytes_max=16 << 10) as store:
        for number in range(40):
            await store.promise(path(f"n{number}"), ballot(10), [])
            await store.promise(path(f"n{number}"), ballot(20), [])
        for number in range(0, 40, 4):
            await store.release(path(f"n{number}"), ballot(20))
            await store.release(path(f"n{number}"), ballot(10))
            await put(store, f"n{number + 1}", 30, b"new")
            await store.release(path(f"n{number + 2}"), ballot(20))
        for number in range(400):
            await put(store, "filling", 100 + number, b"%d" % number * 100)
        compactor = Compactor(rig.world, store, threshold=0.05, grace_s=0.0, headroom_bytes=0)
        for _ in range(5000):
            await compactor.work()
        assert compactor.compactions
        size = sum([await store.segments.size(name) for name in store.segments.order])
        assert size < 64 << 10
        left = store.index.promises.all()
    for lost in (False, True):
        if lost:
            await rig.forget_tables()
        async with rig.serving(segment_bytes_max=16 << 10) as store:
            assert store.index.promises.all() == left
            assert len(left) == 30
            await put(store, "n0", 5, b"zero")
            assert (await put(store, "n1", 5, b"one")).newest == Timestamp(30)
            assert await refused(store, "n2", 9) == ballot(10)
            assert await refused(store, "n3", 19) == ballot(20)
            await store.drop(store.key(path("n0"), Timestamp(5)), "as it was")


async def test_what_was_written_before_it_counts_and_what_comes_after_does_not(
    rig: Rig, autojump_clock: trio.testing.MockClock
) -> None:
    """In the order of the log, with all of them on their way to the disk at once."""
    async with rig.serving() as store:
        answers: dict[str, object] = {}

        async def write(name: str, ticks: int) -> None:
            try:
                answers[name] = (await put(store, "a", ticks, name.encode())).newest
            except PromisedAbove as error:
                answers[name] = error.ballot

        async def promise(name: str, at: Timestamp) -> None:
            given = await store.promise(path("a"), at, [])
            answers[name] = (given.given, given.newest and given.newest.timestamp)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, "before", 5)
            await trio.lowlevel.checkpoint()
            nursery.start_soon(promise, "first", ballot(9))
            await trio.lowlevel.checkpoint()
            nursery.start_soon(write, "below", 8)
            await trio.lowlevel.checkpoint()
            nursery.start_soon(promise, "lesser", ballot(7))
            await trio.lowlevel.checkpoint()
            nursery.start_soon(write, "above", 12)
            await trio.lowlevel.checkpoint()
            nursery.start_soon(promise, "late", ballot(11))
        assert answers["before"] == Timestamp(5)
        assert answers["first"] == (True, Timestamp(5))
        assert answers["below"] == ballot(9)
        assert answers["lesser"] == (False, None)
        assert answers["above"] == Timestamp(12)
        assert answers["late"] == (False, None)
        assert await read(store, "a") == b"above"
        assert len(store.index.promises) == 0


async def test_only_so_many_are_open_for_a_name(rig: Rig, autojump_clock: trio.testing.MockClock) -> None:
    async with rig.serving() as store:
        for number in range(OPEN_MAX):
            assert (await store.promise(path("a"), ballot(number + 1), [])).given
        with pytest.raises(Unavailable, match="too many"):
            await store.promise(path("a"), ballot(100), [])
        await put(store, "a", 70, b"seventy")
        assert (await store.promise(path("a"), ballot(100), [])).given


async def test_the_far_future(rig: Rig, autojump_clock: trio.testing.MockClock) -> None:
    async with rig.serving() as store:
        now = round(rig.world.clock.now() * TICKS_PER_SECOND)
        near, far = now + 50 * TICKS_PER_SECOND, now + 3600 * TICKS_PER_SECOND
        await put(store, "a", near, b"near")
        data = b"far"
        for call in (
            lambda: put(store, "a", far, data),
            lambda: put(store, "a", far, None),
            lambda: put_file(store, "a", far, BIG),
            lambda: store.post(path("a"), {}, "", Timestamp(far)),
            lambda: store.promise(path("a"), Timestamp(far), []),
        ):
            with pytest.raises(ClockAhead, match="s ahead of this device's clock") as error:
                await call()
            assert "NTP" in error.value.hint
        assert await read(store, "a") == b"near"
        await put(store, "a", near + 50 * TICKS_PER_SECOND, b"next")  # what is there already can be replaced
        assert await read(store, "a") == b"next"
        assert (await store.promise(path("a"), Timestamp(near + 60 * TICKS_PER_SECOND), [])).given


async def test_the_settler_sees_to_what_is_old(rig: Rig, autojump_clock: trio.testing.MockClock) -> None:
    ring = make_ring(2, 2)
    settled: list[Path] = []
    broken = False

    async def settle(of: Path, at: Timestamp) -> None:
        if broken:
            raise Unavailable("not now")
        settled.append(of)
        await store.put_small(Version(of, Timestamp.at(rig.world.clock.now()), Kind.TOMBSTONE), b"", None)

    async with rig.serving() as store:
        settler = Settler(store, lambda: Overlap.of(ring), settle)
        now = Timestamp.at(rig.world.clock.now()).ticks
        await store.promise(path("old"), ballot(now), [])
        await store.promise(path("ended"), ballot(now), [])
        await once(settler)
        await trio.sleep(75)
        await store.promise(path("young"), ballot(now + 1), [])
        await put(store, "ended", now + 1, b"new")
        broken = True
        await once(settler)
        assert (settler.failed, settled) == (1, [])
        broken = False
        await once(settler)
        assert settled == [path("old")]
        assert store.index.promises.all() == [(path("young"), ballot(now + 1))]
        own = store.device.device_id
        rings = [make_ring(2, 1, shift=shift) for shift in (0, 1)]
        ring = next(ring for ring in rings if Overlap.of(ring).places(path("young")).devices[0].id != own)  # it is another's now
        await trio.sleep(60)
        settler.begin()
        await once(settler)
        assert (settler.forgotten, settled, len(store.index.promises)) == (1, [path("old")], 0)
        assert settler.progress().facts["given"] == 3


@pytest.mark.parametrize("ahead_s", [-3600, 50])
async def test_how_old_a_promise_is_has_nothing_to_do_with_its_ballot(
    rig: Rig, autojump_clock: trio.testing.MockClock, ahead_s: float
) -> None:
    """The clock of the front door that took it was that much ahead of, or behind, the device's."""
    settled: list[float] = []

    async def settle(of: Path, at: Timestamp) -> None:
        settled.append(trio.current_time())

    async with rig.serving() as store:
        settler = Settler(store, lambda: Overlap.of(make_ring(2, 2)), settle, turn_s=0.0)
        begun = trio.current_time()
        await store.promise(path("o"), ballot(Timestamp.at(rig.world.clock.now() + ahead_s).ticks), [])
        while not settled:
            await once(settler)
            await trio.sleep(5)
        assert 60 <= settled[0] - begun <= 70


async def test_what_a_device_cannot_take_is_settled_once(rig: Rig, autojump_clock: trio.testing.MockClock) -> None:
    """A full device gives promises, and refuses what comes above them: its settler must not write the key anew at each pass."""
    settled: list[Path] = []

    async def settle(of: Path, at: Timestamp) -> None:
        settled.append(of)  # at the others; here it is refused

    async def passes() -> None:
        for _ in range(10):
            await once(settler)
            await trio.sleep(15)

    async with rig.serving() as store:
        settler = Settler(store, lambda: Overlap.of(make_ring(2, 2)), settle)
        now = Timestamp.at(rig.world.clock.now()).ticks
        full, almost = Space(1 << 40, 0), Space(1 << 40, RESERVE_BYTES - 1)
        store.device.health.looked(almost, 0.0)
        assert store.device.health.state is State.FULL
        assert (await store.promise(path("o"), ballot(now), [])).given
        store.device.health.looked(full, 0.0)
        await passes()
        assert settled == [path("o")]
        assert await refused(store, "o", now - 1)  # it stands as before
        await store.put_small(Version(path("o"), Timestamp(now, 2), Kind.TOMBSTONE), b"", None)
        store.device.health.looked(almost, 0.0)
        assert (await store.promise(path("o"), Timestamp(now, 3), [])).given  # another one is another matter
        store.device.health.looked(full, 0.0)
        await passes()
        assert settled == [path("o")] * 2


async def test_what_a_full_device_promises_it_keeps(rig: Rig) -> None:
    """Out of half of what clients cannot have; beyond that it promises nothing."""
    async with rig.serving() as store:
        health = store.device.health
        health.looked(Space(1 << 40, RESERVE_BYTES - 1), 0.0)
        assert health.state is State.FULL
        now = Timestamp.at(rig.world.clock.now()).ticks
        assert (await store.promise(path("o"), ballot(now), [])).given
        with pytest.raises(DiskFull):
            await put(store, "o", now + 1, b"not promised")
        await store.put_small(Version(path("o"), ballot(now), Kind.OBJECT, 8, "etag"), b"promised", None)
        assert await read(store, "o") == b"promised"
        health.looked(Space(1 << 40, RESERVE_BYTES // 2 - 1), 0.0)
        with pytest.raises(DiskFull):
            await store.promise(path("o"), ballot(now + 5), [])
        await put(store, "o", now + 2, None)  # a deletion makes room
        health.looked(Space(1 << 40, 1 << 39), 0.0)
        health.erred(OSError(errno.ENOSPC, "no inodes"), "a file", 0.0)
        with pytest.raises(DiskFull):
            await store.promise(path("o"), ballot(now + 5), [])


async def test_where_a_copy_would_bury_something_old_promises_are_released(
    rig: Rig, autojump_clock: trio.testing.MockClock
) -> None:
    async with rig.serving() as store:
        settler = Settler(store, lambda: Overlap.of(make_ring(2, 2)), partial(end_promise, store))
        now = Timestamp.at(rig.world.clock.now()).ticks
        await put(store, "o", now - 1, b"what is there")
        await store.promise(path("o"), ballot(now), [])
        await once(settler)
        await trio.sleep(75)
        await store.promise(path("o"), ballot(now + 1), [])
        await once(settler)
        assert store.index.promises.all() == [(path("o"), ballot(now + 1))]
        held = await store.head(path("o"))
        assert held is not None
        assert held.timestamp == Timestamp(now - 1)


# ---- what was held before


def test_past_says_never_only_when_it_is_sure() -> None:
    past = Past()
    one, other = b"1" * 16, b"2" * 16
    at = [Timestamp(ticks) for ticks in range(100)]
    assert past.never(one, at[5], None)
    assert past.never(one, at[5], (at[4], None))
    assert not past.never(one, at[5], (at[9], None))  # nothing is known
    past.replaced(one, None)
    assert past.never(one, at[5], (at[9], None))
    past.replaced(one, (at[9], at[3]))
    for version in range(1, 20):
        assert past.never(one, at[version], (at[20], at[15])) == (version not in (3, 9, 15))
    assert not past.never(one, at[20], (at[20], None))
    assert past.never(one, at[20], (at[20], None), other=True)
    past.dropped(one, at[20])
    assert not past.never(one, at[5], None)
    past.replaced(one, None)
    assert not past.never(one, at[5], None)
    for ticks in range(1, VERSIONS_MAX + 3):
        past.replaced(other, (at[ticks], None))
    assert not past.never(other, at[1], (at[50], None))
    assert past.never(other, at[30], (at[50], None))
    past.clear(at[40])
    assert not past.never(other, at[30], (at[50], None))
    for held in (None, (at[3], None)):  # it may have been held, and dropped, before the restart
        assert [past.never(other, at[version], held) for version in (40, 41)] == [False, True]
    past.replaced(other, None)
    assert [past.never(other, at[version], (at[50], None)) for version in (40, 41)] == [False, True]


def test_past_forgets_the_oldest_names() -> None:
    past = Past()
    for number in range(2 * NAMES_MAX + 10):
        past.replaced(number.to_bytes(16, "big"), None)
    assert not past.never((5).to_bytes(16, "big"), Timestamp(5), (Timestamp(9), None))
    assert past.never((NAMES_MAX + 10).to_bytes(16, "big"), Timestamp(5), (Timestamp(9), None))


def test_past_forgets_no_drop() -> None:
    """A name that holds nothing, or something newer, may have held something that was handed off: also when its own story was
    forgotten."""
    past, dropped, other = Past(), b"d" * 16, b"o" * 16
    past.replaced(dropped, None)
    past.dropped(dropped, Timestamp(7))
    for number in range(2 * NAMES_MAX + 10):
        past.replaced(number.to_bytes(16, "big"), None)
        assert not past.never(dropped, Timestamp(7), None)
    assert past.never(dropped, Timestamp(8), None)
    assert not past.never(other, Timestamp(7), None)
    past.replaced(dropped, None)
    assert not past.never(dropped, Timestamp(7), (Timestamp(9), None))
    assert past.never(dropped, Timestamp(8), (Timestamp(9), None))

"""The table of due times says the same as the entries of the index: whatever was written, committed, lost and replayed."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from ring.timestamp import Timestamp
from ring.world.interface import Disk, World
from ring.world.sim import SimWorld, run
from storage.client.expiry import due_of, expired, tombstone_at
from storage.object.device import Label
from storage.object.due import TABLE, row_key
from storage.object.store import ObjectStore
from tests.storage.object.object_rig import CLUSTER, HASHER, path, prepare, put, put_file, serving, version

ROOT = "/srv/disk"
NAMES = "abc"


def due_rows(store: ObjectStore) -> list[bytes]:
    return [key for key, _ in store.device.tables.scan(TABLE, limit=1000)]


def by_the_entries(store: ObjectStore) -> list[bytes]:
    found, _ = store.index.page(b"", None, limit=1000)
    return sorted(row_key(held.due, held.key) for held in found if held.due)


async def put_due(store: ObjectStore, name: str, ticks: int, due: int) -> None:
    metadata = {"x-delete-at": str(due)} if due else {}
    new = version(name, ticks, b"data", metadata=metadata)
    await store.put_small(new, b"data", None)


def test_what_a_date_is() -> None:
    assert due_of({"x-delete-at": "1700000000"}) == 1_700_000_000
    for text in ("", "0", "-1", "1.5", "soon", "\u0661\u0662", "12345678901"):
        assert due_of({"x-delete-at": text}) == 0
    assert due_of({}) == 0
    assert not expired({}, 1e12)
    assert not expired({"x-delete-at": "100"}, 99.99)
    assert expired({"x-delete-at": "100"}, 100)


@given(due=st.integers(1, 9_999_999_999), ticks=st.integers(0, 10**15 - 1), offset=st.integers(0, 2**32 - 1))
def test_a_tombstone_is_at_its_time_above_its_data_and_below_the_next_write(due: int, ticks: int, offset: int) -> None:
    data = Timestamp(ticks, offset)
    tombstone = tombstone_at(due, data)
    assert tombstone >= data
    assert tombstone < Timestamp(max(due * 100_000, ticks) + 1)


async def test_rows_come_and_go_with_their_entries(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    await prepare(world, ROOT)
    async with serving(world, ROOT) as store:
        await put_due(store, "a", 1000, 50)
        await put_due(store, "b", 1000, 70)
        await put_due(store, "c", 1000, 0)
        assert [due for due, _ in await store.due(b"", 60, limit=10)] == [50]
        first, second = await store.due(b"", 70, limit=10)
        assert await store.due(row_key(*first), 70, limit=10) == [second]
        assert (await store.path_of(first[1]), await store.path_of(second[1])) == (path("a"), path("b"))
        await store.post(path("a"), {"x-delete-at": "80"}, "", Timestamp(2000))  # another time
        await store.post(path("b"), {"x-object-meta-n": "n"}, "", Timestamp(2000))  # no more
        await store.post(path("c"), {"x-delete-at": "90"}, "", Timestamp(2000))  # now
        assert [due for due, _ in await store.due(b"", 10**9, limit=10)] == [80, 90]
        await put(store, "a", 3000, None)
        await put_due(store, "c", 3000, 95)
        assert [due for due, _ in await store.due(b"", 10**9, limit=10)] == [95]
        assert await store.path_of(first[1]) is None
        assert await store.due(b"", -5, limit=10) == []
        ((_, key),) = await store.due(b"", 95, limit=10)
        await store.drop(key, "handed off")
        assert await store.due(b"", 10**9, limit=10) == []


async def test_a_large_object_has_its_name_without_its_data(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    await prepare(world, ROOT)
    async with serving(world, ROOT) as store:
        await put_file(store, "a", 1000, b"x" * 700_000)
        await store.post(path("a"), {"x-delete-at": "80"}, "", Timestamp(2000))
        ((_, key),) = await store.due(b"", 80, limit=10)
        assert await store.path_of(key) == path("a")


Step = tuple[str, str, int]
OPERATIONS = st.tuples(st.sampled_from(("put", "put", "post", "delete", "drop")), st.sampled_from(NAMES), st.integers(0, 3))
EVENTS = st.tuples(st.sampled_from(("crash", "stop", "forget index", "commit")), st.just(""), st.integers(0, 1))


@given(st.lists(st.one_of(OPERATIONS, OPERATIONS, OPERATIONS, EVENTS), max_size=40), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_table_agrees_with_the_entries_whatever_happens(steps: list[Step], seed: int) -> None:
    run(seed, _play, list(steps), seed)


async def _play(steps: list[Step], seed: int) -> None:
    world = SimWorld(seed)
    node, disk = world.node, world.open_disk(ROOT)
    await disk.make_dirs("")
    await format_few(disk)
    dates: dict[str, int] = {}  # of live objects
    ticks = 1000

    async def work(world: World) -> None:
        nonlocal ticks
        async with serving(world, ROOT, segment_bytes_max=5000) as store:
            await check(store, dates)
            while steps:
                kind, name, number = steps.pop(0)
                ticks += 10
                if kind == "crash":
                    node.crash(power=bool(number))
                if kind in ("crash", "stop"):
                    return
                if kind == "forget index":
                    await store.index.clear()
                    await store.index.distrust()
                    return
                await _step(store, dates, kind, name, number, ticks)
            await check(store, dates)

    while True:
        await node.run(work)
        if not node.up:
            node.restart()
        if not steps:
            return


async def _step(store: ObjectStore, dates: dict[str, int], kind: str, name: str, number: int, ticks: int) -> None:
    match kind:
        case "put":
            await put_due(store, name, ticks, number)
            dates[name] = number
        case "post" if name in dates:
            await store.post(path(name), {"x-delete-at": str(number)} if number else {}, "", Timestamp(ticks))
            dates[name] = number
        case "delete":
            await put(store, name, ticks, None)
            dates.pop(name, None)
        case "drop":
            held = store.index.newest(HASHER.hash(path(name)))
            if held is not None:
                await store.drop(held.key, "handed off")
            dates.pop(name, None)
        case "commit":
            await check(store, dates)


async def check(store: ObjectStore, dates: dict[str, int]) -> None:
    """Everything acknowledged is in the log, so the dates are known whatever was lost."""
    await store.index.commit()
    assert due_rows(store) == by_the_entries(store)
    found = {str(await store.path_of(key)): due for due, key in await store.due(b"", 100, limit=100)}
    assert found == {str(path(name)): due for name, due in dates.items() if due}


async def format_few(disk: Disk) -> None:
    """A device without its 4,096 folders, which these tests do not need."""
    await disk.make_dirs("packs")
    await disk.make_dirs("quarantine")
    await disk.replace_file("device.json", Label(CLUSTER, 1).encode())

"""The expirer over a cluster of real engines: who deletes, when, and what is never deleted."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from ring.daemon.worker import Busy, Idle, once
from ring.errors import Unavailable
from ring.names import Path
from ring.timestamp import Timestamp
from ring.wire.message import BytesBody
from ring.world.sim.clock import SimClock
from storage.client.bodies import drained
from storage.client.errors import ObjectNotFound
from storage.client.interface import NewObject, Query, Row
from storage.client.node import Kind, Version
from storage.client.reach import Settings
from storage.object.expirer import DELAY_S, TURN_S, Expirer, SteadyClock
from tests.storage.client.ground import Distant, Ground, far_ground

CONTAINER = Path("AUTH_a", "c")
OBJECT = Path("AUTH_a", "c", "o")
SETTINGS = Settings(pack_cut_bytes=4096, chunk_bytes=1000, repair_delay_s=0.1, container_cache_s=0.0)
DEVICES = 4


class Field:
    """A cluster whose front doors and workers reach its devices by lines that can be cut, and an expirer for each device."""

    def __init__(self, ground: Ground, lines: list[Distant]) -> None:
        self.ground = ground
        self.lines = lines
        self.world = ground.world
        self.storage = ground.storage
        self.attempts: list[int] = []  # devices
        self.expirers = [self.expirer(number) for number in range(DEVICES)]

    def expirer(self, number: int, **settings: float) -> Expirer:
        async def expire(path: Path, due: int) -> bool:
            self.attempts.append(number)
            return await self.storage.expire_object(0, path, due)

        store, _ = self.ground.engines[number]
        return Expirer(self.world, store, lambda: self.ground.rings.objects[0], expire, **settings)  # type: ignore[arg-type]

    def now(self) -> float:
        return self.world.clock.now()

    def primaries(self, path: Path = OBJECT) -> list[int]:
        ring = self.ground.rings.objects[0].ring
        return [device.id for device in ring.primaries(ring.partition(path))]

    async def put(self, due: float | None, path: Path = OBJECT, data: bytes = b"data") -> int:
        metadata = {} if due is None else {"x-delete-at": str(int(due))}
        await self.storage.put_object(path, NewObject(metadata=metadata), BytesBody(data))
        return int(due or 0)

    async def everybody(self) -> int:
        """One pass of each; how many were deleted."""
        before = sum(expirer.deleted for expirer in self.expirers)
        for expirer in self.expirers:
            await once(expirer)
        return sum(expirer.deleted for expirer in self.expirers) - before

    async def held(self, path: Path = OBJECT) -> list[Version | None]:
        return [await self.ground.engines[number][0].head(path) for number in self.primaries(path)]

    async def listed(self) -> list[str]:
        return [item.name for item in (await self.storage.list_container(CONTAINER, Query())).items]


@pytest.fixture
async def field(nursery: trio.Nursery, autojump_clock: MockClock) -> Field:
    ground, lines = await far_ground(nursery, SETTINGS, DEVICES)
    await ground.storage.put_container(CONTAINER, {})
    return Field(ground, lines)


async def test_an_object_goes_at_its_time_and_its_row_with_it(field: Field, autojump_clock: MockClock) -> None:
    due = await field.put(field.now() + 100)
    await field.put(None, Path("AUTH_a", "c", "stays"))
    await trio.sleep(100 + DELAY_S - 5)
    assert await field.everybody() == 0
    assert (await field.storage.head_object(OBJECT)).size == 4
    await trio.sleep(6)
    assert await field.everybody() == 1
    assert field.attempts == [field.primaries()[0]]
    for held in await field.held():
        assert held is not None
        assert (held.kind, held.timestamp) == (Kind.TOMBSTONE, Timestamp.at(due))
    assert await field.listed() == ["stays"]
    with pytest.raises(ObjectNotFound):
        await field.storage.head_object(OBJECT)
    await trio.sleep(10 * TURN_S)
    assert await field.everybody() == 0
    assert len(field.attempts) == 1


async def test_large_objects_and_dates_that_a_post_set(field: Field, autojump_clock: MockClock) -> None:
    await field.put(None, data=b"x" * 10_000)
    await field.storage.post_object(OBJECT, {"x-delete-at": str(int(field.now()) + 10)}, content_type="text/new")
    await trio.sleep(10 + DELAY_S + 1)
    assert await field.everybody() == 1
    assert await field.listed() == []


async def test_a_later_date_or_none_is_kept(field: Field, autojump_clock: MockClock) -> None:
    start = field.now()
    await field.put(start + 100)
    await field.put(start + 100, Path("AUTH_a", "c", "later"))
    await field.put(start + 100, Path("AUTH_a", "c", "new"))
    await trio.sleep(50)
    await field.storage.post_object(OBJECT, {"x-object-meta-a": "1"})
    await field.storage.post_object(Path("AUTH_a", "c", "later"), {"x-delete-at": str(int(start) + 500)})
    await trio.sleep(300)  # the third one has expired; somebody writes it anew
    await field.put(None, Path("AUTH_a", "c", "new"))
    assert await field.everybody() == 0
    assert field.attempts == []
    await trio.sleep(300)
    assert await field.everybody() == 1
    assert await field.listed() == ["new", "o"]


async def test_what_one_primary_has_not_heard_of_is_kept(field: Field, autojump_clock: MockClock) -> None:
    """It missed the POST that took the date away, and the expirer is its own."""
    await field.put(field.now() + 100)
    behind = field.primaries()[0]
    field.lines[behind].cut = True
    await trio.sleep(50)
    await field.storage.post_object(OBJECT, {})
    await trio.sleep(1)
    field.lines[behind].cut = False
    await trio.sleep(100 + DELAY_S)
    await once(field.expirers[behind])
    assert field.attempts == [behind]
    assert field.expirers[behind].walk.kept == 1
    assert (await field.storage.head_object(OBJECT)).metadata == {}
    await trio.sleep(1)  # and now it has heard of it
    await once(field.expirers[behind])
    assert field.attempts == [behind]


async def test_a_post_does_not_save_what_has_expired(field: Field, autojump_clock: MockClock) -> None:
    await field.put(field.now() + 100)
    await trio.sleep(101)
    with pytest.raises(ObjectNotFound, match="expired"):
        await field.storage.post_object(OBJECT, {})


async def test_the_next_primary_acts_when_the_first_is_down(field: Field, autojump_clock: MockClock) -> None:
    first, second, third = field.primaries()
    await field.put(field.now() + 100)
    field.lines[first].cut = True
    await trio.sleep(100 + DELAY_S + 1)
    others = [field.expirers[second], field.expirers[third]]
    for expirer in others:
        await once(expirer)
        assert (expirer.walk.found, expirer.walk.waiting, expirer.walk.left) == (1, 1, 1)
    assert field.attempts == []
    await trio.sleep(TURN_S)
    for expirer in others:
        await once(expirer)
    assert field.attempts == [second]
    assert await field.listed() == []
    field.lines[first].cut = False
    await once(field.expirers[first])  # it comes back, and finds what the others did
    assert field.expirers[first].walk.kept == 1
    await trio.sleep(1)
    held = await field.held()
    assert held[0] == held[1] == held[2]
    assert held[0] is not None
    assert held[0].kind is Kind.TOMBSTONE


async def test_two_who_act_at_once_write_one_tombstone(field: Field, autojump_clock: MockClock) -> None:
    due = await field.put(field.now() + 100)
    await trio.sleep(100 + DELAY_S + 1)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(field.storage.expire_object, 0, OBJECT, due)
    assert {held.timestamp for held in await field.held() if held is not None} == {Timestamp.at(due)}


async def test_below_a_majority_nothing_is_decided(field: Field, autojump_clock: MockClock) -> None:
    first, second, third = field.primaries()
    await field.put(field.now() + 100)
    await trio.sleep(100 + DELAY_S + 1)
    field.lines[second].cut = field.lines[third].cut = True
    with pytest.raises(Unavailable):
        await once(field.expirers[first])
    assert field.expirers[first].walk.failed == 1
    store, _ = field.ground.engines[first]
    held = await store.head(OBJECT)
    assert held is not None
    assert held.kind is Kind.OBJECT
    field.lines[second].cut = field.lines[third].cut = False
    await once(field.expirers[first])  # the rest of that pass
    await once(field.expirers[first])
    assert await field.listed() == []


@pytest.mark.parametrize("gap_s", [0.00001, 30.0, 140.0])
async def test_a_newer_put_wins_over_the_tombstone(gap_s: float, field: Field, autojump_clock: MockClock) -> None:
    """Between the look and the tombstone, on one primary only."""
    due = await field.put(field.now() + 100)
    await trio.sleep(100 + DELAY_S + 1)
    store, _ = field.ground.engines[field.primaries()[2]]
    newer = Version(OBJECT, Timestamp(due * 100_000 + max(1, int(gap_s * 100_000))), Kind.OBJECT, 3, "b" * 32)
    line = field.lines[field.primaries()[2]]
    look = line.node.head

    async def look_before_it_is_written(path: Path) -> Version | None:
        seen = await look(path)
        await store.put_small(newer, b"new", None)
        return seen

    line.node.head = look_before_it_is_written  # type: ignore[method-assign]
    assert await field.storage.expire_object(0, OBJECT, due)  # the two others have it, and nobody was told of the newer one
    line.node.head = look  # type: ignore[method-assign]
    assert (await field.storage.head_object(OBJECT)).timestamp == newer.timestamp
    assert await drained((await field.storage.get_object(OBJECT)).pieces) == b"new"


async def test_many_are_deleted_in_small_units(field: Field, autojump_clock: MockClock) -> None:
    names = [f"n{number:03}" for number in range(120)]
    for name in names:
        await field.put(field.now() + 100, Path("AUTH_a", "c", name))
    await field.put(None)
    await trio.sleep(100 + DELAY_S + 30)
    units = 0
    for number in range(DEVICES):
        expirer = field.expirer(number, page_rows=7)
        while isinstance(unit := await expirer.work(), Busy):
            assert unit.items <= 16
            units += 1
        assert isinstance(unit, Idle)
        assert expirer.walk.over
        assert expirer.walk.deleted + expirer.walk.waiting == expirer.walk.found
        facts = expirer.progress().facts
        assert (facts["found"], facts["left"]) == (expirer.walk.found, expirer.walk.waiting)
        assert facts["behind_s"] == (pytest.approx(30, abs=5) if facts["left"] else 0)
    assert units > 16
    assert len(field.attempts) == len(names)
    assert await field.listed() == ["o"]


async def test_the_container_is_gone(field: Field, autojump_clock: MockClock) -> None:
    """Its listing was emptied by hand: the object must not stay for ever."""
    due = await field.put(field.now() + 100)
    meta = await field.storage.head_object(OBJECT)
    row = Row("o", Timestamp(meta.timestamp.ticks + 1), deleted=True)
    for _, books in field.ground.engines:
        await books.merge_rows(CONTAINER, [row])
    await field.storage.delete_container(CONTAINER)
    await trio.sleep(100 + DELAY_S + 1)
    assert await field.everybody() == 1
    assert {held.timestamp for held in await field.held() if held is not None} == {Timestamp.at(due)}
    assert all(not store.unpaid(10) for store, _ in field.ground.engines)


@pytest.mark.parametrize("after_s", [0.0, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01])
async def test_cut_off_at_any_step_the_next_one_finishes(after_s: float, field: Field, autojump_clock: MockClock) -> None:
    due = await field.put(field.now() + 100)
    await trio.sleep(100 + DELAY_S + 1)
    first = field.primaries()[0]
    with trio.move_on_after(after_s):
        await once(field.expirers[first])
    await once(field.expirer(first))  # another process, which knows nothing of the first
    await trio.sleep(5)
    assert {held.timestamp for held in await field.held() if held is not None} == {Timestamp.at(due)}
    assert await field.listed() == []


async def test_a_clock_that_jumps_ahead_deletes_nothing_early(field: Field, autojump_clock: MockClock) -> None:
    clock = field.world.clock
    assert isinstance(clock, SimClock)
    await field.put(field.now() + 5000)
    assert await field.everybody() == 0  # their clocks are set
    clock.step(7000)
    assert await field.everybody() == 0
    await trio.sleep(600)
    assert await field.everybody() == 0
    clock.correct()
    await trio.sleep(3000)
    assert await field.everybody() == 0
    assert field.attempts == []
    await trio.sleep(1400 + DELAY_S + TURN_S)
    assert await field.everybody() == 1


async def test_the_steady_clock(autojump_clock: MockClock) -> None:
    wall = SimClock()
    steady = SteadyClock(wall, ahead_max_s=60, trust_s=1000)
    start = steady.now()
    await trio.sleep(10)
    assert steady.now() - start == pytest.approx(10)
    wall.step(59)
    assert steady.now() - start == pytest.approx(69)  # within what clocks may differ by
    wall.step(100)
    assert steady.now() - start == pytest.approx(10)
    await trio.sleep(500)
    assert steady.now() - start == pytest.approx(510)
    wall.step(-100)
    assert steady.now() - start == pytest.approx(569)
    wall.step(100)  # it leads anew
    await trio.sleep(999)
    assert steady.now() - start == pytest.approx(1509)
    await trio.sleep(999)
    assert steady.now() - start == pytest.approx(2508)
    await trio.sleep(1)
    assert steady.now() - start == pytest.approx(2509 + 159)  # it has stood: this is the time
    wall.step(-1000)
    assert steady.now() - start == pytest.approx(1668)  # believed at once
    wall.step(200)
    assert steady.now() - start == pytest.approx(1668)

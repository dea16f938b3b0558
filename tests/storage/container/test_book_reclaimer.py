"""Tombstones of rows go when everybody may forget them, and not before; what a device lists that was away is compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import pytest
import trio

from ring.daemon.worker import once
from ring.device import Device
from ring.errors import FormatError, Unavailable
from ring.names import Path, Span
from ring.service.horizon import Horizon
from ring.service.overlap import Overlap
from ring.timestamp import TICKS_PER_SECOND, Timestamp
from ring.world.sim.clock import EPOCH
from storage.client.interface import Row
from storage.client.node import BookHeader, Node
from storage.container.reclaimer import BookReclaimer
from storage.container.replicator import BookReplicator
from storage.container.returning import decode, encode, listing
from storage.container.shards import MAP, OF, Shard, ShardMap, above, of_value, shard_path
from storage.container.shards import encode as encode_map
from storage.container.updater import ContainerUpdater
from storage.rows.books import Books
from storage.sync.proposal import Proposal
from tests.storage.client.ground import HASHER, Ground
from tests.storage.object.object_rig import GOLDEN
from tests.storage.silent import Silent

ACCOUNT, CONTAINER = Path("AUTH_a"), Path("AUTH_a", "c")
NOW = int(EPOCH * TICKS_PER_SECOND)
MADE, OLD, DELETED, CLOSED, LATE = NOW - 5000, NOW - 3000, NOW - 2000, NOW - 1000, NOW - 500  # ticks


@dataclass
class Cloud:
    """Four devices; a container's primaries are ``holders``, the other device is ``stranger``."""

    ground: Ground
    book: Path = CONTAINER
    reports: list[tuple[int, int]] = field(default_factory=list)  # device, clean
    silent: set[int] = field(default_factory=set)
    shards: ShardMap | None = None

    def __post_init__(self) -> None:
        self.horizon = Horizon()
        for number in range(4):
            self.books(number).standing.horizon = lambda name: self.horizon

    @property
    def kind(self) -> str:
        return "container" if self.book.container else "account"

    @property
    def holders(self) -> list[int]:
        ring = self.overlap().ring
        return [device.id for device in ring.primaries(ring.partition(self.book))]

    @property
    def stranger(self) -> int:
        return next(number for number in range(4) if number not in self.holders)

    def books(self, number: int) -> Books:
        return self.ground.engines[number][1]

    def at(self, horizon: Horizon) -> None:
        self.horizon = horizon
        for kind in ("container", "account"):
            ring = getattr(self.ground.rings, kind).ring
            setattr(self.ground.rings, kind, Overlap(ring, ring, horizon=horizon))

    def overlap(self, kind: str = "") -> Overlap:
        found: Overlap = getattr(self.ground.rings, kind or self.kind)
        return found

    def node(self, device: Device) -> Node:
        return cast(Node, Silent(device)) if device.id in self.silent else self.ground.nodes[device.id]

    async def map_of(self, root: Path) -> ShardMap | None:
        return self.shards

    async def listed(self, root: Path, after: str, end: str) -> Mapping[str, Row]:
        return await self.ground.storage.sharding.listed(root, after, end)

    def reclaimer(self, number: int) -> BookReclaimer:
        device, clock = self.overlap().ring.device(number), self.ground.world.clock
        proposal = Proposal(clock, lambda overlap, clean, proposed: self.reports.append((number, clean)), age_s=60.0)
        return BookReclaimer(
            self.kind, clock, device, self.books(number), self.overlap, self.node, proposal, self.map_of, self.listed
        )

    async def reclaim(self, *numbers: int) -> list[BookReclaimer]:
        workers = [self.reclaimer(number) for number in numbers or range(4)]
        for worker in workers:
            await once(worker)
        return workers

    async def replicate(self, number: int) -> None:
        device = self.overlap().ring.device(number)
        await once(BookReplicator(device, self.books(number), self.overlap, self.node))
        await self.flush()

    async def make(self, *numbers: int) -> None:
        for number in numbers or self.holders:
            await self.books(number).merge_header(BookHeader(self.book, Timestamp(MADE), None))

    async def put(self, ticks: int, *numbers: int, name: str = "o", deleted: bool = False) -> None:
        row = Row(name, Timestamp(ticks), deleted=True) if deleted else Row(name, Timestamp(ticks), 1, "e")
        for number in numbers or self.holders:
            await self.books(number).merge_rows(self.book, [row])
        await self.flush()

    async def flush(self) -> None:
        for number in range(4):
            await self.books(number).flush()

    async def held(self, number: int, name: str = "o") -> Timestamp | None:
        page = await self.books(number).rows(self.book, start="", end="", limit=1000, reverse=False)
        return None if page is None else next((row.timestamp for row in page.rows if row.name == name), None)

    async def mark(self, ticks: int, *numbers: int) -> None:
        for number in numbers or range(4):
            await self.books(number).standing.move("container", ticks)
            await self.books(number).standing.move("account", ticks)

    def marks(self, *numbers: int) -> list[int]:
        return [self.books(number).standing.mark(self.kind) for number in numbers or range(4)]

    async def everywhere_forgotten(self) -> bool:
        await self.flush()
        span = Span.of(HASHER.hash(self.book), self.overlap().ring.part_power)
        roots = {(await self.books(number).digests(self.kind, span)).root for number in self.holders}
        return [await self.held(number) for number in self.holders] == [None] * len(self.holders) and len(roots) == 1


@pytest.fixture
async def cloud(nursery: trio.Nursery) -> Cloud:
    cloud = Cloud(await Ground.with_engines(nursery))
    await cloud.make()
    return cloud


# ---- whether it is clean


async def test_clean_are_replicas_that_hold_the_same(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    await cloud.put(OLD)
    await cloud.put(LATE, cloud.holders[0], name="new")  # above where it closed: the others may lack it yet
    cloud.at(Horizon(CLOSED))
    await cloud.reclaim()
    assert cloud.marks() == [CLOSED] * 4
    assert {number for number, clean in cloud.reports if clean == CLOSED} == set(range(4))


async def test_not_clean_is_a_row_that_another_lacks(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    one, *others = cloud.holders
    await cloud.put(OLD, one)
    cloud.at(Horizon(CLOSED))
    await cloud.reclaim()
    assert cloud.marks(one, *others) == [0, CLOSED, CLOSED]
    await cloud.replicate(one)
    await cloud.reclaim(one)
    assert cloud.marks(one) == [CLOSED]


async def test_not_clean_is_a_header_that_another_has_not_heard_of(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    one, *_ = cloud.holders
    await cloud.books(one).merge_header(BookHeader(CONTAINER, Timestamp(MADE), Timestamp(DELETED)))
    await cloud.flush()
    cloud.at(Horizon(CLOSED))
    await cloud.reclaim()
    assert cloud.marks(*cloud.holders) == [0] * 3


async def test_not_clean_is_who_does_not_belong_there(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    await cloud.make(cloud.stranger)
    await cloud.put(OLD, *cloud.holders, cloud.stranger)
    cloud.at(Horizon(CLOSED))
    await cloud.reclaim()
    assert cloud.marks(cloud.stranger) == [0]
    await cloud.replicate(cloud.stranger)  # hands it off
    await cloud.reclaim(cloud.stranger)
    assert cloud.marks(cloud.stranger) == [CLOSED]


async def test_who_is_silent_keeps_the_others_from_being_clean(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    await cloud.put(OLD)
    cloud.silent.add(cloud.holders[0])
    cloud.at(Horizon(CLOSED))
    await cloud.reclaim(*cloud.holders[1:])
    assert cloud.marks(*cloud.holders[1:]) == [0, 0]


# ---- letting go


async def test_a_tombstone_that_all_hold_goes(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    await cloud.put(OLD)
    await cloud.put(DELETED, deleted=True)
    for number in range(250):
        await cloud.books(cloud.holders[0]).merge_rows(CONTAINER, [Row(f"a{number:03}", Timestamp(OLD), 1, "e")])
    await cloud.replicate(cloud.holders[0])
    await cloud.put(DELETED, name="a007", deleted=True)  # two that are far apart, and one above the horizon
    await cloud.put(LATE, name="z", deleted=True)
    await cloud.mark(CLOSED)
    cloud.at(Horizon(CLOSED, CLOSED))
    workers = await cloud.reclaim()
    assert [worker.reclaimed for number, worker in enumerate(workers) if number in cloud.holders] == [2] * 3
    assert await cloud.everywhere_forgotten()
    assert [await cloud.held(number, "z") for number in cloud.holders] == [Timestamp(LATE)] * 3
    state = await cloud.books(cloud.holders[0]).book(CONTAINER)
    assert state is not None and state.count == 249


async def test_a_tombstone_stays_while_somebody_holds_what_it_hides(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    one, *others = cloud.holders
    await cloud.put(OLD)
    await cloud.put(DELETED, *others, deleted=True)
    await cloud.mark(CLOSED)
    cloud.at(Horizon(CLOSED, CLOSED))
    workers = await cloud.reclaim(*others)
    assert [worker.kept for worker in workers] == [1, 1]
    assert [await cloud.held(number) for number in others] == [Timestamp(DELETED)] * 2
    await cloud.replicate(others[0])  # brings it to who holds something older
    assert await cloud.held(one) == Timestamp(DELETED)
    await cloud.reclaim()
    assert await cloud.everywhere_forgotten()


@pytest.mark.parametrize("why", ["silent", "not clean"])
def test_a_tombstone_stays_while_somebody_is_unknown(why: str) -> None:
    async def play() -> None:
        async with trio.open_nursery() as nursery:
            cloud = Cloud(await Ground.with_engines(nursery))
            await cloud.make()
            await cloud.put(DELETED, deleted=True)
            one, *others = cloud.holders
            await cloud.mark(CLOSED, *others)
            if why == "silent":
                await cloud.mark(CLOSED, one)
                cloud.silent.add(one)
            cloud.at(Horizon(CLOSED, CLOSED))
            workers = await cloud.reclaim(*others)
            assert [worker.kept for worker in workers] == [1, 1]
            nursery.cancel_scope.cancel()

    trio.run(play, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_what_one_has_forgotten_is_not_brought_back(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    one, *others = cloud.holders
    await cloud.put(DELETED, deleted=True)
    await cloud.mark(CLOSED)
    cloud.at(Horizon(CLOSED, CLOSED))
    await cloud.reclaim(one)
    for number in cloud.holders:
        await cloud.replicate(number)
    assert await cloud.held(one) is None
    await cloud.reclaim(*others)
    assert await cloud.everywhere_forgotten()
    for number in cloud.holders:  # and they are clean up to the next place
        await cloud.replicate(number)
    cloud.at(Horizon(LATE, CLOSED))
    await cloud.reclaim()
    assert cloud.marks() == [LATE] * 4


async def test_a_row_in_transit_is_waited_for(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    """The root was cut, and one device has still to forward what it holds; another has not heard of the cut."""
    one, two, three = cloud.holders
    await cloud.put(OLD)
    shards = ShardMap(1, Timestamp(DELETED), (Shard("", "s"),))
    for number in (one, two):
        header = BookHeader(CONTAINER, Timestamp(MADE), None, 0, {MAP: (encode_map(shards), shards.stamp)})
        await cloud.books(number).merge_header(header)
    await cloud.books(two).discard(CONTAINER, [Row("o", Timestamp(OLD), 1, "e")])
    await cloud.flush()
    cloud.at(Horizon(CLOSED))
    await cloud.reclaim()
    assert cloud.marks(one, two, three) == [0, 0, 0]  # two lacks nothing, but its header is news to three
    await cloud.replicate(three)
    await cloud.reclaim()
    assert cloud.marks(one, two, three) == [0, CLOSED, 0]
    for number in (one, three):
        await cloud.books(number).discard(CONTAINER, [Row("o", Timestamp(OLD), 1, "e")])
    await cloud.reclaim()
    assert cloud.marks(one, two, three) == [CLOSED] * 3


@pytest.mark.parametrize(
    ("stamp", "shard", "goes"),
    [
        (MADE, Shard("", "NAME"), True),
        (LATE, Shard("", "NAME"), False),  # the map has changed since
        (MADE, Shard("", "NAME", True, ("before",)), False),  # what was there before may be on its way
        (MADE, Shard("", "NAME", False), False),
        (MADE, Shard("", "another"), False),  # it was replaced
    ],
)
def test_in_a_shard_a_tombstone_stays_unless_all_is_at_rest(stamp: int, shard: Shard, goes: bool) -> None:
    async def play() -> None:
        async with trio.open_nursery() as nursery:
            made = Timestamp(MADE)
            name = f"{made.pack().hex()}-0"
            cloud = Cloud(await Ground.with_engines(nursery), shard_path(CONTAINER, name))
            found = Shard(shard.upper, shard.name.replace("NAME", name), shard.active, shard.sources)
            cloud.shards = ShardMap(3, Timestamp(stamp), (found,))
            for number in cloud.holders:
                header = BookHeader(cloud.book, made, None, 0, {OF: (of_value(CONTAINER), made)})
                await cloud.books(number).merge_header(header)
            await cloud.put(DELETED, deleted=True)
            await cloud.mark(CLOSED)
            cloud.at(Horizon(CLOSED, CLOSED))
            await cloud.reclaim()
            assert await cloud.everywhere_forgotten() is goes
            if not goes:
                assert [await cloud.held(number) for number in cloud.holders] == [Timestamp(DELETED)] * 3
            nursery.cancel_scope.cancel()

    trio.run(play, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_a_closed_shard_lets_go_of_nothing(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    made = Timestamp(MADE)
    cloud.book = shard_path(CONTAINER, f"{made.pack().hex()}-0")
    cloud.shards = ShardMap(3, made, (Shard("", cloud.book.container),))
    for number in cloud.holders:
        header = BookHeader(cloud.book, made, None, 0, {OF: (of_value(CONTAINER), made)})
        await cloud.books(number).merge_header(header)
    await cloud.put(DELETED, deleted=True)
    closing = BookHeader(cloud.book, made, above(made), 0, {OF: (of_value(CONTAINER), made)})
    await cloud.books(cloud.holders[0]).merge_header(closing)
    await cloud.flush()
    await cloud.mark(CLOSED)
    cloud.at(Horizon(CLOSED, CLOSED))
    await cloud.reclaim()
    assert [await cloud.held(number) for number in cloud.holders] == [Timestamp(DELETED)] * 3


# ---- accounts


async def test_of_an_account_lives_count_and_not_sums(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    cloud.book = ACCOUNT
    await cloud.make()
    for number in cloud.holders:
        stamp = Timestamp(LATE + number)
        await cloud.books(number).merge_rows(ACCOUNT, [Row("live", Timestamp(OLD), 10 * number, f"{stamp.normal}_{0:08x}")])
    await cloud.put(DELETED, deleted=True)
    cloud.at(Horizon(CLOSED))
    await cloud.reclaim()
    assert cloud.marks(*cloud.holders) == [CLOSED] * 3
    await cloud.mark(CLOSED)
    cloud.at(Horizon(CLOSED, CLOSED))
    workers = await cloud.reclaim()
    assert [worker.reclaimed for number, worker in enumerate(workers) if number in cloud.holders] == [1] * 3
    assert [await cloud.held(number) for number in cloud.holders] == [None] * 3
    assert [await cloud.held(number, "live") for number in cloud.holders] == [Timestamp(OLD)] * 3


async def test_who_missed_a_deletion_reports_nothing_before_it_was_compared(
    cloud: Cloud, autojump_clock: trio.testing.MockClock
) -> None:
    one, *others = cloud.holders
    gone = BookHeader(CONTAINER, Timestamp(MADE), Timestamp(DELETED))
    for number in others:
        await cloud.books(number).merge_header(gone)
    await cloud.flush()
    await cloud.mark(CLOSED, *others)
    cloud.at(Horizon(CLOSED, CLOSED))
    books = cloud.books(one)
    assert books.standing.behind("container") and books.dirty(10)
    worker = ContainerUpdater(cloud.overlap().ring.device(one), books, lambda: cloud.overlap("account"), cloud.node)
    await once(worker)
    assert worker.reported == 0
    await cloud.replicate(one)  # headers are brought as ever
    await cloud.reclaim(one)
    assert not books.standing.behind("container")
    await once(worker)
    page = await cloud.books(others[0]).rows(ACCOUNT, start="", end="", limit=10, reverse=False)
    assert page is None or all(row.deleted for row in page.rows)


# ---- a device that was away


async def test_a_device_that_was_away_answers_for_nothing_and_pushes_nothing_old(
    cloud: Cloud, autojump_clock: trio.testing.MockClock
) -> None:
    away, *others = cloud.holders
    await cloud.put(OLD, away)  # the others have forgotten both it and its tombstone
    await cloud.put(LATE, away, name="new")
    await cloud.mark(CLOSED, *others)
    cloud.at(Horizon(CLOSED, CLOSED))
    with pytest.raises(Unavailable, match="was away"):
        await cloud.ground.nodes[away].rows(CONTAINER, start="", end="", limit=10, reverse=False)
    with pytest.raises(Unavailable, match="was away"):
        await cloud.ground.nodes[away].book(CONTAINER)
    await cloud.replicate(away)
    assert [await cloud.held(number) for number in others] == [None, None]
    assert [await cloud.held(number, "new") for number in others] == [Timestamp(LATE)] * 2
    await cloud.reclaim(away)
    assert await cloud.held(away) is None and not cloud.books(away).standing.behind("container")
    ((_, book, rows, _),) = await listing(cloud.books(away).disk)
    assert (book, [(row.name, row.timestamp) for row in rows]) == (CONTAINER, [("o", Timestamp(OLD))])
    await cloud.replicate(away)
    assert await cloud.everywhere_forgotten()


async def test_what_others_hold_newer_is_taken_and_what_they_hold_older_is_brought(
    cloud: Cloud, autojump_clock: trio.testing.MockClock
) -> None:
    away, *others = cloud.holders
    await cloud.put(OLD)
    await cloud.put(DELETED, *others, deleted=True)
    await cloud.put(OLD, name="was not deleted")
    await cloud.put(DELETED, away, name="was not deleted")
    await cloud.mark(CLOSED, *others)
    cloud.at(Horizon(CLOSED, CLOSED))
    await cloud.reclaim(away)
    assert await cloud.held(away) is None and not cloud.books(away).standing.behind("container")  # taken, and forgotten
    await cloud.replicate(away)
    assert [await cloud.held(number, "was not deleted") for number in cloud.holders] == [Timestamp(DELETED)] * 3
    assert not await listing(cloud.books(away).disk)


async def test_who_does_not_answer_is_waited_for(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    away, one, two = cloud.holders
    await cloud.put(OLD, away)
    await cloud.mark(CLOSED, one, two)
    cloud.silent.add(one)
    cloud.at(Horizon(CLOSED, CLOSED))
    await cloud.reclaim(away)
    assert await cloud.held(away) == Timestamp(OLD) and cloud.books(away).standing.behind("container")


@pytest.mark.parametrize("heard", [True, False])
async def test_a_row_in_transit_is_compared_with_the_listing(
    cloud: Cloud, autojump_clock: trio.testing.MockClock, heard: bool
) -> None:
    """The container was cut, and the rows of a device that was away lie in its root still; whether it has heard of that or not."""
    away = cloud.holders[0]
    for name in ("o", "p"):
        await cloud.put(OLD, away, name=name)
    made = Timestamp(MADE)
    shard = Shard("", f"{made.pack().hex()}-0")
    shards = ShardMap(2, made, (shard,))
    for number in cloud.holders:
        if heard or number != away:
            header = BookHeader(CONTAINER, made, None, 0, {MAP: (encode_map(shards), shards.stamp)})
            await cloud.books(number).merge_header(header)
    cloud.book = shard_path(CONTAINER, shard.name)
    for number in cloud.holders:
        await cloud.books(number).merge_header(BookHeader(cloud.book, made, None, 0, {OF: (of_value(CONTAINER), made)}))
    await cloud.put(OLD, name="p")  # the others have forwarded it; "o" was deleted, and that forgotten
    await cloud.mark(CLOSED, *(number for number in range(4) if number != away))
    cloud.at(Horizon(CLOSED, CLOSED))
    await cloud.reclaim(away)
    cloud.book = CONTAINER
    assert [await cloud.held(away, name) for name in ("o", "p")] == [None, None]
    ((_, _, rows, _),) = await listing(cloud.books(away).disk)
    assert [row.name for row in rows] == ["o"]
    assert not cloud.books(away).standing.behind("container")


# ---- what is put aside


def test_rows_that_are_put_aside_read_as_they_were_written() -> None:
    rows = [Row("ü", Timestamp(OLD, 3), 5, "e", "text/plain", 7), Row("z", Timestamp(1))]
    assert decode(encode(CONTAINER, rows, 5.5), "x") == (CONTAINER, rows, 5.5)
    data = (GOLDEN / "returned-rows-1.json").read_bytes()
    assert encode(*decode(data, "x")) == data
    with pytest.raises(FormatError, match="is damaged"):
        decode(data.replace(b"cat", b"cut"), "x")

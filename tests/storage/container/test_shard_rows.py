"""Rows that come for a shard that was replaced, rows in transit, and devices that are no primaries any more."""

from __future__ import annotations

from typing import cast

import pytest
import trio

from ring.daemon.worker import once
from ring.errors import DiskFault
from ring.names import Path
from ring.timestamp import Timestamp
from ring.wire.message import BytesBody
from storage.client.books import Known
from storage.client.errors import NoQuorum
from storage.client.interface import NewObject, Query, Row
from storage.client.node import BookHeader, Node
from storage.container.shards import MAP, ShardMap, encode, first_map, shard_path, shards_account
from storage.object.updater import ObjectUpdater
from storage.rows.books import Books
from tests.storage.client.ground import make_device
from tests.storage.container.shard_ground import CONTAINER, ShardGround

SHARD = shard_path(CONTAINER, "000000000000000a00000000-0")


@pytest.fixture
async def ground(nursery: trio.Nursery) -> ShardGround:
    return await ShardGround.make(nursery)


async def in_shards(ground: ShardGround) -> tuple[ShardMap, ShardMap]:
    """An old map of which a shard was replaced, and the map now."""
    await ground.put([f"o{number:02d}" for number in range(12)])
    await ground.run_for(20)
    old = await ground.map()
    await ground.put([f"o01-{number:02d}" for number in range(20)])
    await ground.run_for(20)
    new = await ground.map()
    assert old is not None and new is not None and new.index(old.place("o01-5").name) is None
    return old, new


def remember(ground: ShardGround, old: ShardMap) -> None:
    """A front door that looked at the container a while ago, and was sent away."""
    ground.ground.storage._books._known[CONTAINER] = Known(0, trio.current_time() + 1000, old)


async def put(ground: ShardGround, name: str) -> bool:
    stored = await ground.ground.storage.put_object(Path("AUTH_a", "c", name), NewObject(), BytesBody(b"12345"))
    return stored.listed


async def test_a_write_by_an_old_map_is_listed_at_once(ground: ShardGround, autojump_clock: trio.testing.MockClock) -> None:
    old, _ = await in_shards(ground)
    remember(ground, old)
    assert await put(ground, "o01-05x")
    assert "o01-05x" in await ground.names(prefix="o01")
    await ground.run_for(10)
    assert "o01-05x" in await ground.names(prefix="o01")
    assert (await ground.totals())[0] == 33


async def test_a_debt_to_a_shard_that_was_replaced_meanwhile_is_paid_late(
    ground: ShardGround, autojump_clock: trio.testing.MockClock
) -> None:
    old, _ = await in_shards(ground)
    remember(ground, old)
    ground.ground.payer._primaries = lambda container: ()  # nobody can pay it now
    assert not await put(ground, "o01-05x")
    assert "o01-05x" not in await ground.names()
    await trio.sleep(10)
    for store, _ in ground.ground.engines:
        updater = ObjectUpdater(
            ground.ground.world, store, lambda: ground.ground.rings.container, lambda device: ground.ground.nodes[device.id]
        )
        await once(updater)
        assert not store.unpaid(10)
    assert "o01-05x" in await ground.names()
    await ground.run_for(10)
    assert (await ground.totals())[0] == 33


async def test_a_write_goes_to_its_shard_and_not_by_the_root(ground: ShardGround, autojump_clock: trio.testing.MockClock) -> None:
    _, new = await in_shards(ground)
    remember(ground, new)
    assert await put(ground, "o05x")
    place = shard_path(CONTAINER, new.place("o05x").name)
    held = [await node.rows(place, start="o05", end="o06", limit=9, reverse=False) for node in ground.ground.nodes]
    assert sum(page is not None and [row.name for row in page.rows] == ["o05x"] for page in held) >= 2
    for node in ground.ground.nodes:
        page = await node.rows(CONTAINER, start="", end="", limit=9, reverse=False)
        assert page is None or not page.rows


async def test_a_listing_does_without_one_replica_and_not_without_two(
    ground: ShardGround, autojump_clock: trio.testing.MockClock
) -> None:
    _, new = await in_shards(ground)
    names = await ground.names()
    ring = ground.ground.rings.container.ring
    shard = shard_path(CONTAINER, new.place("o05").name)
    holders = [device.id for device in ring.primaries(ring.partition(shard))]

    class Gone:
        def __init__(self, number: int) -> None:
            self.device = make_device(number)

        def __getattr__(self, name: str) -> object:
            async def refuse(*arguments: object, **named: object) -> None:
                raise DiskFault("gone")

            return refuse

    ground.ground.nodes[holders[0]] = cast(Node, Gone(holders[0]))
    assert await ground.names() == names
    ground.ground.nodes[holders[1]] = cast(Node, Gone(holders[1]))
    with pytest.raises(NoQuorum):
        await ground.names(marker="o04", limit=1)


async def test_a_shard_of_which_nobody_knows_is_no_empty_one(ground: ShardGround, autojump_clock: trio.testing.MockClock) -> None:
    await ground.put(["a", "z"])
    lost = first_map(["m"], Timestamp(10)).opened(Timestamp(11))
    state = await ground.ground.storage.sharding.state(CONTAINER)
    assert state is not None
    await ground.ground.storage.sharding.merge_header(
        BookHeader(CONTAINER, state.header.created, None, 0, {MAP: (encode(lost), lost.stamp)})
    )
    with pytest.raises(NoQuorum, match="none of the primaries"):
        await ground.listed()


# ---- one device


async def make_shard(books: Books, *, names: list[str]) -> None:
    await books.merge_header(BookHeader(SHARD, Timestamp(10), None))
    await books.merge_rows(SHARD, [Row(name, Timestamp(20), 1, "e") for name in names])


async def listed(books: Books, path: Path) -> list[str]:
    page = await books.rows(path, start="", end="", limit=100, reverse=False)
    assert page is not None and page.complete
    return [row.name for row in page.rows]


async def test_a_closed_shard_takes_no_rows_from_the_moment_its_end_is_on_the_way(
    ground: ShardGround, autojump_clock: trio.testing.MockClock
) -> None:
    books = ground.ground.engines[0][1]
    await make_shard(books, names=["a"])
    before = books.begin_rows(SHARD, [Row("b", Timestamp(21), 1)])
    closing = books.begin_header(BookHeader(SHARD, Timestamp(10), Timestamp(30)))
    assert books.begin_rows(SHARD, [Row("c", Timestamp(22), 1)]) is None
    assert before is not None
    await before.wait()
    await closing.wait()
    assert await books.merge_rows(SHARD, [Row("d", Timestamp(23), 1)]) is None
    assert await listed(books, SHARD) == ["a", "b"]


async def test_rows_in_transit_are_let_go_of_unless_they_changed(
    ground: ShardGround, autojump_clock: trio.testing.MockClock
) -> None:
    books = ground.ground.engines[0][1]
    long = "n" * 1000
    await make_shard(books, names=["a", "b", long])
    rows = [Row(name, Timestamp(20), 1, "e") for name in ("a", "b", long, "never")]
    assert await books.discard(SHARD, rows) == 0  # it is open
    await books.merge_rows(SHARD, [Row("b", Timestamp(21), 2, "f")])
    await books.merge_header(BookHeader(SHARD, Timestamp(10), Timestamp(30)))
    assert await books.discard(SHARD, rows) == 2
    assert await listed(books, SHARD) == ["b"]
    await books.flush()
    assert await listed(books, SHARD) == ["b"]
    state = await books.book(SHARD)
    assert state is not None and (state.count, state.bytes_used) == (1, 2)
    assert await books.discard(SHARD, [Row("b", Timestamp(21), 2, "f")]) == 1
    assert await listed(books, SHARD) == []
    await books.flush()
    assert await listed(books, SHARD) == []


async def test_a_page_looks_behind_what_was_let_go_of(ground: ShardGround, autojump_clock: trio.testing.MockClock) -> None:
    books = ground.ground.engines[0][1]
    names = [f"n{number:03d}" for number in range(200)]
    await make_shard(books, names=names)
    await books.flush()
    await books.merge_header(BookHeader(SHARD, Timestamp(10), Timestamp(30)))
    await books.discard(SHARD, [Row(name, Timestamp(20), 1, "e") for name in names[10:190]])
    for reverse in (False, True):
        left = sorted([*names[:10], *names[190:]], reverse=reverse)
        page = await books.rows(SHARD, start="", end="", limit=12, reverse=reverse)
        assert page is not None and [row.name for row in page.rows] == left[:12] and not page.complete
        page = await books.rows(SHARD, start="", end="", limit=20, reverse=reverse)
        assert page is not None and [row.name for row in page.rows] == left and page.complete


async def test_a_device_that_is_no_primary_keeps_rows_in_transit(
    ground: ShardGround, autojump_clock: trio.testing.MockClock
) -> None:
    books = ground.ground.engines[0][1]
    await make_shard(books, names=["a"])
    await books.merge_header(BookHeader(SHARD, Timestamp(10), Timestamp(30)))
    await books.flush()
    span = await books.partition_from("container", b"", 4)
    digests: dict[bytes, bytes] = {}
    while span is not None:
        for leaf in (await books.digests("container", span)).leaves:
            digests |= dict(await books.leaf("container", span, leaf))
        end = span.bounds[1]
        span = None if end is None else await books.partition_from("container", end, 4)
    book = books._hasher.hash(SHARD)
    assert books.transit(book) == (True, True)
    assert not await books.drop(book, digests[book])
    await books.discard(SHARD, [Row("a", Timestamp(20), 1, "e")])
    await books.flush()
    assert await books.drop(book, digests[book])  # its digest never counted its rows
    assert await books.book(SHARD) is None


async def test_hidden_accounts_are_hidden(ground: ShardGround, autojump_clock: trio.testing.MockClock) -> None:
    await in_shards(ground)
    account = await ground.ground.storage.list_account(CONTAINER.parent, Query())
    assert [item.name for item in account.items] == ["c"]
    inside = await ground.ground.storage.head_account(shards_account(CONTAINER))
    assert inside.object_count == 32

"""Listings that are cut into shards and joined again, over real engines: nothing is missing and nothing is there twice."""

from __future__ import annotations

import pytest
import trio

from ring.kv.interface import Put
from ring.kv.memory import MemoryKV
from ring.timestamp import Timestamp
from storage.client.interface import Query
from storage.container.shards import encode, first_map, shard_path, shards_account
from tests.storage.container.shard_ground import CONTAINER, ShardGround


@pytest.fixture
async def ground(nursery: trio.Nursery) -> ShardGround:
    return await ShardGround.make(nursery)


def some(first: int, count: int) -> list[str]:
    return [f"o{number:04d}" for number in range(first, first + count)]


async def test_a_large_listing_is_cut_and_stays_the_same(ground: ShardGround, autojump_clock: trio.testing.MockClock) -> None:
    names = some(0, 30)
    await ground.put(names)
    assert await ground.map() is None
    await ground.run_for(20)
    found = await ground.map()
    assert found is not None and len(found.shards) >= 4 and found.settled
    assert await ground.names() == names
    assert await ground.names(reverse=True) == names[::-1]
    assert await ground.names(marker="o0007", limit=5) == some(8, 5)
    assert await ground.totals() == (30, 30, 30, 30)
    for number in range(4):  # the root is empty: all was forwarded
        page = await ground.ground.nodes[number].rows(CONTAINER, start="", end="", limit=10, reverse=False)
        assert page is None or not page.rows


async def test_the_listing_is_whole_after_every_single_step(ground: ShardGround, autojump_clock: trio.testing.MockClock) -> None:
    names = some(0, 20)
    await ground.put(names)
    until = trio.current_time() + 15
    versions = set()
    while trio.current_time() < until:
        busy = False
        for worker in ground.workers:
            busy |= await ground.step(worker)
            assert await ground.names() == names
            found = await ground.map()
            versions.add(None if found is None else found.version)
        if not busy:
            await trio.sleep(0.1)
    assert len(versions) > 2
    await ground.put(some(20, 20))
    names += some(20, 20)
    until = trio.current_time() + 15
    while trio.current_time() < until:
        busy = False
        for worker in ground.workers:
            busy |= await ground.step(worker)
            assert await ground.names(reverse=True, limit=100) == names[::-1]
        if not busy:
            await trio.sleep(0.1)
    found = await ground.map()
    assert found is not None and found.settled and len(found.shards) >= 5
    assert await ground.totals() == (40, 40, 40, 40)


async def test_shards_that_became_small_are_joined(ground: ShardGround, autojump_clock: trio.testing.MockClock) -> None:
    names = some(0, 30)
    await ground.put(names)
    await ground.run_for(20)
    before = await ground.map()
    assert before is not None
    await ground.put(names[:29], deleted=True)
    await ground.run_for(120)
    after = await ground.map()
    assert after is not None and len(after.shards) == 1 and after.settled
    assert await ground.names() == names[29:]
    assert await ground.totals() == (1, 1, 1, 1)
    await ground.put(["o0003"], size=7)  # above its tombstone, wherever that came
    await ground.run_for(5)
    assert await ground.names() == ["o0003", "o0029"]


async def test_late_rows_do_not_undo_what_came_after_them(ground: ShardGround, autojump_clock: trio.testing.MockClock) -> None:
    names = some(0, 30)
    early = ground.ticks
    await ground.put(names)
    await ground.put(["o0011"], deleted=True)
    await ground.run_for(20)
    ground.ticks = early - 500
    await ground.put(["o0011", "o0012"], size=99)  # a debt paid late
    for _ in range(3):
        assert await ground.names() == names[:11] + names[12:]
        await ground.run_for(5)
    assert await ground.totals() == (29, 29, 29, 29)


async def test_a_container_is_deleted_and_made_again_while_it_is_in_shards(
    ground: ShardGround, autojump_clock: trio.testing.MockClock
) -> None:
    names = some(0, 30)
    await ground.put(names)
    await ground.run_for(20)
    await ground.put(names, deleted=True)
    await ground.ground.storage.delete_container(CONTAINER)
    await ground.run_for(20)
    account = await ground.ground.storage.head_account(CONTAINER.parent)
    assert (account.container_count, account.object_count, account.bytes_used) == (0, 0, 0)
    await ground.ground.storage.put_container(CONTAINER, {"x-container-meta-a": "1"})
    assert await ground.names() == []
    meta = await ground.ground.storage.head_container(CONTAINER)
    assert dict(meta.metadata) == {"x-container-meta-a": "1"} and meta.object_count == 0
    ground.ticks = 500
    await ground.put(["o0001"])  # older than its tombstone, which is in a shard
    assert await ground.names() == []
    ground.ticks = 10_000
    await ground.put(["o0001"])
    assert await ground.names() == ["o0001"]


async def test_a_replaced_shard_refuses_rows_and_says_so(ground: ShardGround, autojump_clock: trio.testing.MockClock) -> None:
    await ground.put(some(0, 12))
    await ground.run_for(20)
    before = await ground.map()
    assert before is not None
    await ground.put([f"o0001-{number}" for number in range(20)])
    await ground.run_for(20)
    after = await ground.map()
    assert after is not None
    gone = [shard.name for shard in before.shards if after.index(shard.name) is None]
    assert gone
    sharding = ground.ground.storage.sharding
    for name in gone:
        assert not await sharding.give(shard_path(CONTAINER, name), (await ground.listed(Query(limit=1))).items)  # type: ignore[arg-type]
        assert await sharding.is_emptied(shard_path(CONTAINER, name))


async def test_a_control_state_that_lost_a_map_is_told_again(ground: ShardGround, autojump_clock: trio.testing.MockClock) -> None:
    await ground.put(some(0, 20))
    await ground.run_for(20)
    before = await ground.map()
    assert before is not None
    ground.kv = MemoryKV()
    ground.restart()
    await ground.put([f"o0001-{number:02d}" for number in range(20)])
    await ground.run_for(20)
    after = await ground.map()
    assert after is not None and after.settled and after.version > before.version
    assert len(await ground.names()) == 40
    assert await ground.totals() == (40, 40, 40, 40)


async def test_a_map_that_was_written_and_not_told_is_told_by_the_next(
    ground: ShardGround, autojump_clock: trio.testing.MockClock
) -> None:
    """Whoever wrote it to control state was killed right then."""
    written = first_map(["o0010"], Timestamp(10))
    key = f"shards/{shards_account(CONTAINER).account[1:]}"
    await ground.kv.transact([], [Put(key, encode(written).encode())])
    await ground.put(some(0, 20))
    await ground.run_for(20)
    found = await ground.map()
    assert found is not None and found.settled and found.version > 1 and "o0010" in [shard.upper for shard in found.shards]
    assert await ground.names() == some(0, 20)

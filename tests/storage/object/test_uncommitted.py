"""A device is compared by all that has landed on it, also where its index cannot be written: read-only, or full to the brim."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from ring.errors import DiskFault
from ring.names import Span
from ring.world.interface import Space
from ring.world.sim import SimWorld, run
from storage.object.health import State
from storage.object.store import ObjectStore
from storage.sync import tree
from tests.storage.object.object_rig import PART_POWER, SPANS, partitions, prepare, put, serving

Compared = dict[Span, tuple[dict[int, bytes], list[tuple[bytes, bytes]]]]


async def compared(store: ObjectStore) -> Compared:
    """All that others are told."""
    found: Compared = {}
    for span in SPANS:
        digests = await store.digests(span)
        keys = [pair for leaf in sorted(digests.leaves) for pair in await store.leaf(span, leaf)]
        if keys:
            found[span] = dict(digests.leaves), keys
    return found


async def test_a_read_only_device_is_compared_with_what_it_could_not_commit(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    await prepare(world, "d1")
    async with serving(world, "d1") as store:
        for number in range(20):
            await put(store, f"a{number}", 1000, b"old")
        await store.index.commit()
        for number in range(5, 40):
            await put(store, f"a{number}", 2000, b"new" if number % 3 else None)
        assert store.index.backlog
        world.node.disk("d1").read_only = True
        store.device.health.looked(Space(1 << 40, 1 << 39, read_only=True), trio.current_time())
        assert store.device.health.state is State.READ_ONLY
        told = await compared(store)
        assert await partitions(store) == sorted(told)
        assert sum(len(keys) for _, keys in told.values()) == 40
        assert store.index.backlog  # nothing was written
    world.node.disk("d1").read_only = False
    async with serving(world, "d1") as store:
        assert not store.index.backlog
        assert await compared(store) == told


async def test_a_device_without_any_room_is_compared(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    await prepare(world, "d1")
    async with serving(world, "d1") as store:
        await put(store, "a", 1000, b"data")
        world.node.disk("d1").room_bytes = 0
        assert sum(len(keys) for _, keys in (await compared(store)).values()) == 1
        world.node.disk("d1").room_bytes = None


async def test_a_commit_that_failed_and_was_done_all_the_same(autojump_clock: MockClock) -> None:
    """A disk that hung does what was given up.  The tree is of what is held, before the next commit and after it."""
    world = SimWorld(1)
    await prepare(world, "d1")

    def give_up(done: Callable[[], object]) -> None:
        medium.trip = None
        done()
        raise OSError(errno.ETIMEDOUT, "the disk does not answer")

    async with serving(world, "d1") as store:
        medium = world.node.disk("d1")
        await put(store, "replaced", 1000, b"old")
        await put(store, "there before", 1000, b"data")
        await store.index.commit()
        await put(store, "replaced", 2000, b"new")
        await put(store, "new", 2000, b"data")
        medium.trip = give_up
        with pytest.raises(DiskFault):
            await store.index.commit()
        await put(store, "new", 3000, b"newer")
        before = [await store.index.digests(span) for span in SPANS]
        await store.index.commit()
        assert [await store.index.digests(span) for span in SPANS] == before
        for leaves, keys in (await compared(store)).values():
            assert xor(leaves.values()) == xor(digest for _, digest in keys)


def xor(values: Iterable[bytes]) -> int:
    total = 0
    for value in values:
        total ^= int.from_bytes(value, "big")
    return total


names = st.integers(0, 8)
steps = st.lists(st.tuples(names, st.booleans()), max_size=12)


@given(before=steps, after=steps)
def test_ram_and_tables_together_are_the_tree_that_the_tables_come_to_have(
    before: list[tuple[int, bool]], after: list[tuple[int, bool]]
) -> None:
    async def main() -> None:
        world = SimWorld(1)
        await prepare(world, "d1")
        async with serving(world, "d1") as store:
            await play(store, before, 1000)
            await store.index.commit()
            await play(store, after, 2000)
            early = [await store.index.digests(span) for span in SPANS]
            first = await store.index.partition_from(b"", PART_POWER)
            await store.index.commit()
            tables = store.device.tables
            assert early == [tree.digests(tables, "object", span) for span in SPANS]
            assert first == tree.partition_from(tables, "object", b"", PART_POWER)

    run(1, main)


async def play(store: ObjectStore, writes: list[tuple[int, bool]], ticks: int) -> None:
    for number, (name, deleted) in enumerate(writes):
        await put(store, f"a{name}", ticks + number, None if deleted else b"data")

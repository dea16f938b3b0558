"""A view follows its prefix: what look-ups see, and when those who wait are woken."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from ring.kv.interface import Delete, Entry, Put
from ring.kv.memory import MemoryKV
from ring.kv.view import View


def number(entry: Entry) -> int:
    return int(entry.value)


async def test_it_follows(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    kv = MemoryKV()
    await kv.transact([], [Put("n/a", b"1"), Put("m/a", b"x")])
    view = View(kv, "n/", number)
    await nursery.start(view.run)
    assert view.get("n/a") == 1
    assert view.get("m/a") is None
    assert view.items() == [("n/a", 1)]
    outcome = await kv.transact([], [Put("n/b", b"2"), Delete("n/a"), Put("n/c/d", b"3")])
    await view.wait(outcome.revision)
    assert view.items() == [("n/b", 2), ("n/c/d", 3)]
    assert view.items("n/c/") == [("n/c/d", 3)]
    assert len(view) == 2
    assert trio.current_time() == 0.0


async def test_waiting_for_a_revision_that_changed_nothing_here(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    kv = MemoryKV()
    view = View(kv, "n/")
    await nursery.start(view.run)
    await kv.transact([], [Put("n/a", b"1")])
    revision = (await kv.transact([], [Put("m/a", b"1")])).revision
    before = trio.current_time()
    await view.wait(revision)
    assert trio.current_time() - before < 0.2
    assert view.revision == revision
    assert [key for key, _ in view.items()] == ["n/a"]
    await trio.testing.wait_all_tasks_blocked()
    with trio.move_on_after(1.0) as scope:
        await view.wait(revision + 1)  # not there yet
    assert scope.cancelled_caught


async def test_it_watches_again_and_tells_what_changed_meanwhile(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    kv = MemoryKV()
    await kv.transact([], [Put("n/a", b"1"), Put("n/b", b"1")])
    view = View(kv, "n/", number)
    await nursery.start(view.run)
    seen = view.changes
    kv.break_watches()
    await kv.transact([], [Delete("n/a"), Put("n/b", b"2"), Put("n/c", b"3")])
    assert view.get("n/a") == 1
    assert await view.wait_change(seen) == seen + 1
    assert view.items() == [("n/b", 2), ("n/c", 3)]
    kv.break_watches()
    await trio.sleep(5)
    assert view.changes == seen + 1  # a fresh start without news is no change


async def test_agents_are_woken_by_level(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    kv = MemoryKV()
    view = View(kv, "n/", number)
    await nursery.start(view.run)
    rounds: list[int] = []

    async def agent() -> None:
        while True:
            seen = view.changes
            rounds.append(sum(value for _, value in view.items()))
            await trio.sleep(1)
            await view.wait_change(seen)

    nursery.start_soon(agent)
    await trio.sleep(0.5)
    for i in range(10):
        await kv.transact([], [Put(f"n/{i}", b"1")])
    await trio.sleep(10)
    assert rounds == [0, 10]


async def test_what_decode_raises_ends_it(autojump_clock: MockClock) -> None:
    kv = MemoryKV()
    await kv.transact([], [Put("n/a", b"no number")])
    with pytest.raises(ValueError, match="invalid literal"):
        await View(kv, "n/", number).run()

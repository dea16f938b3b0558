"""Writes of an erasure-coded key that are committed late: a conditional write that came first did not see them, so they come after
it, or not at all."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from storage.client.errors import ObjectNotFound, PreconditionFailed
from storage.client.interface import Condition
from tests.storage.client.test_coded import CUT, OBJECT, get, make, noise, put

ABSENT = Condition(if_none_match=("*",))


@pytest.mark.parametrize("size", [10, 3 * CUT])
@pytest.mark.parametrize("late", [None, ABSENT])
@pytest.mark.parametrize("prompt", [None, ABSENT])
async def test_what_is_committed_late(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, size: int, late: Condition | None, prompt: Condition | None
) -> None:
    """It is staged everywhere when the other write comes, and commits when that is done: nobody has it then, and it is written
    again above, unless its own condition holds no more.  Of plain ones it was there for no time at all."""
    ground, lines = await make(nursery)
    one, two, gate = noise(size, 1), noise(size, 2), trio.Event()
    stored: list[bytes] = []

    async def first() -> None:
        try:
            await put(ground, one, condition=late)
            stored.append(one)
        except PreconditionFailed:
            pass

    for line in lines:
        line.waits["commit"] = gate
    async with trio.open_nursery() as writers:
        writers.start_soon(first)
        await trio.sleep(0.3)
        for line in lines:
            assert line.calls.count("commit") == 1
            line.waits.clear()
        await put(ground, two, condition=prompt)
        assert await get(ground) == two
        gate.set()
    assert bool(stored) == (late is None)
    assert await get(ground) == (one if late is None and prompt is not None else two)


async def test_a_deletion_that_a_conditional_write_did_not_see(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    ground, lines = await make(nursery)
    await put(ground, noise(10, 1))
    meta, gate = await ground.storage.head_object(OBJECT), trio.Event()
    for line in lines:
        line.waits["put_small"] = gate

    async with trio.open_nursery() as clients:
        clients.start_soon(ground.storage.delete_object, OBJECT)
        await trio.sleep(0.3)
        await put(ground, noise(10, 2), condition=Condition(if_match=(meta.etag,)))
        assert await get(ground) == noise(10, 2)
        gate.set()
    with pytest.raises(ObjectNotFound):
        await get(ground)

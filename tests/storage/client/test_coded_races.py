"""Writes of an erasure-coded key that are committed late: a conditional write that came first did not see them, so they come after
it, or not at all."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress
from functools import partial

import pytest
import trio
import trio.testing

from ring.errors import Unavailable
from ring.timestamp import TimestampSource
from ring.wire.message import BytesBody
from storage.client.cluster import ClusterStorage
from storage.client.errors import NoQuorum, ObjectNotFound, PreconditionFailed
from storage.client.interface import Condition, NewObject
from tests.storage.client.ground import Ground
from tests.storage.client.test_coded import CUT, OBJECT, SETTINGS, all_lines, get, make, noise, put

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
        await other_door(ground).put_object(OBJECT, NewObject(condition=prompt), BytesBody(two))
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


async def test_a_body_that_is_sent_again_in_vain_is_let_go_of(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Something newer came before it was staged; it is sent anew from what is staged, and then too few can stage it."""
    ground, lines = await make(nursery)
    gate, left = trio.Event(), 6

    def rule(name: str) -> None:
        nonlocal left
        if name == "stage":
            left -= 1
            if left < 0:
                raise Unavailable("it is full")

    async def first() -> None:
        with pytest.raises(NoQuorum):
            await door_behind(ground).put_object(OBJECT, NewObject(), BytesBody(noise(3 * CUT, 1)))

    for line in lines:
        line.waits["stage"] = gate
    async with trio.open_nursery() as writers:
        writers.start_soon(first)
        await trio.sleep(0.3)
        for line in lines:
            line.waits.clear()
        await put(ground, noise(3 * CUT, 2))
        for line in lines:
            line.rule = rule
        gate.set()
    assert left < 0
    assert [line.uploads for line in all_lines(ground)] == [0] * 8
    assert await get(ground) == noise(3 * CUT, 2)


@pytest.mark.parametrize("apart_s", [0.0, 1.0])
@pytest.mark.parametrize("size", [50, 3 * CUT])
@pytest.mark.parametrize("seed", range(3))
async def test_of_plain_writers_that_race_all_are_told_that_it_is_done(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, seed: int, size: int, apart_s: float
) -> None:
    """Eight front doors whose clocks differ, as with whole copies: the last one wins."""
    ground, _ = await make(nursery)
    rng = random.Random(seed)
    for line in all_lines(ground):
        line.delay_s = partial(rng.expovariate, 50)
    reach = ground.storage.reach
    bodies = [noise(size, number) for number in range(8)]

    async def write(number: int) -> None:
        clock = Apart(ground, rng.uniform(-apart_s, apart_s))
        door = ClusterStorage(
            ground.world, nursery, ground.rings, reach.nodes, TimestampSource(clock), settings=SETTINGS, policies=reach.policies
        )
        await trio.sleep(0.1 * rng.random())
        await door.put_object(OBJECT, NewObject(), BytesBody(bodies[number]))

    async with trio.open_nursery() as writers:
        for number in range(8):
            writers.start_soon(write, number)
    assert await get(ground) in bodies


async def test_conditional_writers_of_one_name_that_race_all_hear_what_became_of_it(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Over lines that are slow beside the first waits between ballots, by two front doors; who reads meanwhile is served."""
    ground, _ = await make(nursery)
    rng = random.Random(5)
    for line in all_lines(ground):
        line.delay_s = lambda: 0.02 + 0.06 * rng.random()
    doors = ground.storage, other_door(ground)
    reading = True

    async def read() -> None:
        while reading:
            with suppress(ObjectNotFound):
                await get(ground)
            await trio.sleep(0.05)

    for round in range(4):
        told = Counter[str]()

        async def write(number: int, condition: Condition, told: Counter[str] = told) -> None:
            try:
                await doors[number % 2].put_object(OBJECT, NewObject(condition=condition), BytesBody(noise(10, number)))
                told["done"] += 1
            except PreconditionFailed:
                told["failed"] += 1

        condition = Condition(if_match=((await ground.storage.head_object(OBJECT)).etag,)) if round else ABSENT
        async with trio.open_nursery() as clients:
            clients.start_soon(read)
            async with trio.open_nursery() as writers:
                for number in range(10):
                    writers.start_soon(write, 10 * round + number, condition)
            reading = False
        reading = True
        assert told == {"done": 1, "failed": 9}


class Apart:
    def __init__(self, ground: Ground, ahead_s: float) -> None:
        self._clock = ground.world.clock
        self._ahead_s = ahead_s

    def now(self) -> float:
        return self._clock.now() + self._ahead_s


def door_behind(ground: Ground) -> ClusterStorage:
    return other_door(ground, -100)


def other_door(ground: Ground, ahead_s: float = 0) -> ClusterStorage:
    reach, clock = ground.storage.reach, Apart(ground, ahead_s)
    return ClusterStorage(
        ground.world,
        ground.nursery,
        ground.rings,
        reach.nodes,
        TimestampSource(clock),
        settings=reach.settings,
        policies=reach.policies,
    )

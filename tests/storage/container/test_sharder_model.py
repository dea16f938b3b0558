"""Random puts, deletes and listings of a container that is cut and joined meanwhile by workers that are killed at any step, against
the plain definition of a listing."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ring.errors import RingfortError
from ring.timestamp import Timestamp
from ring.world.sim import run
from storage.client.interface import Query, Row
from storage.container.sharder import Limits
from tests.storage.container.shard_ground import CONTAINER, ShardGround
from tests.storage.container.test_listing import naive

LIMITS = Limits(rows=5, join_after_s=3.0, patience_s=0.5, sums_s=0.5, step_s=0.1, interval_s=1.0)
ALL_AT_ONCE = replace(LIMITS, patience_s=0.0)  # no primary waits for another
NAMES = st.text(st.sampled_from(["a", "b", "c", "/", "é"]), min_size=1, max_size=5) | st.sampled_from(
    ["n" * 1024, "n" * 1000, "n" * 494, "n" * 495, "n/" * 300]
)
BOUNDS = st.one_of(st.just(""), NAMES)
QUERIES = st.builds(
    Query,
    prefix=st.one_of(st.just(""), NAMES.map(lambda name: name[:2])),
    delimiter=st.sampled_from(["", "/", "a"]),
    marker=BOUNDS,
    end_marker=BOUNDS,
    limit=st.sampled_from([1, 2, 3, 10, 10_000]),
    reverse=st.booleans(),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.lists(NAMES, min_size=1, max_size=8)),
        st.tuples(st.just("delete"), st.lists(NAMES, min_size=1, max_size=8)),
        st.tuples(st.just("list"), QUERIES),
        st.tuples(st.just("work"), st.integers(1, 12)),
        st.tuples(st.just("kill"), st.integers(1, 40)),
    ),
    min_size=4,
    max_size=30,
)


async def _killed_after(ground: ShardGround, checkpoints: int, rng: random.Random) -> None:
    """One unit of a worker, cut off in the middle; then all of them begin anew."""
    worker = rng.choice(ground.workers)

    async def work() -> None:
        with suppress(RingfortError):
            await worker.work()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        for _ in range(checkpoints):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    ground.restart()


async def _play(steps: list[tuple[str, object]], seed: int, limits: Limits = LIMITS) -> None:
    rng = random.Random(seed)
    async with trio.open_nursery() as nursery:
        ground = await ShardGround.make(nursery, limits)
        held: dict[str, Row] = {}

        async def check(query: Query) -> None:
            page = await ground.listed(query)
            items, truncated = naive(query, list(held.values()))
            assert (list(page.items), page.truncated) == (items, truncated), query

        for what, argument in steps:
            match what:
                case "put" | "delete":
                    assert isinstance(argument, list)
                    names = list(dict.fromkeys(argument))
                    for name in names:
                        ground.ticks += 1
                        gone = what == "delete"
                        held[name] = Row(name, Timestamp(ground.ticks), 0 if gone else 1, "" if gone else "e", deleted=gone)
                    await ground.give([held[name] for name in names])
                case "list":
                    assert isinstance(argument, Query)
                    await check(argument)
                case "work":
                    assert isinstance(argument, int)
                    await ground.run_for(argument * 0.5)
                case "kill":
                    assert isinstance(argument, int)
                    await _killed_after(ground, argument, rng)
            await check(Query(reverse=rng.random() < 0.5))
        await ground.run_for(45)
        await check(Query())
        live = sum(not row.deleted for row in held.values())
        assert await ground.totals() == (live, live, live, live)
        shards = await ground.map()
        assert shards is None or shards.settled
        for number in range(4):
            page = await ground.ground.nodes[number].rows(CONTAINER, start="", end="", limit=1, reverse=False)
            assert shards is None or page is None or not page.rows
        nursery.cancel_scope.cancel()


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS, st.integers(0, 1 << 30))
def test_a_listing_is_what_was_put_whatever_the_sharders_do(steps: list[tuple[str, object]], seed: int) -> None:
    run(seed, _play, steps, seed)


@pytest.mark.parametrize("seed", range(6))
def test_it_is_so_too_when_much_is_put(seed: int) -> None:
    rng = random.Random(seed)
    steps: list[tuple[str, object]] = []
    names = [f"{rng.choice('abcdef')}/{number:03d}" for number in range(80)]
    for _ in range(12):
        steps.append(("put", rng.sample(names, 15)))
        steps.append(("kill", rng.randrange(1, 60)))
        steps.append(("list", Query(prefix="c/", delimiter="1", limit=3, reverse=rng.random() < 0.5)))
        steps.append(("delete", rng.sample(names, rng.choice((2, 25)))))
        steps.append(("work", rng.randrange(1, 10)))
        steps.append(("list", Query(delimiter="/", marker=rng.choice(names), limit=2)))
    run(seed, _play, steps, seed, ALL_AT_ONCE if seed % 2 else LIMITS)

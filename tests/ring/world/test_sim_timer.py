"""Virtual time: alarms and deadlines in one order, cancelling, and what happens when nothing ever will."""

from __future__ import annotations

from math import inf

import pytest
import trio

from ring.world.sim import Simulation, run, timer
from ring.world.sim.life import NodeCrashed


def test_alarms_and_deadlines_keep_one_order() -> None:
    async def main() -> list[str]:
        seen: list[str] = []

        async def by_alarm(at: float) -> None:
            await timer.sleep_until(at)
            seen.append(f"alarm {at} {trio.current_time()}")

        async def by_deadline(at: float) -> None:
            await trio.sleep_until(at)
            seen.append(f"deadline {at} {trio.current_time()}")

        async with trio.open_nursery() as nursery:
            for at in (4.0, 1.0, 3.0):
                nursery.start_soon(by_alarm, at)
                nursery.start_soon(by_deadline, at + 0.5)
        return seen

    assert run(1, main) == [
        "alarm 1.0 1.0",
        "deadline 1.5 1.5",
        "alarm 3.0 3.0",
        "deadline 3.5 3.5",
        "alarm 4.0 4.0",
        "deadline 4.5 4.5",
    ]


def test_an_alarm_can_be_cancelled() -> None:
    async def main() -> tuple[bool, float]:
        with trio.move_on_after(2) as scope:
            await timer.sleep(10)
        await timer.sleep(1)
        return scope.cancelled_caught, trio.current_time()

    assert run(1, main) == (True, 3.0)


def test_what_a_device_does_is_not_cancelled_but_ends_with_its_node() -> None:
    async def main() -> list[str]:
        node = Simulation(1).node("n")
        seen: list[str] = []

        async def work(name: str, until: float) -> None:
            try:
                await node.life.sleep_until(until)
                seen.append(f"{name} is done at {trio.current_time()}")
            except NodeCrashed:
                seen.append(f"{name} crashed at {trio.current_time()}")

        with trio.move_on_after(1):
            await work("the first", 5.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work, "the second", 50.0)
            await trio.sleep(1)
            node.life.end()
        return seen

    async def late() -> None:
        await timer.sleep_until(-1)

    assert run(1, main) == ["the first is done at 5.0", "the second crashed at 6.0"]
    run(1, late)


def test_nobody_sleeps_for_ever() -> None:
    clock = timer.VirtualClock()
    with pytest.raises(timer.Stuck):
        for _ in range(timer.VAIN_MAX + 1):
            clock.deadline_to_sleep_time(inf)


async def test_under_another_clock_it_is_trios(autojump_clock: trio.testing.MockClock) -> None:
    start = trio.current_time()
    await timer.sleep(100)
    assert trio.current_time() == start + 100

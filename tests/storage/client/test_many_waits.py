"""One timer for many waits: each that is not over by then ends at its time, and those that are over wake nobody."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from storage.client.watch import Watch


class Waiting:
    def __init__(self) -> None:
        self.over = False
        self.expired_at: float | None = None

    def expire(self) -> None:
        if not self.over:
            self.expired_at = trio.current_time()


class Steps(trio.abc.Instrument):
    def __init__(self) -> None:
        self.of_watch = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.of_watch += task.name.endswith("Watch._run")


async def test_each_that_is_not_over_ends_at_its_time(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        watch = Watch(nursery, 5.0)
        begun, waits = trio.current_time(), []
        for number in range(20):
            wait = Waiting()
            watch.add(wait)
            waits.append(wait)
            wait.over = number % 3 == 0
            await trio.sleep(0.5)
    ended = [None if wait.expired_at is None else wait.expired_at - begun for wait in waits]
    assert ended == [None if number % 3 == 0 else 5.0 + number * 0.5 for number in range(20)]


async def test_what_is_over_wakes_nobody(autojump_clock: MockClock) -> None:
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    async with trio.open_nursery() as nursery:
        watch = Watch(nursery, 1.0)
        for _ in range(1000):
            wait = Waiting()
            watch.add(wait)
            await trio.sleep(0.003)
            wait.over = True
    trio.lowlevel.remove_instrument(steps)
    assert steps.of_watch < 20

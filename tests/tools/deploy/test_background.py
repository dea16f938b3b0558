"""What wakes background workers of a process."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import trio
from trio.testing import MockClock

from ring.daemon.log import Log
from ring.daemon.metrics import Registry
from ring.daemon.pacing import Pacing
from ring.daemon.runner import Roster, Runner
from ring.daemon.worker import Busy, Idle, Progress
from ring.world.sim import SimWorld
from storage.object.replicator import ObjectReplicator
from storage.sync.order import Order
from tools.deploy.background import _urgent_speed, _wake_movers


class Resting:
    def __init__(self, name: str) -> None:
        self.name = name
        self.passes = 0

    def progress(self) -> Progress:
        return Progress()

    def begin(self) -> None:
        pass

    async def work(self) -> Busy | Idle:
        self.passes += 1
        return Idle.after(1e6)


async def test_a_new_ring_wakes_replicators_and_nobody_else(autojump_clock: MockClock) -> None:
    world, roster = SimWorld(1), Roster()
    workers = [
        Resting(name) for name in ("object-replicator d0", "object-1-replicator d0", "book-replicator d1", "object-auditor d0")
    ]
    keeper = cast(Any, SimpleNamespace(changed=trio.Event()))

    def change() -> None:
        before, keeper.changed = keeper.changed, trio.Event()
        before.set()

    async with trio.open_nursery() as nursery:
        for worker in workers:
            log = Log(lambda line: None, world.clock)
            nursery.start_soon(roster.run, Runner(worker, Pacing(), world.clock, log, Registry()))
        nursery.start_soon(_wake_movers, keeper, roster)
        await trio.sleep(10)
        assert [worker.passes for worker in workers] == [1, 1, 1, 1]
        for passes in (2, 3):
            change()
            await trio.sleep(1)
            assert [worker.passes for worker in workers] == [passes, passes, passes, 1]
        nursery.cancel_scope.cancel()


def test_a_replicator_that_knows_of_a_single_copy_keeps_half_of_its_pace() -> None:
    order = Order()
    worker = cast(ObjectReplicator, SimpleNamespace(order=order))
    span = cast(Any, "a partition")
    order.found(span, 2)
    assert _urgent_speed(worker, lambda: 0.2, 0.5) == 0.2
    order.found(span, 1)
    assert _urgent_speed(worker, lambda: 0.2, 0.5) == 0.5
    assert _urgent_speed(worker, lambda: 0.9, 0.5) == 0.9
    order.found(span, None)
    assert _urgent_speed(worker, lambda: 0.2, 0.5) == 0.2

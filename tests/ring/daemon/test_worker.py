"""The worker loop on the virtual clock, pacing as a transcript, and health."""

from __future__ import annotations

import json

import pytest
import trio
import trio.testing

from ring.daemon.health import add_routes
from ring.daemon.log import Log
from ring.daemon.metrics import Registry
from ring.daemon.pacing import Backoff, Pacing, TokenBucket
from ring.daemon.runner import Runner
from ring.daemon.worker import Busy, Idle, Progress, once
from ring.errors import DiskFault, Unavailable
from ring.wire.message import BytesBody, Headers, Request
from ring.wire.router import Router

Clock = trio.testing.MockClock


class WallClock:
    def now(self) -> float:
        return 0.0


class Script:
    """A worker that does what its list says, and notes when it was asked."""

    name = "script"

    def __init__(self, *steps: Busy | float | Exception) -> None:
        self.steps = list(steps)
        self.asked: list[float] = []

    def progress(self) -> Progress:
        return Progress()

    def begin(self) -> None:
        pass

    async def work(self) -> Busy | Idle:
        await trio.lowlevel.checkpoint()
        self.asked.append(round(trio.current_time(), 6))
        if not self.steps:
            return Idle.after(1000)
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step if isinstance(step, Busy) else Idle.after(step)


async def run_for(seconds: float, worker: Script, pacing: Pacing, registry: Registry, speed: float = 1.0) -> list[str]:
    lines: list[str] = []
    worker.asked.clear()
    begun = trio.current_time()
    with trio.move_on_after(seconds):
        await Runner(worker, pacing, WallClock(), Log(lines.append, WallClock()), registry, speed=lambda: speed).run()
    worker.asked = [round(at - begun, 6) for at in worker.asked]
    return lines


async def test_work_is_paced_by_items(autojump_clock: Clock) -> None:
    registry = Registry()
    worker = Script(*[Busy(5, 100)] * 5)
    assert await run_for(60, worker, Pacing(items_per_s=5), registry) == []
    assert worker.asked == [0, 0, 1, 2, 3, 4]  # a second's worth was saved up
    text = registry.render()
    assert 'ringfort_worker_items_total{worker="script"} 25\n' in text
    assert 'ringfort_worker_bytes_total{worker="script"} 500\n' in text


async def test_work_is_paced_by_bytes_and_yields_under_pressure(autojump_clock: Clock) -> None:
    worker = Script(*[Busy(1, 100)] * 3)
    await run_for(100, worker, Pacing(bytes_per_s=10), Registry())
    assert worker.asked == [0, 9, 19, 29]
    worker = Script(*[Busy(1, 100)] * 3)
    await run_for(1000, worker, Pacing(bytes_per_s=10), Registry(), speed=0.2)
    assert worker.asked == [0, 45, 95, 145]  # what was saved up is spent at full price


async def test_unpaced_work_goes_on_at_once_and_idleness_waits(autojump_clock: Clock) -> None:
    worker = Script(Busy(), Busy(), 7.0, Busy(), 0.0, Busy())
    await run_for(60, worker, Pacing(), Registry())
    assert worker.asked == [0, 0, 0, 7, 7, 7.01, 7.01]


async def test_failures_are_logged_and_backed_off(autojump_clock: Clock) -> None:
    registry = Registry()
    worker = Script(DiskFault("EIO"), Unavailable("away"), Unavailable("away"), Busy(), Unavailable("away"), Busy())
    lines = await run_for(60, worker, Pacing(), registry)
    assert worker.asked == [0, 1, 3, 7, 7, 8, 8]
    assert len(lines) == 4 and 'error="DiskFault: EIO" again_in_s=1' not in lines[0]
    assert "task=script" in lines[0] and "DiskFault: EIO" in lines[0]
    assert 'ringfort_worker_errors_total{worker="script"} 4\n' in registry.render()


async def test_a_bug_ends_the_loop(autojump_clock: Clock) -> None:
    with pytest.raises(ZeroDivisionError):
        await run_for(60, Script(ZeroDivisionError()), Pacing(), Registry())


async def test_once(autojump_clock: Clock) -> None:
    assert await once(Script(Busy(2, 10), Busy(1, 5), 3.0, Busy(7, 7))) == Busy(3, 15)
    assert trio.current_time() == 0
    with pytest.raises(Unavailable):
        await once(Script(Busy(), Unavailable("away")))


def test_token_bucket() -> None:
    bucket = TokenBucket(rate=2, burst=4)
    assert bucket.wait_s(0) == 0
    bucket.spend(4, 0)
    assert bucket.wait_s(0) == 0
    bucket.spend(4, 0)
    assert bucket.wait_s(0) == 2
    assert bucket.wait_s(1) == 1
    assert bucket.wait_s(2) == 0
    bucket.spend(6, 100)  # no more than the burst was saved up
    assert bucket.wait_s(100) == 1
    unlimited = TokenBucket(rate=0, burst=0)
    unlimited.spend(1e9, 0)
    assert unlimited.wait_s(0) == 0


def test_backoff() -> None:
    backoff = Backoff(first_s=1, most_s=10)
    assert [backoff.failed() for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    backoff.succeeded()
    assert backoff.failed() == 1


async def test_health_and_metrics(autojump_clock: Clock) -> None:
    trouble = [""]

    async def disks() -> str:
        return trouble[0]

    async def peers() -> str:
        if trouble[0] == "raise":
            raise Unavailable("nobody")
        if trouble[0] == "slow":
            await trio.sleep(60)
        return ""

    router = Router()
    registry = Registry()
    registry.counter("x_total", "X.").add(3)
    add_routes(router, registry, {"disks": disks, "peers": peers})

    async def get(target: str) -> tuple[int, bytes]:
        response = await router(Request("GET", target, Headers(), BytesBody()))
        assert isinstance(response.body, bytes)
        return response.status, response.body

    assert await get("/metrics") == (200, b"# HELP x_total X.\n# TYPE x_total counter\nx_total 3\n")
    for wrong, status, expected in [
        ("", 200, {"disks": "ok", "peers": "ok"}),
        ("raise", 503, {"disks": "raise", "peers": "Unavailable: nobody"}),
        ("slow", 503, {"disks": "slow", "peers": "no answer within 5 s"}),
    ]:
        trouble[0] = wrong
        found, body = await get("/health")
        assert (found, json.loads(body)["checks"]) == (status, expected)

"""Background work: a Worker does one small, resumable unit at a time.  ``run_worker`` paces it, ``once`` runs it to its end.

The loop decides when, never what.  A RingfortError of a unit is expected (a peer is away, a disk is full): it is logged, counted,
and tried again after a back-off.  Anything else is a bug and ends the loop with its traceback.

Neighbours: ``pacing``, ``log``, ``metrics``.  The workers themselves live in storage, proxy, blockgw and compute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from ring.daemon.log import Log
from ring.daemon.metrics import Registry
from ring.daemon.pacing import Backoff, Pacing
from ring.errors import RingfortError

IDLE_LEAST_S = 0.01


@dataclass(frozen=True, slots=True)
class Busy:
    """A unit was done and there may be more."""

    items: int = 1
    done_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing to do before ``until_s`` (trio's clock)."""

    until_s: float

    @classmethod
    def after(cls, seconds: float) -> Idle:
        return cls(trio.current_time() + seconds)


class Worker(Protocol):
    @property
    def name(self) -> str:
        """For logs and metrics: "object-auditor sda"."""

    async def work(self) -> Busy | Idle:
        """Do one small unit; may be cancelled at any checkpoint and called again, also by another process."""


async def run_worker(
    worker: Worker,
    pacing: Pacing,
    log: Log,
    registry: Registry,
    *,
    pressure: Callable[[], float] = lambda: 0.0,
    backoff: Backoff | None = None,
) -> None:
    """Work until cancelled.  ``pressure`` tells how busy clients keep this process: 0.0 to 1.0."""
    backoff = backoff or Backoff()
    units = registry.counter("ringfort_worker_items_total", "Units of background work done.", ["worker"])
    moved = registry.counter("ringfort_worker_bytes_total", "Bytes handled by background work.", ["worker"])
    errors = registry.counter("ringfort_worker_errors_total", "Units of background work that failed.", ["worker"])
    seconds = registry.counter("ringfort_worker_busy_seconds_total", "Time spent in background work.", ["worker"])
    name = worker.name
    while True:
        begun = trio.current_time()
        try:
            done = await worker.work()
        except RingfortError as error:
            wait_s = backoff.failed()
            errors.add(1, name)
            log.failure("work failed", error, task=name, again_in_s=wait_s)
            await trio.sleep(wait_s)
            continue
        now = trio.current_time()
        seconds.add(now - begun, name)
        backoff.succeeded()
        if isinstance(done, Busy):
            units.add(done.items, name)
            moved.add(done.done_bytes, name)
            pacing.spend(done.items, done.done_bytes, now, pressure=pressure())
            wait_s = pacing.wait_s(now)
            if wait_s:
                await trio.sleep(wait_s)
            else:
                await trio.lowlevel.checkpoint()
        else:
            await trio.sleep(max(done.until_s - now, IDLE_LEAST_S))


async def once(worker: Worker) -> Busy:
    """Work until there is nothing to do now; what was done in all.  Errors are the caller's."""
    items = done_bytes = 0
    while isinstance(done := await worker.work(), Busy):
        items += done.items
        done_bytes += done.done_bytes
        await trio.lowlevel.checkpoint()
    return Busy(items, done_bytes)

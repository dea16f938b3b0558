"""Runner: one Worker at work.  It keeps its pace, backs off when it fails, wakes it, and counts what its passes come to.

A RingfortError of a unit is expected (a peer is away, a disk is full): it is logged, counted, and tried again after a back-off.
Anything else is a bug and ends the loop with its traceback.  A ``Memory`` keeps the figures of long passes over restarts; the place
in a pass is the Worker's own to keep.

    Runner   the loop of one Worker
    Roster   the Runners of a process by name: who wants to wake a Worker, or to know how far they all are, comes here

Neighbours: ``worker`` (what it runs), ``tally`` (the figures), ``pacing``, ``log``, ``metrics``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Protocol

import trio

from ring.daemon.log import Log
from ring.daemon.metrics import Counter, Gauge, Registry
from ring.daemon.pacing import Backoff, Pacing
from ring.daemon.tally import Pass, Tally
from ring.daemon.worker import Busy, Idle, Progress, Worker
from ring.errors import NotFound, RingfortError
from ring.world.interface import Clock

IDLE_LEAST_S = 0.01
SAVE_S = 60.0  # the figures of a pass that lasts so long are saved as often
PACE_LOOK_S = 0.5  # at most so long until it is seen that clients left


class State(Enum):
    WORKING = "working"
    PACED = "paced"  # waits for its pace
    WAITING = "waiting"  # in the middle of a pass, or until one may begin
    RESTING = "resting"  # between passes
    FAILING = "failing"  # waits after an error


@dataclass(frozen=True, slots=True)
class WorkerState:
    """How far a Worker is."""

    name: str
    state: State
    progress: Progress
    current: Pass | None  # None between passes
    last: Pass | None  # None: none has ended yet
    passes: int  # that ended, since the process's start
    units_per_s: float  # of about the last minute
    bytes_per_s: float
    eta_s: float | None  # until the end of the pass; None between passes, and when it cannot be said
    next_in_s: float | None  # until it does something by itself; None while it works
    error: str  # the last one, of the pass under way or the one before it


class Memory(Protocol):
    """Keeps a few hundred bytes over restarts."""

    def load(self) -> bytes | None:
        """RingfortError."""

    async def save(self, data: bytes) -> None:
        """RingfortError."""


class Runner:
    """``speed`` tells which part of its pace it may go at: above 0, to 1.0 (ring.daemon.yielding)."""

    def __init__(
        self,
        worker: Worker,
        pacing: Pacing,
        clock: Clock,
        log: Log,
        registry: Registry,
        *,
        speed: Callable[[], float] = lambda: 1.0,
        backoff: Backoff | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.worker = worker
        self._pacing = pacing
        self._clock = clock
        self._log = log
        self._registry = registry
        self._speed = speed
        self._backoff = backoff or Backoff()
        self._memory = memory
        self._state = State.RESTING
        self._until_s: float | None = None  # of a rest
        self._woken = trio.Event()
        self._tally: Tally | None = None  # once it runs
        self._saved_at = 0.0

    # ---- for others

    def wake(self) -> None:
        """There may be something to do: ends its rest, or its wait after an error.  It keeps to its pace all the same."""
        self._woken.set()

    def begin(self) -> None:
        """A pass is wanted now; one that is under way goes on."""
        self.worker.begin()
        self.wake()

    def state(self) -> WorkerState:
        progress, now = self.worker.progress(), trio.current_time()
        tally = self._tally or Tally(now)
        tally.tick(now)
        return WorkerState(
            self.worker.name,
            self._state,
            progress,
            tally.current,
            tally.last,
            tally.passes,
            tally.units.per_s(now),
            tally.done_bytes.per_s(now),
            tally.eta_s(progress, now),
            None if self._until_s is None else max(self._until_s - now, 0.0),
            tally.error,
        )

    # ---- the loop

    async def run(self) -> None:
        """Work until cancelled."""
        units = self._registry.counter("ringfort_worker_items_total", "Units of background work done.", ["worker"])
        moved = self._registry.counter("ringfort_worker_bytes_total", "Bytes handled by background work.", ["worker"])
        errors = self._registry.counter("ringfort_worker_errors_total", "Units of background work that failed.", ["worker"])
        seconds = self._registry.counter("ringfort_worker_busy_seconds_total", "Time spent in background work.", ["worker"])
        tally = self._tally = self._remembered()
        forget = show(self.state, self._registry)
        try:
            await self._run(tally, units, moved, errors, seconds)
        finally:
            forget()

    async def _run(self, tally: Tally, units: Counter, moved: Counter, errors: Counter, seconds: Counter) -> None:
        name = self.worker.name
        while True:
            begun = trio.current_time()
            self._state = State.WORKING
            self._woken = trio.Event()  # what comes from now on may be more than this unit sees
            tally.begin(self._clock.now(), begun)
            try:
                done = await self.worker.work()
                now = trio.current_time()
                seconds.add(now - begun, name)
                await self._count(tally, done, now)
            except RingfortError as error:
                wait_s = self._backoff.failed()
                errors.add(1, name)
                self._log.failure("work failed", error, task=name, again_in_s=wait_s)
                now = trio.current_time()
                tally.begin(self._clock.now(), now)  # a pass whose end could not be saved had ended
                tally.failed(f"{type(error).__name__}: {error.message}", now)
                await self._rest(State.FAILING, now + wait_s)
                continue
            self._backoff.succeeded()
            if isinstance(done, Idle):
                state = State.RESTING if tally.current is None else State.WAITING
                await self._rest(state, max(done.until_s, now + IDLE_LEAST_S))
                continue
            units.add(done.items, name)
            moved.add(done.done_bytes, name)
            self._pacing.spend(done.items, done.done_bytes, now - begun, now, self._speed())
            await self._keep_pace()

    async def _keep_pace(self) -> None:
        await trio.lowlevel.checkpoint()
        while wait_s := self._pacing.wait_s(trio.current_time(), self._speed()):
            self._state = State.PACED
            await trio.sleep(min(wait_s, PACE_LOOK_S))

    async def _rest(self, state: State, until_s: float) -> None:
        self._state, self._until_s = state, until_s
        try:
            with trio.move_on_at(until_s):
                await self._woken.wait()
        finally:
            self._until_s = None

    # ---- figures

    def _remembered(self) -> Tally:
        now = trio.current_time()
        tally, self._saved_at = Tally(now), now
        try:
            data = self._memory.load() if self._memory is not None else None
            if data is not None:
                tally.restore(data, now, resumed=bool(self.worker.progress().fraction))
        except RingfortError as error:
            self._log.failure("what its passes came to is not known", error, task=self.worker.name)
        return tally

    async def _count(self, tally: Tally, done: Busy | Idle, now: float) -> None:
        if isinstance(done, Busy):
            tally.done(done.items, done.done_bytes, self.worker.progress().fraction, now)
            assert tally.current is not None
            due = tally.current.seconds >= SAVE_S and now - self._saved_at >= SAVE_S
        elif done.over:
            due = tally.over(now).seconds >= SAVE_S
        else:
            tally.unbegun()
            return
        if due and self._memory is not None:
            self._saved_at = now
            await self._memory.save(tally.encode())


class Roster:
    """The Runners of a process."""

    def __init__(self) -> None:
        self._runners: dict[str, Runner] = {}

    async def run(self, runner: Runner) -> None:
        """As its own ``run``; until it ends it is found here."""
        name = runner.worker.name
        assert name not in self._runners, name
        self._runners[name] = runner
        try:
            await runner.run()
        finally:
            del self._runners[name]

    @property
    def names(self) -> list[str]:
        return sorted(self._runners)

    def find(self, name: str) -> Runner:
        """NotFound: there is none of that name (now)."""
        runner = self._runners.get(name)
        if runner is None:
            known = sorted({name.partition(" ")[0] for name in self._runners})
            raise NotFound(f"there is no worker {name}", hint=f"there are {', '.join(known)}" if known else "")
        return runner

    def wake(self, kind: str) -> None:
        """All of them whose name is ``kind`` ("object-replicator"), whatever their device."""
        for name, runner in self._runners.items():
            if name.partition(" ")[0] == kind:
                runner.wake()

    def states(self) -> list[WorkerState]:
        """By name."""
        return [runner.state() for _, runner in sorted(self._runners.items())]


def _read(read: Callable[[WorkerState], float | None], state: Callable[[], WorkerState]) -> float | None:
    return read(state())


def _fact(what: str, state: Callable[[], WorkerState]) -> float:
    return state().progress.facts[what]


def show(state: Callable[[], WorkerState], registry: Registry) -> Callable[[], None]:
    """Put a Worker's figures among the metrics; what is returned takes them away.  What is not known is left out."""
    name = state().name
    gauges: list[tuple[str, str, Callable[[WorkerState], float | None]]] = [
        ("pass_ratio", "Of the pass under way, what is done: 0 to 1.", lambda now: now.progress.fraction),
        ("pass_eta_seconds", "Until the end of the pass under way.", lambda now: now.eta_s),
        ("left_items", "Units that are known to wait.", lambda now: now.progress.left),
        ("last_pass_seconds", "What the last pass took.", lambda now: now.last.seconds if now.last else None),
        ("last_pass_errors", "Units of the last pass that failed.", lambda now: now.last.errors if now.last else None),
        (
            "last_pass_end_timestamp_seconds",
            "When the last pass ended.",
            lambda now: now.last.began_at + now.last.seconds if now.last else None,
        ),
    ]
    told: list[tuple[Gauge, tuple[str, ...]]] = []
    for key, text, read in gauges:
        gauge = registry.gauge(f"ringfort_worker_{key}", text, ["worker"])
        gauge.follow(partial(_read, read, state), name)
        told.append((gauge, (name,)))
    facts = registry.gauge("ringfort_worker_facts", "What passes of a worker have come to.", ["worker", "what"])
    for what in state().progress.facts:
        facts.follow(partial(_fact, what, state), name, what)
        told.append((facts, (name, what)))

    def forget() -> None:
        for gauge, labels in told:
            gauge.forget(*labels)

    return forget

"""Virtual time: a clock that jumps to the next thing to happen as soon as every task waits, and alarms that cost little.

``VirtualClock`` is what ``scheduling.run`` gives to trio.  Simulated devices and links wait by its alarms and not by trio's
deadlines: an alarm is an entry in a heap, a deadline a cancel scope and an exception.  Under another clock (pytest-trio's
MockClock) the same calls use trio's deadlines.  Decides nothing: who waits says until when.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from math import inf

import trio

VAIN_MAX = 100


class Stuck(RuntimeError):
    """Every task waits, and nothing will ever happen."""


class Alarm:
    """One task's wake-up."""

    __slots__ = ("at", "serial", "task")

    def __init__(self, at: float, serial: int, task: trio.lowlevel.Task) -> None:
        self.at = at
        self.serial = serial
        self.task: trio.lowlevel.Task | None = task  # None: it rang, or was taken back

    def __lt__(self, other: Alarm) -> bool:
        return (self.at, self.serial) < (other.at, other.serial)

    def ring(self) -> None:
        """Now.  Nothing the second time."""
        task, self.task = self.task, None
        if task is not None:
            trio.lowlevel.reschedule(task)


class VirtualClock(trio.abc.Clock):
    def __init__(self) -> None:
        self._now = 0.0
        self._serial = 0
        self._alarms: list[Alarm] = []
        self._vain = 0

    def start_clock(self) -> None:
        """Time begins at 0."""

    def current_time(self) -> float:
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Trio asks this when no task can run: then time jumps, and nobody sleeps."""
        alarms = self._alarms
        while alarms and alarms[0].task is None:
            heapq.heappop(alarms)
        next_at = min(deadline, alarms[0].at) if alarms else deadline
        if next_at == inf:  # trio itself may still wake somebody, over its own socket
            self._vain += 1
            if self._vain > VAIN_MAX:
                raise Stuck("every task waits, and nothing will ever happen")
            return 0.0
        self._vain = 0
        self._now = max(self._now, next_at)
        while alarms and alarms[0].at <= self._now:
            heapq.heappop(alarms).ring()
        return 0.0

    def alarm(self, at: float) -> Alarm:
        """For the current task, which then waits by ``wait_task_rescheduled``."""
        self._serial += 1
        found = Alarm(at, self._serial, trio.lowlevel.current_task())
        heapq.heappush(self._alarms, found)
        return found


async def sleep_until(at: float) -> None:
    """Like trio.sleep_until."""
    clock = trio.lowlevel.current_clock()
    if not isinstance(clock, VirtualClock):
        await trio.sleep_until(at)
    elif at <= clock.current_time():
        await trio.lowlevel.checkpoint()
    else:
        alarm = clock.alarm(at)

        def give_up(raise_cancel: Callable[[], object]) -> trio.lowlevel.Abort:
            alarm.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(give_up)


async def sleep(seconds: float) -> None:
    """Like trio.sleep."""
    await sleep_until(trio.current_time() + seconds)

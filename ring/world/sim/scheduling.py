"""Trio made repeatable: the same seed gives the same order of events, in any process.

Trio shuffles the tasks that are ready, on purpose.  It has a private switch that sorts them first and a private generator that
shuffles them; this module alone touches the two (``tests/ring/world/test_sim_scheduling.py`` fails when trio moves them).
Time is virtual (timer.py): it jumps as soon as every task waits.

The garbage collector is off meanwhile: what it finalizes, and when, would depend on the process's history.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
import trio._core._run as trio_run

from ring.world.sim.timer import VirtualClock

T = TypeVar("T")


def run(seed: int, main: Callable[..., Awaitable[T]], *args: object) -> T:
    """Run ``main(*args)`` to its end under the virtual clock, scheduled by ``seed``."""
    assert hasattr(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING"), "trio has moved its switch for deterministic scheduling"
    switch = trio_run._ALLOW_DETERMINISTIC_SCHEDULING
    state = trio_run._r.getstate()
    collecting = gc.isenabled()
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # Final, for everybody else
    trio_run._r.seed(seed)
    gc.disable()
    try:
        return trio.run(main, *args, clock=VirtualClock())
    finally:
        if collecting:
            gc.enable()
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = switch  # type: ignore[misc]
        trio_run._r.setstate(state)

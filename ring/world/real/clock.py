"""Wall clock, entropy and offload of the real world.  Neighbours: ring.world.interface."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")
OFFLOAD_THREADS_MAX = 4


class RealClock:
    def now(self) -> float:
        return time.time()


class RealEntropy:
    def token(self, length: int) -> bytes:
        return os.urandom(length)

    def uuid(self) -> uuid.UUID:
        return uuid.uuid4()


class RealOffload:
    """At most OFFLOAD_THREADS_MAX calls at once: more would only fight for the cores that serve requests."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(OFFLOAD_THREADS_MAX)

    async def run(self, call: Callable[..., T], *args: object) -> T:
        return await trio.to_thread.run_sync(call, *args, limiter=self._limiter)

"""Trip: one fault, at the n-th disk operation from where it is set in (Medium.trip): play for n = 1, 2, ... until none is left.

kill     the process ends there        power    so does the machine: what was not synced may be lost
error    EIO once
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from ring.world.sim import SimNode

FAULTS = ("kill", "power", "error")


class Trip:
    def __init__(self, node: SimNode, fault: str, at: int) -> None:
        self._node = node
        self._fault = fault
        self._at = at
        self._count = 0

    def __call__(self, done: Callable[[], object]) -> None:
        self._count += 1
        if self._count == self._at:
            if self._fault == "error":
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            self._node.crash(power=self._fault == "power")

    @property
    def tripped(self) -> bool:
        """Whether there were so many operations."""
        return self._count >= self._at

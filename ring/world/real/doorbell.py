"""Doorbell: how other threads wake trio's loop.  One for each run of trio: an eventfd, and a system task that waits for it.

``TrioToken.run_sync_soon`` does the same through a lock and a pair of sockets, which it reads until they are empty: a trip to a
thread and back then takes a fifth more cpu.  Neighbours: thread.py (whose results are delivered by it).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable

import trio

_here: trio.lowlevel.RunVar[Doorbell] = trio.lowlevel.RunVar("doorbell")


class Doorbell:
    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._calls: deque[Callable[[], None]] = deque()
        self._rung = False  # the loop is about to look

    @staticmethod
    def here() -> Doorbell:
        """That of this run."""
        try:
            return _here.get()
        except LookupError:
            bell = Doorbell()
            _here.set(bell)
            trio.lowlevel.spawn_system_task(bell._answer)
            return bell

    def ring(self, call: Callable[[], None]) -> None:
        """From any thread: have it called on trio's side, soon; never, when the run has ended."""
        self._calls.append(call)
        if not self._rung:
            self._rung = True
            os.eventfd_write(self._fd, 1)

    async def _answer(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._fd)
            os.eventfd_read(self._fd)
            self._rung = False  # before the calls: what comes later rings again
            while self._calls:
                self._calls.popleft()()

    def __del__(self) -> None:
        os.close(self._fd)  # not before: a thread may ring late, and must not write to another file

"""Watchdog: one thread for all I/O threads of the process, that sees when one of them does not come back from the system.

Decides nothing: it tells the I/O thread the time, and that one says whether it has hung (thread.py).  It runs while there are any.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

LOOK_S = 1.0


class Watched(Protocol):
    def look(self, now: float) -> None:
        """At about this time (monotonic).  On the watchdog's thread; does not block."""


class Watchdog:
    def __init__(self, look_s: float = LOOK_S) -> None:
        self._look_s = look_s
        self._lock = threading.Lock()
        self._watched: set[Watched] = set()
        self._running = False

    def add(self, one: Watched) -> None:
        with self._lock:
            self._watched.add(one)
            if not self._running:
                self._running = True
                threading.Thread(target=self._main, name="disks' watchdog", daemon=True).start()

    def discard(self, one: Watched) -> None:
        with self._lock:
            self._watched.discard(one)

    def _main(self) -> None:
        while True:
            time.sleep(self._look_s)
            with self._lock:
                watched = list(self._watched)
                if not watched:
                    self._running = False
                    return
            for one in watched:
                one.look(time.monotonic())

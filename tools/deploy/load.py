"""One speed of background work for all worker processes of a machine: that of the process whose clients need most.

A client's connection is with one process, the disks and cores that it waits for are everybody's.  So each process writes the speed
that its own clients leave (ring.daemon.yielding) into its slot of a small file that all of them map, ``DIR/run/speed``, and goes at
the least of those that were written lately.  No process asks another one, and one that hangs or is gone holds nobody up.

Neighbours: background (uses the speed), worker (lets ``yielding`` see the requests).
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path

import trio

from ring.daemon.metrics import Registry
from ring.daemon.yielding import TICK_S, Yielding

SLOT = struct.Struct("<dd")  # the machine's monotonic clock, and the speed
SLOTS = 1024  # of worker processes
STALE_S = 5.0


class SharedSpeed:
    """``worker`` has the slot of that number."""

    def __init__(self, path: Path, worker: int, yielding: Yielding) -> None:
        assert 0 <= worker < SLOTS
        self.yielding = yielding
        self._worker = worker
        self._speed = 1.0
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, SLOT.size * SLOTS)
            self._slots = mmap.mmap(descriptor, SLOT.size * SLOTS)
        finally:
            os.close(descriptor)

    def speed(self) -> float:
        """Above 0, to 1.0."""
        return min(self._speed, self.yielding.speed)

    def show(self, registry: Registry) -> None:
        """The gauges of processes are added up, so each tells its own clients."""
        registry.gauge("ringfort_background_speed", "Part of its pace that clients leave to background work.", ["worker"]).follow(
            self.speed, str(self._worker)
        )
        registry.gauge("ringfort_client_requests_in_flight", "Object requests that are being answered.").follow(
            lambda: self.yielding.in_flight
        )
        registry.gauge(
            "ringfort_client_slowdown_ratio", "How much longer requests take than at best; 0.5: half as long again.", ["worker"]
        ).follow(lambda: self.yielding.slowdown, str(self._worker))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.yielding.tick(trio.current_time())
            self.exchange(time.monotonic())
            await trio.sleep(TICK_S)

    def exchange(self, now: float) -> None:
        """Write ours, read the others'.  A slot that is written while it is read may be half of each: its time is then old or its
        speed the last one, and both are seen anew at the next tick."""
        SLOT.pack_into(self._slots, SLOT.size * self._worker, now, self.yielding.speed)
        self._speed = min(speed for at, speed in SLOT.iter_unpack(self._slots) if abs(now - at) <= STALE_S)

    def close(self) -> None:
        self._slots.close()

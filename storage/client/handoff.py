"""Handoff: who stands in for a primary that cannot take its copy?

Pure: no I/O.  The ring gives the order (``Ring.handoffs``: unlike regions, zones and servers first); this gives each handoff
out once per write, and stops after as many tries as the partition has replicas, since a write whose primaries are all lost
fails anyway.
"""

from __future__ import annotations

from collections.abc import Container, Iterator

from ring.device import Device
from ring.placement import Ring


class HandoffOrder:
    """The handoffs of one write; lazy, because a healthy write needs none."""

    __slots__ = ("_asked", "_devices", "_left", "_partition", "_ring")

    def __init__(self, ring: Ring, partition: int, asked: Container[int] = ()) -> None:
        """``asked``: ids of devices that are asked anyway."""
        self._ring = ring
        self._partition = partition
        self._asked = asked
        self._left = ring.replica_count
        self._devices: Iterator[Device] | None = None

    def next(self) -> Device | None:
        """The next device to try; None when there is none left."""
        if self._left == 0:
            return None
        self._left -= 1
        if self._devices is None:
            self._devices = self._ring.handoffs(self._partition)
        return next((device for device in self._devices if device.id not in self._asked), None)

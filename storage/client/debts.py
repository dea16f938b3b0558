"""Debts: which replica of an object tells which of the container's devices about it.  Pure.

Each of the container's primaries is told by one replica, so that a write costs as many row updates as the container has
replicas.  A device that holds both tells itself.  And each replica tells somebody: it may be the only one that takes the write, and
is found and spread later, when nobody else knows what is owed.  So where the object has more replicas than the container (as it may
while a partition moves) some are told twice.
"""

from __future__ import annotations

from collections.abc import Sequence


def assign(objects: Sequence[int], containers: Sequence[int]) -> list[tuple[int, ...]]:
    """Device ids of the container's primaries, per replica of the object (same order as ``objects``)."""
    owed: list[list[int]] = [[device] if device in containers else [] for device in objects]
    for device in containers:
        if device not in objects:
            min(owed, key=len).append(device)
    for index, devices in enumerate(owed):
        if not devices and containers:
            devices.append(containers[index % len(containers)])
    return [tuple(devices) for devices in owed]

"""Filler: asks a device to bring another one what it holds of a partition.

Not a part of Node: only a device that is being refilled asks (storage.object.refill), and what answers needs more than an engine:
the way to the other device.  Neighbours: peer and server (carry it), storage.object.filling (does it).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ring.names import Span


@dataclass(frozen=True, slots=True)
class Filled:
    """What came of one call.  ``whole``: all that this device ever acknowledged of the partition is at the other one, durably;
    False with ``pushed`` above 0: ask again, there is more."""

    pushed: int
    pushed_bytes: int
    whole: bool


class Filler(Protocol):
    async def fill(self, ring: str, span: Span, target: int) -> Filled:
        """Bring the device ``target`` what is held here of this partition of ``ring``; about a second's work.

        Unavailable: it cannot be reached, or cannot reach the other one."""

"""Filler: asks a device to bring another one what it holds of a partition.

Not a part of Node: only a device that is being refilled asks (storage.object.refill), and what answers needs more than an engine:
the way to the other device.  Neighbours: peer and server (carry it), storage.object.filling (does it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Filled:
    """What came of one call.  ``whole``: of these partitions, all that this device ever acknowledged is at the other one, durably;
    ``left``: there was no time for these, or for all of them: ask again.  For the others it can say nothing."""

    pushed: int
    pushed_bytes: int
    whole: list[int]
    left: list[int]


class Filler(Protocol):
    async def fill(self, ring: str, part_power: int, partitions: Sequence[int], target: int, edition: int = 0) -> Filled:
        """Bring the device ``target`` what is held here of these partitions of ``ring``; about a second's work.  ``edition``: of
        the rings, by which it asks; both must go by the same one, for who knows an older one may not know that it is behind, and
        bring what was deleted and forgotten (storage.sync.standing).

        Unavailable: it cannot be reached, or cannot reach the other one, or goes by another edition."""

"""Settling: when is all data where the newest ring says, so that the settled one before it may be forgotten?  Pure.

A device *confirms* a ring when it refuses older editions (it has the new one in force, durably), every write let in before that has
ended, and one whole pass of its replicators since then found everything that it holds at all of the ring's primaries.

Invariant.  Whatever was acknowledged by an older edition is held by a majority of the settled ring's primaries; each held it
before it refused that edition, so before its pass began.  Hence, when of every partition a majority of the settled ring's primaries
has confirmed, one of them held it and has brought it to all primaries of the new ring.  So the rule:

- every device that the new ring still lists, and that holds a replica by either ring, must confirm: it is expected to come back;
- one that the new ring lists no more is waited for with patience, and then done without, if of every partition a majority of the
  settled ring's primaries confirmed.  A minority can be lost for good without a loss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass

from ring.service.overlap import Overlap
from ring.service.voters import majority_of


@dataclass(frozen=True, slots=True)
class Waiting:
    """``expected`` must still confirm; ``gone`` should, but the new ring does not list them any more."""

    expected: tuple[int, ...]
    gone: tuple[int, ...]


def waiting(overlap: Overlap, confirmed: Set[int]) -> Waiting:
    new = overlap.ring
    listed = {device.id for device in new.devices if device is not None}
    missing = overlap.holders - confirmed
    return Waiting(tuple(sorted(missing & listed)), tuple(sorted(missing - listed)))


def may_do_without(overlap: Overlap, gone: Set[int]) -> bool:
    """Whether of every partition a majority of the settled ring's primaries is left without these devices."""
    settled = overlap.settled
    lost: Counter[int] = Counter()
    for row in settled.table:
        lost.update(partition for partition, device_id in enumerate(row) if device_id in gone)
    for partition, count in lost.items():
        replicas = len(settled.primaries(partition))
        if replicas - count < majority_of(replicas):
            return False
    return True

"""Voters: which replicas must agree before an operation stands?  Pure.

As a rule a majority of a partition's primaries.  While the partition moves there are two groups, the primaries of the ring in force
and those of the settled ring, and a majority of each is needed: so an operation meets every other one that shares either ring with
it.  A replica that is in both groups is asked once and counts in both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache


def majority_of(replica_count: int) -> int:
    return replica_count // 2 + 1


@dataclass(frozen=True, slots=True)
class Voters:
    """Replicas are numbered 0 to ``count`` - 1; a set of them is an int with their bits.  ``groups``: (members, how many of them
    are needed)."""

    count: int
    groups: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, *groups: Iterable[int]) -> Voters:
        """By the replica numbers of each group.  Equal groups are one."""
        sets = list(dict.fromkeys(sum(1 << replica for replica in set(group)) for group in groups))
        everybody = 0
        for members in sets:
            everybody |= members
        return cls(everybody.bit_count(), tuple((members, majority_of(members.bit_count())) for members in sets))

    def majority(self, replicas: int) -> bool:
        """Whether these are a majority of every group."""
        for members, needed in self.groups:  # noqa: SIM110 - at every reply: half the time of all()
            if (replicas & members).bit_count() < needed:
                return False
        return True

    def newest(self, replicas: int) -> bool:
        """Whether these are a majority of the first group: of the ring in force."""
        members, needed = self.groups[0]
        return (replicas & members).bit_count() >= needed

    def blocks(self, replicas: int) -> bool:
        """Whether no group has a majority without these."""
        for members, needed in self.groups:  # noqa: SIM110
            if (members & ~replicas).bit_count() >= needed:
                return False
        return True

    @property
    def leaving(self) -> int:
        """Those that only the settled ring names."""
        return self.everybody & ~self.groups[0][0]

    @property
    def everybody(self) -> int:
        return (1 << self.count) - 1


@lru_cache
def plain(replica_count: int) -> Voters:
    """One group of all."""
    return Voters.of(range(replica_count))

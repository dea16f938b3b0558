"""The certificate of a table: the numbers by which anybody can check that it is as good as it claims.

Says how far each device is from its quota and its share, how many moves the last change took and how few could have done, how
crowded each kind of tier is against what the weights allow, and how widely partitions are shared.  Recounts everything from the
table and the weights; believes nothing that the builder kept but the account of its last rebalance.  Pure; numpy.

Neighbours: ``builder.py``, ``measure.py`` (the counting), ``tools.cli`` (the printing).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction

from ring.builder.measure import Crowding, Table, counts_of, crowding, scatter
from ring.builder.quota import Targets
from ring.device import Device

LEVELS = ("region", "zone", "server", "device")


@dataclass(frozen=True, slots=True)
class LevelDispersion:
    """All tiers of one level together."""

    level: str
    tiers: int
    most: int  # replicas of one partition that any tier of the level holds
    limit: int  # the most that the weights, and the overload, make some tier hold
    crowded: int  # replicas above their tier's limit: 0 is optimal
    even_crowded: int  # replicas above an even split whatever the weights: what swift-ring-builder's dispersion counts


@dataclass(frozen=True, slots=True)
class Scatter:
    """With how many others a device shares a partition.  ``possible``: the lesser of the others and the replicas it shares with."""

    least: int
    median: int
    most: int
    possible: int  # for the median device


@dataclass(frozen=True, slots=True)
class Certificate:
    partitions: int
    replicas: float
    devices: int
    last_moves: int  # of the last rebalance
    last_lower_bound: int  # no way to the quotas took fewer, this pass and those to come together
    owed: int  # replicas above their device's quota now: the least that further passes must move
    over: int  # the most that a device holds above its quota
    under: int
    share_over: float  # the most that a device holds above its share, in partitions: below 1 is as near as whole numbers come
    share_under: float
    balance: float  # percent
    dispersion: float  # percent
    levels: Sequence[LevelDispersion]
    scatter: Scatter

    @property
    def balanced(self) -> bool:
        return self.owed == 0

    @property
    def dispersed(self) -> bool:
        """As well as the weights allow."""
        return not any(level.crowded for level in self.levels)

    @property
    def minimal(self) -> bool:
        """The last rebalance moved no more than had to; less when part of it waits for another pass."""
        return self.last_moves <= self.last_lower_bound

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "balanced": self.balanced, "dispersed": self.dispersed, "minimal": self.minimal}


def certify(
    table: Table, devices: Sequence[Device], goal: Targets, last: tuple[int, int], balance: float, partitions: int
) -> Certificate:
    """``last`` is the moves and the lower bound of the last rebalance."""
    counted = counts_of(table, 1 + max((d.id for d in devices), default=0))
    held = {d.id: int(counted[d.id]) for d in devices}
    off_quota = [held[d.id] - goal.quotas.get(d.id, 0) for d in devices]
    off_share = [float(held[d.id] - goal.wanted.get(d.id, Fraction(0))) for d in devices]
    even = crowding(table, devices)
    return Certificate(
        partitions=partitions,
        replicas=sum(map(len, table)) / partitions,
        devices=len(devices),
        last_moves=last[0],
        last_lower_bound=last[1],
        owed=sum(max(0, off) for off in off_quota),
        over=max(0, *off_quota),
        under=max(0, *(-off for off in off_quota)),
        share_over=max(0.0, *off_share),
        share_under=max(0.0, *(-off for off in off_share)),
        balance=balance,
        dispersion=even.percent,
        levels=_levels(crowding(table, devices, goal.limits), even),
        scatter=_scatter(scatter(table, devices), held, len(table)),
    )


def _levels(by_weight: Crowding, even: Crowding) -> list[LevelDispersion]:
    result = []
    for depth, level in enumerate(LEVELS, start=1):
        mine = [tier for tier in by_weight.tiers if len(tier.tier) == depth]
        result.append(
            LevelDispersion(
                level=level,
                tiers=len(mine),
                most=max((n for tier in mine for n, count in enumerate(tier.counts) if count), default=0),
                limit=max((tier.limit for tier in mine), default=0),
                crowded=sum(tier.crowded for tier in mine),
                even_crowded=sum(tier.crowded for tier in even.tiers if len(tier.tier) == depth),
            )
        )
    return result


def _scatter(widths: Mapping[int, int], held: Mapping[int, int], replicas: int) -> Scatter:
    """Of the devices that hold anything."""
    by_width = sorted((width, device_id) for device_id, width in widths.items() if held[device_id])
    if not by_width:
        return Scatter(0, 0, 0, 0)
    median, device_id = by_width[len(by_width) // 2]
    possible = min(len(by_width) - 1, math.ceil(held[device_id] * (replicas - 1)))
    return Scatter(by_width[0][0], median, by_width[-1][0], possible)

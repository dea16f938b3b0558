"""A dry run: what the rebalances to come would move, from where to where, how many bytes, and how long that takes at the least.

Runs ``Builder.rebalance`` on a copy, pass after pass, at the times when an operator could: min_part_hours after the pass before,
and not before its bytes have moved.  Stops when a pass moves nothing and no wait can change that.  Decides nothing about placement;
the builder that it is given stays as it is.  Pure and deterministic; ``now`` is the caller's.  Neighbours: ``builder.py``,
``plot.py``.

A pass takes at least as long as its busiest device, which at ``rate`` bytes/s reads what leaves it and writes what arrives, and as
long as all bytes at ``concurrency`` transfers at a time.  No schedule is shorter; a good one takes at most half as long again
(Shannon 1949: the edges of a multigraph of degree d can be coloured with 3d/2 colours).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ring.builder.builder import HOUR_S, Builder
from ring.builder.certificate import LEVELS
from ring.builder.measure import Levels, Table, square
from ring.builder.moves import Waits
from ring.builder.quota import Tier
from ring.errors import BadInput
from ring.placement import NO_DEVICE

PASSES_MAX = 100
Ids = NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Load:
    """How full the ring is and how fast it moves; what is not known is None, and then so is what depends on it."""

    replica_bytes: float | None = None  # of one replica of one partition, on average
    rate: float | None = None  # bytes/s that a device reads and writes for it, together
    concurrency: int | None = None  # transfers at a time in the whole ring; None: as many as the devices can

    def __post_init__(self) -> None:
        if self.replica_bytes is not None and not (math.isfinite(self.replica_bytes) and self.replica_bytes >= 0):
            raise BadInput(f"a replica holds bytes from 0 on, not {self.replica_bytes}")
        if self.rate is not None and not (math.isfinite(self.rate) and self.rate > 0):
            raise BadInput(f"a rate is more than 0 bytes/s, not {self.rate}")
        if self.concurrency is not None and self.concurrency < 1:
            raise BadInput(f"transfers at a time are 1 or more, not {self.concurrency}")


@dataclass(frozen=True, slots=True)
class Flow:
    """Replicas that a tier gets and gives; ``within`` are those of both that stay in it."""

    tier: Tier
    arrives: int
    leaves: int
    within: int


@dataclass(frozen=True, slots=True)
class Pass:
    at_s: float  # after the first
    moves: int
    created: int  # of the moves: replicas that come from nowhere (the first placement, or more replicas than before)
    dropped: int  # replicas that go nowhere, as there are fewer than before; not moves
    lower_bound: int  # of the moves from this pass on
    waits: Waits
    balance: float  # after it
    dispersion: float
    busiest: tuple[int, int] | None  # device id, replicas that it gets and gives
    bytes: float | None
    duration_s: float | None
    flows: Sequence[Flow]


@dataclass(frozen=True, slots=True)
class Plan:
    passes: Sequence[Pass]
    complete: bool  # False: more passes are to come than were asked for
    flows: Sequence[Flow]  # of all passes; tiers that nothing touches are left out
    waits: Waits  # what stays above its quota in the end; stuck and crowded when complete

    @property
    def moves(self) -> int:
        return sum(one.moves for one in self.passes)

    @property
    def bytes(self) -> float | None:
        known = [one.bytes for one in self.passes if one.bytes is not None]
        return sum(known) if len(known) == len(self.passes) else None

    @property
    def duration_s(self) -> float | None:
        """From the start of the first pass until the last byte has moved, the waits for min_part_hours included."""
        if not self.passes:
            return 0.0
        last = self.passes[-1]
        return None if last.duration_s is None else last.at_s + last.duration_s


def plan(builder: Builder, *, now: float, seed: int | None = None, load: Load | None = None, passes: int | None = None) -> Plan:
    """``passes``: how many to look at, all when None.  ``seed``: of every pass; the version that the pass finds when None.

    BadInput and Conflict as of Builder.rebalance.
    """
    load = load or Load()
    copy = builder.copy()
    ledger = _Ledger(Levels(copy.present))
    done: list[Pass] = []
    idle: list[Pass] = []  # passes that only waited: they count when one that moves something follows
    start, complete, waits = now, False, Waits()
    while len(done) + len(idle) < (PASSES_MAX if passes is None else passes):
        table = copy.table
        report = copy.rebalance(copy.version if seed is None else seed, now)
        source, target = moves_between(table, copy.table)
        waits = report.waits
        left_s = copy.hours_left(now) * HOUR_S
        if not len(source) and not (left_s > 0 and (waits.total or waits.crowded)):
            complete = True
            break
        one = _Ledger(ledger.levels)
        one.add(source, target)
        ledger.add(source, target)
        there = source != NO_DEVICE
        busiest = one.busiest()
        size, duration = _cost(load, first=not table, copies=int((target != NO_DEVICE).sum()), busiest=busiest)
        idle.append(
            Pass(
                at_s=now - start,
                moves=int((target != NO_DEVICE).sum()),
                created=int((~there).sum()),
                dropped=int((target == NO_DEVICE).sum()),
                lower_bound=report.lower_bound,
                waits=waits,
                balance=report.balance,
                dispersion=report.dispersion,
                busiest=busiest,
                bytes=size,
                duration_s=duration,
                flows=one.flows(),
            )
        )
        if len(source):
            done, idle = [*done, *idle], []
        # A whole second later than it must be, so that no rounding keeps a partition locked.
        now = math.floor(now + max(duration or 0.0, left_s)) + 1
    return Plan(done if complete else [*done, *idle], complete, ledger.flows(), waits)


def _cost(load: Load, *, first: bool, copies: int, busiest: tuple[int, int] | None) -> tuple[float | None, float | None]:
    """Bytes and seconds.  Before the first placement there is nothing to copy."""
    if first or not copies:
        return 0.0, 0.0
    if load.replica_bytes is None:
        return None, None
    size = copies * load.replica_bytes
    if load.rate is None:
        return size, None
    devices_s = (busiest[1] if busiest else 0) * load.replica_bytes / load.rate
    return size, max(devices_s, size / (load.rate * load.concurrency) if load.concurrency else 0.0)


def replica_bytes(builder: Builder, *, device_bytes: float | None = None, total_bytes: float | None = None) -> float:
    """Of one replica of one partition: from what the average device holds, or from all objects, each counted once."""
    assert (device_bytes is None) != (total_bytes is None)
    if total_bytes is not None:
        return total_bytes / builder.partition_count
    assert device_bytes is not None
    held = builder.counts() if builder.table else {device.id: 1 for device in builder.present if device.weight}
    holders = sum(1 for count in held.values() if count)
    replicas = sum(map(len, builder.table)) if builder.table else sum(builder.rows)
    return device_bytes * holders / replicas


def moves_between(before: Table, after: Table) -> tuple[Ids, Ids]:
    """The devices that replicas leave, and go to: one pair for each.  NO_DEVICE: from nowhere, or to nowhere."""
    if not after:
        return np.zeros(0, np.uint16), np.zeros(0, np.uint16)
    new = square(after)
    old = square(before) if before else np.full((1, new.shape[1]), NO_DEVICE, np.uint16)
    gone, came = old != NO_DEVICE, new != NO_DEVICE
    for mine, row in zip(gone, old, strict=True):
        for theirs, other in zip(came, new, strict=True):
            same = row == other
            mine &= ~same
            theirs &= ~same
    common = min(len(old), len(new))
    straight = gone[:common] & came[:common]  # in one row: that is one replica that moves
    sources, targets = [old[:common][straight]], [new[:common][straight]]
    gone[:common] &= ~straight
    came[:common] &= ~straight
    left, entered = _ranked(old, gone), _ranked(new, came)
    depth = max(len(left), len(entered))
    left, entered = (np.pad(one, ((0, depth - len(one)), (0, 0)), constant_values=NO_DEVICE) for one in (left, entered))
    some = (left != NO_DEVICE) | (entered != NO_DEVICE)
    return np.concatenate([*sources, left[some]]), np.concatenate([*targets, entered[some]])


def _ranked(whole: Ids, chosen: NDArray[np.bool_]) -> Ids:
    """The chosen devices of each partition, the first of each in row 0, the second in row 1, ..."""
    depth = int(chosen.sum(axis=0).max(initial=0))
    result = np.full((depth, whole.shape[1]), NO_DEVICE, np.uint16)
    rows, partitions = np.nonzero(chosen)
    result[chosen.cumsum(axis=0)[rows, partitions] - 1, partitions] = whole[rows, partitions]
    return result


class _Ledger:
    """What every tier gets and gives."""

    def __init__(self, levels: Levels) -> None:
        self.levels = levels
        sizes = [len(tiers) + 1 for tiers in levels.tiers]
        self.arrives, self.leaves, self.within = ([np.zeros(size, np.int64) for size in sizes] for _ in range(3))

    def add(self, source: Ids, target: Ids) -> None:
        for level, index in enumerate(self.levels.index):
            giver, taker = index[source], index[target]
            size = len(self.arrives[level])
            self.leaves[level] += np.bincount(giver, minlength=size)
            self.arrives[level] += np.bincount(taker, minlength=size)
            self.within[level] += np.bincount(giver[giver == taker], minlength=size)

    def busiest(self) -> tuple[int, int] | None:
        devices = self.levels.tiers[len(LEVELS) - 1]
        traffic = (self.arrives[-1] + self.leaves[-1])[: len(devices)]
        if not traffic.any():
            return None
        number = int(traffic.argmax())
        return int(devices[number][3]), int(traffic[number])

    def flows(self) -> list[Flow]:
        result = []
        for level, tiers in enumerate(self.levels.tiers):
            arrives, leaves, within = self.arrives[level], self.leaves[level], self.within[level]
            for number, tier in enumerate(tiers):
                if arrives[number] or leaves[number]:
                    result.append(Flow(tier, int(arrives[number]), int(leaves[number]), int(within[number])))
        return result

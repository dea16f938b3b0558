"""What a table is like: replicas held, crowded partitions, scatter.  Reads a table, changes nothing.  Pure; numpy.

A tier is *crowded* by a partition that has more replicas in it than the tier's limit.  Two limits are of use: Swift's, which is an
even split over the tiers at hand whatever they weigh (``even_limits``), and that of the quotas, which is the best
that the weights allow (``quota.Targets.limits``).  Neighbours: ``builder.py``, ``certificate.py``, ``moves.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ring.builder.quota import Tier, tiers_of
from ring.device import Device
from ring.placement import NO_DEVICE

Table = tuple[NDArray[np.uint16], ...]  # a row per replica, of device ids by partition; the last may be shorter
Ints = NDArray[np.int32]
IDS = NO_DEVICE + 1
_PAIRWISE_MAX = 12  # replicas: above, comparing each with each costs more than sorting


def counts_of(table: Table, device_count: int) -> NDArray[np.int64]:
    """Replicas held, by device id."""
    held = np.zeros(max(device_count, 1), np.int64)
    for row in table:
        counted = np.bincount(row[row != NO_DEVICE], minlength=len(held))
        held += counted
    return held


class Levels:
    """The tiers of each level numbered: ``index[level][device id]`` is the number of the device's region (level 0), zone (1),
    server (2) or itself (3); the last number of a level stands for no device."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self.tiers: list[list[Tier]] = []
        self.index: list[Ints] = []
        paths = [(device.id, tiers_of(device)) for device in devices]
        for level in range(4):
            tiers = sorted({path[level] for _, path in paths})
            numbers = {tier: number for number, tier in enumerate(tiers)}
            index = np.full(IDS, len(tiers), np.int32)
            for device_id, path in paths:
                index[device_id] = numbers[path[level]]
            self.tiers.append(tiers)
            self.index.append(index)

    def limits(self, level: int, limits: Mapping[Tier, int]) -> Ints:
        """By number; 0 for tiers that have none, no end for no device."""
        return np.array([limits.get(tier, 0) for tier in self.tiers[level]] + [IDS], np.int32)


def square(table: Table) -> NDArray[np.uint16]:
    """(replicas, partitions), NO_DEVICE where a short last row ends."""
    result = np.full((len(table), len(table[0])), NO_DEVICE, np.uint16)
    for index, row in enumerate(table):
        result[index, : len(row)] = row
    return result


def alike(tiers: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Of (replicas, partitions) tier numbers: how many replicas of the partition are in the same tier, this one counted; and
    whether no earlier row is."""
    if len(tiers) > _PAIRWISE_MAX:
        return _alike_by_sorting(tiers)
    count = np.ones(tiers.shape, np.int32)
    first = np.ones(tiers.shape, bool)
    for one in range(len(tiers)):
        for other in range(one):
            same = tiers[one] == tiers[other]
            count[one] += same
            count[other] += same
            first[one] &= ~same
    return count, first


def _alike_by_sorting(tiers: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    partitions = tiers.shape[1]
    keys = tiers.astype(np.int64) * partitions + np.arange(partitions)
    _, index, inverse, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    first = np.zeros(tiers.size, bool)
    first[index] = True
    return counts[inverse.reshape(tiers.shape)].astype(np.int32), first.reshape(tiers.shape)


@dataclass(frozen=True, slots=True)
class TierCrowding:
    tier: Tier
    limit: int  # the most replicas of one partition that it should hold
    counts: tuple[int, ...]  # counts[n]: partitions with n replicas in it
    crowded: int  # replicas above the limit


@dataclass(frozen=True, slots=True)
class Crowding:
    """``percent`` is what swift-ring-builder calls dispersion: the replicas that would have to leave a crowded tier, each partition
    counted at the level (regions, zones, ...) where it is worst, of all replicas."""

    percent: float
    tiers: Sequence[TierCrowding]


def even_limits(devices: Sequence[Device], replicas: float) -> dict[Tier, int]:
    """The most replicas of one partition in each tier when they are split evenly at every level, whatever the weights."""
    children: dict[Tier, set[Tier]] = {}
    for device in devices:
        parent: Tier = ()
        for tier in tiers_of(device):
            children.setdefault(parent, set()).add(tier)
            parent = tier
    limits: dict[Tier, int] = {(): math.ceil(replicas)}
    for parent in sorted(children, key=len):
        for tier in children[parent]:
            limit = -(-limits[parent] // len(children[parent]))
            limits[tier] = min(1, limit) if len(tier) == 4 else limit
    return limits


def crowding(table: Table, devices: Sequence[Device], limits: Mapping[Tier, int] | None = None) -> Crowding:
    """``limits`` are even_limits when not given."""
    replicas = sum(map(len, table)) / len(table[0])
    limits = even_limits(devices, replicas) if limits is None else limits
    levels = Levels(devices)
    whole = square(table)
    partitions = whole.shape[1]
    worst = np.zeros(partitions, np.int32)
    tiers = [_root(limits, table)]
    for level in range(4):
        index = levels.index[level]
        count, first = alike(index[whole])
        most = levels.limits(level, limits)
        over = np.maximum(0, count - most[index[whole]]) * first
        np.maximum(worst, over.sum(axis=0), out=worst)
        tiers += _of_level(levels.tiers[level], most, index[whole], count, first)
    return Crowding(100.0 * float(worst.sum()) / sum(map(len, table)), tiers)


def _root(limits: Mapping[Tier, int], table: Table) -> TierCrowding:
    counts = [0] * (len(table) + 1)
    counts[len(table)] = len(table[-1])
    if len(table[-1]) < len(table[0]):
        counts[len(table) - 1] = len(table[0]) - len(table[-1])
    return TierCrowding((), limits.get((), len(table)), tuple(counts), 0)


def _of_level(tiers: Sequence[Tier], most: Ints, numbers: Ints, count: Ints, first: NDArray[np.bool_]) -> list[TierCrowding]:
    replicas, partitions = numbers.shape
    width = replicas + 1
    seen = np.bincount((numbers * width + count)[first], minlength=(len(tiers) + 1) * width).reshape(-1, width)
    result = []
    for number, tier in enumerate(tiers):
        held = seen[number]
        crowded = sum(int(held[n]) * (n - int(most[number])) for n in range(int(most[number]) + 1, width))
        result.append(TierCrowding(tier, int(most[number]), (partitions - int(held.sum()), *map(int, held[1:])), crowded))
    return result


def scatter(table: Table, devices: Sequence[Device]) -> dict[int, int]:
    """By device id: with how many other devices it shares a partition.  The more, the more of them take part when it is rebuilt."""
    whole = square(table)
    numbers = np.full(IDS, len(devices), np.int64)
    for number, device in enumerate(devices):
        numbers[device.id] = number
    width = len(devices) + 1
    meets = np.zeros(width * width, bool)
    places = numbers[whole]
    for one in range(len(places)):
        for other in range(one):
            meets[places[one] * width + places[other]] = True
            meets[places[other] * width + places[one]] = True
    grid = meets.reshape(width, width)[: len(devices), : len(devices)]
    return {device.id: int(count) for device, count in zip(devices, grid.sum(axis=1), strict=True)}

"""Random clusters and builders, and what is asked of a table by counting it in the plainest way."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from ring.builder.builder import HOUR_S, Builder, Report
from ring.builder.measure import Table
from ring.builder.quota import Targets, Tier, targets, tiers_of
from ring.device import Device

NOW = 1_700_000_000.0
Spot = tuple[int, int, int, float]  # region, zone, server, weight

# every list of weights is a kind of cluster: all alike, two generations, drained devices, wild, grown over years
WEIGHTS = ((1.0,), (1.0, 2.0), (0.0, 1.0, 1.0, 3.0), (1e-9, 1.0, 1e9), (0.1, 1.0, 1.7, 4.0, 12.0))
SHAPES = ((1, 1, 1), (1, 1, 3), (1, 3, 2), (2, 2, 2), (3, 1, 3), (1, 4, 1), (2, 3, 1))  # regions, zones, servers at most
REPLICAS = (1, 1.5, 2, 2.5, 3, 3, 3, 3.25, 4, 5)
OVERLOADS = (0.0, 0.0, 0.1, 0.5, 2.0)


@st.composite
def spots(draw: st.DrawFn, *, least: int, most: int = 12, weights: Sequence[float] | None = None) -> list[Spot]:
    """At least ``least`` of them with weight."""
    regions, zones, servers = draw(st.sampled_from(SHAPES))
    chosen = st.sampled_from(weights or draw(st.sampled_from(WEIGHTS)))
    place = (st.integers(1, regions), st.integers(1, zones), st.integers(1, servers))
    found = draw(st.lists(st.tuples(*place, chosen), min_size=least, max_size=most))
    short = least - sum(weight > 0 for *_, weight in found)
    return found + draw(st.lists(st.tuples(*place, st.just(1.0)), min_size=max(0, short), max_size=max(0, short)))


@st.composite
def builders(draw: st.DrawFn, *, hours: Sequence[int] = (0, 0, 1), powers: Sequence[int] = (0, 1, 2, 3, 4, 5)) -> Builder:
    """Not rebalanced yet; it can be."""
    replicas = draw(st.sampled_from(REPLICAS))
    builder = Builder.create(draw(st.sampled_from(powers)), replicas, draw(st.sampled_from(hours)))
    builder.overload = draw(st.sampled_from(OVERLOADS))
    for spot in draw(spots(least=math.ceil(replicas))):
        add(builder, *spot)
    return builder


def builder_of(*where: Spot, part_power: int = 6, replicas: float = 3, hours: int = 0) -> Builder:
    builder = Builder.create(part_power, replicas, hours)
    for spot in where:
        add(builder, *spot)
    return builder


def add(builder: Builder, region: int, zone: int, server: int, weight: float) -> Device:
    name, ip = f"d{len(builder.devices)}", f"10.{region}.{zone}.{server}"
    return builder.add_device(region=region, zone=zone, ip=ip, port=6200, name=name, weight=weight)


def weighty(builder: Builder) -> int:
    return sum(device.weight > 0 for device in builder.present)


def random_table(builder: Builder, seed: int) -> Table:
    """Any legal table of the builder's size: nothing about it is balanced or spread."""
    chance = random.Random(seed)
    ids = [device.id for device in builder.present]
    rows = builder.rows
    columns = [chance.sample(ids, sum(partition < length for length in rows)) for partition in range(builder.partition_count)]
    return tuple(np.array([columns[p][row] for p in range(length)], np.uint16) for row, length in enumerate(rows))


def holders(builder: Builder) -> list[Counter[int]]:
    return [Counter(builder.holders(partition)) for partition in range(builder.partition_count)]


def goal_of(builder: Builder) -> Targets:
    """What the next pass goes for."""
    return targets(builder.present, builder.rows, builder.overload, builder.counts())


def tier_quotas(devices: Sequence[Device], goal: Targets) -> Counter[Tier]:
    quotas: Counter[Tier] = Counter()
    for device in devices:
        for tier in ((), *tiers_of(device)):
            quotas[tier] += goal.quotas.get(device.id, 0)
    return quotas


def in_tiers(builder: Builder, column: Counter[int]) -> Counter[Tier]:
    """Replicas of one partition by region, zone and server."""
    found: Counter[Tier] = Counter()
    for device_id, count in column.items():
        for tier in tiers_of(builder.device(device_id))[:3]:
            found[tier] += count
    return found


def crowded_partitions(builder: Builder, goal: Targets) -> int:
    return sum(
        any(count > goal.limits.get(tier, 0) for tier, count in in_tiers(builder, column).items()) for column in holders(builder)
    )


def owed(builder: Builder, goal: Targets) -> int:
    """Replicas above their device's quota."""
    return sum(max(0, count - goal.quotas.get(device_id, 0)) for device_id, count in builder.counts().items())


def moved(before: Sequence[Counter[int]], after: Sequence[Counter[int]]) -> list[int]:
    """By partition: replicas that are on a device that had none."""
    return [(new - old).total() for old, new in zip(before, after, strict=True)]


def finish(builder: Builder, now: float, *, passes: int = 24) -> list[Report]:
    """Passes, each when all may move again, until one has nothing to do.  The last is in the list."""
    reports = []
    for number in range(passes):
        reports.append(builder.rebalance(number, now + number * (builder.min_part_hours * HOUR_S + 1)))
        if not reports[-1].moves:
            return reports
    raise AssertionError(f"{passes} passes were not enough: {reports[-1]}")

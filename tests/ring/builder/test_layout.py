"""The first placement: exact, even at every tier, the same from the same seed, and as scattered as chance would have it."""

from __future__ import annotations

import math
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring.builder.builder import Builder
from ring.builder.layout import lay_out
from ring.builder.measure import Table, scatter
from ring.builder.quota import Tier
from tests.ring.builder.ground import NOW, add, builder_of, builders, holders, in_tiers, tier_quotas

seeds = st.integers(0, 2**64)


@settings(deadline=None)
@given(builders(), seeds)
def test_every_device_is_exactly_at_its_quota_and_no_partition_twice_on_one(builder: Builder, seed: int) -> None:
    goal = builder.targets()
    report = builder.rebalance(seed, NOW)
    assert [len(row) for row in builder.table] == builder.rows
    assert all(max(column.values()) == 1 for column in holders(builder))
    assert {i: count for i, count in builder.counts().items() if count} == {i: quota for i, quota in goal.quotas.items() if quota}
    assert (report.moves, report.lower_bound, report.waits.total) == (sum(builder.rows), sum(builder.rows), 0)


@settings(deadline=None)
@given(builders(), seeds)
def test_every_tier_has_as_many_of_each_partition_as_its_quota_comes_to_rounded_down_or_up(builder: Builder, seed: int) -> None:
    builder.rebalance(seed, NOW)
    columns = [in_tiers(builder, column) for column in holders(builder)]
    for tier, quota in tier_quotas(builder.present, builder.targets()).items():
        if 0 < len(tier) < 4:
            counts = [column[tier] for column in columns]
            assert math.floor(quota / builder.partition_count) <= min(counts)
            assert max(counts) <= math.ceil(quota / builder.partition_count)


@settings(deadline=None)
@given(builders(), seeds)
def test_the_same_seed_gives_the_same_table(builder: Builder, seed: int) -> None:
    one, two = builder.copy(), builder.copy()
    assert one.rebalance(seed, NOW) == two.rebalance(seed, NOW + 7)
    assert [row.tolist() for row in one.table] == [row.tolist() for row in two.table]


def test_another_seed_gives_another_table() -> None:
    builder = builder_of(*[(1, zone, server, 1.0) for zone in (1, 2, 3, 4) for server in (1, 2)], part_power=8)
    tables = {
        b"".join(row.tobytes() for row in lay_out(builder.present, builder.targets().quotas, builder.rows, s)) for s in range(8)
    }
    assert len(tables) == 8


@pytest.mark.parametrize("replicas", [1, 2.5, 3])
def test_no_tier_is_first_more_often_than_its_size_says(replicas: float) -> None:
    """The first row is asked first: reads of a cluster go where it points."""
    builder = builder_of(
        *[(1, zone, 1, weight) for zone, weight in enumerate((1.0, 1.0, 1.0, 2.0, 2.0))], replicas=replicas, part_power=14
    )
    builder.rebalance(3, NOW)
    counts = builder.counts()
    first = Counter(builder.table[0].tolist())
    for device_id, count in counts.items():
        expected = count * len(builder.table[0]) / sum(builder.rows)
        assert abs(first[device_id] - expected) < (0.08 if replicas % 1 else 0.05) * expected


# ---- scatter


def by_lot(builder: Builder, chance: random.Random) -> Table:
    """Every partition on devices drawn by lot, one in each of as many zones drawn by lot: nothing scatters wider but by design."""
    zones: dict[Tier, list[int]] = {}
    for device in builder.present:
        zones.setdefault((device.region, device.zone), []).append(device.id)
    columns = []
    for _ in range(builder.partition_count):
        columns.append([chance.choice(zones[zone]) for zone in chance.sample(sorted(zones), int(builder.replicas))])
    return tuple(np.array(row, np.uint16) for row in zip(*columns, strict=True))


@pytest.mark.parametrize(
    ("zones", "servers", "disks", "replicas", "part_power"),
    [(5, 4, 5, 3, 9), (5, 4, 5, 3, 11), (4, 5, 5, 3, 10), (3, 6, 6, 3, 10), (8, 4, 4, 2, 10), (3, 1, 30, 3, 8), (6, 3, 4, 5, 9)],
)
def test_partitions_are_shared_with_as_many_devices_as_drawing_by_lot_would(
    zones: int, servers: int, disks: int, replicas: int, part_power: int
) -> None:
    builder = Builder.create(part_power, replicas, 0)
    for zone in range(zones):
        for server in range(servers):
            for _ in range(disks):
                add(builder, 1, zone, server, 1.0)
    chance = random.Random(1)
    drawn = [width for _ in range(3) for width in scatter(by_lot(builder, chance), builder.present).values()]
    builder.rebalance(1, NOW)
    widths = scatter(builder.table, builder.present).values()
    assert sum(widths) / len(widths) >= 0.97 * sum(drawn) / len(drawn)
    assert min(widths) >= 0.95 * min(drawn)


def test_where_there_is_room_every_device_meets_every_other_that_it_may() -> None:
    builder = builder_of(*[(1, zone, server, 1.0) for zone in (1, 2, 3) for server in (1, 2, 3, 4)], part_power=10)
    builder.rebalance(3, NOW)
    assert set(scatter(builder.table, builder.present).values()) == {8}  # all of the two other zones

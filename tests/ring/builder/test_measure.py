"""What is counted of a table, against counting it in the plainest way and by hand."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring.builder.builder import Builder
from ring.builder.measure import alike, counts_of, crowding, even_limits, scatter
from ring.builder.quota import Tier, tiers_of
from ring.placement import NO_DEVICE
from tests.ring.builder.ground import Spot, builder_of, builders, holders, random_table

seeds = st.integers(0, 2**32)


def tiers(column: Counter[int], builder: Builder) -> Counter[Tier]:
    """Replicas of one partition by tier of every kind."""
    found: Counter[Tier] = Counter()
    for device_id in column:
        found.update(tiers_of(builder.device(device_id)))
    return found


@settings(deadline=None)
@given(builders(), seeds)
def test_counts(builder: Builder, seed: int) -> None:
    builder.table = random_table(builder, seed)
    expected = sum(holders(builder), Counter[int]())
    assert {i: n for i, n in builder.counts().items() if n} == dict(expected)
    assert counts_of(builder.table, len(builder.devices)).sum() == sum(builder.rows)


def test_entries_without_a_device_are_not_counted() -> None:
    assert counts_of((np.array([1, NO_DEVICE, 1], np.uint16),), 2).tolist() == [0, 2]
    assert counts_of((), 0).tolist() == [0]


@settings(deadline=None)
@given(builders(), seeds, st.booleans())
def test_crowding(builder: Builder, seed: int, by_quota: bool) -> None:
    builder.table = random_table(builder, seed)
    limits = {t: 0 for d in builder.present for t in tiers_of(d)}  # of what has no weight
    limits |= builder.targets().limits if by_quota else even_limits(builder.present, sum(builder.rows) / builder.partition_count)
    columns = [tiers(column, builder) for column in holders(builder)]
    found = crowding(builder.table, builder.present, limits)
    assert {tier.tier for tier in found.tiers} == {()} | {t for d in builder.present for t in tiers_of(d)}
    for tier in found.tiers[1:]:
        assert tier.limit == limits[tier.tier]
        counts = Counter(column[tier.tier] for column in columns)
        assert {n: count for n, count in enumerate(tier.counts) if count} == dict(counts)
        assert tier.crowded == sum(max(0, column[tier.tier] - tier.limit) for column in columns)
    worst = [
        max(sum(max(0, n - limits[t]) for t, n in column.items() if len(t) == level) for level in (1, 2, 3, 4))
        for column in columns
    ]
    assert found.percent == pytest.approx(100 * sum(worst) / sum(builder.rows))


@settings(deadline=None)
@given(builders(), seeds)
def test_scatter(builder: Builder, seed: int) -> None:
    builder.table = random_table(builder, seed)
    meets: dict[int, set[int]] = {device.id: set() for device in builder.present}
    for column in holders(builder):
        for device_id in column:
            meets[device_id] |= set(column) - {device_id}
    assert scatter(builder.table, builder.present) == {device_id: len(others) for device_id, others in meets.items()}


@pytest.mark.parametrize(
    ("where", "replicas", "expected"),
    [
        ([(1, 1, 1), (1, 2, 1), (1, 3, 1)], 3, {(1,): 3, (1, 1): 1, (1, 2): 1}),
        ([(1, 1, 1), (1, 2, 1)], 3, {(1,): 3, (1, 1): 2, (1, 2): 2}),
        ([(1, 1, 1), (2, 1, 1), (2, 2, 1)], 3, {(1,): 2, (2,): 2, (1, 1): 2, (2, 1): 1}),
        ([(1, 1, 1), (1, 1, 2)], 3.5, {(1,): 4, (1, 1): 4, (1, 1, "10.1.1.1"): 2, (1, 1, "10.1.1.1", 0): 1}),
        ([(1, 1, 1), (1, 2, 1)], 2.25, {(1, 1): 2, (1, 2): 2}),
    ],
)
def test_even_limits(where: list[tuple[int, int, int]], replicas: float, expected: dict[Tier, int]) -> None:
    spots: list[Spot] = [(*place, 1.0) for place in where]
    limits = even_limits(builder_of(*spots).present, replicas)
    assert {tier: limits[tier] for tier in expected} == expected
    assert limits[()] == math.ceil(replicas)


def test_a_partition_counts_once_at_the_level_where_it_is_worst() -> None:
    builder = builder_of((1, 1, 1, 1.0), (1, 1, 1, 1.0), (1, 2, 1, 1.0), (1, 3, 1, 1.0), part_power=1)
    builder.table = tuple(np.array(row, np.uint16) for row in ([0, 0], [1, 2], [2, 3]))
    assert builder.dispersion() == pytest.approx(100 / 6)  # zone 1 and its server both hold one too many of partition 0


@given(st.integers(1, 20), st.integers(1, 6), st.data())
def test_replicas_alike(replicas: int, partitions: int, data: st.DataObject) -> None:
    """By both ways of counting: few replicas are compared pairwise, many are sorted."""
    cells = st.lists(st.integers(0, 4), min_size=partitions, max_size=partitions)
    tiers = np.array(data.draw(st.lists(cells, min_size=replicas, max_size=replicas)), np.int32)
    count, first = alike(tiers)
    for partition in range(partitions):
        column = tiers[:, partition].tolist()
        assert count[:, partition].tolist() == [column.count(tier) for tier in column]
        assert first[:, partition].tolist() == [tier not in column[:row] for row, tier in enumerate(column)]

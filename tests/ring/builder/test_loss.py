"""Copies left: counted by hand on tiny tables, and against brute force on random ones."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.builder.loss import FEW, RandomLoss, by_level, copies_left, distinct_sets, random_failures
from ring.builder.measure import Table, square
from ring.builder.quota import Tier
from ring.device import Device
from ring.errors import BadInput


def device(device_id: int, zone: int = 1, server: int = 1, region: int = 1) -> Device:
    return Device(device_id, region, zone, f"10.{region}.{zone}.{server}", 6200, f"sd{device_id}", 100.0)


def table(*rows: list[int]) -> Table:
    return tuple(np.array(row, np.uint16) for row in rows)


# Two regions; region 1 has zones 1 (servers 1 and 2) and 2, region 2 one server with two devices.
DEVICES = [device(0), device(1, server=2), device(2, zone=2), device(3, region=2), device(4, region=2)]
#              p0 p1 p2 p3
SMALL = table([0, 0, 1, 3], [1, 2, 2, 4], [3, 4, 3])  # the last row is short: partition 3 has two replicas, both in region 2


def test_named_failures() -> None:
    assert copies_left(SMALL, []) == (0, 0, 1, 3)
    assert copies_left(SMALL, [0]) == (0, 0, 3, 1)
    assert copies_left(SMALL, [3]) == (0, 1, 2, 1)
    assert copies_left(SMALL, [3, 4]) == (1, 0, 3, 0)
    assert copies_left(SMALL, [0, 1, 3]) == (1, 2, 1, 0)
    assert copies_left(SMALL, [0, 1, 2, 3, 4]) == (4, 0, 0, 0)


def test_the_worst_of_each_level() -> None:
    region, zone, server, one = by_level(SMALL, DEVICES)
    assert (region.level, region.tiers, region.losing) == ("region", 2, 1)
    assert (region.worst.tier, region.worst.devices, region.worst.left) == ((2,), 2, (1, 0, 3, 0))
    assert (zone.level, zone.tiers, zone.losing) == ("zone", 3, 1)
    assert (zone.worst.tier, zone.worst.left) == ((2, 1), (1, 0, 3, 0))
    assert (server.level, server.tiers, server.losing) == ("server", 4, 1)
    assert (server.worst.tier, server.worst.left) == ((2, 1, "10.2.1.1"), (1, 0, 3, 0))
    assert (one.level, one.tiers, one.losing) == ("device", 5, 0)
    assert (one.worst.tier, one.worst.devices, one.worst.left) == ((2, 1, "10.2.1.1", 3), 1, (0, 1, 2, 1))


@st.composite
def rings(draw: st.DrawFn) -> tuple[list[Device], Table]:
    count = draw(st.integers(2, 7))
    devices = [device(i, draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))) for i in range(count)]
    replicas = draw(st.integers(1, count))
    partitions = draw(st.integers(1, 12))
    holders = [draw(st.permutations(range(count))) for _ in range(partitions)]
    short = draw(st.integers(1, partitions))
    rows = [[ids[row] for ids in holders][: short if row == replicas - 1 > 0 else None] for row in range(replicas)]
    return devices, table(*rows)


def slow_left(rows: Table, failed: set[int]) -> tuple[int, ...]:
    result = [0] * (len(rows) + 1)
    for partition in range(len(rows[0])):
        result[sum(1 for row in rows if partition < len(row) and int(row[partition]) not in failed)] += 1
    return tuple(result)


@given(rings())
def test_every_level_is_its_worst_tier_by_brute_force(ring: tuple[list[Device], Table]) -> None:
    devices, rows = ring
    paths: list[tuple[Tier, ...]] = [
        ((d.region,), (d.region, d.zone), (d.region, d.zone, d.ip), (d.region, d.zone, d.ip, d.id)) for d in devices
    ]
    for level, loss in enumerate(by_level(rows, devices)):
        tiers = sorted({path[level] for path in paths})
        left = {
            tier: slow_left(rows, {d.id for d, path in zip(devices, paths, strict=True) if path[level] == tier}) for tier in tiers
        }
        assert loss.tiers == len(tiers)
        assert loss.worst.left == max(left.values()) == left[loss.worst.tier]
        assert loss.losing == sum(1 for one in left.values() if one[0])


@given(rings(), st.integers(1, 7), st.integers(0, 3))
def test_the_mean_of_random_failures_is_that_of_all_sets(ring: tuple[list[Device], Table], count: int, named: int) -> None:
    _, rows = ring
    failed = {0} if named == 0 else set()
    pool = sorted({int(i) for row in rows for i in row} - failed)
    if count > len(pool):
        with pytest.raises(BadInput, match="cannot fail"):
            random_failures(rows, count, trials=3, seed=1, failed=failed)
        return
    loss = random_failures(rows, count, trials=3, seed=1, failed=failed)
    sets = [slow_left(rows, failed | set(chosen)) for chosen in itertools.combinations(pool, count)]
    assert loss.among == len(pool)
    assert loss.mean == pytest.approx([sum(left[n] for left in sets) / len(sets) for n in range(len(rows) + 1)])
    assert loss.worst in sets
    if loss.exact:
        assert loss.any_lost == pytest.approx(sum(1 for left in sets if left[0]) / len(sets))


def test_any_lost_is_exact_where_the_table_says() -> None:
    rows = table([0, 0, 1], [1, 1, 2], [2, 2, 3])  # two sets of devices hold all: {0, 1, 2} and {1, 2, 3}
    assert distinct_sets(square(rows)) == 2
    none, some, all_of_them = (random_failures(rows, count, trials=1, seed=1) for count in (2, 3, 4))
    assert (none.exact, none.any_lost) == (True, 0.0)
    assert (some.exact, some.any_lost) == (True, 2 / math.comb(4, 3))
    assert (all_of_them.exact, all_of_them.any_lost) == (True, 1.0)


def test_distinct_sets_of_many_replicas_do_not_depend_on_the_order() -> None:
    rows = table([0, 4, 5], [1, 3, 1], [2, 2, 2], [3, 1, 3], [4, 0, 4])
    assert distinct_sets(square(rows)) == 2


def test_trials_agree_with_what_is_exact() -> None:
    """100 devices, 2 replicas, 50 partitions, each on a pair of its own: of C(100, 3) sets of devices 50 * 98 hold a pair."""
    rows = table(list(range(0, 100, 2)), list(range(1, 100, 2)))
    loss = random_failures(rows, 3, trials=4000, seed=7)
    truth = 50 * 98 / math.comb(100, 3)
    assert not loss.exact
    assert loss.any_lost_low < truth < loss.any_lost_high
    assert loss.any_lost_high - loss.any_lost_low < 0.02
    assert loss.worst == (1, 1, 48)


@pytest.mark.parametrize("count", [FEW - 1, FEW, FEW + 1])
def test_many_failures_count_like_few(count: int) -> None:
    """A trial is counted by the partitions of what fails, or by all partitions.  Every device holds three replicas here, so that
    every set of as many devices leaves as many copies."""
    devices = FEW + 20
    rows = table(*([(i + step) % devices for i in range(devices)] for step in range(3)))
    for seed in range(3):
        worst = random_failures(rows, count, trials=20, seed=seed).worst
        assert sum(worst) == devices
        assert sum(copies * partitions for copies, partitions in enumerate(worst)) == 3 * (devices - count)


def test_the_seed_decides() -> None:
    rows = table([0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0])

    def play(seed: int) -> RandomLoss:
        return random_failures(rows, 3, trials=5, seed=seed)

    assert play(1) == play(1)
    assert len({play(seed).any_lost for seed in range(20)}) > 1


def test_nonsense_is_refused() -> None:
    for count, trials in ((0, 1), (6, 1), (1, 0), (-1, 1)):
        with pytest.raises(BadInput):
            random_failures(SMALL, count, trials=trials, seed=1)

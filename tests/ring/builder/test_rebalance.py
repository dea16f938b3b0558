"""Rebalances: legal at every pass, done after a few, patient, and nothing for nothing.  From any table and whatever changes."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ring.builder.builder import HOUR_S, Builder, Report
from ring.placement import NO_DEVICE
from tests.ring.builder.ground import (
    NOW,
    WEIGHTS,
    Spot,
    add,
    builder_of,
    builders,
    crowded_partitions,
    finish,
    goal_of,
    holders,
    moved,
    owed,
    random_table,
    spots,
    weighty,
)

slow = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
seeds = st.integers(0, 2**64)
ZONES: list[Spot] = [(1, zone, 1, 1.0) for zone in (1, 2, 3, 4)]


def change(builder: Builder, data: st.DataObject) -> None:
    """Any operation that the builder still has devices enough for."""
    staying = [device.id for device in builder.present if device.id not in builder.removed]
    some = data.draw(st.lists(st.sampled_from(staying), min_size=1, max_size=3, unique=True)) if staying else []
    match data.draw(
        st.sampled_from(["add", "weight", "remove", "zone", "region", "half", "table", "replicas", "overload", "power", "hours"])
    ):
        case "add":
            for spot in data.draw(spots(least=1, most=3)):
                add(builder, *spot)
        case "weight":
            weights = data.draw(st.sampled_from(WEIGHTS))
            for device_id in some:
                builder.set_weight(device_id, data.draw(st.sampled_from(weights)))
        case "remove":
            for device_id in some:
                builder.remove(device_id)
        case "zone":
            for device_id in some:
                builder.set_zone(device_id, data.draw(st.integers(1, 4)))
        case "region":
            for device_id in some:
                builder.set_region(device_id, data.draw(st.integers(1, 2)))
        case "half":
            for device_id in staying[::2]:
                builder.set_zone(device_id, builder.device(device_id).zone + 1)
        case "table":
            assume(len(builder.present) >= builder.replicas)
            builder.table = random_table(builder, data.draw(seeds))
        case "replicas":
            builder.set_replicas(data.draw(st.sampled_from([1, 1.5, 2, 2.75, 3, 4, 5])))
        case "overload":
            builder.set_overload(data.draw(st.sampled_from([0.0, 0.1, 1.0, 2.0])))
        case "power" if builder.part_power < 6:
            builder.prepare_increase_partition_power()
            builder.increase_partition_power()
            builder.finish_increase_partition_power()
        case _:
            builder.set_min_part_hours(data.draw(st.integers(0, 2)))
    assume(weighty(builder) >= math.ceil(builder.replicas))


@slow
@given(builders(), seeds, st.data())
def test_whatever_changes_every_pass_is_legal_and_a_few_are_enough(builder: Builder, seed: int, data: st.DataObject) -> None:
    now = NOW
    builder.rebalance(seed, now)
    for _ in range(data.draw(st.integers(1, 4))):
        change(builder, data)
        now += data.draw(st.sampled_from([1, 1800, 3600, 7200]))
        checked_pass(builder, data.draw(seeds), now)
    for number in range(24):
        now += builder.min_part_hours * HOUR_S + 1
        report = checked_pass(builder, seed + number, now)
        if not report.moves:
            break
    goal = goal_of(builder)
    assert owed(builder, goal) == 0
    assert crowded_partitions(builder, goal) == 0
    assert report.waits.total == report.waits.crowded == 0
    assert not builder.removed


def checked_pass(builder: Builder, seed: int, now: float) -> Report:
    """One rebalance, and all that holds of any."""
    before, version, removed = holders(builder), builder.version, set(builder.removed)
    copies = [len(row) for row in builder.table]
    resized = copies != builder.rows
    goal = goal_of(builder)
    locked = builder.moved_at + builder.min_part_hours * float(HOUR_S) > now
    locked &= builder.moved_at > 0
    report = builder.rebalance(seed, now)
    builder.validate()
    assert [len(row) for row in builder.table] == builder.rows
    after = holders(builder)
    assert all(max(column.values()) == 1 for column in after)
    for partition, (count, old, new) in enumerate(zip(moved(before, after), before, after, strict=True)):
        came = max(0, new.total() - old.total())
        assert count <= came + 1
        if locked[partition]:
            assert count <= came + len(removed & old.keys())
        assert (builder.moved_at[partition] == int(now)) == (count > 0) or count == 0
    # where a replica too many was let go and another comes to its device, it looks as if the other had been let go
    assert report.moves == sum(moved(before, after)) or (resized and report.moves > sum(moved(before, after)))
    assert builder.version == version + bool(report.moves or resized or removed - builder.removed)
    if not resized:
        assert report.lower_bound == sum(max(0, n - goal.quotas.get(i, 0)) for i, n in Counter(sum(before, Counter())).items())
        assert report.waits.total == owed(builder, goal)
        assert report.waits.crowded == crowded_partitions(builder, goal)
    assert (report.waits.until is None) == (report.waits.locked == 0)
    if report.waits.until is not None:
        assert now < report.waits.until <= now + builder.min_part_hours * HOUR_S
    return report


@slow
@given(builders(), seeds, seeds, seeds)
def test_any_legal_table_is_brought_to_its_quotas_and_uncrowded(builder: Builder, table: int, seed: int, later: int) -> None:
    builder.table = random_table(builder, table)
    finish(builder, NOW + seed % 1000)
    goal = goal_of(builder)
    assert owed(builder, goal) == crowded_partitions(builder, goal) == 0
    rows = [row.tolist() for row in builder.table]
    version = builder.version
    again = builder.rebalance(later, NOW * 2)
    assert (again.moves, again.version) == (0, version)
    assert [row.tolist() for row in builder.table] == rows


@slow
@given(builders(), seeds, seeds)
def test_nothing_moves_when_nothing_changed(builder: Builder, seed: int, other: int) -> None:
    builder.rebalance(seed, NOW)
    before, version = [row.tolist() for row in builder.table], builder.version
    report = builder.rebalance(other, NOW * 2)
    assert (report.moves, report.lower_bound, report.waits.total, report.waits.crowded) == (0, 0, 0, 0)
    assert ([row.tolist() for row in builder.table], builder.version) == (before, version)


@slow
@given(builders(hours=(0,)), seeds, seeds)
def test_a_pass_with_nothing_locked_makes_the_balance_no_worse(builder: Builder, table: int, seed: int) -> None:
    """The balance against quotas: a table whose last device is nearer its share by luck may owe others, and be rounded."""
    builder.table = random_table(builder, table)
    goal = goal_of(builder)

    def worst() -> float:
        return max(abs(float(count - goal.quotas.get(i, 0))) for i, count in builder.counts().items())

    before, debt = worst(), owed(builder, goal)
    builder.rebalance(seed, NOW)
    assert worst() <= before
    assert owed(builder, goal) <= debt


@slow
@given(builders(), seeds, st.data())
def test_the_same_changes_and_seeds_give_the_same_table(builder: Builder, seed: int, data: st.DataObject) -> None:
    builder.rebalance(seed, NOW)
    change(builder, data)
    twin = builder.copy()
    for now in (NOW + 1800, NOW + 7200, NOW + 14400):
        assert builder.rebalance(seed, now) == twin.rebalance(seed, now)
    assert builder == twin


# ---- one change at a time, in numbers


def totals(builder: Builder) -> tuple[int, int]:
    """Moves and passes that a change takes."""
    reports = finish(builder, NOW + 1)
    return sum(report.moves for report in reports), len(reports) - 1


def test_a_new_device_takes_its_share_and_nothing_else_moves() -> None:
    builder = builder_of(*ZONES, part_power=8)
    builder.rebalance(1, NOW)
    new = add(builder, 1, 5, 1, 1.0)
    before = holders(builder)
    assert totals(builder) == (153, 1)
    assert builder.counts()[new.id] == 153  # of 153.6: rounding up would be a move more
    assert all(column - old == Counter({new.id: 1}) or column == old for old, column in zip(before, holders(builder), strict=True))


@pytest.mark.parametrize("hours", [0, 1])
def test_weight_0_drains_and_removal_ends_with_the_device_gone(hours: int) -> None:
    builder = builder_of(*ZONES, (1, 5, 1, 1.0), hours=hours)
    builder.rebalance(1, NOW - HOUR_S)
    held = builder.counts()
    builder.set_weight(0, 0.0)
    report = builder.rebalance(1, NOW)
    assert (report.moves, report.waits.total, builder.counts()[0]) == (held[0], 0, 0)
    builder.remove(1)
    assert 1 in builder.counts()
    held = builder.counts()
    report = builder.rebalance(1, NOW + 1)  # partitions that moved a second ago too
    assert report.moves >= held[1]
    assert 1 not in builder.counts()


def test_replicas_moved_within_min_part_hours_wait_and_the_report_says_how_many_and_until_when() -> None:
    builder = builder_of(*ZONES, hours=2)
    builder.rebalance(1, NOW)
    add(builder, 1, 5, 1, 1.0)
    waiting = builder.rebalance(1, NOW + 100)
    assert (waiting.moves, waiting.lower_bound) == (0, 38)
    assert (waiting.waits.locked, waiting.waits.again, waiting.waits.stuck) == (38, 0, 0)
    assert waiting.waits.until == NOW + 2 * HOUR_S
    assert builder.rebalance(1, NOW + 2 * HOUR_S - 1).moves == 0
    assert builder.rebalance(1, NOW + 2 * HOUR_S).moves == 38


def test_until_is_when_the_last_of_those_that_wait_may_move() -> None:
    builder = builder_of(*ZONES, hours=1, part_power=3)
    builder.rebalance(1, NOW)
    builder.moved_at[:] = [int(NOW) + 10 * partition for partition in range(8)]
    builder.set_weight(0, 0.0)
    report = builder.rebalance(1, NOW + 60)
    mine = [partition for partition, column in enumerate(holders(builder)) if column[0]]
    assert report.waits.locked == len(mine) == 6
    assert report.waits.until == NOW + 10 * max(mine) + HOUR_S
    half = builder.copy()
    half.set_weight(0, 0.5)  # of the six three may stay: those that may move first go first
    report = half.rebalance(1, NOW + 60)
    assert report.waits.until == NOW + 10 * sorted(mine)[report.waits.locked - 1] + HOUR_S
    assert 0 < report.waits.locked < 6


def test_two_replicas_of_a_partition_leave_in_two_passes() -> None:
    builder = builder_of(*ZONES, (1, 5, 1, 1.0), (1, 6, 1, 1.0), (1, 7, 1, 1.0), part_power=8)
    builder.rebalance(1, NOW)
    for device_id in (0, 1):
        builder.set_weight(device_id, 0.0)
    both = sum(column[0] and column[1] for column in holders(builder))
    held = builder.counts()[0] + builder.counts()[1]
    first = builder.rebalance(1, NOW)
    assert both > 0
    assert (first.moves, first.lower_bound) == (held - both, held)
    assert (first.waits.again, first.waits.locked, first.waits.stuck) == (both, 0, 0)
    second = builder.rebalance(1, NOW)
    assert (second.moves, second.lower_bound, second.waits.total) == (both, both, 0)


@pytest.mark.parametrize(("replicas", "more"), [(2, 3), (2, 2.5), (1, 3.25), (3, 4), (2.5, 2.75)])
def test_more_replicas_get_places_and_no_other_moves(replicas: float, more: float) -> None:
    builder = builder_of(*ZONES, (1, 5, 1, 1.0), (1, 6, 1, 1.0), replicas=replicas)
    builder.rebalance(1, NOW)
    before = holders(builder)
    builder.set_replicas(more)
    assert totals(builder) == (int((more - replicas) * 64), 1)
    assert all(not old - new for old, new in zip(before, holders(builder), strict=True))
    assert owed(builder, goal_of(builder)) == 0


@pytest.mark.parametrize(("replicas", "fewer"), [(3, 2), (3, 2.5), (3.25, 1), (4, 3)])
def test_replicas_too_many_are_let_go_where_there_is_most(replicas: float, fewer: float) -> None:
    builder = builder_of(*ZONES, (1, 5, 1, 1.0), (1, 6, 1, 1.0), replicas=replicas)
    builder.rebalance(1, NOW)
    version = builder.version
    builder.set_replicas(fewer)
    total, _ = totals(builder)
    assert builder.version > version + 1
    assert builder.rows == [len(row) for row in builder.table]
    assert total <= 6  # the rows that are dropped are chosen well: next to nothing has to follow
    assert owed(builder, goal_of(builder)) == 0


def test_an_increased_part_power_keeps_the_devices_of_every_object() -> None:
    builder = builder_of(*ZONES, replicas=2.5, hours=1)
    builder.rebalance(1, NOW)
    before = [builder.holders(partition) for partition in range(64)]
    builder.prepare_increase_partition_power()
    builder.increase_partition_power()
    builder.finish_increase_partition_power()
    assert [builder.holders(partition) for partition in range(128)] == [before[partition // 2] for partition in range(128)]
    assert builder.rows == [128, 128, 64]
    assert builder.rebalance(2, NOW * 2).moves == 0


def test_more_new_replicas_than_legal_places_still_all_get_one() -> None:
    """A bug: where others of a partition stood in the way and might not move yet, the table kept entries with no device."""
    builder = builder_of((1, 1, 1, 1.0), (1, 1, 2, 1.0), (1, 2, 1, 1.0), (1, 2, 2, 1.0), part_power=5, replicas=2, hours=1)
    builder.rebalance(1, NOW)
    builder.set_zone(2, 1)
    builder.set_zone(1, 2)  # all of a partition may be in one zone now, and none may move
    builder.set_replicas(3)
    builder.rebalance(1, NOW + 1)
    assert not any((row == NO_DEVICE).any() for row in builder.table)
    builder.validate()
    finish(builder, NOW + 2 * HOUR_S)
    assert crowded_partitions(builder, goal_of(builder)) == 0


# ---- extremes


EDGES: dict[str, Callable[[], Builder]] = {
    "one device, one partition": lambda: builder_of((1, 1, 1, 1.0), part_power=0, replicas=1),
    "as many devices as replicas": lambda: builder_of(*ZONES[:3]),
    "two partitions, five replicas": lambda: builder_of(*ZONES, *ZONES, part_power=1, replicas=5),
    "a device outweighs all": lambda: builder_of(*ZONES, (1, 1, 1, 1e9)),
    "a zone outweighs all": lambda: builder_of(*ZONES, *[(1, 9, server, 1e9) for server in range(5)]),
    "hardly any weight": lambda: builder_of(*[(1, zone, 1, 1e-300) for zone in range(4)], (1, 5, 1, 5e-324)),
    "weights of all sizes": lambda: builder_of(*[(1, zone, 1, 10.0 ** (zone - 9)) for zone in range(19)], part_power=8),
    "more devices than replicas to hold": lambda: builder_of(*[(1, zone % 5, zone % 7, 1.0) for zone in range(99)], part_power=2),
    "a hundred replicas": lambda: builder_of(
        *[(zone % 2, zone % 7, zone, 1.0 + zone % 3) for zone in range(120)], part_power=3, replicas=100
    ),
}


@pytest.mark.parametrize("name", list(EDGES))
def test_edges(name: str) -> None:
    builder = EDGES[name]()
    for seed in range(3):
        made = builder.copy()
        made.rebalance(seed, NOW)
        made.validate()
        made.set_weight(0, 0.0 if weighty(made) > math.ceil(made.replicas) else 2.0)
        add(made, 1, 3, 1, 1.0)
        finish(made, NOW)
        goal = goal_of(made)
        assert owed(made, goal) == crowded_partitions(made, goal) == 0


def test_thousands_of_crowded_partitions() -> None:
    """A bug: of what no exchange by lot could mend, each one counted the whole table anew, which took minutes."""
    builder = builder_of(*[(1, zone, server, 1.0) for zone in range(5) for server in range(4) for _ in range(4)], part_power=11)
    builder.rebalance(1, NOW)
    for device in builder.present[: len(builder.present) // 2]:
        builder.set_zone(device.id, device.zone + 1)
    goal = goal_of(builder)
    assert crowded_partitions(builder, goal) > 300
    total, passes = totals(builder)
    assert crowded_partitions(builder, goal) == 0
    assert total < 1200 and passes <= 4


@pytest.mark.parametrize("replicas", [3, 2.5])
def test_all_devices_are_replaced_one_after_the_other(replicas: float) -> None:
    builder = builder_of(*ZONES, (1, 5, 1, 1.0), replicas=replicas, hours=1)
    now = NOW
    builder.rebalance(0, now)
    for number in range(5):
        now += HOUR_S
        add(builder, 1, number + 1, 1, 1.0)
        builder.remove(number)
        moves = sum(report.moves for report in finish(builder, now))
        assert builder.devices[number] is None
        assert moves <= sum(builder.rows) / 5 + 1
        now += 4 * HOUR_S


@slow
@given(builders(), seeds)
def test_no_pass_owes_more_than_the_one_before_left(builder: Builder, table: int) -> None:
    """Quotas are rounded anew for what devices hold then, which only helps."""
    builder.table = random_table(builder, table)
    for earlier, later in itertools.pairwise(finish(builder, NOW)):
        assert later.lower_bound <= earlier.waits.total

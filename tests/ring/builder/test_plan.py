"""Dry runs: tiny ones by hand, random ones against the rebalances that they foretell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring.builder.builder import Builder
from ring.builder.measure import Table
from ring.builder.plan import Flow, Load, moves_between, plan, replica_bytes
from ring.errors import BadInput, Conflict
from ring.placement import NO_DEVICE

NOW = 1_800_000_000.0


def table(*rows: list[int]) -> Table:
    return tuple(np.array(row, np.uint16) for row in rows)


def pairs(before: Table, after: Table) -> list[tuple[int, int]]:
    source, target = moves_between(before, after)
    return sorted((int(a), int(b)) for a, b in zip(source, target, strict=True))


def builder(zones: int = 3, *, part_power: int = 2, hours: int = 1, replicas: float = 3, placed: bool = True) -> Builder:
    """A device per zone, d0 in zone 1."""
    made = Builder.create(part_power, replicas, hours)
    for zone in range(1, zones + 1):
        add(made, zone)
    if placed:
        made.rebalance(1, NOW - 10 * 3600)
    return made


def add(to: Builder, zone: int, *, weight: float = 100, server: int = 1) -> None:
    to.add_device(region=1, zone=zone, ip=f"10.0.{zone}.{server}", port=6200, name=f"sd{len(to.devices)}", weight=weight)


def flows(found: list[Flow] | tuple[Flow, ...] | object, level: int) -> dict[int | str, tuple[int, int, int]]:
    assert isinstance(found, list)
    return {flow.tier[-1]: (flow.arrives, flow.leaves, flow.within) for flow in found if len(flow.tier) == level}


# ---- what differs between two tables


def test_a_move_is_a_replica_on_another_device() -> None:
    assert pairs(table([0, 1], [2, 2]), table([0, 1], [2, 2])) == []
    assert pairs(table([0, 1], [2, 2]), table([0, 3], [2, 2])) == [(1, 3)]
    assert pairs(table([0, 1], [2, 2]), table([2, 2], [0, 1])) == []  # the rows are in another order
    assert pairs(table([0, 1], [2, 2]), table([2, 2], [0, 3])) == [(1, 3)]
    assert pairs(table([0], [1], [2]), table([4], [1], [3])) == [(0, 4), (2, 3)]


def test_replicas_from_nowhere_and_to_nowhere() -> None:
    assert sorted(pairs((), table([0, 1], [1]))) == sorted([(NO_DEVICE, 0), (NO_DEVICE, 1), (NO_DEVICE, 1)])
    assert pairs(table([0, 0]), table([0, 0], [1, 2])) == [(NO_DEVICE, 1), (NO_DEVICE, 2)]
    assert pairs(table([0, 0], [1, 2]), table([0, 0], [1])) == [(2, NO_DEVICE)]
    assert pairs(table([0, 0], [1, 2]), table([0, 0], [3])) == [(1, 3), (2, NO_DEVICE)]
    assert pairs((), ()) == []


# ---- plans by hand


def test_a_fourth_zone_takes_its_quarter_from_the_three() -> None:
    made = builder()
    add(made, 4)
    planned = plan(made, now=NOW, load=Load(replica_bytes=10.0, rate=1.0))
    assert planned.complete and not planned.waits.total
    [one] = planned.passes
    assert (one.at_s, one.moves, one.lower_bound, one.created, one.dropped) == (0.0, 3, 3, 0, 0)
    assert flows(planned.flows, 2) == {1: (0, 1, 0), 2: (0, 1, 0), 3: (0, 1, 0), 4: (3, 0, 0)}
    assert flows(planned.flows, 1) == {1: (3, 3, 3)}
    assert one.busiest == (3, 3)
    assert (one.bytes, one.duration_s, planned.duration_s) == (30.0, 30.0, 30.0)
    assert (one.balance, one.dispersion) == (0.0, 0.0)


def test_the_builder_stays_as_it_is() -> None:
    made = builder()
    add(made, 4)
    before = made.copy()
    plan(made, now=NOW)
    assert made == before


def test_few_transfers_at_a_time_take_longer_than_the_busiest_device() -> None:
    made = builder(4, part_power=3)  # 24 replicas, 6 a device
    add(made, 1, server=2)
    add(made, 2, server=2)  # 4 a device: two give to each of the new
    alone = plan(made, now=NOW, load=Load(10.0, 1.0))
    one_by_one = plan(made, now=NOW, load=Load(10.0, 1.0, concurrency=1))
    assert alone.moves == one_by_one.moves == 8
    assert alone.passes[0].busiest is not None
    assert alone.passes[0].duration_s == 10.0 * alone.passes[0].busiest[1] < 80.0
    assert sum(one.duration_s or 0 for one in one_by_one.passes) == 80.0


def test_without_a_fill_there_are_no_bytes_and_without_a_rate_no_times() -> None:
    made = builder()
    add(made, 4)
    nothing, size = plan(made, now=NOW), plan(made, now=NOW, load=Load(5.0))
    assert (nothing.moves, nothing.bytes, nothing.duration_s) == (3, None, None)
    assert (size.bytes, size.duration_s) == (15.0, None)


def test_nothing_to_do() -> None:
    planned = plan(builder(), now=NOW)
    assert (list(planned.passes), planned.complete, planned.moves, planned.bytes, planned.duration_s) == ([], True, 0, 0, 0.0)


def test_the_first_placement_copies_nothing() -> None:
    planned = plan(builder(placed=False), now=NOW, load=Load(10.0, 1.0))
    [one] = planned.passes
    assert (one.moves, one.created, one.bytes, one.duration_s) == (12, 12, 0.0, 0.0)


def test_what_is_locked_waits_until_min_part_hours_have_passed() -> None:
    made = builder(hours=24)
    made.moved_at[:] = int(NOW) - 3600  # an hour ago
    add(made, 4)
    planned = plan(made, now=NOW)
    idle, moving = planned.passes
    assert (idle.at_s, idle.moves, idle.waits.locked) == (0.0, 0, 3)
    assert moving.at_s == pytest.approx(23 * 3600, abs=1)
    assert (moving.moves, planned.complete) == (3, True)


def test_a_pass_does_not_start_before_the_bytes_of_the_one_before_have_moved() -> None:
    made = builder(hours=1)
    made.set_replicas(1)
    made.rebalance(1, NOW - 5 * 3600)
    made.set_replicas(3)
    add(made, 4)
    made.remove(0)
    made.remove(1)
    add(made, 5)
    add(made, 6)
    quick, slow = (plan(made, now=NOW, load=Load(1.0, rate)) for rate in (1e9, 1e-5))
    assert len(quick.passes) == len(slow.passes) > 1
    assert [one.moves for one in quick.passes] == [one.moves for one in slow.passes]
    first = slow.passes[0].duration_s
    assert first is not None and first > 3600
    assert slow.passes[1].at_s == pytest.approx(first, abs=1)
    assert quick.passes[1].at_s == pytest.approx(3600, abs=1)
    assert slow.duration_s == pytest.approx(slow.passes[-1].at_s + (slow.passes[-1].duration_s or 0))


def test_more_and_fewer_replicas() -> None:
    made = builder(replicas=2)
    made.set_replicas(3)
    more = plan(made, now=NOW, load=Load(10.0))
    assert (more.moves, sum(one.created for one in more.passes)) == (4, 4)
    assert more.bytes == 40.0  # copied from another replica
    made = builder(replicas=3)
    made.set_replicas(2)
    fewer = plan(made, now=NOW, load=Load(10.0))
    assert sum(one.dropped for one in fewer.passes) == 4
    assert fewer.moves == 0 and fewer.bytes == 0.0


def test_as_many_passes_as_asked_for() -> None:
    made = builder(hours=24)
    made.moved_at[:] = int(NOW) - 3600
    add(made, 4)
    planned = plan(made, now=NOW, passes=1)
    assert (len(planned.passes), planned.complete, planned.waits.locked) == (1, False, 3)


def test_errors_are_those_of_a_rebalance() -> None:
    with pytest.raises(BadInput, match="3 replicas need"):
        plan(builder(2, placed=False), now=NOW)
    made = builder()
    made.prepare_increase_partition_power()
    with pytest.raises(Conflict):
        plan(made, now=NOW)


def test_the_size_of_a_replica() -> None:
    made = builder(4)  # 12 replicas on 4 devices, 3 on each
    assert replica_bytes(made, device_bytes=300.0) == 100.0
    assert replica_bytes(made, total_bytes=400.0) == 100.0  # 4 partitions
    add(made, 5)  # holds nothing yet
    assert replica_bytes(made, device_bytes=300.0) == 100.0
    assert replica_bytes(builder(4, placed=False), device_bytes=300.0) == 100.0


@pytest.mark.parametrize("load", [(-1.0, 1.0, None), (float("nan"), 1.0, None), (1.0, 0.0, None), (1.0, 1.0, 0)])
def test_nonsense_is_refused(load: tuple[float, float, int | None]) -> None:
    with pytest.raises(BadInput):
        Load(*load)


# ---- random rings


@st.composite
def changed(draw: st.DrawFn) -> Builder:
    made = Builder.create(draw(st.integers(2, 5)), draw(st.sampled_from([1, 2, 2.5, 3])), draw(st.integers(0, 2)))
    for _ in range(draw(st.integers(4, 8))):
        add(made, draw(st.integers(1, 3)), weight=draw(st.sampled_from([50, 100, 200])), server=draw(st.integers(1, 2)))
    made.rebalance(draw(st.integers(0, 9)), NOW - draw(st.sampled_from([0, 1800, 9000])))
    for _ in range(draw(st.integers(0, 2))):
        add(made, draw(st.integers(1, 4)), weight=draw(st.sampled_from([50, 100])), server=3)
    if draw(st.booleans()):
        made.set_weight(draw(st.integers(0, 3)), draw(st.sampled_from([0.0, 10.0, 300.0])))
    if draw(st.booleans()):
        made.remove(draw(st.integers(0, 3)))
    return made


@settings(max_examples=60, deadline=None)
@given(changed(), st.integers(0, 5))
def test_a_plan_is_what_then_happens(made: Builder, seed: int) -> None:
    try:
        made.copy().rebalance(seed, NOW)
    except BadInput:
        return  # too few devices with weight
    before = made.counts()
    planned = plan(made, now=NOW, seed=seed, load=Load(7.0, 100.0))
    assert planned.complete
    for one in planned.passes:
        report = made.rebalance(seed, NOW + one.at_s)
        assert (one.moves, one.lower_bound, one.waits) == (report.moves, report.lower_bound, report.waits)
        assert (one.balance, one.dispersion) == (report.balance, report.dispersion)
    made.rebalance(seed, NOW + 1e7)
    after = made.counts()
    devices = {flow.tier[-1]: flow for flow in planned.flows if len(flow.tier) == 4}
    for device_id, held in before.items():
        flow = devices.get(device_id)
        assert after.get(device_id, 0) - held == (flow.arrives - flow.leaves if flow else 0)
    for level in (1, 2, 3):
        assert sum(f.arrives for f in planned.flows if len(f.tier) == level) == sum(f.arrives for f in devices.values())
        assert sum(f.leaves for f in planned.flows if len(f.tier) == level) == sum(f.leaves for f in devices.values())
    assert planned.bytes == 7.0 * planned.moves

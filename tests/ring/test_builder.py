"""The builder's promises, on random clusters: legal, balanced, spread, slow to move, the same from the same seed."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring.builder import HOUR_S, Builder
from ring.device import Device
from ring.errors import BadInput, Conflict, NotFound
from ring.names import NameHasher
from ring.quota import targets

HASHER = NameHasher(b"p", b"s")
NOW = 1_700_000_000.0


def builder_of(*devices: tuple[int, int, int, float], part_power: int = 6, replicas: float = 3, hours: int = 0) -> Builder:
    """Devices as (region, zone, server, weight)."""
    builder = Builder.create(part_power, replicas, hours)
    for index, (region, zone, server, weight) in enumerate(devices):
        add(builder, region, zone, server, weight, f"d{index}")
    return builder


def add(builder: Builder, region: int, zone: int, server: int, weight: float, name: str) -> Device:
    return builder.add_device(region=region, zone=zone, ip=f"10.{region}.{zone}.{server}", port=6200, name=name, weight=weight)


device_lists = st.lists(
    st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), st.sampled_from([0.5, 1.0, 1.0, 2.0, 100.0])),
    min_size=4,
    max_size=12,
)


@dataclass
class Snapshot:
    rows: list[list[int]]

    @classmethod
    def of(cls, builder: Builder) -> Snapshot:
        return cls([list(row) for row in builder.table])

    def moves_per_partition(self, later: Snapshot) -> list[int]:
        return [
            sum(a != b for a, b in zip(old, new, strict=True))
            for old, new in zip(zip(*self.rows, strict=True), zip(*later.rows, strict=True), strict=True)
        ]


@settings(deadline=None, max_examples=60)
@given(device_lists, st.sampled_from([1, 2, 2.5, 3, 3.25]), st.integers(0, 2**32))
def test_first_placement_is_within_one_and_spread_as_evenly_as_can_be(
    devices: list[tuple[int, int, int, float]], replicas: float, seed: int
) -> None:
    builder = builder_of(*devices, replicas=replicas)
    report = builder.rebalance(seed, NOW)
    builder.validate()
    assert report.moves == sum(builder.rows)
    assert report.dispersion == 0
    shares = targets(builder.present, sum(builder.rows), builder.partition_count).shares
    assert all(abs(float(count - shares[i])) < 1 for i, count in builder.counts().items())


@settings(deadline=None, max_examples=40)
@given(device_lists, st.integers(0, 1000), st.data())
def test_changes_are_followed_one_replica_of_a_partition_at_a_time(
    devices: list[tuple[int, int, int, float]], seed: int, data: st.DataObject
) -> None:
    builder = builder_of(*devices, (1, 9, 1, 1.0), (2, 9, 2, 1.0))
    builder.rebalance(seed, NOW)
    match data.draw(st.sampled_from(["add", "remove", "weight"])):
        case "add":
            add(builder, *data.draw(device_lists)[0], "new")
        case "remove":
            builder.remove(data.draw(st.integers(0, len(devices) - 1)))
        case _:
            builder.set_weight(data.draw(st.integers(0, len(devices) - 1)), data.draw(st.sampled_from([0.0, 0.25, 3.0])))
    for step in range(12):
        before = Snapshot.of(builder)
        report = builder.rebalance(seed + step, NOW)
        builder.validate()
        moves = before.moves_per_partition(Snapshot.of(builder))
        assert max(moves) <= 1
        assert report.moves == sum(moves)
        if report.moves == 0:
            break
    shares = targets(builder.present, sum(builder.rows), builder.partition_count).shares
    assert all(abs(float(count - shares.get(i, 0))) < 1 for i, count in builder.counts().items())
    assert not builder.removed


def test_the_same_seed_gives_the_same_table() -> None:
    one, two, other = (builder_of(*[(1, z, s, 1.0) for z in (1, 2, 3) for s in (1, 2)]) for _ in range(3))
    for builder, seed in ((one, 7), (two, 7), (other, 8)):
        builder.rebalance(seed, NOW)
        add(builder, 1, 4, 1, 1.0, "late")
        builder.rebalance(seed, NOW)
    assert one.table == two.table
    assert one.table != other.table


def test_a_new_device_takes_its_share_and_nothing_else_moves() -> None:
    builder = builder_of(*[(1, z, 1, 1.0) for z in range(1, 5)], part_power=8)
    builder.rebalance(1, NOW)
    new = add(builder, 1, 5, 1, 1.0, "new")
    total = 0
    while report := builder.rebalance(1, NOW):
        total += report.moves
        if not report.moves:
            break
    assert builder.counts()[new.id] in (153, 154)
    assert total == builder.counts()[new.id]
    assert report.dispersion == 0


def test_scatter_width_is_wide() -> None:
    builder = builder_of(*[(1, z, s, 1.0) for z in (1, 2, 3) for s in (1, 2, 3, 4)], part_power=10)
    builder.rebalance(3, NOW)
    partners: dict[int, set[int]] = {}
    for holders in zip(*builder.table, strict=True):
        for device_id in holders:
            partners.setdefault(device_id, set()).update(set(holders) - {device_id})
    assert min(len(p) for p in partners.values()) == 8  # every device of the two other zones


def test_min_part_hours_hold_moves_back_unless_the_device_was_removed() -> None:
    builder = builder_of(*[(1, z, 1, 1.0) for z in range(1, 5)], hours=1)
    builder.rebalance(1, NOW)
    add(builder, 1, 5, 1, 1.0, "new")
    first = builder.rebalance(1, NOW)
    assert first.moves == 38
    builder.set_weight(0, 0.0)
    at_once = builder.rebalance(2, NOW + 10)
    assert builder.hours_left(NOW + 10) == pytest.approx(1.0)
    held = builder.counts()[0]
    assert 0 < held <= 38  # those that moved a moment ago stay
    later = builder.rebalance(3, NOW + 11 + HOUR_S)
    assert later.moves >= held
    assert builder.counts()[0] == 0
    builder.remove(1)
    builder.rebalance(4, NOW + 12 + HOUR_S)
    assert builder.devices[1] is None
    assert at_once.version < later.version < builder.version


def test_a_weight_too_big_for_one_replica_per_partition_is_capped() -> None:
    builder = builder_of((1, 1, 1, 1000.0), (1, 2, 1, 1.0), (1, 3, 1, 2.0), (1, 4, 1, 1.0))
    builder.rebalance(1, NOW)
    assert builder.counts() == {0: 64, 1: 32, 2: 64, 3: 32}


def test_fewer_devices_than_replicas_is_refused_and_changes_nothing() -> None:
    builder = builder_of(*[(1, z, 1, 1.0) for z in range(1, 4)])
    builder.rebalance(1, NOW)
    builder.remove(0)
    before = copy.deepcopy(builder)
    with pytest.raises(BadInput, match="3 replicas need at least 3 devices"):
        builder.rebalance(1, NOW)
    assert builder == before


def test_operations_refuse_what_makes_no_sense() -> None:
    builder = builder_of((1, 1, 1, 1.0))
    with pytest.raises(Conflict, match="in the ring already"):
        add(builder, 1, 1, 1, 1.0, "d0")
    with pytest.raises(NotFound):
        builder.set_weight(5, 1.0)
    with pytest.raises(BadInput):
        builder.set_weight(0, float("nan"))
    with pytest.raises(Conflict, match="nothing is placed"):
        builder.ring(HASHER)
    for arguments in ((25, 3, 1), (-1, 3, 1), (4, 0, 1), (4, float("inf"), 1), (4, 3, -1)):
        with pytest.raises(BadInput):
            Builder.create(*arguments)


def test_a_device_that_never_held_anything_is_gone_at_once_and_its_id_stays_free() -> None:
    builder = builder_of((1, 1, 1, 1.0), (1, 2, 1, 1.0))
    builder.remove(1)
    assert builder.devices[1] is None
    assert add(builder, 1, 2, 1, 1.0, "again").id == 2


def test_the_ring_says_what_the_table_says() -> None:
    builder = builder_of(*[(1, z, 1, 1.0) for z in range(1, 5)], replicas=2.5)
    builder.rebalance(1, NOW)
    ring = builder.ring(HASHER)
    assert [len(ring.primaries(p)) for p in (0, 31, 32, 63)] == [3, 3, 2, 2]
    assert ring.version == builder.version
    builder.table[0][0] = builder.table[1][0]
    assert ring.primaries(0)[0] != ring.primaries(0)[1]  # a ring does not change with its builder
    with pytest.raises(Conflict, match="two replicas on one device"):
        builder.validate()

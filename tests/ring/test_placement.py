"""Which devices hold a partition, and which stand in for them."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring.device import Device
from ring.names import NameHasher, Path
from ring.placement import NO_DEVICE, Ring

HASHER = NameHasher(b"", b"")


def device(number: int, region: int, zone: int, server: int, weight: float = 1.0) -> Device:
    return Device(number, region, zone, f"10.0.0.{server}", 6200, f"d{number}", weight)


RING = Ring(
    version=1,
    part_power=2,
    devices=(
        device(0, 1, 1, 1),
        device(1, 1, 2, 2),
        device(2, 1, 1, 1),  # the same server as 0
        device(3, 1, 1, 3),  # the same zone as 0
        device(4, 1, 3, 4),  # a zone of its own
        device(5, 2, 1, 5),  # a region of its own
        device(6, 3, 1, 6, weight=0.0),
        None,
    ),
    table=(array("H", [0, 1, 2, 3]), array("H", [1, 2, NO_DEVICE, 0]), array("H", [4])),
    hasher=HASHER,
)


@pytest.mark.parametrize(("partition", "ids"), [(0, [0, 1, 4]), (1, [1, 2]), (2, [2]), (3, [3, 0])])
def test_primaries(partition: int, ids: list[int]) -> None:
    assert [d.id for d in RING.primaries(partition)] == ids


def test_handoffs_are_all_the_others_most_unlike_first() -> None:
    ids = [d.id for d in RING.handoffs(0)]
    assert ids == [5, 3, 2]
    assert [d.id for d in RING.handoffs(0)] == ids
    assert next(d.id for d in RING.handoffs(3)) == 5
    assert {d.id for d in RING.handoffs(3)} == {1, 2, 4, 5}


def ring_of(devices: list[Device | None], *rows: int, part_power: int = 16) -> Ring:
    """All partitions have the same primaries: ``rows`` by id."""
    table = tuple(array("H", [device_id]) * (1 << part_power) for device_id in rows)
    return Ring(1, part_power, tuple(devices), table, HASHER)


def order(ring: Ring, partition: int) -> list[int]:
    return [d.id for d in ring.handoffs(partition)]


def one_server(weights: list[float]) -> list[Device | None]:
    return [device(number, 1, 1, 1, weight) for number, weight in enumerate(weights)]


weights = st.sampled_from([0.0, 0.5, 1.0, 1.0, 1.0, 2.0, 3.5, 100.0])
places = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), weights)
partitions = st.integers(0, 2**16 - 1)


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), places), min_size=1, max_size=80), partitions, st.data())
def test_handoffs_are_the_other_devices_each_as_unlike_what_came_before_as_can_be(
    given_places: list[tuple[int, int, int, float] | None], partition: int, data: st.DataObject
) -> None:
    devices = [place and device(i, *place) for i, place in enumerate(given_places)]
    present = [d for d in devices if d is not None]
    primaries = data.draw(st.lists(st.sampled_from(present), max_size=4, unique_by=lambda d: d.id)) if present else []
    ring = ring_of(devices, *[d.id for d in primaries])
    left = {d.id: d for d in present if d.weight > 0 and d not in primaries}
    before = list(primaries)

    def newness(d: Device) -> tuple[bool, bool, bool]:
        return (
            d.region not in {b.region for b in before},
            (d.region, d.zone) not in {(b.region, b.zone) for b in before},
            (d.region, d.zone, d.ip) not in {(b.region, b.zone, b.ip) for b in before},
        )

    for handoff in ring.handoffs(partition):
        assert newness(handoff) == max(newness(d) for d in left.values())
        del left[handoff.id]
        before.append(handoff)
    assert not left


@pytest.mark.parametrize("count", [1, 2, 3, 17, 300])
def test_every_partition_has_an_order_of_its_own_and_keeps_it(count: int) -> None:
    devices = one_server([1.0] * (count + 1))
    ring, again = ring_of(devices, 0), ring_of(devices, 0)
    orders = {tuple(order(ring, p)) for p in range(50)}
    assert orders == {tuple(order(again, p)) for p in range(50)}
    assert len(orders) >= min(50, count) - 1
    assert len(list(islice(ring.handoffs(7), 3))) == min(3, count)


def test_the_order_is_the_same_on_all_machines() -> None:
    """Nodes of one cluster may run on unlike machines; a change of this order is a change that they must make together."""
    devices: list[Device | None] = [device(i, 1 + i % 2, i % 5, i % 20, 1 + i % 3) for i in range(60)]
    ring = ring_of(devices, 0, 1)
    assert [order(ring, p)[:10] for p in (0, 1, 65535)] == [
        [56, 44, 8, 53, 57, 19, 2, 25, 30, 18],
        [38, 26, 3, 5, 22, 34, 57, 19, 8, 31],
        [25, 22, 38, 3, 57, 14, 46, 59, 4, 32],
    ]
    assert [order(ring, p)[-3:] for p in (0, 1, 65535)] == [[48, 3, 21], [54, 33, 27], [39, 24, 30]]


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.5, 1.0, 2.0, 4.0]), min_size=5, max_size=70), partitions, st.data())
def test_a_device_that_comes_or_goes_leaves_the_order_of_the_others(
    light: list[float], partition: int, data: st.DataObject
) -> None:
    """As long as the number of ids and the largest weight stay between the same powers of two."""
    devices = one_server([4.0, 4.0, *light])
    gone = data.draw(st.integers(1, len(devices) - 2))
    without = [None if d is not None and d.id == gone else d for d in devices]
    ring = ring_of(devices, 0)
    assert order(ring_of(without, 0), partition) == [i for i in order(ring, partition) if i != gone]
    drained = replace(ring, devices=tuple(d and replace(d, weight=0.0 if d.id == gone else d.weight) for d in devices))
    assert order(drained, partition) == order(ring_of(without, 0), partition)


@pytest.mark.parametrize("primary_weight", [4.0, 100.0])  # beside one so heavy, few draws take a device: the sorted ones come soon
@pytest.mark.parametrize(("count", "which"), [(4, 0), (60, 0), (60, 1), (600, 0), (600, 1)])
def test_the_first_handoffs_fall_on_devices_by_their_weight(count: int, which: int, primary_weight: float) -> None:
    pattern = [1.0, 2.0, 4.0, 3.0]
    ring = ring_of([device(0, 1, 1, 1, primary_weight), *one_server(pattern * (count // 4))[1:]], 0)
    weight_of = {d.id: d.weight for d in ring.devices if d is not None and d.id}
    seen = Counter[float]()
    tries = 6000
    for partition in range(tries):
        seen[weight_of[next(islice(ring.handoffs(partition), which, None)).id]] += 1
    total = sum(weight_of.values())
    for weight in set(pattern):
        share = sum(w for w in weight_of.values() if w == weight) / total
        assert abs(seen[weight] / tries - share) < 0.04, weight


def test_what_one_lost_device_leaves_goes_to_all_of_another_zone() -> None:
    """Device 0's partitions have their second replica in zone 2; zone 3, of 3 servers with unlike weights, stands in."""
    zone = [device(2 + i, 1, 3, 10 + i // 10, 1.0 + i // 10) for i in range(30)]
    ring = ring_of([device(0, 1, 1, 1), device(1, 1, 2, 2), *zone], 0, 1)
    first = Counter(next(ring.handoffs(p)).ip for p in range(6000))
    shares = {"10.0.0.10": 1 / 6, "10.0.0.11": 2 / 6, "10.0.0.12": 3 / 6}
    assert all(abs(first[ip] / 6000 - share) < 0.02 for ip, share in shares.items())


def test_weights_of_any_size_have_an_order() -> None:
    devices = one_server([5e-324, 1e308, 1.7e308, 1.0, 0.0, 5e-324])
    assert sorted(order(ring_of(devices, 3), 0)) == [0, 1, 2, 5]
    assert order(ring_of([]), 0) == []


def test_a_removed_device_is_no_primary() -> None:
    with pytest.raises(KeyError):
        ring_of([device(0, 1, 1, 1), None], 0, 1).primaries(0)


def test_partition_and_counts() -> None:
    assert RING.partition_count == 4
    assert RING.replica_count == 3
    assert 0 <= RING.partition(Path("a", "c", "o")) < 4
    with pytest.raises(KeyError):
        RING.device(7)

"""The builder's operations: what they do, what they refuse, and that a refusal changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring.builder.builder import BALANCE_MAX, HOUR_S, REPLICAS_MAX, Builder
from ring.builder.builderfile import decode_builder, encode_builder
from ring.device import Device
from ring.errors import BadInput, Conflict, NotFound
from ring.names import NameHasher
from ring.placement import NO_DEVICE, PART_POWER_MAX
from tests.ring.builder.ground import NOW, Spot, add, builder_of, builders

HASHER = NameHasher(b"p", b"s")
ZONES: list[Spot] = [(1, zone, 1, 1.0) for zone in (1, 2, 3, 4)]


def placed(*where: Spot, replicas: float = 3, hours: int = 0) -> Builder:
    builder = builder_of(*(where or ZONES), replicas=replicas, hours=hours)
    builder.rebalance(1, NOW)
    return builder


# ---- what is refused


def being_increased(builder: Builder) -> Builder:
    builder.prepare_increase_partition_power()
    return builder


def increased(builder: Builder) -> Builder:
    builder.prepare_increase_partition_power()
    builder.increase_partition_power()
    return builder


def without(builder: Builder, *device_ids: int) -> Builder:
    for device_id in device_ids:
        builder.remove(device_id)
    return builder


def again(builder: Builder, **other: object) -> object:
    fields = {"region": 1, "zone": 1, "ip": "10.1.1.1", "port": 6200, "name": "x", "weight": 1.0} | other
    return builder.add_device(**fields)  # type: ignore[arg-type]


REFUSED: dict[str, tuple[type[Exception], str, Callable[[], Builder], Callable[[Builder], object]]] = {
    "same device": (Conflict, "in the ring already", placed, lambda b: again(b, name="d0")),
    "same device elsewhere": (Conflict, "in the ring already", placed, lambda b: again(b, name="d0", region=7, zone=8)),
    "id taken": (Conflict, "id 0 is taken", placed, lambda b: again(b, device_id=0)),
    "id too great": (BadInput, "device ids", placed, lambda b: again(b, device_id=NO_DEVICE)),
    "id below 0": (BadInput, "device ids", placed, lambda b: again(b, device_id=-1)),
    "no name": (BadInput, "not a device", placed, lambda b: again(b, name="")),
    "no address": (BadInput, "not a device", placed, lambda b: again(b, ip="")),
    "a name with a folder": (BadInput, "not a device", placed, lambda b: again(b, name="a/b")),
    "a name with a space": (BadInput, "not a device", placed, lambda b: again(b, name="a b")),
    "port": (BadInput, "not a device", placed, lambda b: again(b, port=65536)),
    "replication port": (BadInput, "not a device", placed, lambda b: again(b, replication_port=65536)),
    "region": (BadInput, "not a device", placed, lambda b: again(b, region=-1)),
    "new weight": (BadInput, "a weight is", placed, lambda b: again(b, weight=-1.0)),
    "weight nan": (BadInput, "a weight is", placed, lambda b: b.set_weight(0, math.nan)),
    "weight infinite": (BadInput, "a weight is", placed, lambda b: b.set_weight(0, math.inf)),
    "weight below 0": (BadInput, "a weight is", placed, lambda b: b.set_weight(0, -1e-9)),
    "weight of nothing": (NotFound, "no device d9", placed, lambda b: b.set_weight(9, 1.0)),
    "weight of a negative id": (NotFound, "no device d-1", placed, lambda b: b.set_weight(-1, 1.0)),
    "weight of a removed device": (Conflict, "is being removed", lambda: without(placed(), 0), lambda b: b.set_weight(0, 2.0)),
    "zone": (BadInput, "not a device", placed, lambda b: b.set_zone(0, -1)),
    "zone of nothing": (NotFound, "no device", placed, lambda b: b.set_zone(4, 1)),
    "region of nothing": (NotFound, "no device", placed, lambda b: b.set_region(4, 1)),
    "info of nothing": (NotFound, "no device", placed, lambda b: b.set_info(4, meta="x")),
    "info of another": (Conflict, "in the ring already", placed, lambda b: b.set_info(0, ip="10.1.2.1", name="d1")),
    "removal of nothing": (NotFound, "no device", placed, lambda b: b.remove(4)),
    "hours": (BadInput, "min part hours", placed, lambda b: b.set_min_part_hours(-1)),
    "replicas 0": (BadInput, "replicas are", placed, lambda b: b.set_replicas(0.99)),
    "replicas nan": (BadInput, "replicas are", placed, lambda b: b.set_replicas(math.nan)),
    "replicas too many": (BadInput, "replicas are", placed, lambda b: b.set_replicas(REPLICAS_MAX + 0.5)),
    "overload below 0": (BadInput, "an overload is", placed, lambda b: b.set_overload(-0.1)),
    "overload nan": (BadInput, "an overload is", placed, lambda b: b.set_overload(math.nan)),
    "more replicas than devices": (BadInput, "3 replicas need", lambda: without(placed(), 0, 1), lambda b: b.rebalance(1, NOW)),
    "no devices": (BadInput, "3 replicas need", builder_of, lambda b: b.rebalance(1, NOW)),
    "fewer after a change": (BadInput, "5 replicas need", lambda: _more(placed(), 4.5), lambda b: b.rebalance(1, NOW)),
    "ring of nothing": (Conflict, "nothing is placed", lambda: builder_of(*ZONES), lambda b: b.ring(HASHER)),
    "certificate of nothing": (Conflict, "nothing is placed", lambda: builder_of(*ZONES), Builder.certificate),
    "rebalance while prepared": (Conflict, "is being increased", lambda: being_increased(placed()), lambda b: b.rebalance(1, NOW)),
    "rebalance while increased": (Conflict, "is being increased", lambda: increased(placed()), lambda b: b.rebalance(1, NOW)),
    "prepared twice": (Conflict, "is under way", lambda: being_increased(placed()), Builder.prepare_increase_partition_power),
    "increase unprepared": (Conflict, "no increase is prepared", placed, Builder.increase_partition_power),
    "increased twice": (Conflict, "is increased already", lambda: increased(placed()), Builder.increase_partition_power),
    "cancel nothing": (Conflict, "no increase is prepared", placed, Builder.cancel_increase_partition_power),
    "cancel too late": (Conflict, "cannot be taken back", lambda: increased(placed()), Builder.cancel_increase_partition_power),
    "finish nothing": (Conflict, "no increase is prepared", placed, Builder.finish_increase_partition_power),
    "finish too early": (
        Conflict,
        "is not increased yet",
        lambda: being_increased(placed()),
        Builder.finish_increase_partition_power,
    ),
}


def _more(builder: Builder, replicas: float) -> Builder:
    builder.set_replicas(replicas)
    return builder


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_is_refused_changes_nothing(name: str) -> None:
    error, words, make, operate = REFUSED[name]
    builder = make()
    before = encode_builder(builder)
    with pytest.raises(error, match=words):
        operate(builder)
    assert encode_builder(builder) == before


@pytest.mark.parametrize(
    "arguments", [(PART_POWER_MAX + 1, 3, 1), (-1, 3, 1), (4, 0, 1), (4, math.inf, 1), (4, math.nan, 1), (4, 3, -1)]
)
def test_what_cannot_be_created(arguments: tuple[int, float, int]) -> None:
    with pytest.raises(BadInput):
        Builder.create(*arguments)


def test_the_greatest_part_power_is_not_increased() -> None:
    builder = Builder.create(2, 1, 0)
    builder.part_power = PART_POWER_MAX
    with pytest.raises(BadInput, match="at most"):
        builder.prepare_increase_partition_power()


# ---- what is done

SAME: dict[str, Callable[[Builder], bool]] = {
    "weight": lambda b: b.set_weight(0, 1.0),
    "zone": lambda b: b.set_zone(0, 1),
    "region": lambda b: b.set_region(0, 1),
    "info": lambda b: b.set_info(0, name="d0", meta=""),
    "hours": lambda b: b.set_min_part_hours(0),
    "replicas": lambda b: b.set_replicas(3.0),
    "overload": lambda b: b.set_overload(0.0),
}
OTHER: dict[str, Callable[[Builder], bool]] = {
    "weight": lambda b: b.set_weight(0, 1.5),
    "zone": lambda b: b.set_zone(0, 2),
    "region": lambda b: b.set_region(0, 2),
    "info": lambda b: b.set_info(0, meta="new"),
    "hours": lambda b: b.set_min_part_hours(1),
    "replicas": lambda b: b.set_replicas(2.5),
    "overload": lambda b: b.set_overload(0.5),
}


@pytest.mark.parametrize("name", list(SAME))
def test_what_was_so_already_is_no_change(name: str) -> None:
    builder = placed()
    before = encode_builder(builder)
    assert not SAME[name](builder)
    assert encode_builder(builder) == before


@pytest.mark.parametrize("name", list(OTHER))
def test_a_change_is_another_version_and_moves_nothing_by_itself(name: str) -> None:
    builder = placed()
    version, rows = builder.version, [row.tolist() for row in builder.table]
    assert OTHER[name](builder)
    assert builder.version == version + 1
    assert [row.tolist() for row in builder.table] == rows


def test_an_address_that_replication_does_not_have_apart_is_changed_with_it() -> None:
    builder = placed()
    builder.set_info(0, ip="10.9.9.9", port=7000)
    assert (builder.device(0).replication_ip, builder.device(0).replication_port) == ("10.9.9.9", 7000)
    builder.set_info(0, replication_ip="10.8.8.8", replication_port=7001)
    builder.set_info(0, ip="10.7.7.7", port=7002)
    assert (builder.device(0).ip, builder.device(0).port) == ("10.7.7.7", 7002)
    assert (builder.device(0).replication_ip, builder.device(0).replication_port) == ("10.8.8.8", 7001)


def test_a_removed_device_that_holds_nothing_is_gone_with_the_next_rebalance_and_its_id_stays_free() -> None:
    builder = placed()
    new = add(builder, 1, 5, 1, 1.0)
    builder.remove(new.id)
    version = builder.version
    assert builder.rebalance(1, NOW).moves == 0
    assert builder.devices[new.id] is None
    assert builder.version == version + 1  # nothing moved, but the ring has a device less
    assert add(builder, 1, 5, 1, 1.0).id == new.id + 1
    assert add_at(builder, new.id).id == new.id  # unless it is asked for
    assert add_at(builder, 20).id == 20
    assert builder.devices[7:20] == [None] * 13


def add_at(builder: Builder, device_id: int) -> Device:
    return builder.add_device(region=1, zone=1, ip="10.0.0.9", port=1, name=f"at{device_id}", weight=1.0, device_id=device_id)


def test_a_part_power_step_by_step() -> None:
    builder = placed(replicas=2.5, hours=3)
    rows, moved_at = [row.tolist() for row in builder.table], builder.moved_at.tolist()
    builder.prepare_increase_partition_power()
    assert builder.part_power == 6
    assert builder.ring(HASHER).next_part_power == 7
    builder.cancel_increase_partition_power()
    assert builder.next_part_power is None
    builder.prepare_increase_partition_power()
    builder.increase_partition_power()
    assert (builder.part_power, builder.partition_count) == (7, 128)
    assert [row.tolist() for row in builder.table] == [[device_id for device_id in row for _ in (0, 1)] for row in rows]
    assert builder.moved_at.tolist() == [second for second in moved_at for _ in (0, 1)]
    builder.finish_increase_partition_power()
    assert builder.next_part_power is None
    builder.validate()


def test_hours_left() -> None:
    builder = builder_of(*ZONES, hours=2)
    assert builder.hours_left(NOW) == 0
    builder.rebalance(1, NOW)
    assert builder.hours_left(NOW + HOUR_S / 2) == pytest.approx(1.5)
    assert builder.hours_left(NOW + 3 * HOUR_S) == 0
    builder.pretend_min_part_hours_passed()
    assert builder.hours_left(NOW + 1) == 0
    builder.set_weight(0, 0.5)
    assert builder.rebalance(1, NOW + 1).waits.total == 0


def test_balance_is_percent_off_the_share() -> None:
    builder = placed()
    assert builder.balance() == 0
    builder.set_weight(0, 0.0)
    assert builder.device_balance() == {0: BALANCE_MAX, 1: -25.0, 2: -25.0, 3: -25.0}
    assert builder.balance() == BALANCE_MAX
    assert builder_of(*ZONES).balance() == 0


@settings(deadline=None)
@given(builders(), st.integers(0, 99))
def test_a_copy_is_the_same_and_lives_its_own_life(builder: Builder, seed: int) -> None:
    builder.rebalance(seed, NOW)
    before = encode_builder(builder)
    other = builder.copy()
    assert other == builder and encode_builder(other) == before
    other.table[0][:] = other.table[0][::-1].copy()
    other.moved_at[:] = 7
    other.set_weight(0, 77.0)
    other.remove(1 % len(other.devices))
    add(other, 1, 1, 1, 5.0)
    assert encode_builder(builder) == before
    assert other != builder


@settings(deadline=None)
@given(builders(), st.integers(0, 99))
def test_a_builder_that_was_stored_goes_on_as_if_it_had_not_been(builder: Builder, seed: int) -> None:
    builder.rebalance(seed, NOW)
    builder.set_weight(0, 3.0)
    stored = decode_builder(encode_builder(builder))
    assert stored.rebalance(seed, NOW + 9999) == builder.rebalance(seed, NOW + 9999)
    assert stored == builder


# ---- validate, and the ring


def broken(change: Callable[[Builder], None]) -> Builder:
    builder = placed()
    change(builder)
    return builder


def twice(builder: Builder) -> None:
    builder.table[0][0] = builder.table[1][0]


def short(builder: Builder) -> None:
    builder.table = (builder.table[0][:-1], *builder.table[1:])


def unknown(builder: Builder) -> None:
    builder.table[2][5] = 9


def nowhere(builder: Builder) -> None:
    builder.table[2][5] = NO_DEVICE


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (twice, Conflict, "two replicas on one device"),
        (short, Conflict, "one entry for each partition"),
        (unknown, NotFound, "no device d9"),
        (nowhere, NotFound, "no device"),
    ],
)
def test_validate(change: Callable[[Builder], None], error: type[Exception], words: str) -> None:
    placed().validate()
    builder_of().validate()
    with pytest.raises(error, match=words):
        broken(change).validate()


def test_the_ring_says_what_the_table_says() -> None:
    builder = placed(replicas=2.5)
    ring = builder.ring(HASHER)
    assert [len(ring.primaries(partition)) for partition in (0, 31, 32, 63)] == [3, 3, 2, 2]
    assert all([d.id for d in ring.primaries(p)] == builder.holders(p) for p in range(64))
    assert ring.version == builder.version
    twice(builder)
    assert ring.primaries(0)[0] != ring.primaries(0)[1]  # a ring does not change with its builder


def test_the_certificate_of_a_first_placement() -> None:
    builder = placed((1, 1, 1, 1.0), (1, 2, 1, 2.0), (1, 3, 1, 1.0), (1, 4, 1, 0.3), (1, 5, 1, 1.0))
    certificate = builder.certificate()
    assert (certificate.balanced, certificate.dispersed, certificate.minimal) == (True, True, True)
    assert (certificate.owed, certificate.over, certificate.under) == (0, 0, 0)
    assert max(certificate.share_over, certificate.share_under) < 1
    builder.table = tuple(np.sort(np.array(builder.table), axis=0))
    twice(builder)
    assert builder.certificate().owed == 1

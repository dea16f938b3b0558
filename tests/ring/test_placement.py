"""Which devices hold a partition, and which stand in for them."""

from __future__ import annotations

from array import array

import pytest

from ring.device import Device
from ring.names import NameHasher, Path
from ring.placement import NO_DEVICE, Ring


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
    hasher=NameHasher(b"", b""),
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


def test_partition_and_counts() -> None:
    assert RING.partition_count == 4
    assert RING.replica_count == 3
    assert 0 <= RING.partition(Path("a", "c", "o")) < 4
    with pytest.raises(KeyError):
        RING.device(7)

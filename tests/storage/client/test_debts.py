"""Who tells the container's devices."""

from __future__ import annotations

import pytest

from ring.placement import Ring
from storage.client.debts import assign
from storage.client.handoff import HandoffOrder
from tests.storage.client.ground import make_ring


@pytest.mark.parametrize(
    ("objects", "containers", "owed"),
    [
        ([1, 2, 3], [1, 2, 3], [(1,), (2,), (3,)]),
        ([1, 2, 3], [3, 4, 5], [(4,), (5,), (3,)]),
        ([1, 2, 3], [4, 5, 6], [(4,), (5,), (6,)]),
        ([1, 2, 3], [4, 5], [(4,), (5,), (4,)]),
        ([1, 2, 3, 4, 5, 6], [7, 8, 9], [(7,), (8,), (9,), (7,), (8,), (9,)]),
        ([1, 2], [3, 4, 5], [(3, 5), (4,)]),
        ([1], [1, 2, 3], [(1, 2, 3)]),
        ([1, 2], [], [(), ()]),
    ],
)
def test_each_container_device_is_told_and_each_replica_tells(
    objects: list[int], containers: list[int], owed: list[tuple[int, ...]]
) -> None:
    assert assign(objects, containers) == owed


@pytest.mark.parametrize(("ring", "count"), [(make_ring(4), 1), (make_ring(8), 3), (make_ring(3), 0)])
def test_handoffs_are_given_out_once_and_not_for_ever(ring: Ring, count: int) -> None:
    order = HandoffOrder(ring, 0)
    given = [device.id for device in (order.next() for _ in range(10)) if device is not None]
    assert len(given) == len(set(given)) == count
    assert not set(given) & {device.id for device in ring.primaries(0)}

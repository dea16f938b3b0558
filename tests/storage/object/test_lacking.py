"""What a start finds missing of what was acknowledged is written down first: a kill in between hides nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ring.world.interface import World
from ring.world.sim import SimWorld, run
from ring.world.sim.medium import Medium
from storage.object.refill_mark import REFILL_PATH
from tests.storage.faults import Trip
from tests.storage.object.object_rig import prepare, put, read, serving

ROOT = "d1"
NAMES = tuple(f"n{number}" for number in range(9))


def rots_in_the_middle(medium: Medium) -> None:
    node = medium.file("packs/00000001.pack")
    for data in (node.durable, node.content):
        data[len(data) // 2] ^= 1
    assert medium.root is not None
    del medium.root.entries["tables"]  # all of the log is read again


def ends_before_what_it_had(medium: Medium) -> None:
    node = medium.file("packs/00000001.pack")
    for data in (node.durable, node.content):
        del data[len(data) // 2 :]


@pytest.mark.parametrize("harm", [rots_in_the_middle, ends_before_what_it_had])
def test_a_start_that_is_killed_hides_nothing(harm: Callable[[Medium], None]) -> None:
    at = 1
    while run(at, _killed_at, at, harm):
        at += 1
    assert at > 5


async def _killed_at(at: int, harm: Callable[[Medium], None]) -> bool:
    """Whether the start had so many disk operations."""
    world = SimWorld(at)
    await prepare(world, ROOT)
    async with serving(world, ROOT) as store:
        for name in NAMES:
            await put(store, name, 10, name.encode() * 100)
    node = world.node
    medium = node.disk(ROOT)
    harm(medium)
    trip = medium.trip = Trip(node, "kill", at)

    async def start(world: World) -> None:
        async with serving(world, ROOT):
            medium.trip = None

    await node.run(start)
    medium.trip = None
    if not node.up:
        node.restart()
    async with serving(node.world, ROOT) as store:
        assert medium.root is not None and REFILL_PATH in medium.root.entries
        assert None in [await read(store, name) for name in NAMES]
    return trip.tripped

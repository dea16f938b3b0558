"""Devices without room: as long as a majority has some nobody notices; then the answer says so, and deletions go on."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from ring.names import Path
from ring.wire.message import BytesBody
from ring.world.interface import Space
from storage.client.bodies import drained
from storage.client.errors import NoRoom
from storage.client.interface import Condition, NewObject
from storage.client.reach import Settings
from storage.object.health import State
from tests.storage.client.ground import Ground

CONTAINER = Path("AUTH_a", "c")
CUT = 4096
SMALL, LARGE = b"x" * 100, b"y" * 50_000


async def cloud(nursery: trio.Nursery) -> Ground:
    ground = await Ground.with_engines(nursery, Settings(pack_cut_bytes=CUT, repair_delay_s=1e6))
    await ground.storage.put_container(CONTAINER, {})
    return ground


async def put(ground: Ground, name: Path, data: bytes, condition: Condition | None = None) -> None:
    await ground.storage.put_object(name, NewObject(condition=condition), BytesBody(data))


def fill(ground: Ground, name: Path, count: int) -> None:
    """So many of its primaries."""
    ring = ground.rings.objects[0].ring
    for device in ring.primaries(ring.partition(name))[:count]:
        health = ground.engines[device.id][0].device.health
        health.looked(Space(1 << 40, 0), 0.0)
        assert health.state is State.FULL


@pytest.mark.parametrize("data", [SMALL, LARGE])
async def test_full_primaries(autojump_clock: MockClock, nursery: trio.Nursery, data: bytes) -> None:
    ground = await cloud(nursery)
    name = Path("AUTH_a", "c", "o")
    await put(ground, name, data)
    fill(ground, name, 1)
    await put(ground, name, data)
    fill(ground, name, 2)
    with pytest.raises(NoRoom, match="its devices are full"):
        await put(ground, name, data)
    reading = await ground.storage.get_object(name)
    assert await drained(reading.pieces) == data
    await ground.storage.delete_object(name)


async def test_a_conditional_write_is_surely_not_done(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    ground = await cloud(nursery)
    name = Path("AUTH_a", "c", "o")
    fill(ground, name, 2)
    with pytest.raises(NoRoom, match="its devices are full"):
        await put(ground, name, SMALL, Condition(if_none_match=("*",)))

"""What was acknowledged by a disk that was replaced and one other is not "not there" for a front door, whoever answers."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from ring.errors import Unavailable
from ring.names import Path
from ring.timestamp import TimestampSource
from ring.wire.message import BytesBody
from storage.client.bodies import drained
from storage.client.cluster import ClusterStorage
from storage.client.errors import ObjectNotFound
from storage.client.interface import NewObject
from storage.client.reach import Rings, Settings
from storage.object.refill import AGAIN_S
from tests.storage.client.ground import Distant
from tests.storage.object.test_refill import Rig, make, run

CONTAINER = Path("AUTH_test", "photos")
OBJECT, OTHER = Path("AUTH_test", "photos", "cat.jpg"), Path("AUTH_test", "photos", "dog.jpg")
SETTINGS = Settings(read_timeout_s=1.0, write_timeout_s=2.0, repair_delay_s=1000.0)


class Door:
    """A front door over a rig's devices, each behind a line."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.lines = {number: Distant(node) for number, node in rig.nodes.items()}
        self.storage = ClusterStorage(
            rig.world,
            rig.nursery,
            Rings.of(rig.overlaps),
            lambda device: self.lines[device.id],  # type: ignore[arg-type,return-value]  # it passes on every call of a Node
            TimestampSource(rig.world.clock),
            settings=SETTINGS,
        )

    async def get(self) -> bytes:
        return await drained((await self.storage.get_object(OBJECT)).pieces)


async def replaced(nursery: trio.Nursery, *, refills: bool) -> Door:
    """An object that devices 0 and 1 acknowledged; then the disk of 0 is another one, and 1 is not reached."""
    rig = await make(nursery)
    door = Door(rig)
    await door.storage.put_account(Path("AUTH_test"), {})
    await door.storage.put_container(CONTAINER, {})
    door.lines[2].cut = True
    await door.storage.put_object(OBJECT, NewObject(), BytesBody(b"acknowledged"))
    assert await door.get() == b"acknowledged"
    await rig.add(0, "/replaced", refills=refills)
    door.lines[0] = Distant(rig.nodes[0])
    door.lines[2].cut = False
    door.lines[1].cut = True
    return door


async def test_a_disk_that_votes_at_once_makes_it_vanish(autojump_clock: MockClock) -> None:
    """What this is all for."""
    async with trio.open_nursery() as nursery:
        door = await replaced(nursery, refills=False)
        with pytest.raises(ObjectNotFound):
            await door.get()
        nursery.cancel_scope.cancel()


async def test_one_that_is_refilled_does_not(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        door = await replaced(nursery, refills=True)
        rig = door.rig
        refiller = rig.refiller(0)
        rig.away.add(1)
        await run(refiller)  # the other one alone cannot vouch for what 1 has
        with pytest.raises(Unavailable):
            await door.get()
        with pytest.raises(Unavailable):
            await door.storage.put_object(OTHER, NewObject(), BytesBody(b"by two that may not know"))
        rig.away.clear()
        await trio.sleep(AGAIN_S)
        await run(refiller)
        assert await door.get() == b"acknowledged"  # 1 is still not reached
        nursery.cancel_scope.cancel()

"""What the front door's tests stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import trio

from identity.client.fake import FakeIdentity
from proxy.app import FrontDoor, FrontDoorConfig, make_app
from proxy.gates.limits import Limits
from ring.kv.memory import MemoryKV
from ring.world.real import make_world
from tests.proxy.door import FaultyStorage, StillClock


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def storage(clock: StillClock) -> FaultyStorage:
    return FaultyStorage(clock)


@pytest.fixture
def identity() -> FakeIdentity:
    identity = FakeIdentity()
    identity.add("ann", project="p1")
    identity.add("bob", project="p2")
    identity.add("eve", project="p1", roles=frozenset(("reader",)))
    identity.add("root", project="adm", roles=frozenset(("admin",)))
    return identity


@pytest.fixture
async def front_door(
    storage: FaultyStorage, identity: FakeIdentity, clock: StillClock, nursery: trio.Nursery
) -> AsyncIterator[FrontDoor]:
    """On a still clock, with the view of bucket names kept up."""
    world = replace(make_world(), clock=clock)
    limits = Limits(object_bytes_max=1 << 20, part_bytes_min=5)
    door = make_app(storage, identity, MemoryKV(), world, FrontDoorConfig(limits, s3_hosts=("s3.example",)))
    await nursery.start(door.run)
    yield door
    nursery.cancel_scope.cancel()

"""A plain write that something newer came before is written again, above that, at the time of its second attempt: by the time that
it has waited at random others would be above anything earlier, and it would lose to them again and again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
import trio.testing

from ring.timestamp import Timestamp
from ring.wire.message import BytesBody
from storage.client.interface import NewObject
from tests.storage.client.ground import Ground
from tests.storage.client.test_coded import OBJECT, SETTINGS, get, make, noise

ASIDE_S = 10.0


@pytest.mark.parametrize("policy", [0, 1])
async def test_what_lost_is_written_again_as_of_now(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, policy: int
) -> None:
    settings = replace(SETTINGS, aside_s=ASIDE_S, stall_s=2 * ASIDE_S)
    if policy:
        ground, _ = await make(nursery, settings)
    else:
        ground = await Ground.with_engines(nursery, settings)
        await ground.storage.put_container(OBJECT.parent, {})
    storage, clock = ground.storage, ground.world.clock
    ahead = Timestamp.at(clock.now() + 0.5)  # another front door's, whose clock is ahead
    await storage.put_object(OBJECT, NewObject(timestamp=ahead), BytesBody(noise(10, 1)))
    began = clock.now()
    stored = await storage.put_object(OBJECT, NewObject(), BytesBody(noise(10, 2)))
    assert clock.now() - began > ASIDE_S / 20  # it waited
    assert clock.now() - stored.meta.timestamp.seconds < ASIDE_S / 20
    assert await get(ground) == noise(10, 2)

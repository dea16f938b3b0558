"""POSTs where devices hold different versions: what one that lags behind took says nothing of the newest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from ring.errors import Unavailable
from ring.names import Path
from ring.wire.message import BytesBody
from storage.client.interface import NewObject
from storage.client.node import Version, WriteReply
from storage.client.reach import Settings
from storage.client.writing import post_one
from tests.storage.client.ground import Ground

OBJECT = Path("AUTH_a", "c", "o")
NEW = {"x-object-meta-color": "red"}
SETTINGS = Settings(read_timeout_s=1.0, write_timeout_s=1.0, row_wait_s=0.05, repair_delay_s=0.1)


@pytest.fixture
async def ground(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> Ground:
    """The second primary has missed the newest version."""
    ground = Ground.make(nursery, settings=SETTINGS)
    await ground.storage.put_container(OBJECT.parent, {})
    await put(ground, b"old")
    ground.objects[primaries(ground)[1]].broken = True
    await put(ground, b"new")
    ground.objects[primaries(ground)[1]].broken = False
    return ground


def primaries(ground: Ground) -> list[int]:
    return [device.id for device in ground.rings.objects[0].places(OBJECT).devices]


async def put(ground: Ground, data: bytes) -> None:
    await ground.storage.put_object(OBJECT, NewObject(), BytesBody(data))


async def newest(ground: Ground) -> Version:
    held = await ground.objects[primaries(ground)[0]].head(OBJECT)
    assert held is not None
    return held


async def test_what_lags_behind_is_no_part_of_a_majority(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    third = ground.objects[primaries(ground)[2]]
    post = third.post

    async def away(*args: object) -> WriteReply:
        raise Unavailable("just now")

    third.post = away  # type: ignore[assignment]
    with pytest.raises(Unavailable):
        await ground.storage.post_object(OBJECT, NEW)
    third.post = post  # type: ignore[method-assign]
    await ground.storage.post_object(OBJECT, NEW)
    ground.objects[primaries(ground)[0]].broken = True
    assert (await ground.storage.head_object(OBJECT)).metadata == NEW


@pytest.mark.parametrize("brought", [False, True])
async def test_a_device_that_is_brought_the_version_after_the_post(
    ground: Ground, autojump_clock: trio.testing.MockClock, brought: bool
) -> None:
    old = await newest(ground)
    behind = ground.nodes[primaries(ground)[1]]
    later = ground.storage.reach.timestamps.next(old.timestamp)

    async def bring() -> None:
        await behind.put_small(old, b"new", None)

    post: Callable[..., Awaitable[WriteReply]] = behind.post

    async def and_then(*args: object) -> WriteReply:
        reply = await post(*args)
        if brought:
            await bring()
        return reply

    behind.post = and_then  # type: ignore[method-assign, assignment]
    with pytest.raises(Unavailable, match="has not got the version"):
        await post_one(behind, old, NEW, "", later, has=False)
    await bring()
    again = ground.storage.reach.timestamps.next(later)
    assert (await post_one(behind, old, NEW, "", again, has=False)).newest == again


async def test_what_was_replaced_meanwhile_had_it(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    old = await newest(ground)
    later = ground.storage.reach.timestamps.next(old.timestamp)
    await put(ground, b"newer")
    await post_one(ground.nodes[primaries(ground)[0]], old, NEW, "", later, has=False)

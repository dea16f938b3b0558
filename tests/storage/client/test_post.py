"""POSTs where devices hold different versions: each names the one that it is for, and changes no other."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
import trio
import trio.testing

from ring.errors import Unavailable
from ring.names import Path
from ring.wire.message import BytesBody
from storage.client.errors import ObjectNotFound
from storage.client.interface import Condition, NewObject
from storage.client.node import Version, WriteReply
from storage.client.reach import Settings
from tests.storage.client.ground import Ground
from tests.storage.client.test_coded import CUT, make, noise
from tests.storage.client.test_coded import put as coded_put

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


async def test_what_lags_behind_keeps_its_metadata(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    behind = ground.objects[primaries(ground)[1]]
    before = await behind.head(OBJECT)
    await ground.storage.post_object(OBJECT, NEW)
    assert await behind.head(OBJECT) == before
    await trio.sleep(1)  # it is repaired
    assert await behind.head(OBJECT) == await newest(ground)
    assert (await newest(ground)).metadata == NEW


def meanwhile(ground: Ground, do: Callable[[], Awaitable[object]]) -> None:
    """Do it when the POST has found the newest version, and has told no device of it."""
    todo, done = [do], trio.Event()
    for number in primaries(ground):
        objects = ground.objects[number]
        post = objects.post

        async def after(*args: Any, post: Any = post) -> WriteReply:
            if todo:
                await todo.pop()()
                done.set()
            await done.wait()
            return cast(WriteReply, await post(*args))

        objects.post = after  # type: ignore[assignment]


@pytest.mark.parametrize("condition", [None, Condition(if_match=("*",))])
async def test_a_post_is_for_the_version_that_it_found(
    ground: Ground, autojump_clock: trio.testing.MockClock, condition: Condition | None
) -> None:
    """A PUT that came meanwhile has the metadata that it came with; the POST was there just before it."""

    async def put_another() -> None:
        await ground.storage.put_object(OBJECT, NewObject(condition=condition, metadata={"x-object-meta-color": "blue"}), body)

    body = BytesBody(b"newer")
    meanwhile(ground, put_another)
    await ground.storage.post_object(OBJECT, NEW)
    meta = await ground.storage.head_object(OBJECT)
    assert (meta.etag, meta.metadata) == (hashlib.md5(b"newer").hexdigest(), {"x-object-meta-color": "blue"})


async def test_a_post_follows_the_version_that_it_found(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    """It was copied above a ballot meanwhile: that is the same version under another name."""
    meanwhile(ground, lambda: ground.storage.settle_object(0, OBJECT))
    before = await ground.storage.head_object(OBJECT)
    await ground.storage.post_object(OBJECT, NEW)
    meta = await ground.storage.head_object(OBJECT)
    assert (meta.etag, meta.metadata) == (before.etag, NEW) and meta.timestamp > before.timestamp


async def test_a_post_to_what_is_deleted_meanwhile(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    meanwhile(ground, lambda: ground.storage.delete_object(OBJECT))
    await ground.storage.post_object(OBJECT, NEW)
    with pytest.raises(ObjectNotFound):
        await ground.storage.head_object(OBJECT)
    with pytest.raises(ObjectNotFound):
        await ground.storage.post_object(OBJECT, NEW)


@pytest.mark.parametrize("size", [10, 3 * CUT])
async def test_of_an_erasure_coded_object(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, size: int) -> None:
    ground, lines = await make(nursery)
    path = Path("AUTH_a", "c", "o")
    await coded_put(ground, noise(size, 1))
    gate = trio.Event()
    for line in lines:
        line.waits["post"] = gate
    async with trio.open_nursery() as clients:
        clients.start_soon(ground.storage.post_object, path, NEW)
        await trio.sleep(0.3)
        await coded_put(ground, noise(size, 2))
        gate.set()
    meta = await ground.storage.head_object(path)
    assert (meta.etag, meta.metadata) == (hashlib.md5(noise(size, 2)).hexdigest(), {})

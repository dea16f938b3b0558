"""Two writes of one name at one time, and an upload that is given up while it is committed.  The simulator found both."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from ring.timestamp import Timestamp
from ring.world.sim import SimWorld
from tests.storage.object.object_rig import path, prepare, put, put_file, read, serving, version

BODIES = (b"one", b"another")


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("write", [put, put_file])
async def test_who_loses_a_tie_is_told_so(autojump_clock: MockClock, first: int, write: object) -> None:
    """Two front doors whose clocks are behind give out the same timestamp; each must learn whether its version is the one held."""
    assert callable(write)
    bodies = BODIES if first == 0 else BODIES[::-1]
    winner = max(bodies, key=lambda data: version("a", 10, data).etag)
    world = SimWorld(1)
    await prepare(world, "d")
    async with serving(world, "d") as store:
        replies = [await write(store, "a", 10, data) for data in bodies]
        held = await read(store, "a")
        assert held == winner
        for data, reply in zip(bodies, replies, strict=True):
            if data == held:
                assert reply.newest == Timestamp(10)
            elif data == bodies[1]:
                assert reply.newest > Timestamp(10)
        again = await write(store, "a", 10, winner)
        assert again.newest == Timestamp(10)  # the same version once more has not lost


async def test_a_tie_within_one_batch(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    await prepare(world, "d")
    async with serving(world, "d") as store:
        writes = [store.begin_small(version("a", 10, data), data, None) for data in sorted(BODIES, key=lambda data: -len(data))]
        replies = [await write.wait() for write in writes]
        held = await read(store, "a")
        late = [
            reply for reply, data in zip(replies[1:], sorted(BODIES, key=lambda data: -len(data))[1:], strict=True) if data != held
        ]
        assert all(reply.newest > Timestamp(10) for reply in late)


async def test_a_commit_that_was_begun_is_not_undone_by_abort(autojump_clock: MockClock) -> None:
    """The caller had its majority elsewhere, and lets go of this replica while its file is being synced."""
    world = SimWorld(1)
    await prepare(world, "d")
    world.node.disk("d").slow_s = 0.01
    async with serving(world, "d") as store:
        data = b"x" * 50_000
        upload = await store.put_large(path("a"), len(data))
        await upload.write(data)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload.commit, version("a", 10, data), None)
            await trio.sleep(0.015)
            await upload.abort()
        assert await read(store, "a") == data
        await upload.abort()

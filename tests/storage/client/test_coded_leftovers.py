"""What writers of an erasure-coded policy left staged, and do not come back for: finished with all that belongs to it, or let go of
everywhere."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import trio

from ring.errors import Unavailable
from ring.service.overlap import Overlap
from storage.client.interface import Query, Row
from storage.client.node import Version
from tests.storage.client.ground import Distant, Ground, make_ring
from tests.storage.client.test_coded import CONTAINER, OBJECT, all_lines, get, make, noise, put, reconstruct, seen

pytestmark = pytest.mark.usefixtures("autojump_clock")


async def leave_staged(ground: Ground, data: bytes) -> None:
    """All primaries stage it, none hears that it is to commit."""

    def rule(name: str) -> None:
        if name == "commit":
            raise Unavailable("the writer is dead")

    for line in all_lines(ground):
        line.rule = rule
    with pytest.raises(Unavailable):
        await put(ground, data)
    await trio.sleep(30)  # the client is told when three have failed: the others' messages are on their way
    for line in all_lines(ground):
        line.rule = lambda name: None
    shown = [one.version for line in all_lines(ground) for one in await seen(line) if one.committed]
    assert not any(version.etag == hashlib.md5(data).hexdigest() for version in shown)


@pytest.mark.parametrize("size", [100, 9000])
async def test_what_is_finished_for_its_writer_is_listed(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, size: int
) -> None:
    """It was there and in no listing: nobody had committed it, so nobody owed its row."""
    ground, _ = await make(nursery)
    await leave_staged(ground, noise(size))
    await reconstruct(ground, 3, leftover_s=0)
    assert await get(ground) == noise(size)
    page = await ground.storage.list_container(CONTAINER, Query())
    assert [(row.name, row.size) for row in page.items if isinstance(row, Row)] == [("o", size)]


@pytest.mark.parametrize("size", [100, 9000])
async def test_a_device_that_left_the_ring_lets_go_of_what_it_has_staged(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, size: int
) -> None:
    """Its primaries are told by any of them; what it has itself was nobody's to tell."""
    ground, _ = await make(nursery)
    await put(ground, noise(size, 1))
    await leave_staged(ground, noise(size, 2))
    ground.rings.objects = {**ground.rings.objects, 1: Overlap.of(make_ring(8, 6, shift=3))}
    await put(ground, noise(size, 3))
    for part in ground.parts:
        part.mark_paid([key for key, _, _ in part.unpaid(10)])
    await reconstruct(ground, 6, leftover_s=0)
    assert await get(ground) == noise(size, 3)
    left = {line.device.id: [one for one in await seen(line) if not one.committed] for line in all_lines(ground)}
    assert not any(left.values()), left


async def test_what_only_a_device_has_that_is_no_primary_ends(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """All primaries refuse it for that device, and let go of their refusals before it looks again."""
    ground, lines = await make(nursery)
    await put(ground, noise(100, 1))
    outside = next(line for line in all_lines(ground) if line not in lines)
    version = replace(await newest(lines[0]), timestamp=ground.storage.reach.timestamps.next(), etag="e")
    await outside.node.of(1).fragments().stage(version, None)
    await trio.sleep(30)
    await reconstruct(ground, 6, leftover_s=0)
    left = {line.device.id: [one for one in await seen(line) if not one.committed] for line in all_lines(ground)}
    assert not any(left.values()), left


async def newest(line: Distant) -> Version:
    version = await line.node.of(1).head(OBJECT)
    assert version is not None
    return version

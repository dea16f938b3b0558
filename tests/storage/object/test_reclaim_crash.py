"""A fault at every step of letting go: a tombstone is there or is not, what it hid is not; what is put aside is kept whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from ring.errors import DiskFault, FormatError, Unavailable
from ring.timestamp import Timestamp
from ring.world.interface import World
from ring.world.sim import SimWorld, run
from storage.client.errors import Doubted
from storage.client.node import Kind
from storage.object.device import Label
from storage.object.returned import body_of, listing, put_aside
from storage.object.store import ObjectStore
from storage.sync.standing import OBJECTS
from tests.storage.faults import FAULTS, Trip
from tests.storage.object.object_rig import CLUSTER, HASHER, noise, path, put, put_file, read, serving

ROOT = "d1"
SMALL, LARGE = noise("small", 300), noise("large", 5000)
Step = Callable[[ObjectStore], Awaitable[object]]


async def prepare(store: ObjectStore) -> None:
    await put(store, "small", 100, SMALL, owe=True)
    await put_file(store, "large", 101, LARGE)
    await put(store, "gone", 102, b"it was here")
    await put(store, "gone", 103, None)


async def _play(step: Step, check: Callable[[World, ObjectStore], Awaitable[None]], fault: str, at: int) -> bool:
    """Whether there are so many operations that the fault happened."""
    world = SimWorld(1)
    node, medium = world.node, world.node.disk(ROOT)
    disk = world.open_disk(ROOT)
    await disk.make_dirs("")
    folders = {f"files/{HASHER.hash(path(name)).hex()[:3]}" for name in ("small", "large", "gone")}
    await disk.make_dirs_many(["packs", "quarantine", *sorted(folders)])
    await disk.replace_file("device.json", Label(CLUSTER, 1).encode())
    trip = Trip(node, fault, at)

    async def life(world: World) -> None:
        try:
            async with serving(world, ROOT) as store:
                await prepare(store)
                await store.index.commit()
                medium.trip = trip
                await step(store)
                medium.trip = None
        except* (DiskFault, Unavailable, FormatError):
            pass  # the next start goes on

    await node.run(life)
    medium.trip = None
    if node.up:
        node.crash(power=True)
    node.restart()
    for tables in (True, False):
        if not tables:
            await node.world.open_disk(ROOT).unlink("tables/data.mdb")
        async with serving(node.world, ROOT) as store:
            await check(node.world, store)
    return trip.tripped


async def put_both_aside(store: ObjectStore) -> None:
    for name, ticks in (("small", 100), ("large", 101)):
        await put_aside(store, store.key(path(name), Timestamp(ticks)), 5.0)


async def held_or_kept(world: World, store: ObjectStore) -> None:
    disk = store.device.disk
    returned = {one.version.path.object: one for one in await listing(disk)}
    for name, data in (("small", SMALL), ("large", LARGE)):
        head = None
        with suppress(Doubted):  # its file was moved already, and a start before this one found that
            head = await store.head(path(name))
        if head is not None and await store.examine(store.key(path(name), head.timestamp)):
            assert await read(store, name) == data
        else:  # let go of; or its file was moved already, and the next look finds that
            assert b"".join([piece async for piece in body_of(disk, returned[name])]) == data


async def reclaim(store: ObjectStore) -> None:
    await store.drop(store.key(path("gone"), Timestamp(103)), "reclaimed")
    await store.standing.move(OBJECTS, 500)


async def nothing_comes_back(world: World, store: ObjectStore) -> None:
    head = await store.head(path("gone"))
    assert head is None or (head.kind is Kind.TOMBSTONE and head.timestamp == Timestamp(103))
    mark = store.standing.mark(OBJECTS)
    assert mark == 0 or (mark == 500 and head is None)
    assert await read(store, "small") == SMALL


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_put_aside_is_held_or_kept(fault: str) -> None:
    at = 1
    while run(at, _play, put_both_aside, held_or_kept, fault, at):
        at += 1
    assert at > 6  # so many operations there are


@pytest.mark.parametrize("fault", FAULTS)
def test_a_tombstone_that_goes_does_not_show_what_it_hid(fault: str) -> None:
    at = 1
    while run(at, _play, reclaim, nothing_comes_back, fault, at):
        at += 1
    assert at > 2  # the drop, the mark

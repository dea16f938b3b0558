"""A device in a simulated world, with books on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from ring.names import NameHasher
from ring.world.interface import World
from storage.object.device import TABLE_NAMES, Label, OpenDevice
from storage.rows.books import Books

HASHER = NameHasher(b"prefix", b"suffix")
PART_POWER = 4
ROOT = "/d1"


async def open_device(world: World) -> OpenDevice:
    disk = world.open_disk(ROOT)
    await disk.make_dirs("")
    return OpenDevice(disk, await disk.open_tables("tables", TABLE_NAMES), 1, Label("cluster", 1))


@asynccontextmanager
async def open_books(world: World) -> AsyncIterator[Books]:
    device = await open_device(world)
    books = Books(world, device, HASHER)
    async with trio.open_nursery() as nursery:
        await nursery.start(books.run)
        yield books
        nursery.cancel_scope.cancel()
    await books.close()
    await device.close()

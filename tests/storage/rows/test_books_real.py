"""Books on a real folder and LMDB: the same promises where keys really end at 511 bytes."""

from __future__ import annotations

from pathlib import Path as FilePath

import trio

from ring.names import Path
from ring.timestamp import Timestamp
from ring.world.interface import World
from ring.world.real import make_world
from storage.client.interface import Row
from storage.client.node import BookHeader
from storage.object.device import TABLE_NAMES, Label, OpenDevice
from storage.rows.books import Books
from tests.storage.rows.device import HASHER

CONTAINER = Path("a", "c")
NAMES = sorted([f"{n:04}" for n in range(300)] + ["l" * length for length in range(480, 1025)] + ["ü" * n for n in range(240, 513)])


async def open_once(world: World, folder: str, *, merge: bool, flush: bool) -> None:
    disk = world.open_disk(folder)
    device = OpenDevice(disk, await disk.open_tables("tables", TABLE_NAMES), 1, Label("cluster", 1))
    books = Books(world, device, HASHER)
    async with trio.open_nursery() as nursery:
        await nursery.start(books.run)
        if merge:
            await books.merge_header(BookHeader(CONTAINER, Timestamp(1), None))
            async with trio.open_nursery() as merges:
                for at in range(0, len(NAMES), 50):
                    merges.start_soon(books.merge_rows, CONTAINER, [Row(name, Timestamp(1), 1) for name in NAMES[at : at + 50]])
        if flush:
            await books.flush()
        for reverse in (False, True):
            page = await books.rows(CONTAINER, start="", end="", limit=10_000, reverse=reverse)
            assert page is not None and page.complete
            assert [row.name for row in page.rows] == (NAMES[::-1] if reverse else NAMES)
            assert (page.state.count, page.state.bytes_used) == (len(NAMES), len(NAMES))
        nursery.cancel_scope.cancel()
    await device.close()


async def test_names_of_every_length_in_order_from_log_and_tables(tmp_path: FilePath) -> None:
    world = make_world()
    await open_once(world, str(tmp_path), merge=True, flush=False)
    await open_once(world, str(tmp_path), merge=False, flush=False)  # replayed
    await open_once(world, str(tmp_path), merge=True, flush=True)  # merged again
    await open_once(world, str(tmp_path), merge=False, flush=False)

"""Pieces of bodies: what a dying disk does to one is an error that callers expect.  The simulator found it (seed 377)."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from ring.errors import DiskFault
from ring.wire.message import FileSlice
from ring.world.interface import OpenMode
from ring.world.sim import SimWorld
from storage.client.bodies import loaded


async def test_a_piece_is_loaded_or_is_a_disk_fault(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    disk = world.open_disk("d")
    await disk.make_dirs("")
    file = await disk.open("body", OpenMode.CREATE)
    await file.append([b"0123456789"], sync=True)
    piece = FileSlice(file, 2, 5)
    assert await loaded(piece) == b"23456"
    assert await loaded(b"plain") == b"plain"
    world.node.disk("d").dead = True
    with pytest.raises(DiskFault):
        await loaded(piece)

"""Disks of what lies beside objects and books on a device: the logs of control state and of volumes.

Decides when such a disk may be used: only while the folder is a device's, by its label.  A folder without one (its file system is
not mounted) is not an empty device: everything asked of it fails, so that a log that is not seen is unknown, and none is begun
under the mount.  Neighbours: storage (control state), rooms (volumes); devices opens the devices themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import trio

from ring.world.interface import Disk, World
from storage.object.device import LABEL_PATH

LOOK_S = 5.0


async def open_beside(world: World, root: str) -> Disk:
    disk = world.open_disk(root)
    await admit(world, disk)
    return disk


async def admit(world: World, disk: Disk) -> bool:
    """Let it be used if there is a label, else bar it; whether it may be used."""
    look = world.open_disk(disk.root)  # one of its own: nothing may be written before it is known what is there
    if await _is_device(look) and await _is_device(disk):
        return True
    disk.bar()
    return False


async def keep_admitted(world: World, disks: Sequence[Disk]) -> NoReturn:
    """What was mounted again may be used again."""
    while True:
        await trio.sleep(LOOK_S)
        for disk in disks:
            if not await _has_label(disk):
                await admit(world, disk)


async def _is_device(disk: Disk) -> bool:
    """Whether the folder at its root is one; it keeps to that folder."""
    try:
        await disk.anchor()
    except OSError:
        return False
    return await _has_label(disk)


async def _has_label(disk: Disk) -> bool:
    try:
        return await disk.info(LABEL_PATH) is not None
    except OSError:
        return False

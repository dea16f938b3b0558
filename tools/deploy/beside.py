"""Disks of what lies beside objects and books on a device: the logs of control state and of volumes.

Decides when such a disk may be used: only while the folder is that very device's, by its label, and by the disk's id where one took
another's place.  A folder without a label (its file system is not mounted) is not an empty device, and an old disk that was put
back is out of date: everything asked of it fails, so that a log that is not seen is unknown, none is begun under the mount, and
none that is out of date is believed.  Neighbours: storage (control state), rooms (volumes); devices opens the devices themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import trio

from ring.errors import RingfortError
from ring.world.interface import Disk, World
from storage.object.device import read_label
from tools.deploy.layout import Layout

LOOK_S = 5.0


class Beside:
    """Such disks of one process, by device."""

    def __init__(self, world: World, layout: Layout, cluster_id: str) -> None:
        self._world = world
        self._layout = layout
        self._cluster_id = cluster_id
        self._disks: dict[int, Disk] = {}
        self._admitted: set[int] = set()

    async def open(self, number: int) -> Disk:
        """Of device ``number``.  It may be used, or fails whatever is asked of it."""
        disk = self._disks[number] = self._world.open_disk(str(self._layout.device(number)))
        await self._admit(number, disk)
        return disk

    async def keep(self, left: Callable[[Disk], None] = lambda disk: None) -> NoReturn:
        """Look at them now and then: what was mounted again may be used again.  ``left`` is told of a disk that is not there any
        more, or not the one that was opened: files of it that are open lie elsewhere."""
        while True:
            await trio.sleep(LOOK_S)
            for number, disk in self._disks.items():
                if await self._is_meant(number, disk):
                    continue
                if number in self._admitted:
                    self._admitted.discard(number)
                    left(disk)
                await self._admit(number, disk)

    async def _admit(self, number: int, disk: Disk) -> None:
        look = self._world.open_disk(disk.root)  # one of its own: nothing may be written before it is known what is there
        if await self._anchored(number, look) and await self._anchored(number, disk):
            self._admitted.add(number)
        else:
            disk.bar()

    async def _anchored(self, number: int, disk: Disk) -> bool:
        """Whether it is the device; it keeps to that folder."""
        try:
            await disk.anchor()
        except OSError:
            return False
        return await self._is_meant(number, disk)

    async def _is_meant(self, number: int, disk: Disk) -> bool:
        try:
            await read_label(disk, self._cluster_id, number, self._layout.disk_id(number))
        except (OSError, RingfortError):  # unknown, or another one: devices says which
            return False
        return True

"""A volume's device whose clients are seen by ``ring.daemon.yielding``: reads and writes that have to wait for disks, and flushes.

What is answered at once (``read_now``, ``write_now``) waits for nobody, and is not looked at.  Neighbours: rooms (wraps what the
target serves), load.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol, TypeVar

import trio

from blockgw.scsi.block import BlockDevice, MappedDevice
from ring.daemon.yielding import SMALL_BYTES, Yielding
from ring.world.interface import Buffer

T = TypeVar("T")


class Volume(BlockDevice, MappedDevice, Protocol):
    """What volumes are."""


class WatchedDevice:
    """A Volume."""

    def __init__(self, device: Volume, yielding: Yielding) -> None:
        self._device = device
        self._yielding = yielding
        self.read_now = device.read_now
        self.write_now = device.write_now
        self.run_at = device.run_at

    @property
    def size(self) -> int:
        return self._device.size

    @size.setter
    def size(self, size: int) -> None:
        self._device.size = size

    async def read(self, offset: int, length: int) -> bytes:
        return await self._seen("block read" if length <= SMALL_BYTES else "", self._device.read(offset, length))

    async def write(self, offset: int, data: Buffer, *, durable: bool = False) -> None:
        await self._seen("block write" if len(data) <= SMALL_BYTES else "", self._device.write(offset, data, durable=durable))

    async def discard(self, offset: int, length: int) -> None:
        await self._seen("", self._device.discard(offset, length))

    async def flush(self) -> None:
        await self._seen("block flush", self._device.flush())

    async def _seen(self, kind: str, done: Awaitable[T]) -> T:
        began = trio.current_time()
        self._yielding.began(began)
        try:
            result = await done
        except BaseException:
            kind = ""
            raise
        finally:
            now = trio.current_time()
            self._yielding.ended(now, kind, now - began)
        return result

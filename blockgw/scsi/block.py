"""BlockDevice: what a target serves.  Volumes implement it (blockgw.volume); ``MemoryBlockDevice`` beside it is the fake.

Offsets and lengths are bytes, multiples of 512.  A write that returned is seen by every later read; it is durable when a later
flush returned, or at once with ``durable`` (FUA).  ring.errors.Unavailable and DiskFault become NOT READY and MEDIUM ERROR.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from ring.world.interface import Buffer


class BlockDevice(Protocol):
    size: int

    def read_now(self, offset: int, length: int) -> bytes | None:
        """The bytes if they are at hand without waiting."""

    async def read(self, offset: int, length: int) -> bytes: ...

    def write_now(self, offset: int, data: Buffer) -> bool:
        """Take a write without waiting (the data is copied); False when the write log is full just now: use ``write``."""

    async def write(self, offset: int, data: Buffer, *, durable: bool = False) -> None: ...

    async def discard(self, offset: int, length: int) -> None:
        """The range reads as zeroes from now on and its space is given back."""

    async def flush(self) -> None:
        """Everything that was taken is durable, by the volume's flush policy."""


@runtime_checkable
class MappedDevice(Protocol):
    """What a BlockDevice may also be: one that knows its holes.  GET LBA STATUS tells them; without, all is mapped or unknown."""

    def run_at(self, offset: int) -> tuple[int, bool]:
        """Length of the run that begins at ``offset``, and whether it is mapped; an unmapped run reads as zeroes."""


class MemoryBlockDevice:
    """A BlockDevice in RAM, for tests of the target.  It is a MappedDevice, by blocks of 512."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.data = bytearray(size)
        self.flushes = 0
        self._mapped = bytearray(size // 512)  # one byte a block

    def read_now(self, offset: int, length: int) -> bytes | None:
        return bytes(self.data[offset : offset + length])

    async def read(self, offset: int, length: int) -> bytes:
        return bytes(self.data[offset : offset + length])

    def write_now(self, offset: int, data: Buffer) -> bool:
        end = offset + len(data)
        self.data[offset:end] = data
        self._mapped[offset // 512 : end // 512] = b"\1" * (len(data) // 512)
        return True

    async def write(self, offset: int, data: Buffer, *, durable: bool = False) -> None:
        self.write_now(offset, data)
        if durable:
            await self.flush()

    async def discard(self, offset: int, length: int) -> None:
        self.data[offset : offset + length] = bytes(length)
        self._mapped[offset // 512 : (offset + length) // 512] = bytes(length // 512)

    def run_at(self, offset: int) -> tuple[int, bool]:
        start = offset // 512
        mapped = self._mapped[start] != 0
        end = self._mapped.find(b"\0" if mapped else b"\1", start)
        return ((end if end >= 0 else len(self._mapped)) - start) * 512, mapped

    async def flush(self) -> None:
        self.flushes += 1

"""A device that is watched serves as the one below, and tells of what waits."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from blockgw.scsi.block import MappedDevice, MemoryBlockDevice
from ring.daemon.yielding import SMALL_BYTES, Yielding
from ring.errors import DiskFault
from tools.deploy.watched_device import WatchedDevice


class Slow(MemoryBlockDevice):
    broken = False

    async def read(self, offset: int, length: int) -> bytes:
        await trio.sleep(0.5)
        if self.broken:
            raise DiskFault("EIO")
        return await super().read(offset, length)


async def test_it_serves_what_the_device_below_does(autojump_clock: MockClock) -> None:
    below, yielding = Slow(1 << 20), Yielding()
    device = WatchedDevice(below, yielding)
    assert isinstance(device, MappedDevice) and device.size == 1 << 20
    assert device.write_now(0, b"a" * 512) and device.read_now(0, 512) == b"a" * 512
    await device.write(512, b"b" * 512, durable=True)
    assert await device.read(0, 1024) == b"a" * 512 + b"b" * 512
    assert device.run_at(0) == (1024, True)
    await device.discard(0, 512)
    await device.flush()
    assert below.flushes == 2 and device.run_at(0) == (512, False)


async def test_what_waits_is_told_and_what_fails_or_is_large_is_not_timed(autojump_clock: MockClock) -> None:
    below, yielding = Slow(1 << 20), Yielding()
    device = WatchedDevice(below, yielding)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(device.read, 0, 512)
        await trio.sleep(0.1)
        assert yielding.in_flight == 1 and yielding.speed == yielding.floor
    await device.read(0, 2 * SMALL_BYTES)
    below.broken = True
    with pytest.raises(DiskFault):
        await device.read(0, 512)
    assert yielding.in_flight == 0
    assert {kind: (known.count, known.total_s) for kind, known in yielding._kinds.items()} == {"block read": (1, 0.5)}

"""A device that is asked over the node protocol to bring another one what it holds."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from ring.errors import DiskFault, Unavailable
from ring.world.interface import TcpAddress
from ring.world.sim import SimWorld
from storage.client.filling import Filled
from storage.client.peer import Peer
from storage.client.remote_filler import RemoteFiller
from storage.client.server import NodeServer

SECRET = b"cluster key"


class Filler:
    def __init__(self) -> None:
        self.asked: list[tuple[str, int, list[int], int, int]] = []
        self.fault: DiskFault | None = None

    async def fill(self, ring: str, part_power: int, partitions: Sequence[int], target: int, edition: int = 0) -> Filled:
        if self.fault is not None:
            raise self.fault
        self.asked.append((ring, part_power, list(partitions), target, edition))
        return Filled(3, 4096, [partitions[0]], list(partitions[1:]))


async def test_asked_and_answered(autojump_clock: MockClock) -> None:
    world, address, filler = SimWorld(1), TcpAddress("localhost", 6200), Filler()
    async with trio.open_nursery() as nursery:
        server = NodeServer(world, {}, SECRET, fillers={1: filler})
        await nursery.start(server.serve, await world.net.listen(address))
        peer = Peer(world, nursery, address, SECRET)
        assert await RemoteFiller(1, peer).fill("object-2", 10, [5, 6, 1023], 7, 3) == Filled(3, 4096, [5], [6, 1023])
        assert filler.asked == [("object-2", 10, [5, 6, 1023], 7, 3)]
        with pytest.raises(Unavailable, match="not served"):
            await RemoteFiller(2, peer).fill("object", 10, [5], 7)
        filler.fault = DiskFault("a record cannot be read")
        with pytest.raises(Unavailable, match="cannot be read"):
            await RemoteFiller(1, peer).fill("object", 10, [5], 7)
        nursery.cancel_scope.cancel()

"""RemoteFiller: a device of another worker or machine, asked to bring another one what it holds.

Decides nothing.  Neighbours: filling (what is asked), peer (the connection), server (the other end).
"""

from __future__ import annotations

from collections.abc import Sequence

from storage.client import protocol as wire
from storage.client.filling import Filled
from storage.client.peer import Peer


class RemoteFiller:
    """Implements storage.client.filling.Filler."""

    def __init__(self, device_id: int, peer: Peer) -> None:
        self._device_id = device_id
        self._peer = peer

    async def fill(self, ring: str, part_power: int, partitions: Sequence[int], target: int, edition: int = 0) -> Filled:
        question = wire.Fill(ring, part_power, list(partitions), target)
        return await self._peer.ask(self._device_id, question, wire.FILLED, edition)

"""RemoteFragments: fragments on a device of another worker or machine, over the node protocol.

Decides nothing.  Neighbours: fragments (the promises, and the other FragmentNode), remote and peer (the connections), server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from ring.names import Path
from ring.wire.message import Piece
from ring.world.interface import Buffer
from storage.client import fragment_messages as messages
from storage.client import protocol as wire
from storage.client.fragments import FragmentUpload, Seen
from storage.client.node import Debt, Version, WriteReply
from storage.erasure.fragment import Fragment, decode_fragment

if TYPE_CHECKING:
    from storage.client.remote import RemoteNode

SEEN = wire.Shape(list[Seen])
DESCRIPTION: wire.Shape[bytes | None] = wire.Shape(bytes | None)


class RemoteFragments:
    """Implements FragmentNode."""

    def __init__(self, node: RemoteNode) -> None:
        self.device = node.device
        self._node = node

    async def sightings(self, path: Path) -> Sequence[Seen]:
        return await self._node.ask(messages.Sightings(path), SEEN)

    async def begin(self, path: Path, size: int, piece_bytes: int) -> FragmentUpload:
        return await self._node.begin_body(wire.PutBody(self.device.id, path, size, self._node.policy, piece_bytes))

    async def stage(self, version: Version, data: Buffer | None, *, seen: bool = False, promised: bool = False) -> WriteReply:
        question = messages.Stage(version, None if data is None else bytes(data), seen, promised)
        return await self._node.ask(question, wire.WRITE_REPLY)

    async def commit(self, version: Version, debt: Debt | None, *, seen: bool = False) -> WriteReply:
        return await self._node.ask(messages.CommitStaged(version, debt, seen), wire.WRITE_REPLY)

    async def refuse(self, version: Version) -> None:
        await self._node.ask(messages.Refuse(version), wire.NOTHING)

    async def forget(self, version: Version) -> None:
        await self._node.ask(messages.Forget(version), wire.NOTHING)

    async def describe(self, version: Version) -> Fragment | None:
        description = await self._node.ask(messages.Describe(version), DESCRIPTION)
        return None if description is None else decode_fragment(description)

    async def read(self, version: Version, offset: int, length: int) -> AsyncIterator[Piece] | None:
        ask = wire.GetBody(self.device.id, version.path, version.timestamp, offset, length, self._node.policy, version)
        return await self._node.body(ask)

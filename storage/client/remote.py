"""RemoteNode: a device of another worker or machine, asked over the node protocol.

Decides nothing.  Neighbours: peer (the connections), local (the other Node), protocol (the messages).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ring.device import Device
from ring.names import Path, Span
from ring.timestamp import Timestamp
from ring.world.interface import Buffer
from storage.client import protocol as wire
from storage.client.bodies import OnePiece
from storage.client.interface import Row
from storage.client.node import BookHeader, BookState, Debt, LeafDigests, NodeReading, RowPage, Upload, Version, WriteReply
from storage.client.peer import Peer
from storage.rows.page import PackedRows


class RemoteNode:
    """Implements storage.client.node.Node."""

    def __init__(self, device: Device, peer: Peer) -> None:
        self.device = device
        self._peer = peer

    async def put_small(self, version: Version, data: Buffer, debt: Debt | None) -> WriteReply:
        return await self._peer.ask(self.device.id, wire.PutSmall(version, _bytes(data), debt), wire.WRITE_REPLY)

    async def put_large(self, path: Path, size: int | None) -> Upload:
        return await self._peer.put_body(wire.PutBody(self.device.id, path, size))

    async def post(self, path: Path, metadata: Mapping[str, str], content_type: str, timestamp: Timestamp) -> WriteReply:
        return await self._peer.ask(self.device.id, wire.Post(path, dict(metadata), content_type, timestamp), wire.WRITE_REPLY)

    async def head(self, path: Path) -> Version | None:
        return await self._peer.ask(self.device.id, wire.Head(path), wire.VERSION)

    async def get(self, path: Path, timestamp: Timestamp | None, offset: int, length: int | None) -> NodeReading | None:
        return await self._reading(wire.Get(path, timestamp, offset, length), offset, length)

    async def merge_header(self, header: BookHeader) -> BookState:
        return await self._peer.ask(self.device.id, wire.MergeHeader(header), wire.BOOK_STATE)

    async def merge_rows(self, book: Path, rows: Sequence[Row]) -> BookState | None:
        return await self._peer.ask(self.device.id, wire.MergeRows(book, list(rows)), wire.BOOK_STATE_IF_ANY)

    async def book(self, path: Path) -> BookState | None:
        return await self._peer.ask(self.device.id, wire.Book(path), wire.BOOK_STATE_IF_ANY)

    async def rows(self, path: Path, *, start: str, end: str, limit: int, reverse: bool) -> RowPage | None:
        page = await self._peer.ask(self.device.id, wire.Rows(path, start, end, limit, reverse), wire.PAGE)
        return None if page is None else RowPage(page.state, PackedRows(page.packed), page.complete)

    async def digests(self, kind: str, span: Span) -> LeafDigests:
        question = wire.Digests(kind, span.partition, span.part_power)
        return await self._peer.ask(self.device.id, question, wire.LEAF_DIGESTS)

    async def leaf(self, kind: str, span: Span, leaf: int) -> Sequence[tuple[bytes, bytes]]:
        question = wire.Leaf(kind, span.partition, leaf, span.part_power)
        return await self._peer.ask(self.device.id, question, wire.LEAF_KEYS)

    async def object_by_key(self, key: bytes) -> NodeReading | None:
        return await self._reading(wire.ByKey(key), 0, None)

    async def _reading(self, question: wire.Get | wire.ByKey, offset: int, length: int | None) -> NodeReading | None:
        found = await self._peer.ask(self.device.id, question, wire.FOUND)
        if found is None:
            return None
        if found.data is not None:
            return NodeReading(found.version, OnePiece(found.data))
        version = found.version
        body = await self._peer.get_body(wire.GetBody(self.device.id, version.path, version.timestamp, offset, length))
        return None if body is None else NodeReading(*body)


def _bytes(data: Buffer) -> bytes:
    return data if isinstance(data, bytes) else bytes(data)

"""RemoteNode: a device of another worker or machine, asked over the node protocol.

Decides nothing.  Neighbours: peer (the connections), local (the other Node), protocol (the messages).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TypeVar

from ring.device import Device
from ring.errors import Unavailable
from ring.names import Path, Span
from ring.service.errors import StaleRing
from ring.service.overlap import Claim
from ring.timestamp import Timestamp
from ring.wire.message import Piece
from ring.world.interface import Buffer
from storage.client import protocol as wire
from storage.client.bodies import OnePiece
from storage.client.errors import ObjectNotFound, Superseded
from storage.client.interface import Row
from storage.client.node import (
    BookHeader,
    BookState,
    Debt,
    LeafDigests,
    Named,
    NodeReading,
    NodeUpload,
    Promised,
    RowPage,
    Version,
    WriteReply,
)
from storage.client.peer import Peer, RemoteUpload
from storage.client.remote_fragments import RemoteFragments
from storage.rows.page import PackedRows

S = TypeVar("S")


class RemoteNode:
    """Implements storage.client.node.Node."""

    def __init__(self, device: Device, peer: Peer, claim: Claim | None = None, policy: int = 0) -> None:
        self.device = device
        self.policy = policy
        self._peer = peer
        self._claim = claim
        self._bound: RemoteNode | None = None  # under the claim that was last in use
        self._of: dict[int, RemoteNode] = {}

    def under(self, claim: Claim | None) -> RemoteNode:
        if claim is self._claim:
            return self
        bound = self._bound
        if bound is None or bound._claim is not claim:
            bound = self._bound = RemoteNode(self.device, self._peer, claim, self.policy)
        return bound

    def of(self, policy: int) -> RemoteNode:
        if policy == self.policy:
            return self
        found = self._of.get(policy)
        if found is None:
            found = self._of[policy] = RemoteNode(self.device, self._peer, self._claim, policy)
        return found

    def fragments(self) -> RemoteFragments:
        return RemoteFragments(self)

    async def begin_body(self, ask: wire.PutBody) -> RemoteUpload:
        """For RemoteFragments too, as are the next two."""
        upload = await self._peer.put_body(ask)
        upload.claim, upload.source = self._claim, self
        return upload

    async def body(self, ask: wire.GetBody) -> AsyncIterator[Piece] | None:
        found = await self._peer.get_body(ask)
        return None if found is None else found[1]

    async def ask(self, question: wire.Question, shape: wire.Shape[S]) -> S:
        return await self._ask(question, shape)

    async def _ask(self, question: wire.Question, shape: wire.Shape[S]) -> S:
        claim = self._claim
        if claim is None:
            return await self._peer.ask(self.device.id, question, shape, policy=self.policy)
        try:
            return await self._peer.ask(self.device.id, question, shape, claim.edition, policy=self.policy)
        except StaleRing as error:
            claim.refused(error, self)
            raise

    async def put_small(self, version: Version, data: Buffer, debt: Debt | None) -> WriteReply:
        return await self._ask(wire.PutSmall(version, _bytes(data), debt), wire.WRITE_REPLY)

    async def put_large(self, path: Path, size: int | None) -> NodeUpload:
        return await self.begin_body(wire.PutBody(self.device.id, path, size, self.policy))

    async def post(
        self, path: Path, metadata: Mapping[str, str], content_type: str, timestamp: Timestamp, of: Named | None = None
    ) -> WriteReply:
        reply = await self._ask(wire.Post(path, dict(metadata), content_type, timestamp, of), wire.WRITE_REPLY)
        if of is not None and self._peer.peer_minor < wire.POST_NAMES_MINOR:
            await self._check_post(path, of, timestamp)
        return reply

    async def _check_post(self, path: Path, of: Named, timestamp: Timestamp) -> None:
        """A peer before 1.4 gave the metadata to whatever it held."""
        held = await self.head(path)
        if held is None or (held.timestamp, held.etag) < of:
            raise ObjectNotFound(f"{path}: {self.device} has not got the version of {of[0]} yet")
        if held.named != of:
            raise Superseded(f"{path}: {self.device} holds something newer", held.timestamp)
        if (held.metadata_timestamp or held.timestamp) < timestamp:
            raise Unavailable(f"{path}: {self.device} got the version of {of[0]} after that")

    async def promise(self, path: Path, ballot: Timestamp, ours: Sequence[Timestamp]) -> Promised:
        return await self._ask(wire.Promise(path, ballot, list(ours)), wire.PROMISED)

    async def release(self, path: Path, ballot: Timestamp) -> None:
        await self._ask(wire.Release(path, ballot), wire.NOTHING)

    async def head(self, path: Path) -> Version | None:
        return await self._ask(wire.Head(path), wire.VERSION)

    async def get(self, path: Path, timestamp: Timestamp | None, offset: int, length: int | None) -> NodeReading | None:
        return await self._reading(wire.Get(path, timestamp, offset, length), offset, length)

    async def merge_header(self, header: BookHeader) -> BookState:
        return await self._ask(wire.MergeHeader(header), wire.BOOK_STATE)

    async def merge_rows(self, book: Path, rows: Sequence[Row]) -> BookState | None:
        return await self._ask(wire.MergeRows(book, list(rows)), wire.BOOK_STATE_IF_ANY)

    async def book(self, path: Path) -> BookState | None:
        return await self._ask(wire.Book(path), wire.BOOK_STATE_IF_ANY)

    async def rows(self, path: Path, *, start: str, end: str, limit: int, reverse: bool) -> RowPage | None:
        page = await self._ask(wire.Rows(path, start, end, limit, reverse), wire.PAGE)
        return None if page is None else RowPage(page.state, PackedRows(page.packed), page.complete)

    async def digests(self, kind: str, span: Span) -> LeafDigests:
        question = wire.Digests(kind, span.partition, span.part_power)
        return await self._ask(question, wire.LEAF_DIGESTS)

    async def leaf(self, kind: str, span: Span, leaf: int) -> Sequence[tuple[bytes, bytes]]:
        question = wire.Leaf(kind, span.partition, leaf, span.part_power)
        return await self._ask(question, wire.LEAF_KEYS)

    async def object_by_key(self, key: bytes) -> NodeReading | None:
        return await self._reading(wire.ByKey(key), 0, None)

    async def edition_file(self) -> bytes:
        return await self._ask(wire.EditionFile(), wire.BYTES)

    async def ring_part(self, name: str, version: int, offset: int) -> bytes:
        return await self._ask(wire.RingPart(name, version, offset), wire.BYTES)

    async def _reading(self, question: wire.Get | wire.ByKey, offset: int, length: int | None) -> NodeReading | None:
        found = await self._ask(question, wire.FOUND)
        if found is None:
            return None
        if found.data is not None:
            return NodeReading(found.version, OnePiece(found.data))
        version = found.version
        ask = wire.GetBody(self.device.id, version.path, version.timestamp, offset, length, self.policy)
        body = await self._peer.get_body(ask)
        return None if body is None else NodeReading(*body)


def _bytes(data: Buffer) -> bytes:
    return data if isinstance(data, bytes) else bytes(data)

"""DirectNode: a Node of another member, reached without HTTP but with the network's faults.

The call runs in the server's own nursery, as a request does: a caller that gives up, or dies, does not stop it.  A cut link
makes the caller wait for its timeout, in either direction; a reset loses the request or, worse, the reply; what is sent once may
arrive twice, and later than what was sent after it, as over connections of their own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

import trio

from ring.device import Device
from ring.errors import RingfortError, Unavailable
from ring.names import Path, Span
from ring.service.errors import StaleRing
from ring.service.overlap import Claim
from ring.timestamp import Timestamp
from ring.wire.message import Piece
from ring.world.interface import Buffer
from ring.world.sim import NodeCrashed, timer
from storage.client.bodies import aclose, loaded
from storage.client.filling import Filled
from storage.client.fragments import FragmentNode, FragmentUpload, Seen
from storage.client.interface import Row
from storage.client.node import (
    BookHeader,
    BookState,
    Debt,
    LeafDigests,
    Named,
    Node,
    NodeReading,
    NodeUpload,
    Promised,
    RowPage,
    Version,
    WriteReply,
)
from storage.erasure.fragment import Fragment

if TYPE_CHECKING:
    from tests.sim.cluster import Member

T = TypeVar("T")
TIMEOUT_S = 2.0
REPEAT_AFTER_S = 3.0
GONE = object()


class DirectNode:
    """Implements storage.client.node.Node for ``device`` of ``target``, as ``source`` reaches it."""

    def __init__(self, source: Member, target: Member, device: Device, claim: Claim | None = None, policy: int = 0) -> None:
        self.device = device
        self._source = source
        self._target = target
        self._claim = claim
        self._policy = policy

    def under(self, claim: Claim | None) -> Node:
        return DirectNode(self._source, self._target, self.device, claim, self._policy)

    def of(self, policy: int) -> Node:
        return DirectNode(self._source, self._target, self.device, self._claim, policy)

    def fragments(self) -> FragmentNode:
        return _DirectFragments(self)

    async def edition_file(self) -> bytes:
        return await self._call(lambda node: self._target.rings.edition_file(), device=False)

    async def ring_part(self, name: str, version: int, offset: int) -> bytes:
        return await self._call(lambda node: self._target.rings.ring_part(name, version, offset), device=False)

    async def put_small(self, version: Version, data: Buffer, debt: Debt | None) -> WriteReply:
        copy = bytes(data)
        return await self._call(lambda node: node.put_small(version, copy, debt), repeatable=True)

    async def put_large(self, path: Path, size: int | None) -> NodeUpload:
        return _DirectUpload(self, await self._call(lambda node: node.put_large(path, size)))

    async def post(
        self, path: Path, metadata: Mapping[str, str], content_type: str, timestamp: Timestamp, of: Named | None = None
    ) -> WriteReply:
        return await self._call(lambda node: node.post(path, metadata, content_type, timestamp, of), repeatable=True)

    async def promise(self, path: Path, ballot: Timestamp, ours: Sequence[Timestamp]) -> Promised:
        return await self._call(lambda node: node.promise(path, ballot, ours))

    async def release(self, path: Path, ballot: Timestamp) -> None:
        await self._call(lambda node: node.release(path, ballot))

    async def head(self, path: Path) -> Version | None:
        return await self._call(lambda node: node.head(path))

    async def get(self, path: Path, timestamp: Timestamp | None, offset: int, length: int | None) -> NodeReading | None:
        return self._reading(await self._call(lambda node: node.get(path, timestamp, offset, length)))

    async def merge_header(self, header: BookHeader) -> BookState:
        return await self._call(lambda node: node.merge_header(header), repeatable=True)

    async def merge_rows(self, book: Path, rows: Sequence[Row]) -> BookState | None:
        return await self._call(lambda node: node.merge_rows(book, rows), repeatable=True)

    async def book(self, path: Path) -> BookState | None:
        return await self._call(lambda node: node.book(path))

    async def rows(self, path: Path, *, start: str, end: str, limit: int, reverse: bool) -> RowPage | None:
        return await self._call(lambda node: node.rows(path, start=start, end=end, limit=limit, reverse=reverse))

    async def digests(self, kind: str, span: Span) -> LeafDigests:
        return await self._call(lambda node: node.digests(kind, span))

    async def leaf(self, kind: str, span: Span, leaf: int) -> Sequence[tuple[bytes, bytes]]:
        return await self._call(lambda node: node.leaf(kind, span, leaf))

    async def object_by_key(self, key: bytes) -> NodeReading | None:
        return self._reading(await self._call(lambda node: node.object_by_key(key)))

    def _reading(self, reading: NodeReading | None) -> NodeReading | None:
        return None if reading is None else NodeReading(reading.version, self._pieces(reading.pieces))

    async def _pieces(self, pieces: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
        async def next_piece(node: Node) -> bytes | None:
            async for piece in pieces:
                return await loaded(piece)
            return None

        async def close(node: Node) -> None:
            await aclose(pieces)

        try:
            while (data := await self._call(next_piece)) is not None:
                yield data
        finally:
            self._target.serve(self.device.id, close)

    async def _call(self, call: Callable[[Node], Awaitable[T]], *, device: bool = True, repeatable: bool = False) -> T:
        """``device``: whether it is of the device, or only of the machine it is in."""
        network, here, there = self._source.cluster.simulation.network, self._source.name, self._target.name
        result: T | object = GONE
        with trio.move_on_after(TIMEOUT_S):
            await self._source.node.life.awake()
            losses = network.link(here, there).losses
            await timer.sleep(network.latency(here, there))
            link = network.link(here, there)
            if link.cut or link.losses != losses:
                await trio.sleep_forever()
            if link.reset_chance and network.rng.random() < link.reset_chance:
                raise Unavailable(f"{self.device}: the connection was reset before the request came through")
            edition, policy = self._claim.edition if self._claim is not None else 0, self._policy
            if device:
                answer = self._target.serve(self.device.id, lambda node: call(node.of(policy).under(Claim(edition))))
                if repeatable and link.repeat_chance and network.rng.random() < link.repeat_chance:
                    self._repeat(lambda node: call(node.of(policy).under(Claim(edition))), network.rng.uniform(0, REPEAT_AFTER_S))
            else:
                answer = self._target.answer(lambda: call(self))
            await answer.done.wait()
            await timer.sleep(network.latency(there, here))
            await self._source.node.life.awake()
            link = network.link(there, here)
            if link.cut or link.losses != losses or answer.silent:
                await trio.sleep_forever()
            if link.reset_chance and network.rng.random() < link.reset_chance:
                raise Unavailable(f"{self.device}: the connection was reset before the reply came through")
            if isinstance(answer.error, StaleRing) and self._claim is not None:
                self._claim.refused(answer.error, self)
            if answer.error is not None:
                raise answer.error
            result = answer.value
        if result is GONE:
            raise Unavailable(f"{self.device}: no reply in {TIMEOUT_S} s")
        return result  # type: ignore[return-value]  # T | object, and it is not GONE

    def _repeat(self, call: Callable[[Node], Awaitable[object]], after_s: float) -> None:
        async def later(node: Node) -> object:
            await timer.sleep(after_s)
            return await call(node)

        self._target.serve(self.device.id, later)


class Answer:
    """Of a call that runs at a member."""

    __slots__ = ("done", "error", "refused", "silent", "value")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.value: object = GONE
        self.error: RingfortError | None = None
        self.refused = False  # nothing was begun
        self.silent = False  # the machine is off: no reply will come

    async def run(self, call: Callable[[], Awaitable[object]]) -> None:
        try:
            self.value = await call()
        except RingfortError as error:
            self.error = error
        except (trio.Cancelled, NodeCrashed):
            self.error = Unavailable("the node stopped in the middle of it")
            raise
        finally:
            self.done.set()


class DirectFiller:
    """Implements storage.client.filling.Filler, on the way of ``node``."""

    def __init__(self, node: DirectNode) -> None:
        self._node = node

    async def fill(self, ring: str, part_power: int, partitions: Sequence[int], target: int, edition: int = 0) -> Filled:
        async def fill(_: Node) -> Filled:
            member = self._node._target
            filler = member.fillers.get(member.device.id)
            if filler is None:
                raise Unavailable(f"{member.name} does not serve its device")
            return await filler.fill(ring, part_power, partitions, target, edition)

        return await self._node._call(fill)


class _DirectFragments:
    """Implements storage.client.fragments.FragmentNode, on the same way."""

    def __init__(self, node: DirectNode) -> None:
        self.device = node.device
        self._node = node

    async def sightings(self, path: Path) -> Sequence[Seen]:
        return await self._node._call(lambda node: node.fragments().sightings(path))

    async def begin(self, path: Path, size: int, piece_bytes: int) -> FragmentUpload:
        upload = await self._node._call(lambda node: node.fragments().begin(path, size, piece_bytes))
        return _DirectUpload(self._node, upload)

    async def stage(self, version: Version, data: Buffer | None, *, seen: bool = False, promised: bool = False) -> WriteReply:
        copy = None if data is None else bytes(data)
        return await self._node._call(
            lambda node: node.fragments().stage(version, copy, seen=seen, promised=promised), repeatable=True
        )

    async def commit(self, version: Version, debt: Debt | None, *, seen: bool = False) -> WriteReply:
        return await self._node._call(lambda node: node.fragments().commit(version, debt, seen=seen), repeatable=True)

    async def refuse(self, version: Version) -> None:
        await self._node._call(lambda node: node.fragments().refuse(version), repeatable=True)

    async def forget(self, version: Version) -> None:
        await self._node._call(lambda node: node.fragments().forget(version), repeatable=True)

    async def describe(self, version: Version) -> Fragment | None:
        return await self._node._call(lambda node: node.fragments().describe(version))

    async def read(self, version: Version, offset: int, length: int) -> AsyncIterator[Piece] | None:
        pieces = await self._node._call(lambda node: node.fragments().read(version, offset, length))
        return None if pieces is None else self._node._pieces(pieces)


class _DirectUpload:
    """What runs at the server runs in turn: it notices that the connection has ended after what it is doing."""

    def __init__(self, node: DirectNode, upload: NodeUpload | FragmentUpload) -> None:
        self.claim = node._claim
        self._node = node
        self._upload = upload
        self._turn = trio.Lock()
        self._aborted = False

    async def write(self, data: Buffer) -> None:
        copy = bytes(data)
        await self._call(lambda: self._upload.write(copy))

    async def commit(self, version: Version, debt: Debt | None) -> WriteReply:
        edition = self.claim.edition if self.claim is not None else 0

        async def commit() -> WriteReply:
            self._upload.claim = Claim(edition)
            return await cast(NodeUpload, self._upload).commit(version, debt)

        return await self._end(commit)

    async def stage(self, version: Version, fragment: Fragment, *, seen: bool = False, promised: bool = False) -> WriteReply:
        edition = self.claim.edition if self.claim is not None else 0

        async def stage() -> WriteReply:
            self._upload.claim = Claim(edition)
            return await cast(FragmentUpload, self._upload).stage(version, fragment, seen=seen, promised=promised)

        return await self._end(stage)

    async def _end(self, call: Callable[[], Awaitable[WriteReply]]) -> WriteReply:
        try:
            return await self._call(call)
        except StaleRing as error:
            if self.claim is not None:
                self.claim.refused(error, self._node)
            raise

    async def abort(self) -> None:
        async def abort(node: Node) -> None:
            async with self._turn:
                await self._upload.abort()

        self._aborted = True
        self._node._target.serve(self._node.device.id, abort)

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        async def in_turn(node: Node) -> T:
            async with self._turn:
                if self._aborted:
                    raise Unavailable("the upload was aborted")
                return await call()

        return await self._node._call(in_turn)

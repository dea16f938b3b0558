"""NodeServer: lets the other workers and machines use this worker's devices (the server's end of the node protocol).

A connection that does not prove that it knows the cluster key learns nothing: it is closed without a word.  Questions that only
read the index are answered in line; those that wait for a disk get a task, and all answers that are ready travel in one frame.

Neighbours: protocol (messages), frames, local (the nodes behind), peer (the other end).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import NoReturn, TypeVar, cast

import trio

from ring.errors import BadInput, DiskFault, FormatError, RingfortError, Unavailable
from ring.service.errors import StaleRing
from ring.service.overlap import Claim, RingSource
from ring.wire.message import FileSlice
from ring.world.interface import Listener, Stream, World
from storage.client import fragment_messages
from storage.client import protocol as wire
from storage.client.bodies import aclose, drained
from storage.client.errors import ClockAhead, PromisedAbove
from storage.client.filling import Filled, Filler
from storage.client.fragments import FragmentNode, FragmentUpload
from storage.client.frames import Frames
from storage.client.node import Node, NodeReading, NodeUpload, WriteReply
from storage.client.protocol import FrameType
from storage.container.shards import MAP
from storage.erasure.fragment import decode_fragment, encode_fragment
from storage.rows.page import PackedRows

T = TypeVar("T")
HANDSHAKE_TIMEOUT_S = 10.0
IN_FLIGHT_MAX = 1024  # questions of one connection; beyond it nothing more is read
CONNECTIONS_MAX = 4096
_QUICK = (wire.Head, wire.Book)
_NIL = wire.raw(None)


class NodeServer:
    """``nodes`` by device id; looked up at every question, so a device may come and go."""

    def __init__(
        self,
        world: World,
        nodes: Mapping[int, Node],
        secret: bytes,
        *,
        ring_version: Callable[[], int] = lambda: 0,
        rings: RingSource | None = None,
        fillers: Mapping[int, Filler] | None = None,
    ) -> None:
        self._world = world
        self.nodes = nodes
        self._secret = secret
        self._ring_version = ring_version
        self.rings = rings
        self.fillers = fillers if fillers is not None else {}  # by device id, as nodes
        self._claim = Claim()
        self.refused = 0  # connections that did not know the key, since the start
        self.frames_received = 0  # of questions, likewise
        self.peer_ring_version = 0  # the newest that a peer stated: above our own means that ours is stale

    def claim(self, edition: int) -> Claim:
        """The one for what is asked by this edition; always the same one while nobody asks by another."""
        if self._claim.edition != edition:
            self._claim = Claim(edition)
        return self._claim

    async def serve(self, listener: Listener, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; connections are cut then.  The listener is closed at the end."""
        room = trio.CapacityLimiter(CONNECTIONS_MAX)
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    async with room:
                        stream = await listener.accept()
                    nursery.start_soon(self._connection, stream, room)
        finally:
            await _close(listener)

    async def _connection(self, stream: Stream, room: trio.CapacityLimiter) -> None:
        frames = Frames(stream, payload_bytes_max=wire.HANDSHAKE_BYTES_MAX)
        try:
            async with room:
                purpose = await self._greet(frames)
                frames.payload_bytes_max = wire.MESSAGE_BYTES_MAX
                match purpose:
                    case "questions":
                        await _Questions(self, frames).run()
                    case "bodies":
                        await self._bodies(frames)
        except (FormatError, Unavailable):
            return  # lost, or not worth talking to: the peer asks again on a new connection
        finally:
            await _close(stream)

    async def _greet(self, frames: Frames) -> str:
        """What the connection is for; "" when the peer may not use us."""
        handshake = wire.Handshake(self._secret, self._world.entropy.token(wire.NONCE_BYTES), self._ring_version())
        with trio.move_on_after(HANDSHAKE_TIMEOUT_S):
            await frames.send(handshake.challenge())
            _, payload = await frames.expect(FrameType.PROOF)
            try:
                welcome = handshake.welcome(payload)
            except wire.Refused:
                self.refused += 1
                raise
            await frames.send(welcome)
            frames.peer_minor = handshake.peer_minor
            self.peer_ring_version = max(self.peer_ring_version, handshake.peer_ring_version)
            return handshake.purpose
        return ""

    # ---- bodies

    async def _bodies(self, frames: Frames) -> None:
        while (frame := await frames.next()) is not None:
            kind, payload = frame
            try:
                match kind:
                    case FrameType.GET:
                        await self._get(frames, wire.decode(payload, wire.GET_BODY))
                    case FrameType.PUT:
                        await self._put(frames, wire.decode(payload, wire.PUT_BODY))
                    case _:
                        raise FormatError(f"a frame of type {kind.name} where it does not belong")
            except _Told:
                continue

    async def _get(self, frames: Frames, ask: wire.GetBody) -> None:
        reading = await _told(frames, self._open(ask))
        if reading is None:
            await frames.send(wire.encode_frame(FrameType.FOUND, wire.encode(None)))
            return
        try:
            await frames.send(wire.encode_frame(FrameType.FOUND, wire.encode(reading.version)))
            pieces = aiter(reading.pieces)
            while (piece := await _told(frames, anext(pieces, None))) is not None:
                if isinstance(piece, FileSlice):
                    await frames.send(wire.encode_head(FrameType.DATA_PLAIN, piece.length, 0))
                    await _send_file(frames, piece)
                else:
                    for at in range(0, len(piece), wire.DATA_BYTES):
                        await frames.send(wire.encode_frame(FrameType.DATA, piece[at : at + wire.DATA_BYTES]))
            await frames.send(wire.encode_frame(FrameType.END, b""))
        finally:
            await aclose(reading.pieces)

    async def _open(self, ask: wire.GetBody) -> NodeReading | None:
        node = _node(self.nodes, ask.device).of(ask.policy)
        if ask.version is not None:
            pieces = await node.fragments().read(ask.version, ask.offset, ask.length or 0)
            return None if pieces is None else NodeReading(ask.version, pieces)
        return await node.get(ask.path, ask.timestamp, ask.offset, ask.length)

    async def _put(self, frames: Frames, ask: wire.PutBody) -> None:
        upload = await _told(frames, self._begin(ask))
        try:
            await frames.send(wire.encode_frame(FrameType.READY, b""))
            while True:
                kind, payload = await frames.expect(FrameType.DATA, FrameType.COMMIT)
                if kind is FrameType.DATA:
                    try:
                        await upload.write(payload)
                    except (Unavailable, DiskFault) as error:
                        await frames.send(wire.encode_frame(FrameType.FAILED, wire.encode(wire.failure_of(error))))
                        raise  # more data is on its way: only closing ends it
                else:
                    commit = wire.decode(payload, wire.COMMIT)
                    upload.claim = self.claim(commit.edition)
                    try:
                        reply = await _end(upload, commit)
                    except (StaleRing, PromisedAbove, ClockAhead) as error:  # the upload is as it was: it may be committed yet
                        await frames.send(wire.encode_frame(FrameType.FAILED, wire.encode(wire.failure_of(error))))
                        continue
                    except RingfortError as error:
                        await _tell(frames, error)
                    await frames.send(wire.encode_frame(FrameType.DONE, wire.encode(reply)))
                    return
        finally:
            with trio.CancelScope(shield=True):
                await upload.abort()

    async def _begin(self, ask: wire.PutBody) -> NodeUpload | FragmentUpload:
        node = _node(self.nodes, ask.device).of(ask.policy)
        if ask.piece_bytes:
            return await node.fragments().begin(ask.path, ask.size or 0, ask.piece_bytes)
        return await node.put_large(ask.path, ask.size)


async def _end(upload: NodeUpload | FragmentUpload, commit: wire.Commit) -> WriteReply:
    """BadInput when it is ended as something else than it was begun as."""
    stage = getattr(upload, "stage", None)
    if bool(commit.fragment) != (stage is not None):
        raise BadInput("a fragment is staged, and an object is committed")
    if stage is None:
        return await cast(NodeUpload, upload).commit(commit.version, commit.debt)
    fragment = decode_fragment(commit.fragment)
    return await cast(FragmentUpload, upload).stage(commit.version, fragment, seen=commit.seen, promised=commit.promised)


async def _fragments(node: FragmentNode, question: fragment_messages.Message) -> object:
    match question:
        case fragment_messages.Sightings(path):
            return list(await node.sightings(path))
        case fragment_messages.Stage(version, data, seen, promised):
            return await node.stage(version, data, seen=seen, promised=promised)
        case fragment_messages.CommitStaged(version, debt, seen):
            return await node.commit(version, debt, seen=seen)
        case fragment_messages.Refuse(version):
            await node.refuse(version)
            return None
        case fragment_messages.Forget(version):
            await node.forget(version)
            return None
        case fragment_messages.Describe(version):
            fragment = await node.describe(version)
            return None if fragment is None else encode_fragment(fragment)


class _Told(Exception):
    """The peer has been told of an error; the connection goes on."""


async def _told(frames: Frames, call: Awaitable[T]) -> T:
    """Do it; an error that the peer should know of is sent to it (then _Told)."""
    try:
        return await call
    except RingfortError as error:
        await _tell(frames, error)


async def _tell(frames: Frames, error: RingfortError) -> NoReturn:
    await frames.send(wire.encode_frame(FrameType.FAILED, wire.encode(wire.failure_of(_plain(error)))))
    raise _Told from error


async def _send_file(frames: Frames, piece: FileSlice) -> None:
    try:
        await frames.stream.send_file(piece.file, piece.offset, piece.length)
    except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
        raise Unavailable("a file could not be sent to its end") from error  # the frame is cut: the connection must end


def _node(nodes: Mapping[int, Node], device: int) -> Node:
    node = nodes.get(device)
    if node is None:
        raise Unavailable(f"device {device} is not served here")
    return node


def _plain(error: RingfortError) -> RingfortError:
    """A fault of the disk is, to others, a node that cannot answer now."""
    return Unavailable(error.message) if isinstance(error, DiskFault) else error


async def _close(what: Listener | Stream) -> None:
    """Without waiting, whatever happens around it."""
    with trio.CancelScope(shield=True) as scope:
        scope.cancel()
        await what.aclose()


class _Questions:
    """The questions of one connection and their answers."""

    def __init__(self, server: NodeServer, frames: Frames) -> None:
        self._server = server
        self._frames = frames
        self._answers: deque[wire.Answer] = deque()
        self._ready = trio.Event()
        self._in_flight = 0
        self._room = trio.Event()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send, nursery.cancel_scope)
            try:
                while (frame := await self._frames.next()) is not None:
                    kind, payload = frame
                    if kind is not FrameType.QUESTIONS:
                        raise FormatError(f"a frame of type {kind.name} where it does not belong")
                    self._server.frames_received += 1
                    for ask in wire.decode(payload, wire.ASKS):
                        if isinstance(ask.question, _QUICK):
                            await self._answer(ask)
                        else:
                            nursery.start_soon(self._answer, ask)
                            self._in_flight += 1
                    while self._in_flight > IN_FLIGHT_MAX:
                        self._room = trio.Event()
                        await self._room.wait()
            except (FormatError, Unavailable):
                pass  # over.  Writes that were begun end in their devices; nobody waits for the answers any more
            nursery.cancel_scope.cancel()

    async def _send(self, scope: trio.CancelScope) -> None:
        try:
            while True:
                await self._ready.wait()
                self._ready = trio.Event()
                while self._answers:
                    batch, size = [], 0
                    while self._answers and size < wire.BATCH_BYTES:
                        answer = self._answers.popleft()
                        size += len(memoryview(answer.value))
                        batch.append(answer)
                    await self._frames.send(wire.encode_frame(FrameType.ANSWERS, wire.encode(batch)))
        except Unavailable:
            scope.cancel()

    async def _answer(self, ask: wire.Ask) -> None:
        quick = isinstance(ask.question, _QUICK)
        try:
            answer = wire.Answer(ask.id, wire.raw(await self._do(ask)))
        except RingfortError as error:
            answer = wire.Answer(ask.id, _NIL, wire.failure_of(_plain(error)))
        self._answers.append(answer)
        self._ready.set()
        if not quick:
            self._in_flight -= 1
            self._room.set()

    async def _do(self, ask: wire.Ask) -> object:
        if isinstance(ask.question, wire.EditionFile | wire.RingPart):
            return await self._tell_rings(ask.question)
        if isinstance(ask.question, wire.Fill):
            return await self._fill(ask.device, ask.question, ask.edition)
        node = _node(self._server.nodes, ask.device)
        if ask.policy:
            node = node.of(ask.policy)
        if ask.edition:
            node = node.under(self._server.claim(ask.edition))
        if isinstance(ask.question, fragment_messages.MESSAGES):
            return await _fragments(node.fragments(), ask.question)
        match ask.question:
            case wire.PutSmall(version, data, debt):
                return await node.put_small(version, data, debt)
            case wire.Head(path):
                return await node.head(path)
            case wire.Promise(path, ballot, ours):
                return await node.promise(path, ballot, ours)
            case wire.Release(path, ballot):
                await node.release(path, ballot)
                return None
            case wire.Get(path, timestamp, offset, length):
                return await _found(await node.get(path, timestamp, offset, length), offset, length)
            case wire.ByKey(key):
                return await _found(await node.object_by_key(key), 0, None)
            case wire.Post(path, metadata, content_type, timestamp, of):
                return await node.post(path, metadata, content_type, timestamp, of)
            case wire.MergeRows(book, rows):
                return await node.merge_rows(book, rows)
            case wire.MergeHeader(header):
                return await node.merge_header(header)
            case wire.Book(path):
                return await node.book(path)
            case wire.Rows(path, start, end, limit, reverse):
                page = await node.rows(path, start=start, end=end, limit=limit, reverse=reverse)
                if page is None:
                    return None
                if self._frames.peer_minor < 3 and MAP in page.state.header.metadata:  # it would take what is here for all
                    raise Unavailable(f"{path} is in shards", hint="upgrade the node that asks: it speaks a version before 1.3")
                packed = page.rows if isinstance(page.rows, PackedRows) else PackedRows.of(page.rows)
                return wire.PageOfRows(page.state, packed.packed, page.complete)
            case wire.Digests(kind) as question:
                return await node.digests(kind, wire.span_of(question))
            case wire.Leaf(kind, _, leaf) as question:
                return await node.leaf(kind, wire.span_of(question), leaf)

    async def _fill(self, device: int, question: wire.Fill, edition: int) -> Filled:
        filler = self._server.fillers.get(device)
        if filler is None:
            raise Unavailable(f"device {device} is not served here")
        return await filler.fill(question.ring, question.part_power, question.partitions, question.target, edition)

    async def _tell_rings(self, question: wire.EditionFile | wire.RingPart) -> bytes:
        rings = self._server.rings
        if rings is None:
            raise Unavailable("this node does not tell its rings")
        if isinstance(question, wire.EditionFile):
            return await rings.edition_file()
        return await rings.ring_part(question.name, question.version, question.offset)


async def _found(reading: NodeReading | None, offset: int, length: int | None) -> wire.Found | None:
    """With the body when it is small."""
    if reading is None:
        return None
    size = max(0, reading.version.size - offset)
    if (size if length is None else min(size, length)) > wire.INLINE_BYTES_MAX:
        await aclose(reading.pieces)
        return wire.Found(reading.version, None)
    return wire.Found(reading.version, await drained(reading.pieces))

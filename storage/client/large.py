"""Large bodies: one stream in, a stream to each primary out, in chunks, with bounded memory.

Every replica has a short queue.  When a queue is full the body waits for it; when it stays full although a majority has taken the
chunk, that replica is left behind and is mended afterwards.  A primary that cannot begin is replaced by a handoff, which makes
the object safer and does not count.  Nothing is visible before the commits.

Newer rings may come into force while a body is on its way.  The devices then refuse its commit as it was begun; it is committed by
the new rings where it lies, and a device that is new to it gets a copy from one that has committed.

Neighbours: objects (the caller, which commits through writing.Write), local and remote (the uploads).
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

import trio

from ring.errors import BadInput, DiskFault, Unavailable
from ring.names import Path
from ring.service.errors import StaleRing
from ring.service.overlap import Claim
from ring.timestamp import ZERO
from ring.wire.message import Piece
from ring.world.interface import Buffer
from storage.client.bodies import aclose, loaded
from storage.client.errors import BadDigest, ClockAhead, DeviceFull, EntityTooLarge, NoQuorum, NoRoom, PromisedAbove
from storage.client.interface import BodySource, NewObject
from storage.client.node import Debt, Node, NodeUpload, Version, WriteReply
from storage.client.reach import NewFirst, Reach, Replicas
from storage.client.repair import copy
from storage.client.writing import Send

ABORT_TIMEOUT_S = 2.0
COPY_TIMEOUT_S = 10.0  # for somebody to have committed what is to be copied


class LargeBody:
    """A body that lies, uncommitted, on the devices that kept up.  ``aclose`` forgets what was not committed."""

    def __init__(self, reach: Reach, places: Sequence[Place], size: int, etag: str, pack_cut_bytes: int) -> None:
        self._reach = reach
        self._places = places
        self._pack_cut_bytes = pack_cut_bytes
        self.size = size
        self.etag = etag

    def commits(self, version: Version, replicas: Replicas) -> list[Send]:
        """Per primary, by the rings of ``replicas``: commit its upload (or that of the handoff in its place, which still leaves the
        primary without)."""
        places = {place.node.device.id: place for place in self._places}
        claim = replicas.overlap.claim if replicas.overlap.claim.edition else None
        if all(node.device.id in places for node in replicas.nodes):
            sends: list[Send] = [places[node.device.id].commits(version, claim) for node in replicas.nodes]
            return sends if len(replicas.voters.groups) == 1 else self._new_first(sends, replicas)
        committed = _Committed()
        sends = []
        for node in replicas.nodes:
            place = places.get(node.device.id)
            if place is None:
                sends.append(committed.copies(version, self._pack_cut_bytes))
            else:
                sends.append(committed.notes(place.commits(version, claim)))
        return sends

    def _new_first(self, sends: Sequence[Send], replicas: Replicas) -> list[Send]:
        order = NewFirst(replicas.voters, 0, self._reach.settings.write_timeout_s)

        def after(index: int, send: Send) -> Send:
            async def commit(node: Node, debt: Debt | None) -> WriteReply:
                await order.turn(index)
                reply = await send(node, debt)
                order.took(index)
                return reply

            return commit

        return [after(index, send) for index, send in enumerate(sends)]

    async def again(self, version: Version, stored: Sequence[Node]) -> AsyncIterator[AsyncIterator[Piece]]:
        """The body, from each that has it by now under this version."""
        for node in stored:
            reading = await node.get(version.path, version.timestamp, 0, None)
            if reading is None:
                continue
            if (reading.version.etag, reading.version.size) == (version.etag, version.size):
                yield reading.pieces
            else:  # another write was given the same timestamp, and won
                await aclose(reading.pieces)

    async def aclose(self) -> None:
        await abort(self._places)


async def send_large(
    reach: Reach, replicas: Replicas, path: Path, new: NewObject, start: Sequence[bytes], body: BodySource
) -> LargeBody:
    """Read ``body`` (after the chunks in ``start``) to its end, onto the primaries.

    NoQuorum when fewer than a majority of them can take it; BadDigest, EntityTooLarge, and what ``body.read`` raises: in all
    cases the uploads are gone."""
    sending = Sending(reach, replicas, path, new, body.length)
    complete = False
    try:
        await sending.feed(start, body)
        await sending.drain()
        complete = True
    finally:
        if not complete:
            await abort(sending.places)
    return LargeBody(reach, sending.places, sending.size, sending.digest.hexdigest(), reach.settings.pack_cut_bytes)


class PiecesSource:
    """A BodySource over the pieces of a reading, to write it again."""

    def __init__(self, pieces: AsyncIterator[Piece], size: int) -> None:
        self.length: int | None = size
        self._pieces = pieces
        self._rest = b""

    async def read(self, max_bytes: int = 1 << 20) -> bytes:
        if not self._rest:
            self._rest = await loaded(await anext(self._pieces, b""))
        data, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
        return data

    async def aclose(self) -> None:
        await aclose(self._pieces)


class Sending:
    """The body's side: hands each chunk to every place.  storage.client.coded_writing hands each its fragment of it."""

    def __init__(self, reach: Reach, replicas: Replicas, path: Path, new: NewObject, length: int | None) -> None:
        self._reach = reach
        self._settings = reach.settings
        self._path = path
        self._new = new
        self._length = length
        self._changed = trio.Event()
        self._replicas = replicas
        self._handoffs = replicas.handoffs()
        self._voters = replicas.voters
        self._handoffs_count = reach.available(replicas.policy) and new.condition is None
        self.places = [Place(self, node) for node in replicas.nodes]
        self.full = 0  # bits of the primaries that had no room
        self.size = 0
        self.digest = hashlib.md5(usedforsecurity=False)
        for place in self.places:
            reach.fanout.spawn(place.run)

    def changed(self) -> None:
        """A place has room, is through, or failed."""
        self._changed.set()

    async def begin(self, place: Place) -> NodeUpload:
        """An upload on the place's primary, or else on a handoff."""
        node: Node | None = place.node
        while node is not None:
            try:
                upload = await self.open(node)
                place.holder = node
                return upload
            except (Unavailable, DiskFault) as error:
                if place.on_primary and isinstance(error, DeviceFull):
                    self.full |= 1 << self.places.index(place)
                place.on_primary = False
                self.changed()
            device = self._handoffs.next()
            node = self._reach.handoff(self._replicas, device) if device is not None else None
        raise Unavailable("no device can take this replica")

    def counts(self, place: Place) -> bool:
        """Whether what it has is one of the copies that are needed."""
        return place.on_primary or self._handoffs_count

    async def open(self, node: Node) -> NodeUpload:
        return await node.put_large(self._path, self._length)

    def enough(self, places: int) -> bool:
        """Whether these (bits) can make the object durable."""
        if self._handoffs_count:
            return places.bit_count() >= self._voters.groups[0][1]
        return self._voters.majority(places)

    async def feed(self, start: Sequence[bytes], body: BodySource) -> None:
        for chunk in start:
            await self._take(chunk)
        while self._length is None or self.size < self._length:
            chunk = await self._gather(body)
            if not chunk:
                break
            await self._take(chunk)
        await self.ended()
        if self._length is not None and self.size != self._length:
            raise BadInput(f"the body ended after {self.size} of {self._length} bytes")
        if self._new.etag and self._new.etag != self.digest.hexdigest():
            raise BadDigest(f"the body's MD5 is {self.digest.hexdigest()}, not {self._new.etag}")

    async def _gather(self, body: BodySource) -> bytes:
        """A whole chunk, out of what ``body`` gives at a time; less only at its end.  What the network brings in one go is small,
        and every step of a body costs each replica a wakeup, and the digest a thread."""
        parts: list[bytes] = []
        room = self._settings.chunk_bytes
        if self._length is not None:
            room = min(room, self._length - self.size)
        while room and (part := await body.read(room)):
            parts.append(part)
            room -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def drain(self) -> None:
        """Until every place has written what it was given, or is left behind."""
        for place in self.places:
            place.finish()
        await self.wait_for(lambda place: place.through)

    async def _take(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self._new.size_max is not None and self.size > self._new.size_max:
            raise EntityTooLarge(f"the object is larger than {self._new.size_max} bytes")
        await self.pass_on(chunk)

    async def pass_on(self, chunk: bytes) -> None:
        """To the places, and into the digest."""
        offer = self.offering(lambda place: chunk)
        for place in self.places:
            offer(place)
        if len(chunk) >= self._settings.offload_bytes:
            await self._reach.world.offload.run(self.digest.update, chunk)
        else:
            self.digest.update(chunk)
        await self.wait_for(offer)

    async def ended(self) -> None:
        """The body has come to its end."""

    def offering(self, data_of: Callable[[Place], Buffer]) -> Callable[[Place], bool]:
        """What gives a place its data, once; False while its queue is full."""
        taken: set[int] = set()

        def offer(place: Place) -> bool:
            if id(place) not in taken and place.offer(data_of(place), self._settings.queue_chunks):
                taken.add(id(place))
            return id(place) in taken

        return offer

    async def wait_for(self, ready: Callable[[Place], bool]) -> None:
        """Until every live place is ready; the last ones are left behind once a majority waits for them too long."""

        def enough_of(places: Sequence[Place]) -> bool:
            return self.enough(
                sum(1 << number for number, place in enumerate(self.places) if self.counts(place) and place in places)
            )

        deadline: float | None = None
        while True:
            self._changed = trio.Event()
            live = [place for place in self.places if not place.failed]
            if not enough_of(live):
                message = f"{self._path}: too few primaries take the body"
                short = self._replicas.short(message, self.full)
                raise short if isinstance(short, NoRoom) else NoQuorum(message)
            waiting = [place for place in live if not ready(place)]
            if not waiting:
                return
            enough = enough_of([place for place in live if place not in waiting])
            if deadline is None or (enough and deadline > trio.current_time() + self._settings.stall_s):
                deadline = trio.current_time() + (self._settings.stall_s if enough else self._settings.write_timeout_s)
            with trio.move_on_at(deadline) as scope:
                await self._changed.wait()
            if scope.cancelled_caught:
                if not enough:
                    raise NoQuorum(f"{self._path}: too few primaries keep up with the body")
                for place in waiting:
                    place.leave()


class Place:
    """One replica's side: writes what is in its queue."""

    def __init__(self, sending: Sending, node: Node) -> None:
        self.node = node
        self.on_primary = True
        self.failed = False
        self.through = False
        self._sending = sending
        self.holder = node  # who has its upload: the node, or a handoff in its place
        self._queue: deque[Buffer] = deque()
        self._finished = False
        self._wake = trio.Event()
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._upload: NodeUpload | None = None
        self._reply: WriteReply | None = None  # when it was committed
        self._reply_to = ZERO  # as which version

    def offer(self, chunk: Buffer, queue_chunks: int) -> bool:
        if len(self._queue) >= queue_chunks:
            return False
        self._queue.append(chunk)
        self._wake.set()
        return True

    def finish(self) -> None:
        self._finished = True
        self._wake.set()

    def leave(self) -> None:
        self.failed = True
        self._scope.cancel()

    async def run(self) -> None:
        with self._scope:
            try:
                await self._write_all()
                self.through = True
            except (Unavailable, DiskFault) as error:
                self.failed = True
                if self.on_primary and isinstance(error, DeviceFull):
                    self._sending.full |= 1 << self._sending.places.index(self)
        self._queue.clear()
        self._ended.set()
        self._sending.changed()

    async def _write_all(self) -> None:
        self._upload = await self._sending.begin(self)
        while True:
            while self._queue:
                await self._upload.write(self._queue[0])
                self._queue.popleft()
                self._sending.changed()
            if self._finished:
                return
            self._wake = trio.Event()
            await self._wake.wait()

    def take_upload(self) -> NodeUpload | None:
        """From here on nobody aborts it: whoever took it sees to its end.  None when it was left behind."""
        if self.failed:
            return None
        upload, self._upload = self._upload, None
        return upload

    def put_back(self, upload: NodeUpload) -> None:
        self._upload = upload

    def commits(self, version: Version, claim: Claim | None) -> Send:
        async def commit(node: Node, debt: Debt | None) -> WriteReply:
            if self._reply is None or self._reply_to != version.timestamp:
                self._reply, self._reply_to = await self._commit(version, debt, claim), version.timestamp
            if not self._sending.counts(self):
                raise Unavailable(f"a handoff has the copy of {node.device}")
            return self._reply

        return commit

    async def _commit(self, version: Version, debt: Debt | None, claim: Claim | None) -> WriteReply:
        upload = self.take_upload()
        if upload is None:
            raise Unavailable(f"{self.node.device} was left behind")
        upload.claim = claim if self.on_primary else None
        refused = False
        try:
            return await upload.commit(version, debt)
        except (StaleRing, PromisedAbove, ClockAhead):
            refused = True
            self._upload = upload
            raise
        finally:
            if not refused:
                with trio.CancelScope(shield=True):
                    await upload.abort()  # does nothing after a commit that came to its end

    async def abort(self) -> None:
        self._scope.cancel()
        await self._ended.wait()
        if self._upload is not None:
            await self._upload.abort()


class _Committed:
    """Where a body was committed first: from there it is copied to devices that newer rings name."""

    def __init__(self) -> None:
        self._node: Node | None = None
        self._there = trio.Event()

    def notes(self, send: Send) -> Send:
        async def commit(node: Node, debt: Debt | None) -> WriteReply:
            reply = await send(node, debt)
            self._node = self._node or node
            self._there.set()
            return reply

        return commit

    def copies(self, version: Version, pack_cut_bytes: int) -> Send:
        async def bring(node: Node, debt: Debt | None) -> WriteReply:
            with trio.move_on_after(COPY_TIMEOUT_S):
                await self._there.wait()
            reading = await self._node.get(version.path, version.timestamp, 0, None) if self._node is not None else None
            if reading is None:
                raise Unavailable(f"nobody has the body for {node.device}")
            return await copy(reading, node, pack_cut_bytes, debt)

        return bring


async def abort(places: Sequence[Place]) -> None:
    """Whatever happens around it: uploads that were not committed are forgotten."""
    with trio.CancelScope(deadline=trio.current_time() + ABORT_TIMEOUT_S, shield=True):
        for place in places:
            await place.abort()

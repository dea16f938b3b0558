"""Writing of erasure-coded policies: fragments, or the whole copies of a small object, staged at the primaries and then committed.

A large body is coded stripe by stripe as it comes, and each primary is sent its fragment through a queue of its own
(storage.client.large has the queues, and what becomes of those that do not keep up).  Then both kinds go the same way (``Round``):
stage everywhere; when enough of it is durable (storage.erasure.quorum), commit everywhere; acknowledged when a majority has
committed.  Until the first commit is sent nothing of it is shown, and nothing that was there is touched.

A primary that shows something newer when it is to be staged: nothing was committed, and the write is made again above that.  When
it is to be committed: then the newer one came while this one was under way, since a majority had staged this one and shown nothing
newer; so this one counts as written and replaced there (``replaced``).

Neighbours: large and writing (the edges), fragments (the nodes), objects (the caller).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import trio

from ring.errors import Conflict, DiskFault, RingfortError, Unavailable
from ring.names import Path
from ring.service.errors import StaleRing
from ring.service.overlap import Claim
from ring.timestamp import Timestamp
from ring.wire.message import Piece
from ring.world.interface import Buffer
from storage.client.bodies import aclose
from storage.client.coded_reading import CodedFinding, holders_of, open_coded
from storage.client.errors import ClockAhead, PromisedAbove
from storage.client.fragments import FragmentUpload, Seen
from storage.client.interface import BodySource, NewObject
from storage.client.large import Place, Sending, abort
from storage.client.node import Debt, Node, NodeUpload, Version, WriteReply
from storage.client.quorum import Outcome, Reply, Verdict
from storage.client.reach import Reach, Replicas
from storage.client.writing import Send, at_once
from storage.erasure.codecs import make_codec
from storage.erasure.fragment import Fragment
from storage.erasure.interface import Coding
from storage.erasure.layout import Layout
from storage.erasure.quorum import Data, FragmentWrite, Holders
from storage.erasure.writer import Stripe, StripeWriter

BALLOT_OFFSET = 2  # at least, of the timestamps of conditional writes; plain ones have none
Stage = Callable[[Node], Awaitable[WriteReply]]


class Round:
    """Stage, then commit, of one version; it knows whether any of that may have come to be shown.  ``bare``: a deletion."""

    def __init__(self, reach: Reach, holders: Holders, version: Version, *, whole: bool = False, bare: bool = False) -> None:
        self._write = FragmentWrite(holders, whole=whole, bare=bare)
        self._version = version
        self._timeout_s = reach.settings.write_timeout_s
        self._verdict: Verdict | None = None
        self._decided = trio.Event()
        self._shows = 0  # calls that may have shown it
        self._over = False

    @property
    def newest(self) -> Timestamp:
        """What superseded it."""
        return self._write.newest

    @property
    def may_stand(self) -> bool:
        """Whether any device may have come to show it; nothing more will be sent once it is ``given_up``."""
        return self._shows > 0

    def give_up(self) -> None:
        self._over = True
        if self._verdict is None:
            self._verdict = Verdict.UNAVAILABLE
            self._decided.set()

    def send(
        self,
        replica: int,
        stage: Stage,
        commit: Callable[[Node], Node] = lambda node: node,
        *,
        counts: bool = True,
        promised: int = 0,
    ) -> Send:
        """For storage.client.writing.Write.  ``commit``: which node is told to commit; ``counts``: False for a handoff in the
        place of a primary, which is told too.  ``promised``: of a conditional write, who stood to the promise when its condition
        was looked at: one who gave it later may have taken something before that was not seen, so it is told and does not count."""
        counts = counts and (not promised or bool(promised >> replica & 1))

        async def run(node: Node, debt: Debt | None) -> WriteReply:
            try:
                staged = await stage(node)
            except RingfortError:
                self._take(replica, Reply(Outcome.FAILED))
                raise
            if not counts:
                self._take(replica, Reply(Outcome.FAILED))
            elif staged.newest > self._version.timestamp:
                self._take(replica, Reply(Outcome.SUPERSEDED, staged.newest))
            else:
                self._take(replica, Reply(Outcome.STORED))
            with trio.move_on_after(self._timeout_s):
                await self._decided.wait()
            if self._verdict is None:
                self.give_up()  # from here on nobody commits it
            if self._verdict is Verdict.SUPERSEDED:
                return WriteReply(max(self._write.newest, staged.newest), paid=True)
            if self._verdict is not Verdict.STORED:
                raise Unavailable(f"{self._version.path}: too few fragments are durable")
            if staged.newest > self._version.timestamp:
                return replaced(self._version, staged)
            return await self.show(lambda: commit(node).fragments().commit(self._version, debt))

        return run

    async def show(self, call: Callable[[], Awaitable[WriteReply]]) -> WriteReply:
        """The step that shows it at a device, and what the reply means."""
        if self._over:
            raise Unavailable(f"{self._version.path}: its writer has given it up")
        self._shows += 1
        try:
            reply = await call()
        except (StaleRing, PromisedAbove, ClockAhead, Conflict):
            self._shows -= 1  # the device took nothing
            raise
        if reply.newest > self._version.timestamp:
            self._write.newest = max(self._write.newest, reply.newest)
            if self._write.bare or reply.never:  # what was staged might have been finished by a reconstructor, and replaced
                self._shows -= 1
        return replaced(self._version, reply)

    def _take(self, replica: int, reply: Reply) -> None:
        verdict = self._write.stage(replica, reply)
        if self._verdict is None and verdict is not None:
            self._verdict = verdict
            self._decided.set()


def replaced(version: Version, reply: WriteReply) -> WriteReply:
    """What a device's reply to the last step of a write means: also when it shows something newer the write counts as done there,
    just before that, which came at the same time.  Unavailable when one of the two is conditional, since that one was evaluated
    without the other: then the write may have been seen before, or never.

    A plain one of the very same time, which won, is told as (ticks, 1); a ballot has a greater offset (``BALLOT_OFFSET``)."""
    if reply.newest <= version.timestamp:
        return reply
    tied = reply.newest == Timestamp(version.timestamp.ticks, 1)
    if version.timestamp.offset or (reply.newest.offset and not tied):
        raise Unavailable(f"{version.path}: a conditional write came between")
    return WriteReply(version.timestamp, paid=True)


# ---- small objects, and deletions


def stage_copies(
    reach: Reach, coding: Coding, replicas: Replicas, version: Version, data: Buffer, *, promised: int
) -> tuple[Round, list[Send]]:
    """Per primary: a whole copy for the first m + 1, for the others a note that there is this version."""
    holders = holders_of(coding, replicas, version.path)
    write = Round(reach, holders, version, whole=True)
    copies = holders.copies
    return write, [
        write.send(replica, _stage(version, data if copies >> replica & 1 else None, promised, replica), promised=promised)
        for replica in range(len(replicas.nodes))
    ]


def stage_deletion(reach: Reach, coding: Coding, replicas: Replicas, version: Version, promised: int) -> tuple[Round, list[Send]]:
    """That of a conditional write."""
    write = Round(reach, holders_of(coding, replicas, version.path), version, bare=True)
    return write, [
        write.send(replica, _stage(version, None, promised, replica), promised=promised) for replica in range(len(replicas.nodes))
    ]


def bury(reach: Reach, coding: Coding, replicas: Replicas, version: Version) -> tuple[Round, list[Send]]:
    """A plain deletion, in one step."""
    write = Round(reach, holders_of(coding, replicas, version.path), version, bare=True)

    async def send(node: Node, debt: Debt | None) -> WriteReply:
        return await write.show(lambda: node.put_small(version, b"", debt))

    return write, at_once(replicas, send)


def _stage(version: Version, data: Buffer | None, promised: int, replica: int) -> Stage:
    async def run(node: Node) -> WriteReply:
        return await node.fragments().stage(version, data, promised=bool(promised >> replica & 1))

    return run


# ---- large ones


async def send_coded(
    reach: Reach, coding: Coding, replicas: Replicas, path: Path, new: NewObject, start: Sequence[bytes], body: BodySource
) -> CodedBody:
    """``send_large`` for fragments: NoQuorum when too few primaries can take theirs, and as there."""
    sending = _CodedSending(reach, coding, replicas, path, new, body.length)
    complete = False
    try:
        await sending.feed(start, body)
        await sending.drain()
        complete = True
    finally:
        if not complete:
            await abort(sending.places)
    return CodedBody(reach, sending, path)


class _CodedSending(Sending):
    def __init__(self, reach: Reach, coding: Coding, replicas: Replicas, path: Path, new: NewObject, length: int | None) -> None:
        self.coding = coding
        self.policy = replicas.policy
        self.holders = holders_of(coding, replicas, path)
        self.writer = StripeWriter(make_codec(coding), coding)
        self._piece_bytes = Layout(coding, coding.segment_bytes).full_piece_bytes
        self._fragment_bytes = 0 if length is None else Layout(coding, length).fragment_bytes
        super().__init__(reach, replicas, path, new, length)
        self.indexes = {id(place): index for place, index in zip(self.places, self.holders.indexes, strict=True)}
        self._offload = reach.world.offload
        self._object = path

    async def open(self, node: Node) -> NodeUpload:
        upload = await node.fragments().begin(self._object, self._fragment_bytes, self._piece_bytes)
        return cast(NodeUpload, upload)  # but for its commit, which is ``stage``

    def enough(self, places: int) -> bool:
        return self.holders.durable(places)

    async def pass_on(self, chunk: bytes) -> None:
        """Coded and digested on a thread; each stripe goes when there is room for it."""
        for stripe in await self._offload.run(self._code, chunk):
            await self._offer(stripe)

    async def ended(self) -> None:
        for stripe in list(self.writer.finish()):
            await self._offer(stripe)

    def _code(self, chunk: bytes) -> list[Stripe]:
        self.digest.update(chunk)
        return list(self.writer.feed(chunk))

    async def _offer(self, stripe: Stripe) -> None:
        await self.wait_for(self.offering(lambda place: stripe.pieces[self.indexes[id(place)]]))


class CodedBody:
    """A body whose fragments lie, not staged yet, on the devices that kept up.  ``aclose`` forgets what was not staged."""

    def __init__(self, reach: Reach, sending: _CodedSending, path: Path) -> None:
        self.size = sending.size
        self.etag = sending.digest.hexdigest()
        self._reach = reach
        self._places = sending.places
        self._coding = sending.coding
        self._writer = sending.writer
        self._path = path
        self._policy = sending.policy
        self._coded = [_CodedPlace(place, sending.indexes[id(place)]) for place in sending.places]

    @property
    def spent(self) -> bool:
        """Some of it is staged, and cannot be staged as another version."""
        return any(one.staged for one in self._coded)

    def steps(self, version: Version, replicas: Replicas, *, promised: int) -> tuple[Round, list[Send]]:
        """Per primary, by the rings of ``replicas``: stage its fragment and commit it.  A primary that newer rings name has none
        yet: the reconstructor makes it."""
        places = {one.place.node.device.id: one for one in self._coded}
        claim = replicas.overlap.claim if replicas.overlap.claim.edition else None
        holders = holders_of(self._coding, replicas, self._path)
        indexes = [
            places[node.device.id].index if node.device.id in places else index
            for node, index in zip(replicas.nodes, holders.indexes, strict=True)
        ]
        write = Round(self._reach, replace(holders, indexes=tuple(indexes)), version)
        fragments = self._writer.fragments(replicas.overlap.ring.hasher.hash(self._path), version.timestamp, version.etag)
        sends: list[Send] = []
        for replica, node in enumerate(replicas.nodes):
            one = places.get(node.device.id)
            if one is None:
                sends.append(write.send(replica, _has_none))
                continue
            on_primary = one.place.on_primary
            stage = partial(one.stage, version, fragments[one.index], claim, on_primary and bool(promised >> replica & 1))
            send = write.send(replica, stage, one.holder, counts=on_primary, promised=promised)
            sends.append(send if on_primary else _for_a_handoff(send))
        return write, sends

    async def aclose(self) -> None:
        await abort(self._places)

    async def again(self, version: Version) -> AsyncGenerator[AsyncIterator[Piece], None]:
        """From what is staged."""
        replicas = self._reach.objects(self._policy, version.path)
        index_of = {node.device.id: replica for replica, node in enumerate(replicas.nodes)}
        seen = {
            index_of[one.place.node.device.id]: Seen(version, False, Data.FRAGMENT, one.index)
            for one in self._coded
            if one.place.on_primary and one.staged and one.place.node.device.id in index_of
        }
        finding = CodedFinding(version, replicas, (), (), (), self._coding, seen)
        try:
            pieces = await open_coded(self._reach, finding, version, 0, None)
        except (Unavailable, DiskFault):
            return
        try:
            yield pieces
        finally:
            await aclose(pieces)


class _CodedPlace:
    def __init__(self, place: Place, index: int) -> None:
        self.place = place
        self.index = index
        self.staged = False
        self._reply: tuple[Version, WriteReply] | None = None

    def holder(self, node: Node) -> Node:
        """Who is told to commit."""
        return node if self.place.on_primary else self.place.holder

    async def stage(self, version: Version, fragment: Fragment, claim: Claim | None, promised: bool, node: Node) -> WriteReply:
        if self._reply is not None and self._reply[0] == version:
            return self._reply[1]
        upload = cast(FragmentUpload | None, self.place.take_upload())
        if upload is None:
            raise Unavailable(f"{node.device} was left behind")
        upload.claim = claim if self.place.on_primary else None
        ended = True
        try:
            reply = await upload.stage(version, fragment, promised=promised)
            self._reply = version, reply
            self.staged = True
            return reply
        except (StaleRing, PromisedAbove, ClockAhead):
            ended = False
            self.place.put_back(cast(NodeUpload, upload))  # it can be staged by newer rings, or at a later time
            raise
        finally:
            if ended:
                with trio.CancelScope(shield=True):
                    await upload.abort()  # does nothing after a stage that came to its end


async def _has_none(node: Node) -> WriteReply:
    raise Unavailable(f"{node.device} was not there when the body came")


def _for_a_handoff(send: Send) -> Send:
    async def run(node: Node, debt: Debt | None) -> WriteReply:
        await send(node, debt)
        raise Unavailable(f"a handoff has the fragment of {node.device}")

    return run

"""Reading of erasure-coded policies: the newest committed version at a majority, and its body from any k verified fragments.

``find_coded`` asks the primaries what they have of a name (storage.erasure.quorum decides); what only a minority has committed is
mended before it is shown.  A small object's body comes from a whole copy, as any other; a large one's from fragments: the
range's data pieces as long as all goes well, parity when one of them is slow, bad or gone, also in the middle of the body.  Pieces
are checked by the device and again here (storage.erasure.reader), and what was sent already is not sent again.

Each fragment is read as one stream, so an object that is replaced while it is read goes on being read.  At most ``WINDOW`` stripes
are in memory.  Neighbours: reading (the same for whole copies), fragments (the nodes), mending (repairs), objects (the caller).
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import trio

from ring.errors import DiskFault, FormatError, RingfortError, Unavailable
from ring.names import Path, partition_of
from ring.wire.message import Piece
from ring.world.interface import Buffer
from storage.client.bodies import aclose, loaded
from storage.client.errors import Doubted
from storage.client.fanout import Progress
from storage.client.fragments import FragmentNode, LocalFragments, Seen
from storage.client.node import Node, Version
from storage.client.quorum import rank
from storage.client.reach import Reach, Replicas
from storage.client.reading import Finding, open_body
from storage.erasure.codecs import make_codec
from storage.erasure.errors import MixedFragments, TooFewFragments
from storage.erasure.fragment import Fragment
from storage.erasure.interface import Coding
from storage.erasure.quorum import Data, FragmentRead, Holders, ReadVerdict
from storage.erasure.reader import Ask, Reader, Ready

SLOW_S = 0.5  # a piece that takes longer is asked of others too
MEND_ATTEMPTS = 3


@dataclass(slots=True)
class CodedFinding(Finding):
    """``seen``: what is known to be where, of the newest version, by replica."""

    coding: Coding
    seen: Mapping[int, Seen]


Mend = Callable[[Replicas, Path], Awaitable[None]]


def holders_of(coding: Coding, replicas: Replicas, path: Path) -> Holders:
    """Which fragment each replica is to have: a primary of the ring in force the one of its place, one that only the settled ring
    names the one of its place there.  Unavailable when a ring has not a replica for each fragment."""
    overlap = replicas.overlap
    ring, settled = overlap.ring, overlap.settled
    count = len(ring.primaries(replicas.partition))
    indexes = list(range(count))
    if len(replicas.nodes) > count:
        before = settled.primaries(partition_of(settled.hasher.hash(path), settled.part_power))
        place = {device.id: index for index, device in enumerate(before)}
        indexes += [place[node.device.id] for node in replicas.nodes[count:]]
    if count != coding.count:
        raise Unavailable(
            f"the ring of policy {replicas.policy} has {count} replicas, and not one for each fragment of {coding}",
            hint=f"ringfort ring FILE set_replicas {coding.count}, rebalance, and publish it",
        )
    return Holders(coding, replicas.voters, tuple(indexes))


async def gather(
    reach: Reach, replicas: Replicas, holders: Holders, path: Path, *, everybody: bool = False
) -> tuple[FragmentRead, dict[int, Sequence[Seen]]]:
    """What the primaries have of a name.  ``everybody``: wait for all that answer in time; else until it is settled.  One that has
    lost what it had counts as silent, and as one that lacks whatever is newest."""
    read = FragmentRead(holders)
    seen: dict[int, Sequence[Seen]] = {}
    nodes = [node.fragments() for node in replicas.nodes]
    rest = []
    for index, node in enumerate(nodes):
        if not isinstance(node, LocalFragments):
            rest.append(index)
        elif everybody or read.settled() is None:
            try:
                seen[index] = await node.sightings(path)
                read.receive(index, [one.sighting for one in seen[index]])
            except Doubted:
                read.fail(index)
                seen[index] = ()  # it takes what it lost, or newer
            except (Unavailable, DiskFault):
                read.fail(index)
    if not rest or (read.settled() is not None and not everybody):
        return read, seen
    listening = True

    def receive(at: int, reply: Sequence[Seen] | RingfortError) -> Progress:
        if not listening:
            return Progress.SETTLED
        if isinstance(reply, RingfortError):
            read.fail(rest[at])
            if isinstance(reply, Doubted):
                seen[rest[at]] = ()
        else:
            seen[rest[at]] = reply
            read.receive(rest[at], [one.sighting for one in reply])
        if read.answered | read.failed == holders.voters.everybody:
            return Progress.SETTLED
        return Progress.OPEN if everybody or read.settled() is None else Progress.SETTLED

    async def ask(at: int, node: Node) -> Sequence[Seen]:
        return await nodes[rest[at]].sightings(path)

    settling = reach.fanout.start([replicas.nodes[index] for index in rest], ask, receive)
    await settling.wait(reach.settings.read_timeout_s, 0)
    listening = False
    return read, seen


async def find_coded(
    reach: Reach, coding: Coding, replicas: Replicas, path: Path, mend: Mend, *, shown: bool = True, patient: bool = True
) -> CodedFinding:
    """The newest committed version of ``path``; when it is to be ``shown``, a majority has committed it, its metadata too, and it
    can be read.  While the promise of a conditional write keeps it from being brought there, that is waited for, if one is
    ``patient``.  NoQuorum, Outdated."""
    holders = holders_of(coding, replicas, path)
    until = trio.current_time() + (reach.settings.promise_wait_s if patient else 0)
    attempt = 0
    while True:
        read, seen = await gather(reach, replicas, holders, path)
        if not holders.voters.majority(read.answered):
            raise replicas.short(f"{path}: {read.answered.bit_count()} of {len(replicas.nodes)} primaries answered")
        finding = _finding(coding, replicas, read, seen)
        newest = finding.version
        if newest is None or not shown:
            return finding
        verdict = read.verdict()
        if verdict is ReadVerdict.SHOW and holders.voters.majority(_same_metadata(finding.seen, newest)):
            return finding
        if attempt >= MEND_ATTEMPTS - 1:
            if trio.current_time() >= until:
                break
            await reach.step_aside(min(attempt, 7))
        attempt += 1
        await mend(replicas, path)
    raise replicas.short(f"{path}: too few fragments, or too few primaries, have its newest version")


def _finding(coding: Coding, replicas: Replicas, read: FragmentRead, seen: Mapping[int, Sequence[Seen]]) -> CodedFinding:
    stamp = read.newest
    nodes = replicas.nodes
    silent = [node for index, node in enumerate(nodes) if not read.answered >> index & 1]
    if stamp is None:
        return CodedFinding(None, replicas, (), (), silent, coding, {})
    of_it = {index: one for index, some in seen.items() for one in some if one.stamp == stamp}
    version = max((one.version for one in of_it.values() if one.committed), key=rank)
    behind = [
        index for index in seen if index not in of_it or not of_it[index].committed or rank(of_it[index].version) < rank(version)
    ]
    lacking = (
        []
        if stamp.tombstone
        else [i for i, one in of_it.items() if one.data is Data.NONE and version.size > 0 and _wants(coding, of_it, i)]
    )
    holders = [nodes[index] for index, one in of_it.items() if one.data is Data.COPY]
    stale = [nodes[index] for index in sorted({*behind, *lacking})]
    return CodedFinding(version, replicas, holders, stale, silent, coding, of_it)


def _wants(coding: Coding, of_it: Mapping[int, Seen], index: int) -> bool:
    """A note where data should be: of a small object only the first m + 1 have copies."""
    copies = any(one.data is Data.COPY for one in of_it.values())
    return index <= coding.m if copies else index < coding.count


def _same_metadata(seen: Mapping[int, Seen], version: Version) -> int:
    return sum(1 << index for index, one in seen.items() if one.committed and rank(one.version) == rank(version))


# ---- bodies


async def open_coded(
    reach: Reach, finding: CodedFinding, version: Version, offset: int, length: int | None
) -> AsyncIterator[Piece]:
    """The bytes [offset, offset + length) of ``version``.  Unavailable when they cannot be had now."""
    end = version.size if length is None else min(version.size, offset + length)
    if finding.holders or offset >= end:
        plain = Finding(version, finding.replicas, finding.holders, (), ())
        return await open_body(reach, plain, version, offset, length)
    sources = {index: finding.replicas.nodes[index] for index, one in finding.seen.items() if one.data is Data.FRAGMENT}
    pieces = FragmentPieces(reach, finding, version, offset, end)
    ready = False
    try:
        await pieces.begin(sources)
        ready = True
    finally:
        if not ready:
            await aclose(pieces)
    return pieces


class FragmentPieces:
    """A body made of fragments, in order; an async iterator that must be closed."""

    def __init__(self, reach: Reach, finding: CodedFinding, version: Version, start: int, end: int) -> None:
        self._reach = reach
        self._finding = finding
        self._version = version
        self._range = (start, end)
        self._reader: Reader | None = None
        self._sources: dict[int, _Source] = {}
        self._waiting: dict[tuple[int, int], float] = {}  # source, stripe: since when
        self._ready: deque[bytes] = deque()
        self._changed = trio.Event()
        self._asked_handoffs = False
        self._closed = False

    async def begin(self, nodes: Mapping[int, Node]) -> None:
        """Know enough fragments to begin with, and have the first bytes.  Unavailable."""
        await self._describe(nodes)
        if self._reader is None:
            await self._ask_handoffs()
        if self._reader is None:
            raise Unavailable(f"{self._version.path}: no fragment of it can be had now")
        await self._fill()

    def __aiter__(self) -> FragmentPieces:
        return self

    async def __anext__(self) -> Piece:
        if not self._ready:
            await self._fill()
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()

    async def aclose(self) -> None:
        self._closed = True
        for source in self._sources.values():
            await source.close()

    async def _fill(self) -> None:
        """The next stripe; nothing at the end."""
        reader = self._reader
        assert reader is not None
        since = trio.current_time()
        while not self._ready and not reader.done:
            for ask in reader.asks():
                self._waiting[ask.source, ask.stripe] = trio.current_time()
                self._sources[ask.source].ask(ask)
            self._changed = trio.Event()
            try:
                ready = reader.take()
            except TooFewFragments:
                if self._asked_handoffs:
                    raise
                await self._ask_handoffs()
                continue
            if ready is not None:
                self._ready.extend(await self._decode(ready))
            else:
                await self._wait(reader, since)

    async def _wait(self, reader: Reader, since: float) -> None:
        with trio.move_on_after(SLOW_S):
            await self._changed.wait()
        now = trio.current_time()
        if now > since + self._reach.settings.write_timeout_s:
            raise Unavailable(f"{self._version.path}: its fragments do not come")
        for (source, stripe), at in list(self._waiting.items()):
            if now >= at + SLOW_S:
                reader.slow(source, stripe)

    async def _decode(self, ready: Ready) -> list[bytes]:
        if all(wanted.index in ready.pieces for wanted in ready.span.pieces):
            return [_bytes(view) for view in ready.decode()]
        views = await self._reach.world.offload.run(ready.decode)
        return [_bytes(view) for view in views]

    # ---- sources

    async def _describe(self, nodes: Mapping[int, Node]) -> None:
        """Add those that can say what they have; they may come later too."""
        numbers, missing = list(nodes), set(nodes)

        def receive(at: int, reply: Fragment | RingfortError | None) -> Progress:
            missing.discard(numbers[at])
            if isinstance(reply, Fragment) and not self._closed:
                self._add(numbers[at], nodes[numbers[at]].fragments(), reply)
            if not missing:
                return Progress.SETTLED
            known = {source.fragment.index for source in self._sources.values()}
            return Progress.DECIDED if len(known) >= self._finding.coding.k else Progress.OPEN

        async def ask(at: int, node: Node) -> Fragment | None:
            return await node.fragments().describe(self._version)

        if numbers:
            settling = self._reach.fanout.start([nodes[number] for number in numbers], ask, receive)
            await settling.wait(self._reach.settings.read_timeout_s, self._reach.settings.grace_s)

    def _add(self, number: int, node: FragmentNode, fragment: Fragment) -> None:
        origin, version = fragment.origin, self._version
        if (origin.timestamp, origin.etag, origin.size) != (version.timestamp, version.etag, version.size):
            return
        if self._reader is None:
            self._reader = Reader(make_codec(origin.coding), origin, *self._range)
        try:
            self._reader.add(number, fragment)
        except MixedFragments:
            return
        layout = origin.layout
        last = layout.stripes(*self._range).stop - 1
        until = layout.piece_start(last) + layout.piece_bytes(last)
        self._sources[number] = _Source(self._reach, node, self._version, fragment, until, self._took)
        self._changed.set()

    async def _ask_handoffs(self) -> None:
        """Fragments that lie where they do not belong, before giving up."""
        self._asked_handoffs = True
        order = self._finding.replicas.handoffs()
        found: dict[int, Node] = {}
        while (device := order.next()) is not None:
            found[len(self._finding.replicas.nodes) + len(found)] = self._reach.handoff(self._finding.replicas, device)
        await self._describe(found)

    def _took(self, ask: Ask, reply: Buffer | RingfortError) -> None:
        """What came of an ask."""
        self._waiting.pop((ask.source, ask.stripe), None)
        reader = self._reader
        if reader is None or self._closed:
            return
        if not isinstance(reply, RingfortError):
            reader.arrived(ask.source, ask.stripe, reply)
        elif isinstance(reply, _Gone):
            reader.failed(ask.source)
        else:
            reader.bad(ask.source, ask.stripe)
        self._changed.set()


class _Gone(Unavailable):
    """The source gives nothing any more."""


class _Source:
    """One fragment, read as a stream by one task at a time; asks are served in their order."""

    def __init__(
        self,
        reach: Reach,
        node: FragmentNode,
        version: Version,
        fragment: Fragment,
        until: int,
        took: Callable[[Ask, Buffer | RingfortError], None],
    ) -> None:
        self.fragment = fragment
        self._reach = reach
        self._node = node
        self._version = version
        self._until = until
        self._took = took
        self._asks: deque[Ask] = deque()
        self._running = False
        self._closed = False
        self._pieces: AsyncIterator[Piece] | None = None
        self._rest = b""
        self._at = 0

    def ask(self, ask: Ask) -> None:
        self._asks.append(ask)
        if not self._running:
            self._running = True
            self._reach.fanout.spawn(self._run)

    async def close(self) -> None:
        self._closed = True
        self._asks.clear()
        if not self._running:
            await self._end()

    async def _run(self) -> None:
        try:
            while self._asks and not self._closed:
                ask = self._asks.popleft()
                try:
                    reply: Buffer | RingfortError = await self._read(ask.offset, ask.length)
                except (Unavailable, DiskFault, FormatError) as error:
                    await self._end()
                    reply = error
                self._took(ask, reply)
        finally:
            self._running = False
            if self._closed:
                with trio.CancelScope(shield=True):
                    await self._end()

    async def _read(self, offset: int, length: int) -> bytes:
        if self._pieces is None or self._at != offset:
            await self._end()
            try:
                self._pieces = await self._node.read(self._version, offset, self._until - offset)
            except (Unavailable, DiskFault) as error:
                raise _Gone(error.message) from error
            if self._pieces is None:
                raise _Gone("the fragment is not there any more")
            self._at = offset
        parts: list[bytes] = []
        missing = length
        while missing:
            if not self._rest:
                self._rest = await loaded(await anext(self._pieces, b""))
                if not self._rest:
                    raise _Gone("the fragment is shorter than it should be")
            part, self._rest = (self._rest, b"") if len(self._rest) <= missing else (self._rest[:missing], self._rest[missing:])
            parts.append(part)
            missing -= len(part)
        self._at += length
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _end(self) -> None:
        pieces, self._pieces, self._rest = self._pieces, None, b""
        if pieces is not None:
            await aclose(pieces)


def _bytes(view: Buffer) -> bytes:
    """Without a copy, when it is all of what it is a view of."""
    if isinstance(view, memoryview) and isinstance(view.obj, bytes) and len(view) == len(view.obj):
        return view.obj
    return bytes(view)

"""Reading: find the newest version at a majority, and bring its body from a replica that has it, whichever fails on the way.

Devices of this worker are asked first and in line: their index answers without waiting, so when they make a majority a read costs
no task.  A body moves on to another replica when a block is bad or a node is lost; what was sent already is not sent again.

What only a minority holds is brought to a majority before anybody is told of it (``_secure``): a write that was not acknowledged
may be seen or not, but once it was seen it stays.

Neighbours: quorum (decides), fanout (carries), repair (is told what is stale), objects (the caller).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import trio

from ring.errors import DiskFault, RingfortError, Unavailable
from ring.names import Path
from ring.timestamp import Timestamp
from ring.wire.message import Piece
from storage.client.bodies import OnePiece, aclose
from storage.client.errors import Doubted, Lost, PromisedAbove, UnderPromise
from storage.client.fanout import Progress
from storage.client.local import LocalNode
from storage.client.node import Kind, Node, NodeReading, Version
from storage.client.quorum import ReadQuorum, rank
from storage.client.reach import NewFirst, Reach, Replicas
from storage.client.repair import bring


@dataclass(slots=True)
class Finding:
    """``version`` None: a majority knows of nothing (a tombstone is a version)."""

    version: Version | None
    replicas: Replicas
    holders: Sequence[Node]  # best first: those of this worker
    stale: Sequence[Node]  # lack the newest, as they said
    silent: Sequence[Node]  # did not answer

    @property
    def data(self) -> Version | None:
        """The version, when it is data and no tombstone."""
        return self.version if self.version is not None and self.version.kind is Kind.OBJECT else None


async def find(reach: Reach, replicas: Replicas, path: Path, *, shown: bool = True) -> Finding:
    """The newest version of ``path``; when it is to be ``shown``, a majority holds it.  NoQuorum when too few primaries answer, or
    can be brought to it (Outdated: because newer rings are in force); Lost when too many answer that what they had rotted."""
    nodes = replicas.nodes
    quorum = ReadQuorum(replicas.voters)
    doubted: list[int] = []
    for index, node in enumerate(nodes):
        if isinstance(node, LocalNode):
            try:
                if quorum.receive(index, await node.head(path)):
                    break
            except (Unavailable, DiskFault) as error:
                quorum.fail(index)
                if isinstance(error, Doubted):
                    doubted.append(index)
    if not quorum.settled:
        await _ask_others(reach, nodes, quorum, path, doubted)
    if doubted and not quorum.decided:
        await _ask_again(reach, nodes, quorum, path, doubted)
    if not quorum.decided:
        told = f"{path}: {len(quorum.answers)} of {len(nodes)} primaries answered"
        if replicas.voters.majority(quorum.answered | sum(1 << index for index in doubted)):
            raise Lost(f"{told}, {len(doubted)} lost what they had")
        raise replicas.short(told)
    agreed = quorum.agreed
    if agreed is not None:
        return _agreed(replicas, quorum, agreed, doubted)
    newest = quorum.newest
    if shown and newest is not None and not may_show(reach, replicas, newest, held := quorum.held):
        await _secure(reach, replicas, quorum, newest, held)
    holders = [nodes[index] for index in quorum.holders]
    holders.sort(key=lambda node: not isinstance(node, LocalNode))
    silent = [node for index, node in enumerate(nodes) if index not in quorum.answers]
    return Finding(newest, replicas, holders, [nodes[index] for index in (*quorum.stale, *doubted)], silent)


def _agreed(replicas: Replicas, quorum: ReadQuorum, version: Version, doubted: Sequence[int]) -> Finding:
    """A majority answered, and all of it holds the same."""
    nodes = replicas.nodes
    holders = [nodes[index] for index in quorum.answers]  # those of this worker answered first
    silent = [node for index, node in enumerate(nodes) if index not in quorum.answers]
    return Finding(version, replicas, holders, [nodes[index] for index in doubted], silent)


async def _ask_again(reach: Reach, nodes: Sequence[Node], quorum: ReadQuorum, path: Path, doubted: list[int]) -> None:
    """Those who lost what they had: the newest that the others hold may be just that.  Then they take it, and answer."""
    newest = quorum.newest
    if newest is None:
        return
    sources = [nodes[index] for index in quorum.holders]
    for index in list(doubted):
        with trio.move_on_after(reach.settings.write_timeout_s), suppress(Unavailable, DiskFault):
            if await bring(newest, sources, nodes[index], reach.settings.pack_cut_bytes, has_data=False):
                version = await nodes[index].head(path)
                quorum.failed &= ~(1 << index)
                quorum.receive(index, version)
                doubted.remove(index)


async def _ask_others(reach: Reach, nodes: Sequence[Node], quorum: ReadQuorum, path: Path, doubted: list[int]) -> None:
    asked = quorum.answered | quorum.failed
    places = [i for i in range(len(nodes)) if not asked >> i & 1]
    open_for_answers = True

    def receive(index: int, reply: Version | RingfortError | None) -> Progress:
        if not open_for_answers:
            return Progress.SETTLED
        if isinstance(reply, RingfortError):
            settled = quorum.fail(places[index])
            if isinstance(reply, Doubted):
                doubted.append(places[index])
        else:
            settled = quorum.receive(places[index], reply)
        return Progress.SETTLED if settled else Progress.DECIDED if quorum.decided else Progress.OPEN

    async def head(index: int, node: Node) -> Version | None:
        return await node.head(path)

    settling = reach.fanout.start([nodes[place] for place in places], head, receive)
    await settling.wait(reach.settings.read_timeout_s, reach.settings.grace_s)
    open_for_answers = False  # what comes now must not change a quorum that was acted on


def may_show(reach: Reach, replicas: Replicas, newest: Version, held: int) -> bool:
    """Whether what these replicas were found to hold may be shown.

    A large body that a majority of the settled ring's primaries holds may be shown before it was moved: their replicators bring it
    to the new ring's.  To bring it first would make each read of it wait for its move.  One of them must be a device that only the
    settled ring names: those take nothing that is new before the new ring's have it (``NewFirst``)."""
    voters = replicas.voters
    if voters.majority(held):
        return True
    if len(voters.groups) == 1 or newest.size <= reach.settings.pack_cut_bytes:
        return False
    members, needed = voters.groups[-1]
    return (held & members).bit_count() >= needed and bool(held & voters.leaving)


async def _secure(reach: Reach, replicas: Replicas, quorum: ReadQuorum, newest: Version, held: int) -> None:
    """Bring ``newest`` to those that answered and lack it, until a majority holds it.  NoQuorum when that does not come about in
    the time that a write has; it goes on behind.  UnderPromise when a conditional write is in the way: it may have been evaluated
    on something else, and what it did not see must not be shown before it."""
    nodes = replicas.nodes
    answers = dict(quorum.answers)
    targets = [i for i in answers if not held >> i & 1]
    sources = [nodes[i] for i in quorum.holders]
    asked = sum(1 << i for i in answers)
    failed = 0
    promised = False
    majority = replicas.voters.majority
    order = NewFirst(replicas.voters, held, reach.settings.write_timeout_s)

    async def call(index: int, node: Node) -> bool:
        await order.turn(targets[index])
        has = answers[targets[index]]
        same = has is not None and rank(has)[:3] == rank(newest)[:3]
        return await bring(newest, sources, node, reach.settings.pack_cut_bytes, has_data=same)

    def receive(index: int, reply: bool | RingfortError) -> Progress:
        nonlocal held, failed, promised
        if reply is True:
            held |= 1 << targets[index]
            order.took(targets[index])
        else:
            failed += 1 << targets[index]
            promised |= isinstance(reply, PromisedAbove)
        done = majority(held) or not majority(~failed & asked)
        return Progress.SETTLED if done else Progress.OPEN

    if targets:
        settling = reach.fanout.start([nodes[i] for i in targets], call, receive)
        await settling.wait(reach.settings.write_timeout_s, 0)
    if not majority(held):
        if promised:
            raise UnderPromise(f"{newest.path}: a conditional write of it is under way")
        raise replicas.short(f"{newest.path}: too few primaries hold its newest version, and more cannot be brought to it now")


async def open_body(reach: Reach, finding: Finding, version: Version, offset: int, length: int | None) -> AsyncIterator[Piece]:
    """The bytes [offset, offset + length) of ``version``, from whoever has it.  Unavailable when nobody can give them now."""
    end = version.size if length is None else min(version.size, offset + length)
    sources = _sources(reach, finding)
    if offset >= end:
        return _nothing()
    first = await _open_next(sources, version, offset, end - offset)
    if first is None:
        raise Unavailable(f"{version.path}: no replica can give the body of {version.timestamp}")
    if isinstance(first.pieces, OnePiece) and len(first.pieces) == end - offset:
        return first.pieces
    return _failing_over(sources, version, first, offset, end)


def _sources(reach: Reach, finding: Finding) -> Iterator[Node]:
    for node in (*finding.holders, *finding.silent, *finding.stale):
        yield node.under(None) if finding.replicas.overlap.claim.edition else node
    order = finding.replicas.handoffs()
    while (device := order.next()) is not None:
        yield reach.handoff(finding.replicas, device)


async def _open_next(sources: Iterator[Node], version: Version, offset: int, length: int) -> NodeReading | None:
    for node in sources:
        try:
            reading = await node.get(version.path, version.timestamp, offset, length)
        except (Unavailable, DiskFault):
            continue  # the next source; when none is left the caller says Unavailable
        if reading is None:
            continue
        if reading.version.etag == version.etag and reading.version.size == version.size:
            return reading
        await aclose(reading.pieces)
    return None


async def _nothing() -> AsyncIterator[Piece]:
    none: tuple[Piece, ...] = ()
    for piece in none:
        yield piece


async def _failing_over(
    sources: Iterator[Node], version: Version, reading: NodeReading, offset: int, end: int
) -> AsyncIterator[Piece]:
    current: NodeReading | None = reading
    try:
        while current is not None:
            try:
                async for piece in current.pieces:
                    offset += len(piece) if isinstance(piece, bytes) else piece.length
                    yield piece
                if offset >= end:
                    return
            except (Unavailable, DiskFault):
                pass  # a bad block or a lost node: go on below with another replica
            broken, current = current, None
            await aclose(broken.pieces)
            current = await _open_next(sources, version, offset, end - offset)
        raise Unavailable(f"{version.path}: no replica is left that can give its bytes from {offset}")
    finally:
        if current is not None:
            await aclose(current.pieces)


async def open_version(replicas: Replicas, path: Path, timestamp: Timestamp) -> NodeReading | None:
    """That very version from the first primary that has it; None when a majority said that they do not.  NoQuorum, Outdated."""
    without = 0
    for index, node in sorted(enumerate(replicas.nodes), key=lambda place: not isinstance(place[1], LocalNode)):
        try:
            reading = await node.get(path, timestamp, 0, 0)
        except (Unavailable, DiskFault):
            continue
        if reading is not None:
            return reading
        without |= 1 << index
    if not replicas.voters.majority(without):
        raise replicas.short(f"{path}: too few primaries answered for version {timestamp}")
    return None

"""The register of a key: plain writes, deletions and conditional writes of one name in one order, whatever fails on the way.

A conditional write has a *ballot*: a timestamp above everything it knows of.  A majority of the primaries promises to take nothing
of the name below the ballot any more, and says what it holds (Node.promise).  The newest of that, X, is what the condition is
evaluated on, and the write goes out at the very ballot, so nothing can come between X and it:

- whatever was acknowledged, or shown to a reader, before the promise is at a majority, and that meets the one that promised:
  it is at or below X;
- what is between X and the ballot finds no majority any more, neither to be acknowledged nor to be shown.

X must be at a majority before anything is said of it.  If it is not, its content is written again *at the ballot* (a copy, which
names the version it is a copy of), and the next ballot begins: X itself is never brought to more devices, because something
between X and the ballot may lie where nobody was asked.  A condition that fails releases the promise, and that is all that a failed
condition costs.  A promise at whose ballot anything was sent is never released while it may lie anywhere: an older write that was
let in then could be hidden by it.

When a write got no majority, and may lie somewhere, the next ballot tells what became of it.  Devices say whether they ever held it
or a copy of it.  If too few ever did, nobody was or will be shown it, and the write begins anew.  If it (or a copy) is the
newest, it is done.  If something else is, it may have been done and replaced: whether it was is not known, and that is the answer.
Plain writes that may have been seen and are not the newest (writing.Verdict.CONTESTED) come here for the same reason.

Ballots differ from the timestamps of plain writes (they have an offset), and a ballot belongs to who has a majority's promise for
it.  docs/ARCHITECTURE.md has the whole argument.  Neighbours: objects (the caller), quorum and reading (majorities), writing (one
version to a verdict), storage.object.settler (promises that nobody comes back for).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

import trio

from ring.errors import Conflict, DiskFault, NotFound, RingfortError, Unavailable
from ring.names import Path
from ring.timestamp import ZERO, Timestamp
from ring.world.interface import Buffer
from storage.client.available import find_any
from storage.client.bodies import OnePiece, drained
from storage.client.books import BookOperations
from storage.client.errors import ClockAhead, DeviceFull, NoQuorum
from storage.client.fanout import Progress
from storage.client.interface import Stored
from storage.client.large import LargeBody
from storage.client.node import OURS_MAX, Debt, Kind, Node, NodeReading, Promised, Version, WriteReply
from storage.client.quorum import ReadQuorum, Verdict, rank
from storage.client.reach import Outdated, Reach, Replicas
from storage.client.reading import may_show
from storage.client.repair import copy
from storage.client.shapes import meta_of, row_of
from storage.client.writing import Send, Write, at_once, debts_of

BALLOT_OFFSET = 1  # of the timestamps of conditional writes; plain ones have none
ASIDE_MAX_S = 1.0

Check = Callable[[Version | None], None]  # what is there, if it is data; raises Conflict or NotFound when that will not do


class Content(Protocol):
    """What is to be written, at whichever ballot."""

    def at(self, ballot: Timestamp) -> Version: ...

    def sends(self, version: Version, replicas: Replicas) -> tuple[Sequence[Send], Send | None]:
        """Per primary, and for a handoff."""


@dataclass(frozen=True, slots=True)
class SmallContent:
    """A whole object at hand, or a tombstone."""

    version: Version
    data: Buffer

    def at(self, ballot: Timestamp) -> Version:
        return replace(self.version, timestamp=ballot)

    def sends(self, version: Version, replicas: Replicas) -> tuple[Sequence[Send], Send | None]:
        async def send(node: Node, debt: Debt | None) -> WriteReply:
            return await node.put_small(version, self.data, debt)

        return at_once(replicas, send), send


@dataclass(frozen=True, slots=True)
class LargeContent:
    """A body that lies uncommitted on the devices."""

    version: Version
    large: LargeBody

    def at(self, ballot: Timestamp) -> Version:
        return replace(self.version, timestamp=ballot)

    def sends(self, version: Version, replicas: Replicas) -> tuple[Sequence[Send], Send | None]:
        return self.large.commits(version, replicas), None


class CopiedContent:
    """What some replicas hold, under a newer timestamp.  Its newest metadata is part of it."""

    def __init__(self, version: Version, sources: Sequence[Node], pack_cut_bytes: int) -> None:
        self._version = version
        self._sources = [source.under(None) for source in sources]
        self._cut = pack_cut_bytes
        self._data: bytes | None = b"" if version.kind is Kind.TOMBSTONE else None
        self._reading = trio.Lock()

    def at(self, ballot: Timestamp) -> Version:
        old = self._version
        origin = old.origin or old.timestamp
        return replace(old, timestamp=ballot, metadata_timestamp=None, origin=origin if origin != ZERO else None)

    def sends(self, version: Version, replicas: Replicas) -> tuple[Sequence[Send], Send | None]:
        async def send(node: Node, debt: Debt | None) -> WriteReply:
            if version.kind is Kind.OBJECT and version.size > self._cut:
                reading = await self._open()
                return await copy(NodeReading(version, reading.pieces), node, self._cut, debt)
            async with self._reading:
                if self._data is None:
                    self._data = await drained((await self._open()).pieces)
            return await copy(NodeReading(version, OnePiece(self._data)), node, self._cut, debt)

        return at_once(replicas, send), send

    async def _open(self) -> NodeReading:
        old = self._version
        for source in self._sources:
            try:
                reading = await source.get(old.path, old.timestamp, 0, None)
            except (Unavailable, DiskFault):
                continue
            if reading is not None and (reading.version.etag, reading.version.size) == (old.etag, old.size):
                return reading
        raise Unavailable(f"{old.path}: nobody can give the data of {old.timestamp} now")


@dataclass(slots=True)
class _Round:
    """What one ballot found."""

    path: Path
    replicas: Replicas
    ballot: Timestamp
    quorum: ReadQuorum
    above: Timestamp = ZERO  # refused: what the next ballot has to be above
    given: int = 0  # bits of replicas
    denied: int = 0
    never: int = 0  # ... that gave it and never held what we wrote before
    released: bool = False
    ahead: ClockAhead | None = None
    full: int = 0  # bits of replicas that have no room for what they would promise

    @property
    def newest(self) -> Version | None:
        return self.quorum.newest

    @property
    def fresh(self) -> bool:
        """Nobody was, or will be, shown what we wrote before."""
        return self.replicas.voters.blocks(self.never)

    def decided(self, reach: Reach) -> bool:
        """Whether a majority holds the newest: it is no write that may yet come to nothing."""
        newest = self.newest
        if newest is None:
            return True
        best = rank(newest)[:3]
        held = sum(1 << i for i, version in self.quorum.answers.items() if version is not None and rank(version)[:3] == best)
        return may_show(reach, self.replicas, newest, held)

    def holders(self, version: Version) -> list[Node]:
        """Those with the newest metadata first."""
        same = [
            (rank(held), index)
            for index, held in self.quorum.answers.items()
            if held is not None and rank(held)[:3] == rank(version)[:3]
        ]
        return [self.replicas.nodes[index] for _, index in sorted(same, reverse=True)]

    def below(self, top: Timestamp) -> Version | None:
        """The newest that is older than ``top``, when so many devices hold nothing newer that nobody ever saw, or will see, what is
        from there up to the ballot."""
        found = {index: version for index, version in self.quorum.answers.items() if version is None or version.timestamp < top}
        if not self.replicas.voters.blocks(sum(1 << index for index in found)):
            return None
        return max((version for version in found.values() if version is not None), key=rank, default=None)


@dataclass(slots=True)
class _Attempts:
    """What a write has behind it."""

    path: Path
    deadline: float
    floor: Timestamp = ZERO  # ballots are above it
    ours: list[Timestamp] = field(default_factory=list)  # versions of it that may lie somewhere
    aside_s: float = 0.0  # others are in the way: how long to wait before the next ballot, at most
    editions: int = 0  # how often newer rings came
    short: RingfortError | None = None  # why the last one came to nothing

    def out_of(self, message: str) -> RingfortError:
        """The error when there will be no more."""
        if self.ours:
            return NoQuorum(
                f"{self.path}: {message}; whether it was done is not known", hint="read it, and decide by what is there"
            )
        return self.short or NoQuorum(f"{self.path}: {message}")


class Register:
    def __init__(self, reach: Reach, books: BookOperations) -> None:
        self.ballots = 0  # facts since the start
        self.outbid = 0
        self.copies = 0  # contents that were written again to be at a majority
        self.unknown = 0  # writes of which it is not known whether they were done
        self._reach = reach
        self._books = books

    async def write(
        self, policy: int, content: Content, check: Check | None, *, ours: Sequence[Timestamp] = (), above: Timestamp = ZERO
    ) -> Stored:
        """Write ``content`` if ``check`` takes what is there.

        ``ours``: timestamps at which it was written already, without certainty.  What ``check`` raises: then it was not and will
        not be done.  NoQuorum, which says when it is not known whether it was done."""
        like = content.at(ZERO)
        attempts = self._attempts(like.path, above, ours)
        if self._reach.available(policy):
            return await self._write_available(policy, content, check, attempts)
        while True:
            round_ = await self._next(policy, attempts)
            newest = round_.newest
            if attempts.ours and not round_.fresh:
                if newest is None or not _is_one_of(newest, attempts.ours, like):
                    self.unknown += 1
                    raise attempts.out_of("something else is there by now")
                if round_.decided(self._reach):
                    self._release(round_)
                    return Stored(meta_of(newest), False)
                done = await self._copy(round_, attempts)
                if done is not None:
                    return done
                continue
            if not round_.decided(self._reach):
                await self._copy(round_, attempts)
                continue
            if check is not None:
                try:
                    check(newest if newest is not None and newest.kind is Kind.OBJECT else None)
                except (Conflict, NotFound):
                    if not attempts.ours:
                        self._release(round_)
                    elif await self._copy(round_, attempts) is None:
                        continue  # what we wrote before must be below what is there, for good
                    raise
            done = await self._propose(content, round_, attempts)
            if done is not None:
                return done

    async def _write_available(self, policy: int, content: Content, check: Check | None, attempts: _Attempts) -> Stored:
        """Where handoffs acknowledge too: the condition is evaluated on the newest that anybody has who answers.  Nothing is copied
        to a ballot, and nothing is written again at a later one when it may lie somewhere: that could bury what lies on a handoff
        that does not answer, by something that is no newer."""
        while True:
            round_ = await self._next(policy, attempts)
            known = round_.newest
            try:
                found = (await find_any(self._reach, round_.replicas, attempts.path, everybody=True)).version
            except (NoQuorum, Outdated):
                found = None  # the primaries that promised have said what they hold
            newest = max((one for one in (known, found) if one is not None), key=rank, default=None)
            if newest is not None and max(newest.timestamp, newest.metadata_timestamp or ZERO) >= round_.ballot:
                self._release(round_)
                attempts.floor = max(attempts.floor, newest.timestamp, newest.metadata_timestamp or ZERO)
                continue
            try:
                if check is not None:
                    check(newest if newest is not None and newest.kind is Kind.OBJECT else None)
            except (Conflict, NotFound):
                self._release(round_)
                raise
            done = await self._propose(content, round_, attempts)
            if done is not None:
                return done
            if attempts.ours:
                self.unknown += 1
                raise attempts.out_of("too few primaries stored it")

    async def bury(self, policy: int, version: Version, above: Timestamp) -> Stored | None:
        """``version`` is at a majority, and something that nobody was ever shown lies above it on a few: bring it above that.
        None when that is no longer so: it was replaced meanwhile, or the other one may have been seen.  NoQuorum."""
        attempts = self._attempts(version.path, above, ())
        while True:
            round_ = await self._next(policy, attempts)
            below, found = round_.below(above), round_.newest
            if found is None or found.timestamp > above or below is None or not _is_one_of(below, [version.timestamp], version):
                self._release(round_)
                return None
            done = await self._copy(round_, attempts, below)
            if done is not None:
                return done

    async def settle(self, policy: int, path: Path) -> None:
        """Bring the key to rest: what is the newest now is at a majority and above all ballots.  NoQuorum."""
        attempts = self._attempts(path, ZERO, ())
        while await self._copy(await self._next(policy, attempts), attempts) is None:
            pass

    # ---- how

    def _attempts(self, path: Path, above: Timestamp, ours: Sequence[Timestamp]) -> _Attempts:
        return _Attempts(path, trio.current_time() + self._reach.settings.register_s, above, list(ours))

    async def _next(self, policy: int, attempts: _Attempts) -> _Round:
        """A ballot for which a majority gave its promise."""
        settings = self._reach.settings
        while True:
            if attempts.aside_s:
                await trio.sleep(self._reach.world.rng.random() * min(ASIDE_MAX_S, attempts.aside_s))
            if trio.current_time() > attempts.deadline or len(attempts.ours) > OURS_MAX:
                raise attempts.out_of("others keep writing it")
            replicas = self._reach.objects(policy, attempts.path)
            at = self._reach.timestamps.next(attempts.floor)
            began = trio.current_time()
            round_ = await self._ask(replicas, attempts.path, Timestamp(at.ticks, BALLOT_OFFSET), attempts.ours)
            attempts.floor = max(attempts.floor, round_.above, round_.ballot)
            if round_.quorum.decided:
                return round_
            self._release(round_)
            short: RingfortError = replicas.short(
                f"{attempts.path}: too few primaries can wait for a conditional write", round_.full
            )
            if round_.ahead is not None:
                short = ClockAhead(round_.ahead.message, hint=round_.ahead.hint)
            attempts.short = short
            if not await self._renew(short, attempts):
                if not round_.denied:
                    raise attempts.out_of(short.message)
                self.outbid += 1
                attempts.aside_s = max(2 * attempts.aside_s, settings.aside_s, trio.current_time() - began)

    async def _renew(self, short: RingfortError, attempts: _Attempts) -> bool:
        """By newer rings, if that is why."""
        if not isinstance(short, Outdated) or attempts.editions >= self._reach.settings.edition_attempts:
            return False
        attempts.editions += 1
        return await self._reach.renew(short.claim)

    async def _ask(self, replicas: Replicas, path: Path, ballot: Timestamp, ours: Sequence[Timestamp]) -> _Round:
        self.ballots += 1
        round_ = _Round(path, replicas, ballot, ReadQuorum(replicas.voters))
        quorum = round_.quorum
        waiting = True

        async def call(index: int, node: Node) -> Promised:
            return await node.promise(path, ballot, ours)

        def receive(index: int, reply: Promised | RingfortError) -> Progress:
            if not waiting:  # what comes now must not change what was acted on
                if round_.released and isinstance(reply, Promised) and reply.given:
                    self._release_at(replicas.nodes[index], round_)
                return Progress.SETTLED
            if isinstance(reply, RingfortError):
                round_.ahead = reply if isinstance(reply, ClockAhead) else round_.ahead
                round_.full |= isinstance(reply, DeviceFull) << index
                settled = quorum.fail(index)
            elif not reply.given:
                round_.denied |= 1 << index
                round_.above = max(round_.above, reply.above)
                settled = quorum.fail(index)
            else:
                round_.given |= 1 << index
                round_.never |= reply.never << index
                settled = quorum.receive(index, reply.newest)
            return Progress.SETTLED if settled else Progress.DECIDED if quorum.decided else Progress.OPEN

        settling = self._reach.fanout.start(replicas.nodes, call, receive)
        await settling.wait(self._reach.settings.write_timeout_s, self._reach.settings.grace_s)
        waiting = False
        return round_

    async def _propose(self, content: Content, round_: _Round, attempts: _Attempts) -> Stored | None:
        """Write it at the ballot.  None: not at a majority; ``ours`` says whether it may lie anywhere."""
        version = content.at(round_.ballot)
        write = await self._write(version, round_.replicas, *content.sends(version, round_.replicas))
        if write.verdict is Verdict.STORED:
            return Stored(meta_of(version), write.listed)
        if write.verdict is Verdict.SUPERSEDED:
            self._release(round_)
        else:
            attempts.ours.append(round_.ballot)
        await self._after(write, round_.replicas, attempts)
        return None

    async def _copy(self, round_: _Round, attempts: _Attempts, what: Version | None = None) -> Stored | None:
        """Write what is the newest (or ``what``) again at the ballot; a tombstone when nothing is.  None when it did not come to a
        majority."""
        newest = what or round_.newest or Version(attempts.path, ZERO, Kind.TOMBSTONE)
        content = CopiedContent(newest, round_.holders(newest), self._reach.settings.pack_cut_bytes)
        version = content.at(round_.ballot)
        self.copies += 1
        write = await self._write(version, round_.replicas, *content.sends(version, round_.replicas))
        if write.verdict is Verdict.STORED:
            return Stored(meta_of(version), write.listed)
        await self._after(write, round_.replicas, attempts)
        return None

    async def _write(self, version: Version, replicas: Replicas, sends: Sequence[Send], handoff: Send | None) -> Write:
        listed_at = self._books.listed_at(version.path)
        debts = debts_of(row_of(version), version.path.parent, replicas, listed_at)
        write = Write(self._reach, replicas, version.timestamp, debts, listed_at)
        await write.run(sends, handoff)
        return write

    async def _after(self, write: Write, replicas: Replicas, attempts: _Attempts) -> None:
        """It came to no majority: what the next ballot goes by."""
        attempts.floor = max(attempts.floor, write.newest)
        attempts.short = write.refusal or replicas.short(f"{attempts.path}: too few primaries stored it")
        if write.refusal is not None:
            raise attempts.out_of(write.refusal.message)
        if not await self._renew(attempts.short, attempts):
            attempts.aside_s = max(2 * attempts.aside_s, self._reach.settings.aside_s)

    def _release(self, round_: _Round) -> None:
        """In the background: nothing was, and nothing will be written at this ballot, or not where anybody sees it."""
        round_.released = True
        for index, node in enumerate(round_.replicas.nodes):
            if round_.given >> index & 1:
                self._release_at(node, round_)

    def _release_at(self, node: Node, round_: _Round) -> None:
        async def release() -> None:
            with suppress(RingfortError):  # then the settler comes by
                await node.release(round_.path, round_.ballot)

        self._reach.fanout.spawn(release)


def _is_one_of(version: Version, ours: Sequence[Timestamp], content: Version) -> bool:
    same = (version.kind, version.etag) == (content.kind, content.etag)
    return same and (version.timestamp in ours or version.origin in ours)

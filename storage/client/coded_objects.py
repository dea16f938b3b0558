"""Objects of erasure-coded policies: what storage.client.objects does for the others, by fragments and in two steps.

Every write of such a key comes after a look, or its staging is one: when it is committed, whatever is newer on some device came at
the same time, and the write counts as done and replaced there.  A write is done anew, above what came first, only when no device
shows it or ever will (coded_writing.Round.may_stand); else what became of it is looked up, and when that does not tell, so the
client is told.

A conditional write takes a ballot, which is a timestamp: a majority promises to take nothing older of the key; then it looks, and
what it finds is at a majority and can no longer be replaced by anything older; it evaluates its condition on that, and writes at
the ballot.  Devices stage it only while they stand to their promise, and from then on they stand to it until it is known what
became of the write (storage.object.staging).  So when enough have staged it, nothing older can come in before it, however late its
commits come.  All of that goes by one edition of the rings: by newer ones it begins again with another ballot.  A promise under
which nothing is shown is released.  A plain write goes above a promise that it meets, or waits when that would cost its body.

Neighbours: objects (the caller), coded_contents, coded_reading, coded_writing, mending, books (the container).
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace

import trio

from ring.errors import DiskFault, RingfortError, Unavailable
from ring.names import Path
from ring.timestamp import OFFSET_MAX, ZERO, Timestamp
from ring.wire.message import Piece
from ring.world.interface import Buffer
from storage.client.books import BookOperations
from storage.client.coded_contents import Content, Deletion, LargeContent, SmallContent
from storage.client.coded_reading import CodedFinding, find_coded, open_coded
from storage.client.coded_writing import BALLOT_OFFSET, send_coded
from storage.client.errors import BadDigest, EntityTooLarge, NoQuorum, ObjectNotFound, PromisedAbove, Superseded
from storage.client.expiry import expired
from storage.client.fanout import Progress
from storage.client.fragments import Seen
from storage.client.interface import BodySource, NewObject, Stored
from storage.client.locks import KeyLocks
from storage.client.mending import look, mend, settle
from storage.client.node import Debt, Kind, Node, Promised, Version, WriteReply
from storage.client.quorum import Verdict, rank
from storage.client.reach import Outdated, Reach, Replicas
from storage.client.register import ASIDE_MAX_S, Check
from storage.client.repair import Repairer
from storage.client.shapes import meta_of, row_of, version_of
from storage.client.writing import Send, Write, at_once, debts_of
from storage.erasure.interface import Coding
from storage.erasure.quorum import Leftover


class CodedObjects:
    def __init__(self, reach: Reach, books: BookOperations, repairer: Repairer) -> None:
        self._reach = reach
        self._books = books
        self._repairer = repairer
        self._locks = KeyLocks()

    # ---- reading

    async def look(self, policy: int, path: Path, *, shown: bool = True, patient: bool = True) -> CodedFinding:
        """NoQuorum."""
        coding = self._coding(policy)

        async def bring(replicas: Replicas, path: Path) -> None:
            with suppress(Unavailable, DiskFault):  # what came of it, the next look says
                await mend(self._reach, coding, await look(self._reach, coding, policy, path))

        async def attempt() -> CodedFinding:
            replicas = self._reach.objects(policy, path)
            return await find_coded(self._reach, coding, replicas, path, bring, shown=shown, patient=patient)

        found = await self._reach.current(attempt)
        if found.stale and shown:
            self._repairer.request(found.replicas, path)
        return found

    async def repair(self, replicas: Replicas, path: Path) -> int:
        """For the Repairer: what was brought where it lacked."""
        policy, coding = replicas.policy, self._coding(replicas.policy)
        try:
            return (await mend(self._reach, coding, await look(self._reach, coding, policy, path))).brought
        except (Unavailable, DiskFault):
            return 0  # another time; or the reconstructor

    async def open(self, found: CodedFinding, version: Version, offset: int, length: int | None) -> AsyncIterator[Piece]:
        """Unavailable."""
        return await open_coded(self._reach, found, version, offset, length)

    # ---- writing

    async def put(
        self, policy: int, path: Path, new: NewObject, start: bytes | list[bytes], body: BodySource, check: Check | None
    ) -> Stored:
        """``start``: the whole body when it is small, else its first chunks."""
        if isinstance(start, bytes):
            apart = len(start) >= self._reach.settings.offload_bytes
            etag = await self._reach.world.offload.run(_md5, start) if apart else _md5(start)
            if new.size_max is not None and len(start) > new.size_max:
                raise EntityTooLarge(f"the object is larger than {new.size_max} bytes")
            if new.etag and new.etag != etag:
                raise BadDigest(f"the body's MD5 is {etag}, not {new.etag}")
            version = version_of(path, new, ZERO, len(start), etag)
            return await self._store(policy, version, SmallContent(start), check, new.timestamp)
        replicas = self._reach.objects(policy, path)
        large = await send_coded(self._reach, self._coding(policy), replicas, path, new, start, body)
        async with aclosing(LargeContent(large)) as content:
            version = version_of(path, new, ZERO, large.size, large.etag)
            return await self._store(policy, version, content, check, new.timestamp)

    async def delete(self, policy: int, path: Path, check: Check | None) -> None:
        """ObjectNotFound."""

        def there(newest: Version | None) -> None:
            if newest is None:
                raise ObjectNotFound(f"{path} does not exist")
            if check is not None:
                check(newest)

        gone = Version(path, ZERO, Kind.TOMBSTONE)
        if check is not None:
            await self._store_if(policy, gone, Deletion(), there)
            return
        found = await self.look(policy, path, shown=False)  # also of what cannot be read any more
        there(found.data)
        assert found.data is not None
        above = max(found.data.timestamp, found.data.metadata_timestamp or ZERO)
        gone = replace(gone, timestamp=self._reach.timestamps.next(above))
        await self._store_above(policy, gone, Deletion(), movable=True)

    async def post(self, policy: int, path: Path, metadata: Mapping[str, str], content_type: str) -> None:
        """ObjectNotFound."""
        found = await self.look(policy, path)
        old = found.data
        if old is None:
            raise ObjectNotFound(f"{path} does not exist")
        timestamp = self._reach.timestamps.next(max(old.timestamp, old.metadata_timestamp or ZERO))
        if expired(old.metadata, timestamp.seconds):  # or it could be saved after its deletion was decided
            raise ObjectNotFound(f"{path} has expired")

        replicas, listed_at = found.replicas, self._books.listed_at(path)
        replaced = False

        async def send(node: Node, debt: Debt | None) -> WriteReply:
            nonlocal replaced
            try:
                await node.post(path, metadata, content_type, timestamp, old.named)
            except Superseded:
                replaced = True
                raise
            return WriteReply(old.timestamp, paid=True)

        for attempt in range(self._reach.settings.write_attempts):
            write, met = Write(self._reach, replicas, old.timestamp, [None] * len(replicas.nodes), listed_at), _Met()
            if await write.run(met.noting(at_once(replicas, send)), None) is Verdict.STORED:
                break
            if replaced and (newer := (await self.look(policy, path)).version) is not None and rank(newer)[:3] > rank(old)[:3]:
                return  # it came at the same time: the metadata was there just before, for no time at all
            if not met.any:
                raise replicas.short(f"{path}: too few primaries took the metadata")
            await self._reach.step_aside(attempt)
        else:
            raise NoQuorum(f"{path}: conditional writes are in the way")
        if content_type and content_type != old.content_type:
            later = min(OFFSET_MAX, old.timestamp.offset + (timestamp.ticks - old.timestamp.ticks) // 1000 + 1)
            row = row_of(replace(old, timestamp=Timestamp(old.timestamp.ticks, later), content_type=content_type))
            await self._books.merge_rows(path.parent, [row])

    # ---- how

    def _coding(self, policy: int) -> Coding:
        coding = self._reach.coding(policy)
        assert coding is not None
        return coding

    async def _store(
        self, policy: int, version: Version, content: Content, check: Check | None, timestamp: Timestamp | None
    ) -> Stored:
        if check is not None:
            return await self._store_if(policy, version, content, check)
        floor = None
        if timestamp is None and not isinstance(content, SmallContent):  # staging is a look, and what is small is soon staged again
            found = await self.look(policy, version.path, shown=False)
            floor = found.version.timestamp if found.version is not None else None
        version = replace(version, timestamp=timestamp or self._reach.timestamps.next(floor))
        return await self._store_above(policy, version, content, movable=timestamp is None)

    async def _store_above(self, policy: int, version: Version, content: Content, *, movable: bool) -> Stored:
        """At this timestamp, or (``movable``) above what comes first."""
        for attempt in range(self._reach.settings.write_attempts):
            try:
                return await self._write(policy, version, content)
            except _Undone as error:
                if not movable:
                    raise Superseded(f"{version.path}: a newer version is stored", error.above) from None
                await content.again(self._reach, self._coding(policy), policy, version)
                await self._reach.step_aside(attempt)
                version = replace(version, timestamp=self._reach.timestamps.next(error.above))  # of now, as in objects
        raise NoQuorum(f"{version.path}: others keep writing newer versions")

    async def _write(self, policy: int, version: Version, content: Content, *, promised: _Given | None = None) -> Stored:
        """One version, at its timestamp.  ``promised``: it is a ballot, for which a majority of these gave their promise, so it
        is written by their rings and by no others.

        _Undone: no device shows it, or ever will: others came first.  NoQuorum: it may stand or not, or it does not and cannot."""
        path, deadline = version.path, trio.current_time() + self._reach.settings.write_timeout_s
        patience = trio.current_time() + self._reach.settings.promise_wait_s
        attempt = 0
        may_stand = False
        while True:
            replicas = self._reach.objects(policy, path) if promised is None else promised.replicas
            listed_at = self._books.listed_at(path)
            debts = debts_of(row_of(version), path.parent, replicas, listed_at)
            write = Write(self._reach, replicas, version.timestamp, debts, listed_at)
            given = 0 if promised is None else promised.by
            round, sends = content.sends(self._reach, self._coding(policy), replicas, version, promised=given)
            met = _Met()
            if await write.run(met.noting(sends), None) is Verdict.STORED:
                if len(write.stored) < len(replicas.nodes):
                    self._repairer.request(replicas, path)
                return Stored(meta_of(version), write.listed)
            round.give_up()
            may_stand |= round.may_stand
            short = write.refusal or replicas.short(f"{path}: too few primaries stored it")
            outdated = isinstance(short, Outdated)
            if not may_stand:
                above = max(round.newest, met.above)
                waits = content.spent and round.newest <= version.timestamp and trio.current_time() < patience
                if above > version.timestamp and not waits:
                    raise _Undone(above)
                if promised is not None:
                    raise _Undone(above, short, again=outdated or met.any)
            renewed = isinstance(short, Outdated) and await self._reach.renew(short.claim)
            again = met.any or (renewed and promised is None)
            if not again or trio.current_time() > deadline:
                if may_stand:
                    return await self._become_of(policy, version, short)
                raise short
            attempt += 1
            await self._reach.step_aside(min(attempt, 7))

    async def _become_of(self, policy: int, version: Version, short: RingfortError) -> Stored:
        """Of what some devices may have come to show.  NoQuorum when it is not what is there."""
        with suppress(Unavailable):
            found = (await self.look(policy, version.path)).version
            if found is not None and rank(found)[:3] == rank(version)[:3]:
                return Stored(meta_of(found), False)
        raise NoQuorum(f"{short.message}; whether it was done is not known", hint="read it, and decide by what is there")

    # ---- conditional writes

    async def _store_if(self, policy: int, version: Version, content: Content, check: Check) -> Stored:
        async with self._locks.holding(version.path, always=True):  # outbidding is for those of other processes
            return await self._bid(policy, version, content, check)

    async def _bid(self, policy: int, version: Version, content: Content, check: Check) -> Stored:
        path, deadline = version.path, trio.current_time() + self._reach.settings.register_s
        floor = ZERO
        aside_s = 0.0  # others are in the way: how long to wait before the next ballot, at most
        spent: Timestamp | None = None  # at which it was staged in vain
        while trio.current_time() <= deadline:
            await trio.sleep(self._reach.world.rng.random() * aside_s)
            began = trio.current_time()
            if spent is not None:  # takes as long as the body is large: not under a promise
                await content.again(self._reach, self._coding(policy), policy, replace(version, timestamp=spent))
                spent = None
            found = await self.look(policy, path)  # brings what is there to a majority, which nobody can once it is promised
            check(found.data)
            known = found.version
            above = max(floor, max(known.timestamp, known.metadata_timestamp or ZERO) if known is not None else ZERO)
            ballot = Timestamp(self._reach.timestamps.next(above).ticks, BALLOT_OFFSET)
            promised, floor = await self._promise(policy, path, ballot)
            undone = True  # nothing is shown, or will be, at this ballot
            try:
                if not promised.enough:
                    continue
                try:
                    found = await self.look(policy, path, patient=False)
                except NoQuorum:
                    continue  # what came just before the promise is not at a majority yet, and the promise is in its way
                check(found.data)
                if found.replicas.overlap is not promised.replicas.overlap:
                    continue  # by newer rings, whose primaries have promised nothing
                undone = False
                return await self._write(policy, replace(version, timestamp=ballot), content, promised=promised)
            except _Undone as error:
                floor, undone = max(floor, error.above), True
                spent = ballot if content.spent else None
                if not error.again and error.short is not None:
                    raise error.short from None
                if isinstance(error.short, Outdated) and not await self._reach.renew(error.short.claim):
                    raise NoQuorum(error.short.message, hint="the devices go by newer rings, which cannot be fetched now") from None
            finally:
                if undone:
                    self._release(promised.replicas, path, ballot)
                aside_s = min(ASIDE_MAX_S, max(2 * aside_s, self._reach.settings.aside_s, trio.current_time() - began))
        raise NoQuorum(f"{path}: others keep writing it", hint="send it again")

    async def _promise(self, policy: int, path: Path, ballot: Timestamp) -> tuple[_Given, Timestamp]:
        """Who gave it; what the next ballot has to be above.  NoQuorum."""
        replicas = self._reach.objects(policy, path)
        given = failed = 0
        denied = False
        above = ballot

        async def ask(index: int, node: Node) -> Promised:
            return await node.promise(path, ballot, ())

        def receive(index: int, reply: Promised | RingfortError) -> Progress:
            nonlocal given, failed, above, denied
            if isinstance(reply, Promised) and reply.given:
                given |= 1 << index
            else:
                failed |= 1 << index
                if isinstance(reply, Promised):
                    denied, above = True, max(above, reply.above)
            if given | failed == replicas.voters.everybody or not replicas.voters.majority(~failed):
                return Progress.SETTLED
            return Progress.DECIDED if replicas.voters.majority(given) else Progress.OPEN

        settling = self._reach.fanout.start(replicas.nodes, ask, receive)
        await settling.wait(self._reach.settings.write_timeout_s, self._reach.settings.grace_s)
        if not replicas.voters.majority(given) and not denied:
            short = replicas.short(f"{path}: too few primaries promised")
            if not (isinstance(short, Outdated) and await self._reach.renew(short.claim)):
                raise NoQuorum(short.message)
        return _Given(replicas, given), above

    def _release(self, replicas: Replicas, path: Path, ballot: Timestamp) -> None:
        """Nothing is shown at it.  What does not come through, the settler sees to."""

        async def release(index: int, node: Node) -> None:
            await node.release(path, ballot)

        self._reach.fanout.start(replicas.nodes, release, lambda index, reply: Progress.OPEN)

    async def see_to(self, policy: int, staged: Seen) -> None:
        """For the settler of a device that has this staged: what nobody has committed is let go of, if all primaries are there to
        refuse it.  Unavailable."""
        coding = self._coding(policy)
        for _ in range(2):  # refused by all, and then dropped
            found = await look(self._reach, coding, policy, staged.version.path)
            if await settle(self._reach, coding, found, staged) is not Leftover.REFUSE:
                return


@dataclass(frozen=True, slots=True)
class _Given:
    """A promise: who was asked, and who gave it (bits)."""

    replicas: Replicas
    by: int

    @property
    def enough(self) -> bool:
        return self.replicas.voters.majority(self.by)


class _Undone(Exception):
    """Nothing of a write is shown.  ``above``: what came first; ``short``: why else.  ``again``: it is worth another attempt."""

    def __init__(self, above: Timestamp, short: RingfortError | None = None, *, again: bool = True) -> None:
        super().__init__()
        self.above = above
        self.short = short
        self.again = again


class _Met:
    """The promises that a write met: above it, or (its own timestamp) those that it counted on and that were not there."""

    def __init__(self) -> None:
        self.any = False
        self.above = ZERO

    def noting(self, sends: Sequence[Send]) -> list[Send]:
        def one(send: Send) -> Send:
            async def run(node: Node, debt: Debt | None) -> WriteReply:
                try:
                    return await send(node, debt)
                except PromisedAbove as error:
                    self.any, self.above = True, max(self.above, error.ballot)
                    raise

            return run

        return [one(send) for send in sends]


def _md5(data: Buffer) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()

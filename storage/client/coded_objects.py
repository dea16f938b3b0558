"""Objects of erasure-coded policies: what storage.client.objects does for the others, by fragments and in two steps.

Every write of such a key comes after a look, or its staging is one: when it is committed, whatever is newer on some device came at
the same time, and the write counts as done and replaced there.  So a write is done anew, above what came first, only while nothing
of it was committed.

A conditional write takes a ballot, which is a timestamp: a majority promises to take nothing older of the key; then it looks, and
what it finds is at a majority and can no longer be replaced by anything older; it evaluates its condition on that, and writes at
the ballot.  A promise under which nothing was sent is released.  Whoever meets a promise waits for what becomes of it.

Neighbours: objects (the caller), coded_reading, coded_writing, mending, books (the container).
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace

import trio

from ring.errors import DiskFault, RingfortError, Unavailable
from ring.names import Path
from ring.timestamp import OFFSET_MAX, ZERO, Timestamp
from ring.wire.message import Piece
from ring.world.interface import Buffer
from storage.client.books import BookOperations
from storage.client.coded_reading import CodedFinding, find_coded, open_coded
from storage.client.coded_writing import CodedBody, Round, replaced, send_coded, stage_copies
from storage.client.errors import BadDigest, EntityTooLarge, NoQuorum, ObjectNotFound, PromisedAbove, Superseded
from storage.client.expiry import expired
from storage.client.fanout import Progress
from storage.client.interface import BodySource, NewObject, Stored
from storage.client.large import PiecesSource
from storage.client.mending import look, mend
from storage.client.node import Debt, Kind, Node, Promised, Version, WriteReply
from storage.client.quorum import Verdict
from storage.client.reach import Outdated, Reach, Replicas
from storage.client.repair import Repairer
from storage.client.shapes import meta_of, row_of, version_of
from storage.client.writing import Send, Write, at_once, debts_of, post_one
from storage.erasure.interface import Coding

Check = Callable[[Version | None], None]  # what is there, if it is data; raises Conflict or NotFound when that will not do
BALLOT_ATTEMPTS = 12
PROMISE_S = 15.0  # for so long a promise is gone by; devices end it after a minute, and what is sent by then must be over


class CodedObjects:
    def __init__(self, reach: Reach, books: BookOperations, repairer: Repairer) -> None:
        self._reach = reach
        self._books = books
        self._repairer = repairer

    # ---- reading

    async def look(self, policy: int, path: Path, *, shown: bool = True) -> CodedFinding:
        """NoQuorum."""
        coding = self._coding(policy)

        async def bring(replicas: Replicas, path: Path) -> None:
            with suppress(Unavailable, DiskFault):  # what came of it, the next look says
                await mend(self._reach, coding, await look(self._reach, coding, policy, path))

        async def attempt() -> CodedFinding:
            return await find_coded(self._reach, coding, self._reach.objects(policy, path), path, bring, shown=shown)

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
            return await self._store(policy, version, _Small(start), check, new.timestamp)
        replicas = self._reach.objects(policy, path)
        large = await send_coded(self._reach, self._coding(policy), replicas, path, new, start, body)
        async with aclosing(large):
            version = version_of(path, new, ZERO, large.size, large.etag)
            return await self._store(policy, version, _Large(large), check, new.timestamp)

    async def delete(self, policy: int, path: Path, check: Check | None) -> None:
        """ObjectNotFound."""

        def there(newest: Version | None) -> None:
            if newest is None:
                raise ObjectNotFound(f"{path} does not exist")
            if check is not None:
                check(newest)

        gone = Version(path, ZERO, Kind.TOMBSTONE)
        if check is not None:
            await self._store(policy, gone, _Tombstone(), there, None)
            return
        found = await self.look(policy, path, shown=False)  # also of what cannot be read any more
        there(found.data)
        assert found.data is not None
        above = max(found.data.timestamp, found.data.metadata_timestamp or ZERO)
        await self._write(policy, replace(gone, timestamp=self._reach.timestamps.next(above)), _Tombstone(), movable=False)

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
        current = [replicas.nodes[index] for index, one in found.seen.items() if one.committed]

        async def send(node: Node, debt: Debt | None) -> WriteReply:
            reply = await post_one(node, old, metadata, content_type, timestamp, has=node in current)
            return replace(reply, newest=old.timestamp)

        for attempt in range(self._reach.settings.write_attempts):
            write = Write(self._reach, replicas, old.timestamp, [None] * len(replicas.nodes), listed_at)
            sends, promised = _noting(at_once(replicas, send))
            if await write.run(sends, None) is Verdict.STORED:
                break
            if not promised:
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
        self, policy: int, version: Version, content: _Content, check: Check | None, timestamp: Timestamp | None
    ) -> Stored:
        if check is not None:
            return await self._store_if(policy, version, content, check)
        floor = None
        if timestamp is None and not isinstance(content, _Small):  # staging is a look, and what is small is soon staged again
            found = await self.look(policy, version.path, shown=False)
            floor = found.version.timestamp if found.version is not None else None
        version = replace(version, timestamp=timestamp or self._reach.timestamps.next(floor))
        for attempt in range(self._reach.settings.write_attempts):
            stored, newest, content = await self._write_above(policy, version, content, movable=timestamp is None)
            if stored is not None:
                return stored
            version = replace(version, timestamp=self._reach.timestamps.next(newest))
            await self._reach.step_aside(attempt)
        raise NoQuorum(f"{version.path}: others keep writing newer versions")

    async def _write_above(
        self, policy: int, version: Version, content: _Content, *, movable: bool
    ) -> tuple[Stored | None, Timestamp, _Content]:
        """Stored; or what is newer, and the content to write again."""
        try:
            return await self._write(policy, version, content, movable=movable), ZERO, content
        except _Superseded as error:
            if not movable:
                raise Superseded(f"{version.path}: a newer version is stored", error.newest) from None
            return None, error.newest, await content.again(self._reach, self._coding(policy), policy, version)

    async def _write(self, policy: int, version: Version, content: _Content, *, movable: bool) -> Stored:
        """One version, at its timestamp.  _Superseded: nothing of it was committed; NoQuorum: it may stand or not."""
        path, deadline = version.path, trio.current_time() + self._reach.settings.write_timeout_s
        attempt = 0
        committing = False  # it may have been committed somewhere
        while True:
            replicas, listed_at = self._reach.objects(policy, path), self._books.listed_at(path)
            debts = debts_of(row_of(version), path.parent, replicas, listed_at)
            write = Write(self._reach, replicas, version.timestamp, debts, listed_at)
            round, sends = content.sends(self._reach, self._coding(policy), replicas, version)
            noted, promised = _noting(sends)
            if await write.run(noted, None) is Verdict.STORED:
                if len(write.stored) < len(replicas.nodes):
                    self._repairer.request(replicas, path)
                return Stored(meta_of(version), write.listed)
            if round is not None and round.verdict is Verdict.SUPERSEDED and not committing:
                raise _Superseded(round.newest)
            committing |= round is None or round.verdict is Verdict.STORED
            known = "; whether it was done is not known" if committing else ""
            short = write.refusal or replicas.short(f"{path}: too few primaries stored it{known}")
            renewed = isinstance(short, Outdated) and await self._reach.renew(short.claim)
            if not (renewed or promised) or trio.current_time() > deadline:
                raise short
            attempt += 1
            await self._reach.step_aside(min(attempt, 7))

    # ---- conditional writes

    async def _store_if(self, policy: int, version: Version, content: _Content, check: Check) -> Stored:
        path = version.path
        floor = ZERO
        spent: Timestamp | None = None  # at which it was staged in vain
        for attempt in range(BALLOT_ATTEMPTS):
            if attempt:
                await self._reach.step_aside(min(attempt, 7))
            if spent is not None:  # takes as long as the body is large: not under a promise
                content = await content.again(self._reach, self._coding(policy), policy, replace(version, timestamp=spent))
                spent = None
            found = await self.look(policy, path)  # brings what is there to a majority, which nobody can once it is promised
            check(found.data)
            known = found.version
            above = max(floor, max(known.timestamp, known.metadata_timestamp or ZERO) if known is not None else ZERO)
            ballot = self._reach.timestamps.next(above)
            ballot = Timestamp(ballot.ticks, max(ballot.offset, 1))  # no plain write has this timestamp
            since = trio.current_time()
            given, floor = await self._promise(policy, path, ballot)
            if not given:
                self._release(policy, path, ballot)
                continue
            sent = False
            try:
                found = await self.look(policy, path)
                check(found.data)
                if trio.current_time() - since > PROMISE_S:
                    continue  # it may have been ended already
                sent = True
                return await self._write(policy, replace(version, timestamp=ballot), content, movable=False)
            except _Superseded as error:
                floor, spent = max(floor, error.newest), ballot
            finally:
                if not sent:
                    self._release(policy, path, ballot)
        raise NoQuorum(f"{path}: others keep writing it", hint="send it again")

    async def _promise(self, policy: int, path: Path, ballot: Timestamp) -> tuple[bool, Timestamp]:
        """Whether a majority gave it; what the next ballot has to be above."""
        replicas = self._reach.objects(policy, path)
        given = failed = 0
        above = ballot

        async def ask(index: int, node: Node) -> Promised:
            return await node.promise(path, ballot, ())

        def receive(index: int, reply: Promised | RingfortError) -> Progress:
            nonlocal given, failed, above
            if isinstance(reply, Promised) and reply.given:
                given |= 1 << index
            else:
                failed |= 1 << index
                above = max(above, reply.above) if isinstance(reply, Promised) else above
            decided = replicas.voters.majority(given) or not replicas.voters.majority(~failed)
            return Progress.SETTLED if decided else Progress.OPEN

        settling = self._reach.fanout.start(replicas.nodes, ask, receive)
        await settling.wait(self._reach.settings.write_timeout_s, 0)
        if not replicas.voters.majority(given) and above == ballot:
            raise replicas.short(f"{path}: too few primaries promised")
        return replicas.voters.majority(given), above

    def _release(self, policy: int, path: Path, ballot: Timestamp) -> None:
        """Nothing was sent at it.  What does not come through, the settler sees to."""
        replicas = self._reach.objects(policy, path)

        async def release(index: int, node: Node) -> None:
            await node.release(path, ballot)

        self._reach.fanout.start(replicas.nodes, release, lambda index, reply: Progress.OPEN)


class _Superseded(Exception):
    def __init__(self, newest: Timestamp) -> None:
        super().__init__()
        self.newest = newest


class _Content:
    """What is to be written, at whichever timestamp."""

    def sends(self, reach: Reach, coding: Coding, replicas: Replicas, version: Version) -> tuple[Round | None, Sequence[Send]]:
        raise NotImplementedError

    async def again(self, reach: Reach, coding: Coding, policy: int, version: Version) -> _Content:
        """The same, when what was staged of it is spent.  NoQuorum."""
        return self


class _Small(_Content):
    def __init__(self, data: Buffer) -> None:
        self._data = data

    def sends(self, reach: Reach, coding: Coding, replicas: Replicas, version: Version) -> tuple[Round | None, Sequence[Send]]:
        return stage_copies(reach, coding, replicas, version, self._data)


class _Tombstone(_Content):
    """It has one step.  What is newer came at the same time: it counts as done there."""

    def sends(self, reach: Reach, coding: Coding, replicas: Replicas, version: Version) -> tuple[Round | None, Sequence[Send]]:
        async def send(node: Node, debt: Debt | None) -> WriteReply:
            return replaced(version, await node.put_small(version, b"", debt))

        return None, at_once(replicas, send)


class _Large(_Content):
    def __init__(self, large: CodedBody) -> None:
        self._large = large

    def sends(self, reach: Reach, coding: Coding, replicas: Replicas, version: Version) -> tuple[Round | None, Sequence[Send]]:
        sends = self._large.commits(version, replicas)
        return self._large.round, sends

    async def again(self, reach: Reach, coding: Coding, policy: int, version: Version) -> _Content:
        """The body is spent; what is staged of it gives it back."""
        async with aclosing(self._large.again(version, ())) as readings:
            async for pieces in readings:
                async with aclosing(PiecesSource(pieces, version.size)) as source:
                    replicas = reach.objects(policy, version.path)
                    again = await send_coded(reach, coding, replicas, version.path, NewObject(), [], source)
                if again.etag == version.etag:
                    await self._large.aclose()
                    return _Large(again)
                await again.aclose()
        raise NoQuorum(f"{version.path}: a newer version came first, and too little of this one is there", hint="send it again")


def _noting(sends: Sequence[Send]) -> tuple[list[Send], set[int]]:
    """The same, and the set of those that met a promise, as it fills."""
    promised: set[int] = set()

    def noting(index: int, send: Send) -> Send:
        async def run(node: Node, debt: Debt | None) -> WriteReply:
            try:
                return await send(node, debt)
            except PromisedAbove:
                promised.add(index)
                raise

        return run

    return [noting(index, send) for index, send in enumerate(sends)], promised


def _md5(data: Buffer) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()

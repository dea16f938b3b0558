"""Objects of the facade: put, get, head, delete, post, each at a majority of the object's primaries.

A write takes a timestamp, goes to all primaries, and is written again above whatever newer version a primary holds.  A conditional
write goes through the key's register, which also says what became of a plain one that others were in the way of.  Conditional
writes of a key wait for each other here: outbidding is for those of other processes.

Neighbours: reading and writing (majorities), register, large (bodies above the pack cut), books (the container), repair.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace

from ring.errors import BadInput, RingfortError, Unavailable
from ring.names import Path
from ring.timestamp import OFFSET_MAX, ZERO, Timestamp
from ring.wire.message import Piece
from ring.world.interface import Buffer
from storage.client.available import AvailableQuorum, find_any
from storage.client.bodies import aclose
from storage.client.books import BookOperations
from storage.client.coded_objects import CodedObjects
from storage.client.coded_reading import CodedFinding
from storage.client.errors import (
    BadDigest,
    ContainerNotFound,
    EntityTooLarge,
    Lost,
    NoQuorum,
    ObjectNotFound,
    PolicyConflict,
    PreconditionFailed,
    PromisedAbove,
    Superseded,
    UnderPromise,
)
from storage.client.expiry import expired
from storage.client.fanout import Progress
from storage.client.interface import BodySource, Condition, NewObject, ObjectMeta, Reading, Stored
from storage.client.large import LargeBody, PiecesSource, send_large
from storage.client.locks import KeyLocks
from storage.client.node import Debt, Kind, Node, Version, WriteReply
from storage.client.patience import Patience
from storage.client.quorum import Outcome, Reply, Verdict, WriteQuorum, rank
from storage.client.reach import Outdated, Reach, Replicas
from storage.client.reading import Finding, find, open_body, open_version
from storage.client.register import Check, Content, LargeContent, Register, SmallContent
from storage.client.repair import Repairer
from storage.client.shapes import meta_of, row_of, version_of
from storage.client.writing import Write, at_once, debts_of
from storage.rows.row import TEXT_BYTES_MAX

METADATA_CHARACTERS_MAX = 128 << 10  # of names and values; a front door may allow less


class ObjectOperations:
    def __init__(self, reach: Reach, books: BookOperations, register: Register, repairer: Repairer) -> None:
        self._reach = reach
        self._register = register
        self._books = books
        self._repairer = repairer
        self._locks = KeyLocks()
        self.coded: CodedObjects | None = None  # objects of erasure-coded policies go their own way

    async def put(self, path: Path, new: NewObject, body: BodySource) -> Stored:
        path.check()
        _check_text(new.metadata, new.content_type, new.listing_etag)
        if new.timestamp is not None:
            self._reach.timestamps.admit(new.timestamp)
            if new.condition is not None:
                raise BadInput("a conditional write takes a timestamp of its own")
        container = await self._books.container(path.parent)
        policy = container.policy
        if new.condition is not None:  # before the body is asked for; again before the write
            _evaluate(new.condition, (await self._look(policy, path, everybody=True)).data)
        start = await self._read_start(new, body)
        if self._is_coded(policy):
            check = None if new.condition is None else _check(new.condition)
            return await self._coded.put(policy, path, new, start, body, check)
        if isinstance(start, bytes):
            etag = await self._md5(start)
            _check_body(new, etag, len(start))
            large = None
        else:
            large = await send_large(self._reach, self._replicas(policy, path), path, new, start, body)
            etag = large.etag
            await self._same_policy(path, policy, large)
        async with aclosing(large or _NOTHING), self._locks.holding(path, always=new.condition is not None or large is not None):
            size = large.size if large is not None else len(start)
            if new.condition is not None:
                version = version_of(path, new, ZERO, size, etag)
                content = SmallContent(version, start) if isinstance(start, bytes) else LargeContent(version, _there(large))
                return await self._register.write(policy, content, _check(new.condition))
            floor = None if large is None else await self._newest(policy, path)
            version = version_of(path, new, new.timestamp or self._reach.timestamps.next(floor), size, etag)
            if isinstance(start, bytes):
                return await self._store_small(policy, version, start, movable=new.timestamp is None)
            return await self._store_large(policy, version, _there(large), movable=new.timestamp is None)

    async def head(self, path: Path, *, newest: bool = False) -> ObjectMeta:
        found = await self._find(path, newest=newest)
        return meta_of(_existing(found, path))

    async def get(self, path: Path, offset: int, length: int | None, version: Timestamp | None, *, newest: bool = False) -> Reading:
        if offset < 0 or (length is not None and length < 0):
            raise BadInput("offset and length cannot be negative")
        found = await self._find(path, newest=newest)
        if version is not None and isinstance(found, CodedFinding) and (found.data is None or found.data.timestamp != version):
            raise ObjectNotFound(f"{path} has no version {version}")  # none but the newest is held
        if version is not None and (found.data is None or found.data.timestamp != version):
            reading = await open_version(found.replicas, path, version)
            if reading is None:
                raise ObjectNotFound(f"{path} has no version {version}")
            wanted = reading.version
            found = Finding(wanted, found.replicas, found.replicas.nodes, (), ())
            return Reading(meta_of(wanted), await self._open(found, wanted, offset, length))
        for _ in range(self._reach.settings.read_attempts - 1):
            wanted = _existing(found, path)
            try:
                return Reading(meta_of(wanted), await self._open(found, wanted, offset, length))
            except Unavailable:
                before, found = found.replicas.overlap, await self._find(path, newest=newest)
                if found.data is not None and found.data.timestamp == wanted.timestamp and found.replicas.overlap is before:
                    raise
                # Replaced or deleted between the look and the reading: what is there now is the answer.
                if version is not None:
                    raise ObjectNotFound(f"{path} has no version {version}") from None
        wanted = _existing(found, path)
        return Reading(meta_of(wanted), await self._open(found, wanted, offset, length))

    async def delete(self, path: Path, condition: Condition | None) -> None:
        try:
            container = await self._books.container(path.parent)
        except ContainerNotFound:
            raise ObjectNotFound(f"{path} does not exist") from None
        if self._is_coded(container.policy):
            check = None if condition is None else _check(condition, existing=path)
            await self._coded.delete(container.policy, path, check)
            return
        async with self._locks.holding(path, always=condition is not None):
            try:
                newest = _existing(await self._look(container.policy, path, everybody=condition is not None), path)
            except Lost:  # it can still be deleted
                if condition is not None:
                    raise
                await self._bury(container.policy, path, None)
                return
            if condition is not None:
                _evaluate(condition, newest)
                gone = SmallContent(Version(path, ZERO, Kind.TOMBSTONE), b"")
                await self._register.write(container.policy, gone, _check(condition, existing=path))
                return
            await self._bury(container.policy, path, max(newest.timestamp, newest.metadata_timestamp or ZERO))

    async def _bury(self, policy: int, path: Path, above: Timestamp | None) -> None:
        tombstone = Version(path, self._reach.timestamps.next(above), Kind.TOMBSTONE)
        await self._store_small(policy, tombstone, b"", movable=True)

    async def post(self, path: Path, metadata: Mapping[str, str], content_type: str) -> None:
        _check_text(metadata, content_type)
        try:
            policy = (await self._books.container(path.parent)).policy
        except ContainerNotFound:
            raise ObjectNotFound(f"{path} does not exist") from None
        if self._is_coded(policy):
            await self._coded.post(policy, path, metadata, content_type)
            return
        patience: Patience | None = None
        found = await self._find(path)
        while not await self._post(found, _existing(found, path), metadata, content_type):
            patience = patience or Patience(self._reach, self._register)
            await patience.wait(policy, path)
            before, found = found.version, await self._find(path)
            if before is not None and found.version is not None and _replaces(found.version, before):
                return  # it came at the same time: the metadata was there just before, for no time at all

    async def _post(self, found: Finding, old: Version, metadata: Mapping[str, str], content_type: str) -> bool:
        """New metadata of this version and of no other.  False: others are in the way: a conditional write, or what replaces it."""
        path = old.path
        timestamp = self._reach.timestamps.next(max(old.timestamp, old.metadata_timestamp or ZERO))
        if expired(old.metadata, timestamp.seconds):  # or it could be saved after its deletion was decided
            raise ObjectNotFound(f"{path} has expired")
        quorum = self._reach.write_quorum(found.replicas.voters)
        in_the_way = False

        async def send(index: int, node: Node) -> WriteReply:
            return await node.post(path, metadata, content_type, timestamp, old.named)

        def receive(index: int, reply: WriteReply | RingfortError) -> Progress:
            nonlocal in_the_way
            in_the_way |= isinstance(reply, (PromisedAbove, Superseded))
            outcome = Outcome.FAILED if isinstance(reply, RingfortError) else Outcome.STORED
            return Progress.OPEN if quorum.receive(index, Reply(outcome)) is None else Progress.SETTLED

        settling = self._reach.fanout.start(found.replicas.nodes, send, receive)
        await settling.wait(self._reach.settings.write_timeout_s, 0)
        if quorum.verdict() is not Verdict.STORED:
            if in_the_way:
                return False
            raise found.replicas.short(f"{path}: too few primaries took the metadata")
        if found.stale or found.silent:
            self._repairer.request(found.replicas, path)
        if content_type and content_type != old.content_type:
            later = min(OFFSET_MAX, old.timestamp.offset + (timestamp.ticks - old.timestamp.ticks) // 1000 + 1)
            row = row_of(replace(old, timestamp=Timestamp(old.timestamp.ticks, later), content_type=content_type))
            await self._books.merge_rows(path.parent, [row])
        return True

    # ---- how

    async def _open(self, found: Finding, version: Version, offset: int, length: int | None) -> AsyncIterator[Piece]:
        if isinstance(found, CodedFinding):
            return await self._coded.open(found, version, offset, length)
        return await open_body(self._reach, found, version, offset, length)

    def _is_coded(self, policy: int) -> bool:
        return self._reach.coding(policy) is not None

    @property
    def _coded(self) -> CodedObjects:
        assert self.coded is not None
        return self.coded

    async def _find(self, path: Path, *, newest: bool = False) -> Finding:
        """The newest version; ObjectNotFound when there is not even a container.

        The container tells the policy.  While its primaries cannot be asked, what they said last will do for what is found; that
        something is not there is then not known."""
        sure = True
        try:
            container = await self._books.container(path.parent)
        except ContainerNotFound:
            raise ObjectNotFound(f"{path} does not exist") from None
        except NoQuorum:
            last = self._books.last_known(path.parent)
            if last is None:
                raise
            container, sure = last, False
        found = await self._look(container.policy, path, newest=newest)
        if found.data is None and not sure:
            raise NoQuorum(f"{path}: too few primaries of its container answered")
        if found.stale:
            self._repairer.request(found.replicas, path)
        return found

    async def _same_policy(self, path: Path, policy: int, large: LargeBody) -> None:
        """A body may take longer than a container is remembered, which may have been deleted and made again by now."""
        try:
            if (await self._books.container(path.parent)).policy != policy:
                raise PolicyConflict(f"{path.parent} got another storage policy meanwhile", hint="send it again")
        except BaseException:
            await large.aclose()
            raise

    async def _newest(self, policy: int, path: Path) -> Timestamp | None:
        """Of what is there, if it is known: a large body should not be spent below it."""
        try:
            found = await self._look(policy, path, shown=False)
        except NoQuorum as error:
            if self._reach.available(policy) or isinstance(error, Lost):
                return None  # the devices say whether they take the body
            raise
        return found.version.timestamp if found.version is not None else None

    def _quorum(self, replicas: Replicas) -> WriteQuorum | None:
        """None: the usual one."""
        return AvailableQuorum(replicas.voters) if self._reach.available(replicas.policy) else None

    def _replicas(self, policy: int, path: Path) -> Replicas:
        return self._reach.objects(policy, path)

    async def _look(self, policy: int, path: Path, *, shown: bool = True, newest: bool = False, everybody: bool = False) -> Finding:
        if self._is_coded(policy):
            return await self._coded.look(policy, path, shown=shown)
        if self._reach.available(policy):
            return await self._reach.current(
                lambda: find_any(self._reach, self._replicas(policy, path), path, newest=newest or not shown, everybody=everybody)
            )
        patience: Patience | None = None
        while True:
            try:
                return await self._reach.current(lambda: find(self._reach, self._replicas(policy, path), path, shown=shown))
            except UnderPromise:
                patience = patience or Patience(self._reach, self._register)
                await patience.wait(policy, path)

    async def _read_start(self, new: NewObject, body: BodySource) -> bytes | list[bytes]:
        """The whole body when it fits a pack record; else the chunks read so far."""
        cut = self._reach.settings.pack_cut_bytes
        if new.size_max is not None and body.length is not None and body.length > new.size_max:
            raise EntityTooLarge(f"the object is larger than {new.size_max} bytes")
        if body.length is not None and body.length > cut:
            return []
        chunks: list[bytes] = []
        size = 0
        while body.length is None or size < body.length:
            chunk = await body.read(cut + 1 - size)
            if not chunk:
                break
            chunks.append(chunk)
            size += len(chunk)
            if size > cut:
                return chunks
        if body.length is not None and size != body.length:
            raise BadInput(f"the body ended after {size} of {body.length} bytes")
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _md5(self, data: bytes) -> str:
        if len(data) < self._reach.settings.offload_bytes:
            return hashlib.md5(data, usedforsecurity=False).hexdigest()
        return await self._reach.world.offload.run(_md5_hex, data)

    async def _store_small(self, policy: int, version: Version, data: Buffer, *, movable: bool) -> Stored:
        sent = False  # by rings that are no longer in force: it may lie on devices that are not asked any more
        for attempt in range(self._reach.settings.write_attempts):
            replicas, listed_at = self._replicas(policy, version.path), self._books.listed_at(version.path)
            write = Write(
                self._reach,
                replicas,
                version.timestamp,
                debts_of(row_of(version), version.path.parent, replicas, listed_at),
                listed_at,
                quorum=self._quorum(replicas),
            )
            this = version

            async def send(node: Node, debt: Debt | None, this: Version = this) -> WriteReply:
                return await node.put_small(this, data, debt)

            match await write.run(at_once(replicas, send), send):
                case Verdict.STORED:
                    return await self._stored(policy, version, write)
                case Verdict.UNAVAILABLE:
                    short = write.refusal or replicas.short(f"{version.path}: too few primaries stored it")
                    if isinstance(short, Outdated) and await self._reach.renew(short.claim):
                        sent = True
                        await self._reach.step_aside(attempt)
                        continue  # the same version, by newer rings: whoever has it already says so
                    raise short
                case Verdict.CONTESTED:
                    return await self._contested(policy, SmallContent(version, data), write, movable=movable)
            if sent and not self._reach.available(policy):
                return await self._contested(policy, SmallContent(version, data), write, movable=movable)
            if movable:
                await self._reach.step_aside(attempt)
            version = self._above(version, write.newest, movable=movable)  # of now: an older one would lose to what came meanwhile
        raise NoQuorum(f"{version.path}: others keep writing newer versions")

    async def _store_large(self, policy: int, version: Version, large: LargeBody, *, movable: bool) -> Stored:
        for _ in range(self._reach.settings.edition_attempts):
            replicas, listed_at = self._replicas(policy, version.path), self._books.listed_at(version.path)
            write = Write(
                self._reach,
                replicas,
                version.timestamp,
                debts_of(row_of(version), version.path.parent, replicas, listed_at),
                listed_at,
                quorum=self._quorum(replicas),
            )
            verdict = await write.run(large.commits(version, replicas), None)
            if verdict is Verdict.STORED:
                if len(write.stored) < len(replicas.nodes):
                    self._repairer.request(replicas, version.path)
                return await self._stored(policy, version, write)
            if verdict is Verdict.SUPERSEDED:
                return await self._again_above(policy, version, write, movable=movable)
            if verdict is Verdict.CONTESTED:
                return await self._contested(policy, LargeContent(version, large), write, movable=movable)
            short = write.refusal or replicas.short(f"{version.path}: too few primaries stored it")
            if not (isinstance(short, Outdated) and await self._reach.renew(short.claim)):
                raise short
        raise short

    async def _stored(self, policy: int, version: Version, write: Write) -> Stored:
        if write.hidden and not self._reach.available(policy):
            with suppress(Unavailable):  # it stands, whatever comes of this
                above = await self._register.bury(policy, version, write.newest)
                if above is not None:
                    return above
        return Stored(meta_of(version), write.listed)

    async def _contested(self, policy: int, content: Content, write: Write, *, movable: bool) -> Stored:
        """It may lie somewhere, below what others write: the register finds out what became of it."""
        version = content.at(write.timestamp)
        if not movable:
            raise NoQuorum(f"{version.path}: others write it too; whether version {version.timestamp} is stored is not known")
        return await self._register.write(policy, content, None, ours=[version.timestamp], above=write.newest)

    async def _again_above(self, policy: int, version: Version, write: Write, *, movable: bool) -> Stored:
        """Someone wrote between our look and our commit.  The body is spent; a replica that took it has it to write again above."""
        if not movable:
            raise Superseded(f"{version.path}: a newer version is stored", write.newest)
        for node in list(write.stored.values()):  # replies still come in
            reading = await node.get(version.path, version.timestamp, 0, None)
            if reading is None:
                continue
            if (reading.version.etag, reading.version.size) != (version.etag, version.size):  # another one, of the same time
                await aclose(reading.pieces)
                continue
            replicas = self._replicas(policy, version.path)
            async with aclosing(PiecesSource(reading.pieces, version.size)) as source:
                again = await send_large(self._reach, replicas, version.path, NewObject(), [], source)
            async with aclosing(again):
                if again.etag != version.etag:
                    continue
                above = self._above(version, write.newest, movable=movable)
                return await self._store_large(policy, above, again, movable=movable)
        raise NoQuorum(f"{version.path}: a newer version came first, and no replica took this one", hint="send it again")

    def _above(self, version: Version, newest: Timestamp, *, movable: bool) -> Version:
        if not movable:
            raise Superseded(f"{version.path}: a newer version is stored", newest)
        return replace(version, timestamp=self._reach.timestamps.next(newest))


# ---- shapes


def _existing(found: Finding, path: Path) -> Version:
    if found.data is None:
        raise ObjectNotFound(f"{path} does not exist")
    return found.data


def _check_text(metadata: Mapping[str, str], *shown: str) -> None:
    """What devices can hold.  What a listing shows must fit its rows, or the object could never be listed."""
    if any(len(text) > TEXT_BYTES_MAX for text in shown):
        raise BadInput(f"a content type has at most {TEXT_BYTES_MAX} characters")
    if sum(len(name) + len(value) for name, value in metadata.items()) > METADATA_CHARACTERS_MAX:
        raise BadInput(f"an object's metadata has at most {METADATA_CHARACTERS_MAX} characters")


def _check_body(new: NewObject, etag: str, size: int) -> None:
    if new.size_max is not None and size > new.size_max:
        raise EntityTooLarge(f"the object is larger than {new.size_max} bytes")
    if new.etag and new.etag != etag:
        raise BadDigest(f"the body's MD5 is {etag}, not {new.etag}")


def _check(condition: Condition, *, existing: Path | None = None) -> Check:
    """``existing``: it has to be there at all."""

    def check(old: Version | None) -> None:
        if existing is not None and old is None:
            raise ObjectNotFound(f"{existing} does not exist")
        _evaluate(condition, old)

    return check


def _there(large: LargeBody | None) -> LargeBody:
    assert large is not None
    return large


def _replaces(new: Version, old: Version) -> bool:
    """It is newer, and no copy of it, whose metadata would be that of ``old``."""
    copy = new.origin is not None and new.origin in (old.timestamp, old.origin) and (new.kind, new.etag) == (old.kind, old.etag)
    return rank(new)[:3] > rank(old)[:3] and not copy


def _evaluate(condition: Condition, old: Version | None) -> None:
    if condition.if_match and (old is None or not {"*", old.etag} & set(condition.if_match)):
        raise PreconditionFailed("If-Match does not hold")
    if condition.if_none_match and old is not None and {"*", old.etag} & set(condition.if_none_match):
        raise PreconditionFailed("If-None-Match does not hold")


def _md5_hex(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class _Nothing:
    async def aclose(self) -> None:
        return


_NOTHING = _Nothing()

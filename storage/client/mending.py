"""Mending: bring what the devices have of one object of an erasure-coded policy to where it belongs.

The newest version that is committed anywhere is brought to every primary of the ring in force: committed where it is staged, its
metadata, a tombstone, a whole copy or a note, and fragments: pushed from where they lie to where they belong, rebuilt from k others
where there is none (storage.erasure.plan decides).  Data is read as a client's read does, so every piece is verified, and is staged
and committed as a client's write does: nothing is shown before it is whole.

Nothing is deleted here.  What a device may let go of, because it belongs elsewhere and is there, is for the device itself to say
(storage.erasure.reconstructor), by the answer of ``mend``.  What is older than the newest, or staged, stays as it is; ``settle``
sees to what was staged and never committed.

Neighbours: coded_reading (gathers, reads), fragments (the nodes), repair (queues reads' findings), storage.erasure.{plan,quorum}.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import trio

from ring.errors import Conflict, DiskFault, NotFound, Unavailable
from ring.names import Path
from storage.client.bodies import aclose, drained, loaded
from storage.client.coded_reading import CodedFinding, gather, holders_of, open_coded
from storage.client.fragments import FragmentUpload, Seen
from storage.client.node import Debt, Kind, Node, Version, WriteReply
from storage.client.quorum import rank
from storage.client.reach import Reach, Replicas
from storage.client.shapes import row_of
from storage.client.writing import debts_of
from storage.erasure.codecs import make_codec
from storage.erasure.fragment import Fragment
from storage.erasure.interface import Coding
from storage.erasure.layout import Layout
from storage.erasure.plan import Drop, Held, Plan, Push, plan
from storage.erasure.quorum import Data, FragmentRead, Holders, Leftover, Stamp, leftover
from storage.erasure.writer import Stripe, StripeWriter

SYSTEM_METADATA = "x-sysmeta-"


@dataclass(slots=True)
class Look:
    """What is known of one object."""

    replicas: Replicas
    holders: Holders
    read: FragmentRead
    seen: Mapping[int, Sequence[Seen]]  # by replica
    extra: tuple[Node, Seen] | None = None  # what a device that is no primary has
    target: Seen | None = None  # the version that is meant, when it is not the newest committed one

    @property
    def version(self) -> Version | None:
        """The newest committed one."""
        if self.target is not None:
            return self.target.version
        stamp = self.stamp
        if stamp is None:
            return None
        return max((one.version for one in self._all if one.committed and one.stamp == stamp), key=rank)

    @property
    def stamp(self) -> Stamp | None:
        if self.target is not None:
            return self.target.stamp
        newest = self.read.newest
        own = self.extra[1].stamp if self.extra is not None and self.extra[1].committed else None
        return max((stamp for stamp in (newest, own) if stamp is not None), default=None)

    @property
    def _all(self) -> list[Seen]:
        return [one for some in self.seen.values() for one in some] + ([self.extra[1]] if self.extra is not None else [])

    def of(self, replica: int) -> Seen | None:
        """What a replica has of the newest version."""
        stamp = self.stamp
        found = [one for one in self.seen.get(replica, ()) if one.stamp == stamp]
        return max(found, key=lambda one: one.committed, default=None)

    def whole(self, reach: Reach, coding: Coding) -> bool:
        """Every primary of the ring in force answered, and has all that it is to have of the newest version."""
        version = self.version
        return version is not None and not _Work(reach, coding, self, version).lacking()

    def urgency(self, coding: Coding) -> tuple[int, int]:
        """Sorts the most urgent first, as Plan.urgency does."""
        version = self.version
        if version is None or self.stamp is None or self.stamp.tombstone:
            return (coding.m + 1, 0)
        copies = sum(one.data is Data.COPY for one in self._all if one.stamp == self.stamp)
        if copies:
            return (copies - 1, 0)
        made = self.plan(coding)
        return made.urgency if made is not None else (1 << 30, 0)

    def plan(self, coding: Coding) -> Plan | None:
        """Of its fragments."""
        stamp = self.stamp
        if stamp is None:
            return None
        count = coding.count
        primaries = [node.device.id for node in self.replicas.nodes[:count]]
        held = [
            Held(self.replicas.nodes[replica].device.id, one.index, stamp)
            for replica in range(len(self.replicas.nodes))
            if (one := self.of(replica)) is not None and one.data is Data.FRAGMENT
        ]
        if self.extra is not None and self.extra[1].stamp == stamp and self.extra[1].data is Data.FRAGMENT:
            held.append(Held(self.extra[0].device.id, self.extra[1].index, stamp))
        silent = [node.device.id for replica, node in enumerate(self.replicas.nodes) if replica not in self.seen]
        return plan(coding, primaries, held, silent)


@dataclass(frozen=True, slots=True)
class Mended:
    whole: bool  # every primary of the ring in force has all that it is to have of the newest version
    brought: int = 0  # fragments, copies, notes and tombstones
    brought_bytes: int = 0
    redundancy: int = 0  # as it was found


async def look(reach: Reach, coding: Coding, policy: int, path: Path, own: tuple[Node, Seen] | None = None) -> Look:
    """At all primaries.  ``own``: what a device has that may be no primary."""
    replicas = reach.objects(policy, path)
    holders = holders_of(coding, replicas, path)
    read, seen = await gather(reach, replicas, holders, path, everybody=True)
    if own is not None and any(node.device.id == own[0].device.id for node in replicas.nodes):
        own = None
    return Look(replicas, holders, read, seen, own)


async def mend(reach: Reach, coding: Coding, found: Look) -> Mended:
    """Raises Unavailable and DiskFault only when nothing could be done; what fails for one device leaves the others."""
    version = found.version
    if version is None:
        return Mended(False)
    work = _Work(reach, coding, found, version)
    whole = await work.run()
    return Mended(whole, work.brought, work.brought_bytes, found.urgency(coding)[0])


class _Work:
    """On one object.  ``_has``: what each replica has of the version, as it changes.  ``proven``: it was seen committed, so that
    enough of it is durable already; else nothing is committed before it is."""

    def __init__(self, reach: Reach, coding: Coding, found: Look, version: Version, *, proven: bool = True) -> None:
        self._reach = reach
        self._coding = coding
        self._look = found
        self._version = version
        self._nodes = found.replicas.nodes
        self._has = {replica: found.of(replica) for replica in found.seen}
        self._proven = proven
        self._debts: Sequence[Debt | None] = [None] * len(self._nodes) if proven else _debts(reach, found.replicas, version)
        self.brought = 0
        self.brought_bytes = 0

    async def run(self) -> bool:
        """Whether every primary of the ring in force has what it is to have."""
        if self._version.kind is Kind.TOMBSTONE:
            for replica in self.lacking():
                await self._try(self._bury(replica))
            return not self.lacking()
        small = self._small
        if self._proven:
            await self._commit_staged()
        await (self._copies() if small else self._fragments())
        if not self._proven:
            there = sum(1 << replica for replica, one in self._has.items() if one is not None)
            if not self._look.holders.durable(there, whole=small):
                return False
            self._proven = True
            await self._commit_staged()
        for replica, one in list(self._has.items()):
            if one is not None and one.committed and rank(one.version) < rank(self._version):
                await self._try(self._post(replica))
        return not self.lacking()

    async def _commit_staged(self) -> None:
        for replica, one in list(self._has.items()):
            if one is not None and not one.committed:
                await self._try(self._commit(replica, one.data, one.index))

    @property
    def _small(self) -> bool:
        return self._version.size <= self._reach.settings.pack_cut_bytes

    def lacking(self) -> list[int]:
        """Primaries of the ring in force that have not all that they are to have, those that did not answer included."""
        return [replica for replica in range(self._coding.count) if not self._fits(replica, self._has.get(replica))]

    def _fits(self, replica: int, one: Seen | None) -> bool:
        if one is None or not one.committed or rank(one.version) < rank(self._version):
            return False
        if self._version.kind is Kind.TOMBSTONE:
            return True
        if self._small:
            return one.data is Data.COPY or replica > self._coding.m
        return one.data is Data.FRAGMENT and one.index == replica

    # ---- one device

    async def _try(self, call: Awaitable[None]) -> bool:
        try:
            await call
        except (Unavailable, DiskFault, Conflict, NotFound):
            return False  # unknown, or replaced meanwhile: another time
        return True

    async def _commit(self, replica: int, data: Data, index: int = -1) -> None:
        if not self._proven:
            self._has[replica] = Seen(self._version, False, data, index)
            return
        reply = await self._nodes[replica].fragments().commit(self._version, self._debts[replica], seen=True)
        self._check(reply)
        self._has[replica] = Seen(self._staged_version, True, data, index)

    @property
    def _staged_version(self) -> Version:
        """What a device shows after a commit: POSTs that came after the version come after that."""
        return replace(self._version, metadata_timestamp=None)

    def _check(self, reply: WriteReply) -> None:
        if reply.newest > self._version.timestamp:
            raise Conflict(f"{self._version.path}: something newer came")

    async def _bury(self, replica: int) -> None:
        if replica not in self._has:
            raise Unavailable("it did not answer")
        self._check(await self._nodes[replica].put_small(self._version, b"", None))
        self._has[replica] = Seen(self._version, True, Data.NONE)
        self.brought += 1

    async def _post(self, replica: int) -> None:
        """Metadata that is newer than what it has."""
        version = self._version
        assert version.metadata_timestamp is not None
        metadata = {name: value for name, value in version.metadata.items() if not name.startswith(SYSTEM_METADATA)}
        await self._nodes[replica].post(version.path, metadata, version.content_type, version.metadata_timestamp, version.named)
        one = self._has[replica]
        assert one is not None
        self._has[replica] = replace(one, version=version)

    # ---- small objects

    async def _copies(self) -> None:
        data: bytes | None = None
        for replica, one in list(self._has.items()):
            wants_copy = self._look.holders.indexes[replica] <= self._coding.m
            if one is not None and (one.data is Data.COPY or not wants_copy):
                continue
            if wants_copy:
                data = await self._read_copy() if data is None else data
                if data is None:
                    continue  # nobody can give it now
            await self._try(self._bring_copy(replica, data if wants_copy else None))

    async def _bring_copy(self, replica: int, data: bytes | None) -> None:
        self._check(await self._nodes[replica].fragments().stage(self._version, data, seen=self._proven))
        await self._commit(replica, Data.NONE if data is None else Data.COPY)
        self.brought += 1
        self.brought_bytes += len(data or b"")

    async def _read_copy(self) -> bytes | None:
        sources = [(self._nodes[replica], one) for replica, one in self._has.items()]
        if self._look.extra is not None:
            sources.append(self._look.extra)
        for node, one in sources:
            if one is None or one.stamp != self._look.stamp or one.data is not Data.COPY:
                continue
            try:
                pieces = await node.fragments().read(self._version, 0, self._version.size)
                data = None if pieces is None else await drained(pieces)
            except (Unavailable, DiskFault):
                continue
            if data is not None and len(data) == self._version.size:
                return data
        return None

    # ---- fragments

    async def _fragments(self) -> None:
        made = self._look.plan(self._coding)
        if made is None or made.redundancy < 0:
            return
        replica_of = {node.device.id: replica for replica, node in enumerate(self._nodes)}
        extra = self._look.extra
        wanted: dict[int, int] = {}  # replica -> fragment, of those to be rebuilt
        for step in made.steps:
            if isinstance(step, Drop):
                continue  # for the device itself to do
            target = replica_of.get(step.target_id)
            if target is None or target not in self._has:
                continue
            if isinstance(step, Push):
                source = self._nodes[replica_of[step.source_id]] if step.source_id in replica_of else None
                if source is None and extra is not None and extra[0].device.id == step.source_id:
                    source = extra[0]
                if source is not None and await self._try(self._push(step.index, source, target)):
                    continue
            wanted[target] = step.index
        if wanted:
            await self._try(self._rebuild(wanted))

    async def _push(self, index: int, source: Node, target: int) -> None:
        """One fragment as it lies."""
        fragment = await source.fragments().describe(self._version)
        pieces = None
        if fragment is not None and fragment.index == index:
            pieces = await source.fragments().read(self._version, 0, fragment.origin.layout.fragment_bytes)
        if fragment is None or pieces is None:
            raise Unavailable("the fragment is not there any more")
        try:
            upload = await self._begin(target)
            try:
                async for piece in pieces:
                    await upload.write(await loaded(piece))
                await self._finish(upload, fragment, target)
            finally:
                with trio.CancelScope(shield=True):
                    await upload.abort()
        finally:
            await aclose(pieces)

    async def _begin(self, target: int) -> FragmentUpload:
        layout = Layout(self._coding, self._version.size)
        return await self._nodes[target].fragments().begin(self._version.path, layout.fragment_bytes, layout.full_piece_bytes)

    async def _finish(self, upload: FragmentUpload, fragment: Fragment, target: int) -> None:
        """The bytes are checked against the description by who stages them."""
        self._check(await upload.stage(self._version, fragment, seen=self._proven))
        await self._commit(target, Data.FRAGMENT, fragment.index)
        self.brought += 1
        self.brought_bytes += fragment.origin.layout.fragment_bytes

    async def _rebuild(self, wanted: Mapping[int, int]) -> None:
        """All of them from one reading of the object."""
        seen = {replica: one for replica, one in self._has.items() if one is not None and one.stamp == self._look.stamp}
        finding = CodedFinding(self._version, self._look.replicas, (), (), (), self._coding, seen)
        writer = StripeWriter(make_codec(self._coding), self._coding)
        uploads: dict[int, FragmentUpload] = {}

        def code(data: bytes) -> list[Stripe]:
            return list(writer.feed(data))

        async def begin(target: int) -> None:
            uploads[target] = await self._begin(target)

        async def pass_on(stripes: Sequence[Stripe]) -> None:
            for stripe in stripes:
                for target, upload in list(uploads.items()):
                    if not await self._try(upload.write(stripe.pieces[wanted[target]])):
                        await uploads.pop(target).abort()

        pieces = await open_coded(self._reach, finding, self._version, 0, None)
        try:
            for target in wanted:
                await self._try(begin(target))
            async for piece in pieces:
                await pass_on(await self._reach.world.offload.run(code, await loaded(piece)))
            await pass_on(list(writer.finish()))
            name_hash = self._look.replicas.overlap.ring.hasher.hash(self._version.path)
            fragments = writer.fragments(name_hash, self._version.timestamp, self._version.etag)
            for target, upload in list(uploads.items()):
                await self._try(self._finish(upload, fragments[wanted[target]], target))
        finally:
            with trio.CancelScope(shield=True):
                for upload in uploads.values():
                    await upload.abort()
            await aclose(pieces)


# ---- what was staged and never committed


def _debts(reach: Reach, replicas: Replicas, version: Version) -> Sequence[Debt | None]:
    """Of a version that nobody has committed: so nobody owes its row yet.  The container itself passes it on to a shard."""
    container = version.path.parent
    return debts_of(row_of(version), container, replicas, reach.replicas(reach.rings.container, container))


async def settle(reach: Reach, coding: Coding, found: Look, staged: Seen) -> Leftover:
    """Of a version that has been staged for long; what became of it.  ``found``: from a moment ago, of all primaries."""
    version = staged.version
    verdict = leftover(found.read, staged.stamp)
    if verdict is Leftover.FINISH and version.timestamp.offset:
        verdict = Leftover.REFUSE  # a conditional write: what its condition held on may be gone by now
    if verdict is Leftover.FINISH and found.replicas.overlap.horizon.closes(version.timestamp):
        verdict = Leftover.REFUSE  # nothing so old may come to be any more: what was deleted meanwhile may be forgotten
    match verdict:
        case Leftover.COMMIT:
            await mend(reach, coding, found)
        case Leftover.REFUSE:
            await _tell(found, lambda node: node.fragments().refuse(version))
        case Leftover.DROP:
            await _tell(found, lambda node: node.fragments().forget(version))
        case Leftover.FINISH:
            await _Work(reach, coding, replace(found, target=staged), version, proven=False).run()
        case Leftover.KEEP:
            pass
    return verdict


async def _tell(found: Look, call: Callable[[Node], Awaitable[None]]) -> None:
    for replica in found.seen:
        with suppress(Unavailable, DiskFault, Conflict):  # the next pass looks again
            await call(found.replicas.nodes[replica])

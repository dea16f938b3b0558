"""LocalNode: a device of this worker.  No HTTP, no copy: calls its two engines, and pays the rows that its writes owe.

Decides nothing.  Neighbours: storage.object.store and storage.rows.books (the engines), payer, remote (the other Node).
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol, TypeVar

from ring.device import Device
from ring.errors import DiskFault, DiskFull, Unavailable
from ring.names import Path, Span
from ring.service.errors import StaleRing
from ring.service.gate import Gate
from ring.service.overlap import Claim
from ring.timestamp import Timestamp
from ring.world.interface import Buffer
from storage.client.errors import DeviceFull
from storage.client.fragments import LocalFragments
from storage.client.interface import Row
from storage.client.node import (
    NOT_WHOLE,
    BookHeader,
    BookState,
    Debt,
    LeafDigests,
    Named,
    NodeReading,
    NodeUpload,
    Promised,
    RowPage,
    Upload,
    Version,
    WriteReply,
)
from storage.client.payer import RowPayer
from storage.client.trust import Trust

T = TypeVar("T")


class ObjectEngine(Protocol):
    """The object half of a device (storage.object.store.ObjectStore)."""

    async def put_small(self, version: Version, data: Buffer, debt: Debt | None) -> WriteReply: ...

    async def put_large(self, path: Path, size: int | None) -> Upload: ...

    async def post(
        self, path: Path, metadata: Mapping[str, str], content_type: str, timestamp: Timestamp, of: Named | None = None
    ) -> WriteReply: ...

    async def promise(self, path: Path, ballot: Timestamp, ours: Sequence[Timestamp]) -> Promised: ...

    async def release(self, path: Path, ballot: Timestamp) -> None: ...

    async def head(self, path: Path) -> Version | None: ...

    async def get(self, path: Path, timestamp: Timestamp | None, offset: int, length: int | None) -> NodeReading | None: ...

    async def digests(self, span: Span) -> LeafDigests: ...

    async def leaf(self, span: Span, leaf: int) -> Sequence[tuple[bytes, bytes]]: ...

    async def object_by_key(self, key: bytes) -> NodeReading | None: ...

    async def settle(self, path: Path, timestamp: Timestamp) -> None:
        """The debt of this version is paid."""


class BookEngine(Protocol):
    """The book half of a device (storage.rows.books.Books)."""

    def may_answer(self, path: Path) -> None:
        """Before what is held of a book counts.  Unavailable."""

    async def merge_header(self, header: BookHeader) -> BookState: ...

    async def merge_rows(self, book: Path, rows: Sequence[Row]) -> BookState | None: ...

    async def book(self, path: Path) -> BookState | None: ...

    async def rows(self, path: Path, *, start: str, end: str, limit: int, reverse: bool) -> RowPage | None: ...

    async def digests(self, kind: str, span: Span) -> LeafDigests: ...

    async def leaf(self, kind: str, span: Span, leaf: int) -> Sequence[tuple[bytes, bytes]]: ...


class LocalNode:
    """Implements storage.client.node.Node.  ``gate``: that of the rings of this process; ``store``: of policy 0, ``stores`` of the
    others, which may come later."""

    def __init__(
        self,
        device: Device,
        store: ObjectEngine,
        books: BookEngine,
        pay: RowPayer,
        gate: Gate | None = None,
        claim: Claim | None = None,
        *,
        policy: int = 0,
        stores: Mapping[int, ObjectEngine] | None = None,
        trust: Trust | None = None,
    ) -> None:
        self.device = device
        self.policy = policy
        self.stores = stores if stores is not None else {}
        self._store_0 = store
        self._store = store if policy == 0 else self.stores.get(policy)
        self.books = books
        self._payer = pay
        self.gate = gate or Gate()
        self.trust = trust
        self._claim = claim
        self._edition = claim.edition if claim is not None else 0
        self._bound: LocalNode | None = None  # under the claim that was last in use
        self._of: dict[int, LocalNode] = {}

    @property
    def store(self) -> ObjectEngine:
        """Unavailable when the device does not serve the policy (yet)."""
        if self._store is None:
            self._store = self.stores.get(self.policy)
            if self._store is None:
                raise Unavailable(f"{self.device} does not serve storage policy {self.policy}")
        return self._store

    @store.setter
    def store(self, store: ObjectEngine) -> None:
        self._store = store

    def under(self, claim: Claim | None) -> LocalNode:
        if claim is self._claim:
            return self
        bound = self._bound
        if bound is None or bound._claim is not claim:
            bound = self._bound = self._like(claim, self.policy)
        return bound

    def of(self, policy: int) -> LocalNode:
        if policy == self.policy:
            return self
        found = self._of.get(policy)
        if found is None:
            found = self._of[policy] = self._like(self._claim, policy)
        return found

    def _like(self, claim: Claim | None, policy: int) -> LocalNode:
        return type(self)(
            self.device,
            self._store_0,
            self.books,
            self._payer,
            self.gate,
            claim,
            policy=policy,
            stores=self.stores,
            trust=self.trust,
        )

    async def put_small(self, version: Version, data: Buffer, debt: Debt | None) -> WriteReply:
        self.vote(version.path)
        at = self._enter()
        try:
            reply = await self.told(self.store.put_small(version, data, debt))
        finally:
            self.gate.leave(at)
        return await self._pay(version, debt, reply)

    async def put_large(self, path: Path, size: int | None) -> NodeUpload:
        return _PayingUpload(self, await self.told(self.store.put_large(path, size)))

    async def post(
        self, path: Path, metadata: Mapping[str, str], content_type: str, timestamp: Timestamp, of: Named | None = None
    ) -> WriteReply:
        self.vote(path)
        at = self._enter()
        try:
            return await self.told(self.store.post(path, metadata, content_type, timestamp, of))
        finally:
            self.gate.leave(at)

    async def promise(self, path: Path, ballot: Timestamp, ours: Sequence[Timestamp]) -> Promised:
        self.vote(path)
        at = self._enter()
        try:
            return await self.told(self.store.promise(path, ballot, ours))
        finally:
            self.gate.leave(at)

    async def release(self, path: Path, ballot: Timestamp) -> None:
        await self.told(self.store.release(path, ballot))

    async def head(self, path: Path) -> Version | None:
        self.vote(path)
        return await self.told(self.store.head(path))

    async def get(self, path: Path, timestamp: Timestamp | None, offset: int, length: int | None) -> NodeReading | None:
        return await self.told(self.store.get(path, timestamp, offset, length))

    async def merge_header(self, header: BookHeader) -> BookState:
        self.vote(header.path)
        at = self._enter()
        try:
            return await self.told(self.books.merge_header(header))
        finally:
            self.gate.leave(at)

    async def merge_rows(self, book: Path, rows: Sequence[Row]) -> BookState | None:
        self.vote(book)
        at = self._enter()
        try:
            return await self.told(self.books.merge_rows(book, rows))
        finally:
            self.gate.leave(at)

    async def book(self, path: Path) -> BookState | None:
        self.vote(path)
        self.books.may_answer(path)
        return await self.told(self.books.book(path))

    async def rows(self, path: Path, *, start: str, end: str, limit: int, reverse: bool) -> RowPage | None:
        self.vote(path)
        self.books.may_answer(path)
        return await self.told(self.books.rows(path, start=start, end=end, limit=limit, reverse=reverse))

    async def digests(self, kind: str, span: Span) -> LeafDigests:
        self._check(known=True)
        found = await self.told(self.store.digests(span) if kind == "object" else self.books.digests(kind, span))
        if self.trust is not None and not self.trust.speaks(kind, self.policy, span):
            return LeafDigests(found.root, found.leaves, NOT_WHOLE)
        return found

    async def leaf(self, kind: str, span: Span, leaf: int) -> Sequence[tuple[bytes, bytes]]:
        self._check(known=True)
        if kind == "object":
            return await self.told(self.store.leaf(span, leaf))
        return await self.told(self.books.leaf(kind, span, leaf))

    async def object_by_key(self, key: bytes) -> NodeReading | None:
        return await self.told(self.store.object_by_key(key))

    async def edition_file(self) -> bytes:
        raise Unavailable("a device of this process knows what this process knows")

    async def ring_part(self, name: str, version: int, offset: int) -> bytes:
        raise Unavailable("a device of this process knows what this process knows")

    @property
    def claim(self) -> Claim | None:
        return self._claim

    def fragments(self) -> LocalFragments:
        """The same device and policy, asked for fragments."""
        return LocalFragments(self)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around a write.  StaleRing."""
        at = self._enter()
        try:
            yield
        finally:
            self.gate.leave(at)

    def check(self) -> None:
        """Before what shows what is held.  StaleRing."""
        self._check()

    def vote(self, path: Path) -> None:
        """Before the device counts as one of a name's replicas, in reading or in writing: when it is asked by an edition.
        StaleRing; Unavailable while it is being refilled."""
        self._check()
        if self.trust is not None and self.trust.waits and self._edition:
            self.trust.check(path, self.policy)

    async def pay(self, version: Version, debt: Debt | None, reply: WriteReply) -> WriteReply:
        """After a durable write: the row that it owes."""
        return await self._pay(version, debt, reply)

    def _check(self, *, known: bool = False) -> None:
        edition = self._edition
        if edition == self.gate.edition or not edition:
            return
        try:
            (self.gate.check_known if known else self.gate.check)(edition)
        except StaleRing as error:
            self._refused(error)
            raise

    def _refused(self, error: StaleRing) -> None:
        if self._claim is not None:
            self._claim.refused(error, None)

    def _enter(self) -> int:
        """Before a write; ``gate.leave`` when it is durable, or failed."""
        try:
            return self.gate.enter(self._edition)
        except StaleRing as error:
            self._refused(error)
            raise

    async def told(self, call: Awaitable[T]) -> T:
        """What an engine says; what is wrong with it, as a node tells that: DeviceFull, Unavailable."""
        try:
            return await call
        except DiskFault as fault:
            kind = DeviceFull if isinstance(fault, DiskFull) else Unavailable
            raise kind(f"{self.device}: {fault.message}", hint=fault.hint) from fault
        except OSError as error:  # of the tables: they fail, or were closed meanwhile
            raise Unavailable(f"{self.device}: {error.strerror or error}") from error

    async def _pay(self, version: Version, debt: Debt | None, reply: WriteReply) -> WriteReply:
        """After the durable write: bring the row to where it is owed, and wait for that within the payer's bound."""
        if debt is None or reply.paid or reply.newest > version.timestamp:
            return reply
        if not await self._payer.pay(debt):
            return reply
        with suppress(Unavailable):  # the row is there; that it is, the updater will find out again
            await self.told(self.store.settle(version.path, version.timestamp))
        return WriteReply(reply.newest, paid=True)


class _PayingUpload:
    def __init__(self, node: LocalNode, upload: Upload) -> None:
        self.claim: Claim | None = node._claim
        self._node = node
        self._upload = upload

    async def write(self, data: Buffer) -> None:
        await self._node.told(self._upload.write(data))

    async def commit(self, version: Version, debt: Debt | None) -> WriteReply:
        node = self._node.under(self.claim)
        node.vote(version.path)
        at = node._enter()
        try:
            reply = await node.told(self._upload.commit(version, debt))
        finally:
            node.gate.leave(at)
        return await node._pay(version, debt, reply)

    async def abort(self) -> None:
        await self._upload.abort()

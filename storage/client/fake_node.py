"""A device in RAM: the two engines that a LocalNode is made of, keeping their promises but durability.

For tests of whatever works on nodes.  ``broken`` makes every call raise, as a device does that is out of service; ``damaged``
names whose data comes back as a DiskFault.  The engines themselves pass the same suite (``tests/contract/test_node.py``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ring.errors import BadInput, DiskFault, Unavailable
from ring.names import NameHasher, Path, Span
from ring.timestamp import ZERO, Timestamp
from ring.wire.message import Piece
from ring.world.interface import Buffer
from storage.client.errors import ObjectNotFound, PromisedAbove, Superseded
from storage.client.interface import Row
from storage.client.node import (
    OURS_MAX,
    BookHeader,
    BookState,
    Debt,
    Kind,
    LeafDigests,
    Named,
    NodeReading,
    Promised,
    RowPage,
    Upload,
    Version,
    WriteReply,
)
from storage.client.quorum import rank
from storage.container.shards import is_shard
from storage.rows.merge import merge_headers, supersedes
from storage.sync.tree import ZERO as ZERO_DIGEST
from storage.sync.tree import digest, leaf_bits, leaf_of, leaf_span, xor


class FakeObjects:
    """The object half (storage.client.local.ObjectEngine)."""

    def __init__(self, hasher: NameHasher) -> None:
        self._hasher = hasher
        self.held: dict[bytes, tuple[Version, bytes]] = {}
        self.owed: dict[bytes, Debt] = {}
        self.promised: dict[bytes, set[Timestamp]] = {}
        self.seen: dict[bytes, set[Timestamp]] = {}  # all versions that were ever held, and those they are copies of
        self.broken = False
        self.damaged: set[Path] = set()

    def _enter(self) -> None:
        if self.broken:
            raise Unavailable("the device is out of service")

    async def put_small(self, version: Version, data: Buffer, debt: Debt | None) -> WriteReply:
        self._enter()
        name_hash = self._hasher.hash(version.path)
        old = self.held.get(name_hash)
        if old is not None:
            if old[0].origin == version.timestamp and (old[0].kind, old[0].etag) == (version.kind, version.etag):
                return WriteReply(version.timestamp, debt is None)
            if old[0].timestamp > version.timestamp:
                return WriteReply(old[0].timestamp, False, version.timestamp not in self.seen.get(name_hash, ()))
            if rank(old[0])[:3] > rank(version)[:3]:  # two front doors gave out one timestamp
                above = Timestamp(version.timestamp.ticks, version.timestamp.offset + 1)
                return WriteReply(above, False, False)
            if rank(old[0]) >= rank(version):
                return WriteReply(old[0].timestamp, debt is None)
        self._check(name_hash, version.timestamp)
        self.held[name_hash] = (version, bytes(data))
        self.seen.setdefault(name_hash, set()).update({version.timestamp, version.origin or version.timestamp})
        self.promised[name_hash] = {ballot for ballot in self.promised.get(name_hash, ()) if ballot > version.timestamp}
        if debt is not None:
            self.owed[name_hash] = debt
        return WriteReply(version.timestamp, debt is None)

    def _check(self, name_hash: bytes, version: Timestamp) -> None:
        above = max(self.promised.get(name_hash, ()), default=ZERO)
        if above > version:
            raise PromisedAbove(f"nothing below {above} is taken", above)

    async def promise(self, path: Path, ballot: Timestamp, ours: Sequence[Timestamp]) -> Promised:
        self._enter()
        if len(ours) > OURS_MAX:
            raise BadInput(f"a promise is asked about at most {OURS_MAX} versions")
        name_hash = self._hasher.hash(path)
        held = self.held.get(name_hash)
        newest = None if held is None else held[0]
        above = max(self.promised.get(name_hash, ()), default=ZERO)
        if newest is not None:
            above = max(above, newest.timestamp, newest.metadata_timestamp or ZERO)
        if above >= ballot:
            return Promised(False, above)
        self.promised.setdefault(name_hash, set()).add(ballot)
        return Promised(True, ballot, newest, not self.seen.get(name_hash, set()) & set(ours))

    async def release(self, path: Path, ballot: Timestamp) -> None:
        self._enter()
        self.promised.get(self._hasher.hash(path), set()).discard(ballot)

    async def put_large(self, path: Path, size: int | None) -> Upload:
        self._enter()
        return _FakeUpload(self)

    async def post(
        self, path: Path, metadata: Mapping[str, str], content_type: str, timestamp: Timestamp, of: Named | None = None
    ) -> WriteReply:
        self._enter()
        name_hash = self._hasher.hash(path)
        if name_hash in self.held and of is not None and rank(self.held[name_hash][0])[:3] > (of[0], False, of[1]):
            raise Superseded(f"{path}: something newer is here", self.held[name_hash][0].timestamp)
        if name_hash not in self.held or self.held[name_hash][0].kind is Kind.TOMBSTONE:
            raise ObjectNotFound(f"{path} is not here")
        version, data = self.held[name_hash]
        if of is not None and version.named != of:
            raise ObjectNotFound(f"{path}: the version of {of[0]} is not here")
        if timestamp <= (version.metadata_timestamp or version.timestamp):
            return WriteReply(version.metadata_timestamp or version.timestamp, True)
        self._check(name_hash, version.timestamp)
        kept = {name: value for name, value in version.metadata.items() if name.startswith("x-sysmeta-")}
        new = replace(
            version,
            metadata={**kept, **metadata},
            metadata_timestamp=timestamp,
            content_type=content_type or version.content_type,
        )
        self.held[name_hash] = (new, data)
        return WriteReply(timestamp, True)

    async def head(self, path: Path) -> Version | None:
        self._enter()
        held = self.held.get(self._hasher.hash(path))
        return held[0] if held is not None else None

    async def get(self, path: Path, timestamp: Timestamp | None, offset: int, length: int | None) -> NodeReading | None:
        self._enter()
        held = self.held.get(self._hasher.hash(path))
        if held is None or held[0].kind is not Kind.OBJECT or timestamp not in (None, held[0].timestamp):
            return None
        return self._reading(*held, offset, length)

    async def object_by_key(self, key: bytes) -> NodeReading | None:
        self._enter()
        held = self.held.get(key[:16])
        if held is None or held[0].timestamp.pack_inverted() != key[16:]:
            return None
        return self._reading(*held, 0, None)

    async def settle(self, path: Path, timestamp: Timestamp) -> None:
        self._enter()
        name_hash = self._hasher.hash(path)
        if name_hash in self.owed and self.owed[name_hash].row.timestamp == timestamp:
            del self.owed[name_hash]

    async def digests(self, span: Span) -> LeafDigests:
        self._enter()
        return _digests(self._in(span), span)

    async def leaf(self, span: Span, leaf: int) -> Sequence[tuple[bytes, bytes]]:
        self._enter()
        return sorted(self._in(leaf_span(span, leaf)))

    def _in(self, span: Span) -> list[tuple[bytes, bytes]]:
        items = []
        for name_hash, (version, _) in self.held.items():
            if name_hash in span:
                key = name_hash + version.timestamp.pack_inverted()
                posted = version.metadata_timestamp.pack() if version.metadata_timestamp else b""
                items.append((key, digest(key, bytes([version.kind]) + posted + version.etag.encode())))
        return items

    def _reading(self, version: Version, data: bytes, offset: int, length: int | None) -> NodeReading:
        end = version.size if length is None else min(version.size, offset + length)

        async def pieces() -> AsyncIterator[Piece]:
            for at in range(offset, end, 1 << 16):
                if version.path in self.damaged:
                    raise DiskFault(f"a bad block in {version.path}")
                yield data[at : min(end, at + (1 << 16))]

        return NodeReading(version, pieces())


class _FakeUpload:
    def __init__(self, store: FakeObjects) -> None:
        self._store = store
        self._data = bytearray()

    async def write(self, data: Buffer) -> None:
        self._store._enter()
        self._data += data

    async def commit(self, version: Version, debt: Debt | None) -> WriteReply:
        if len(self._data) != version.size:
            raise BadInput(f"the body has {len(self._data)} bytes, not {version.size}")
        return await self._store.put_small(version, self._data, debt)

    async def abort(self) -> None:
        self._data = bytearray()


@dataclass(slots=True)
class _FakeBook:
    header: BookHeader
    rows: dict[str, Row] = field(default_factory=dict)


class FakeBooks:
    """The book half (storage.client.local.BookEngine)."""

    def __init__(self, hasher: NameHasher) -> None:
        self._hasher = hasher
        self.held: dict[Path, _FakeBook] = {}
        self.broken = False

    def _enter(self) -> None:
        if self.broken:
            raise Unavailable("the device is out of service")

    def may_answer(self, path: Path) -> None:
        """It was never away."""

    async def merge_header(self, header: BookHeader) -> BookState:
        self._enter()
        book = self.held.get(header.path)
        self.held[header.path] = _FakeBook(header) if book is None else _FakeBook(merge_headers(book.header, header), book.rows)
        return _state(self.held[header.path])

    async def merge_rows(self, book: Path, rows: Sequence[Row]) -> BookState | None:
        self._enter()
        held = self.held.get(book)
        if held is None or (is_shard(book) and held.header.deleted is not None):
            return None
        for row in rows:
            if row.name not in held.rows or supersedes(row, held.rows[row.name]):
                held.rows[row.name] = row
        return _state(held)

    async def book(self, path: Path) -> BookState | None:
        self._enter()
        held = self.held.get(path)
        return _state(held) if held is not None else None

    async def rows(self, path: Path, *, start: str, end: str, limit: int, reverse: bool) -> RowPage | None:
        self._enter()
        held = self.held.get(path)
        if held is None:
            return None
        low, high = start.encode(), end.encode()
        names = sorted(
            (n for n in held.rows if n.encode() > low and (not high or n.encode() < high)), key=str.encode, reverse=reverse
        )
        return RowPage(_state(held), [held.rows[name] for name in names[:limit]], len(names) <= limit)

    async def digests(self, kind: str, span: Span) -> LeafDigests:
        self._enter()
        return _digests(self._in(kind, span), span)

    async def leaf(self, kind: str, span: Span, leaf: int) -> Sequence[tuple[bytes, bytes]]:
        self._enter()
        return sorted(self._in(kind, leaf_span(span, leaf)))

    def _in(self, kind: str, span: Span) -> list[tuple[bytes, bytes]]:
        items = []
        for path, book in self.held.items():
            name_hash = self._hasher.hash(path)
            if kind == ("account" if path.container else "container"):
                continue
            if name_hash in span:
                rows = [book.rows[name] for name in sorted(book.rows)]
                items.append((name_hash, digest(name_hash, repr((book.header, rows)).encode())))
        return items


def _state(book: _FakeBook) -> BookState:
    live = [row for row in book.rows.values() if not row.deleted]
    return BookState(book.header, len(live), sum(row.size for row in live), sum(row.count for row in live))


def _digests(items: Sequence[tuple[bytes, bytes]], span: Span) -> LeafDigests:
    leaf_bits(span.part_power)  # BadInput, also when there is nothing
    root, leaves = ZERO_DIGEST, dict[int, bytes]()
    for key, value in items:
        leaf = leaf_of(key, span.part_power)
        leaves[leaf] = xor(leaves.get(leaf, ZERO_DIGEST), value)
        root = xor(root, value)
    return LeafDigests(root, {leaf: value for leaf, value in leaves.items() if value != ZERO_DIGEST})

"""Node: one device of the cluster, wherever it is.

``LocalNode`` (storage.client.local) calls the engines of a device in this worker; ``RemoteNode`` (storage.client.remote) asks the
worker that serves it over HTTP.  Both pass ``tests/contract/test_node.py``.  A Node decides nothing about quorum.

Errors of every call: Unavailable (cannot be reached, out of service, ring.errors.DiskFault behind it) and those named.  "None" or
``Missing`` means that this device knows of nothing; that is evidence of one device only.  Whatever brings a version or a POST may
meet PromisedAbove (the device promised to take nothing so old) and ClockAhead (nothing so far in the future): nothing was taken.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

from ring.device import Device
from ring.names import Path, Span
from ring.service.overlap import Claim
from ring.timestamp import Timestamp
from ring.wire.message import Piece
from ring.world.interface import Buffer
from storage.client.interface import Row
from storage.container.shards import shard_path

if TYPE_CHECKING:
    from storage.client.fragments import FragmentNode


class Kind(IntEnum):
    """Of a version: what a record in a pack says about a name."""

    OBJECT = 1
    TOMBSTONE = 2


@dataclass(frozen=True, slots=True)
class Version:
    """One version of one name on one device.  A POST makes no new version: it changes ``metadata`` and ``metadata_timestamp``."""

    path: Path
    timestamp: Timestamp
    kind: Kind
    size: int = 0
    etag: str = ""
    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    metadata_timestamp: Timestamp | None = None
    origin: Timestamp | None = None  # of the version that this one is a copy of, under a newer timestamp (storage.client.register)

    @property
    def named(self) -> Named:
        return self.timestamp, self.etag


@dataclass(frozen=True, slots=True)
class Debt:
    """The container row that a write owes, and where this replica of the object shall pay it: device ids of the container's
    primaries (usually one each; more when the container has more replicas than the object).  Kept in the record until paid."""

    row: Row
    container: Path
    device_ids: tuple[int, ...]
    shard: str = ""  # of the container, when these are its primaries; one that was replaced refuses the row: then to the container

    @property
    def book(self) -> Path:
        """Where the row goes."""
        return shard_path(self.container, self.shard) if self.shard else self.container


@dataclass(frozen=True, slots=True)
class WriteReply:
    newest: Timestamp  # what the device holds now: above what was sent when that was superseded (then nothing was stored)
    paid: bool  # the debt is paid (or there was none)
    never: bool = False  # superseded: and the device surely never held what was sent, nor a copy of it (storage.object.past)


Named = tuple[Timestamp, str]  # one version of a name: its timestamp and ETag
OURS_MAX = 64  # versions that a promise is asked about
NOT_WHOLE = -1  # LeafDigests.clean of a device that is being refilled: below any time


@dataclass(frozen=True, slots=True)
class Promised:
    """What a device says when it is asked for a promise.  Not ``given``: ``above`` is what the ballot has to be above."""

    given: bool
    above: Timestamp
    newest: Version | None = None  # given: what the device holds, tombstones included, in the order of everything that it takes
    never: bool = False  # given: and it surely never held any of the versions that were asked about, nor a copy of one


class Upload(Protocol):
    """A large body on its way to a device; nothing is visible before ``commit`` returned."""

    async def write(self, data: Buffer) -> None: ...

    async def commit(self, version: Version, debt: Debt | None) -> WriteReply:
        """Durable when it returns."""

    async def abort(self) -> None:
        """Forget it.  Also right after an error or a commit (then it does nothing)."""


class NodeUpload(Upload, Protocol):
    """As a Node gives it.  After StaleRing it is as it was, and can be committed by another claim."""

    claim: Claim | None  # by which it is committed; first that of the node


@dataclass(slots=True)
class NodeReading:
    version: Version
    pieces: AsyncIterator[Piece]  # checked blocks; ring.errors.DiskFault on a bad one before its bytes leave


# ---- books


@dataclass(frozen=True, slots=True)
class BookHeader:
    """What a book's replica knows of the book itself; merged field by field, last write wins."""

    path: Path  # a container, or an account (container empty)
    created: Timestamp | None  # newest PUT that (re)created it
    deleted: Timestamp | None  # newest DELETE
    policy: int = 0
    metadata: Mapping[str, tuple[str, Timestamp]] = field(default_factory=dict)

    @property
    def exists(self) -> bool:
        return self.created is not None and (self.deleted is None or self.created > self.deleted)


@dataclass(frozen=True, slots=True)
class BookState:
    header: BookHeader
    count: int  # live rows
    bytes_used: int
    objects: int = 0  # accounts: sum of the rows' counts


@dataclass(frozen=True, slots=True)
class RowPage:
    """Rows as they lie, tombstones included, so that replicas can be merged."""

    state: BookState
    rows: Sequence[Row]
    complete: bool  # nothing follows the last row in the direction asked for


# ---- anti-entropy: one protocol for objects and rows (set-hash tree; see storage.sync)


@dataclass(frozen=True, slots=True)
class LeafDigests:
    root: bytes
    leaves: Mapping[int, bytes]  # the non-empty ones
    clean: int = 0  # since 1.3: up to where (ticks) the device is known to hold nothing that was deleted (storage.sync.standing);
    # NOT_WHOLE: it is being refilled, and that it lacks something says nothing


class Node(Protocol):
    device: Device

    def under(self, claim: Claim | None) -> Node:
        """The same device, asked by the rules of an edition: StaleRing when it keeps to a newer one.  Bodies of versions that are
        known by name are given to anybody (``get`` and ``object_by_key``); ``digests`` and ``leaf`` are refused also when the
        device does not know the edition yet.  None: by none."""

    def of(self, policy: int) -> Node:
        """The same device, asked for the objects of a storage policy; at first it is policy 0.  Each policy's objects lie apart
        from the others', since a name has other primaries in each ring.  Books are the same whatever policy is asked."""

    def fragments(self) -> FragmentNode:
        """The same device and policy, asked for what an erasure-coded policy needs."""

    # objects

    async def put_small(self, version: Version, data: Buffer, debt: Debt | None) -> WriteReply:
        """A whole object at once (data up to the pack cut), or a tombstone (data empty).  Durable when it returns."""

    async def put_large(self, path: Path, size: int | None) -> NodeUpload:
        """Begin a body larger than the pack cut, or of unknown size."""

    async def post(
        self, path: Path, metadata: Mapping[str, str], content_type: str, timestamp: Timestamp, of: Named | None = None
    ) -> WriteReply:
        """Replace the client's metadata of the version that is meant (None: the newest), if ``timestamp`` is above its metadata's.
        ObjectNotFound when it is not here (yet); Superseded when something newer is."""

    async def promise(self, path: Path, ballot: Timestamp, ours: Sequence[Timestamp]) -> Promised:
        """Take nothing below ``ballot`` any more: no version, no POST.  Durable when it returns; ended by a version at or above it,
        or by ``release``.  Not given to a ballot that is not above what is held and what was promised.  ``ours``: versions that the
        writer wrote before, at most OURS_MAX."""

    async def release(self, path: Path, ballot: Timestamp) -> None:
        """The write that this promise was given to will never be made.  Durable soon; a promise that nobody releases is ended by
        storage.object.settler."""

    async def head(self, path: Path) -> Version | None:
        """The newest version, tombstones included."""

    async def get(self, path: Path, timestamp: Timestamp | None, offset: int, length: int | None) -> NodeReading | None:
        """The version with that timestamp, or the newest.  None when it has no such data."""

    # books

    async def merge_header(self, header: BookHeader) -> BookState:
        """Merge by timestamps; durable when it returns.  The state after."""

    async def merge_rows(self, book: Path, rows: Sequence[Row]) -> BookState | None:
        """Last write wins, durable when it returns.  None: this replica has no such book, or it is a shard that was replaced, and
        took nothing."""

    async def book(self, path: Path) -> BookState | None: ...

    async def rows(self, path: Path, *, start: str, end: str, limit: int, reverse: bool) -> RowPage | None:
        """Rows with start < name < end ("" is no bound).  None: no such book here."""

    # anti-entropy.  ``kind`` is "object", "book", or "container" or "account" alone.  A device knows no ring: the span names the
    # partition with its part power, and so how many leaves it has (4,096; 2^(24 - part power) above a power of 12).  BadInput when
    # there is no such partition or leaf.

    async def digests(self, kind: str, span: Span) -> LeafDigests: ...

    async def leaf(self, kind: str, span: Span, leaf: int) -> Sequence[tuple[bytes, bytes]]:
        """(key, digest) of what the leaf holds.  An object's key is hash + inverted timestamp (28 bytes); a book's its hash."""

    async def object_by_key(self, key: bytes) -> NodeReading | None:
        """The version with that key, data and all (a tombstone's has no bytes)."""

    # the rings in force where the device is (ring.service.overlap.RingSource)

    async def edition_file(self) -> bytes: ...

    async def ring_part(self, name: str, version: int, offset: int) -> bytes: ...

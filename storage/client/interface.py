"""Storage as the front door and the block gateway see it: objects by path, and books (containers and accounts) of rows.

``Storage`` is the facade that decides quorums and talks to devices (``storage.client.cluster``); ``fake`` keeps the same promise in
RAM.
One contract suite runs on both (``tests/contract/test_storage.py``).  Below it each device is a ``Node`` (local or remote); see
node.py.

Promises: a write that returned is durable on a majority of its primaries; a read sees the newest write that returned.  When that
cannot be kept the answer is ring.errors.Unavailable, never a guess.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from ring.names import Path
from ring.timestamp import Timestamp
from ring.wire.message import Piece

# ---- objects


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """What a HEAD knows of an object.  ``metadata`` holds lower-case header names: what the client may set (x-object-meta-*,
    content-encoding, content-disposition, cache-control, expires, x-delete-at, ...) and the system's own (x-sysmeta-*)."""

    timestamp: Timestamp  # of the data; the version
    size: int  # bytes
    etag: str  # hex MD5 of the body, without quotes
    content_type: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    metadata_timestamp: Timestamp | None = None  # of the newest POST, when there was one

    @property
    def modified(self) -> Timestamp:
        return self.metadata_timestamp or self.timestamp


@dataclass(frozen=True, slots=True)
class Condition:
    """On the version a write would replace.  Fields that are set must all hold.  ETags without quotes; "*" is any version."""

    if_match: tuple[str, ...] = ()
    if_none_match: tuple[str, ...] = ()


class BodySource(Protocol):
    """Where a body comes from (ring.wire.message.Body has this shape)."""

    length: int | None

    async def read(self, max_bytes: int = 1 << 20) -> bytes: ...


@dataclass(slots=True)
class NewObject:
    """A write.  ``etag`` set: the body must have this MD5 (BadDigest).  ``metadata`` is taken when the body is over,
    so that what reads the body may add to it."""

    content_type: str = "application/octet-stream"
    metadata: dict[str, str] = field(default_factory=dict)
    etag: str = ""
    timestamp: Timestamp | None = None  # replication and tests; None: now
    condition: Condition | None = None
    size_max: int | None = None  # EntityTooLarge beyond
    listing_etag: str = ""  # shown in listings instead of the MD5 (manifests)
    listing_size: int | None = None  # likewise


@dataclass(frozen=True, slots=True)
class Stored:
    meta: ObjectMeta
    listed: bool  # a majority of the container's row updates is done; else it is durable and late


@dataclass(slots=True)
class Reading:
    """An object being read.  ``pieces`` yields exactly the bytes asked for and must be closed (``aclose``) by who got it."""

    meta: ObjectMeta
    pieces: AsyncIterator[Piece]


# ---- books: containers list objects, accounts list containers


class Row(msgspec.Struct, frozen=True):
    """One line of a listing.  In a container's book ``name`` is an object; in an account's it is a container, ``size`` its bytes,
    ``count`` its objects."""

    name: str
    timestamp: Timestamp
    size: int = 0
    etag: str = ""
    content_type: str = ""
    count: int = 0
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class BookMeta:
    """A container or account as a HEAD knows it; ``metadata`` in lower case (x-container-meta-*, x-container-read, x-sysmeta-*)."""

    created: Timestamp
    metadata: Mapping[str, str]
    object_count: int  # rows of a container; of an account: the sum over its containers
    bytes_used: int
    container_count: int = 0  # accounts
    policy: int = 0  # containers


@dataclass(frozen=True, slots=True)
class Query:
    """A listing page, in UTF-8 byte order.  ``marker`` excluded, ``end_marker`` excluded; names with a ``delimiter`` beyond
    ``prefix`` are rolled up into one Prefix."""

    prefix: str = ""
    delimiter: str = ""
    marker: str = ""
    end_marker: str = ""
    limit: int = 10_000
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class Prefix:
    """Stands for all names that begin with ``name`` (which ends with the delimiter)."""

    name: str


@dataclass(frozen=True, slots=True)
class Page:
    meta: BookMeta
    items: Sequence[Row | Prefix]  # Rows are live ones only
    truncated: bool  # more follow after the last item


# ---- the facade


class Storage(Protocol):
    """Errors, beside Unavailable: see errors.py."""

    async def put_object(self, path: Path, new: NewObject, body: BodySource) -> Stored:
        """Raises ContainerNotFound, BadDigest, EntityTooLarge, PreconditionFailed, Superseded (only when ``timestamp`` was given),
        and whatever ``body.read`` raises; in all these cases nothing is stored."""

    async def get_object(
        self,
        path: Path,
        *,
        offset: int = 0,
        length: int | None = None,
        version: Timestamp | None = None,
        newest: bool = False,
    ) -> Reading:
        """The newest version (or that very ``version``), from ``offset``, ``length`` bytes (None: to the end; it is cut at the end
        of the object).  NotFound (ObjectNotFound).

        ``newest``: where a policy is read from the first that answers (storage.client.available), ask all.  Others always do what
        it takes."""

    async def head_object(self, path: Path, *, newest: bool = False) -> ObjectMeta:
        """ObjectNotFound."""

    async def delete_object(self, path: Path, *, condition: Condition | None = None) -> None:
        """ObjectNotFound when a majority knows that there is nothing to delete."""

    async def post_object(self, path: Path, metadata: Mapping[str, str], *, content_type: str = "") -> None:
        """Replace the client's metadata (all names but x-sysmeta-*) of an existing object."""

    async def put_container(self, path: Path, metadata: Mapping[str, str], *, policy: int | None = None, default: int = 0) -> bool:
        """Create, or update metadata (a value "" removes the name).  True when it was created.

        ``policy``: where its objects are to be, for as long as it exists; PolicyConflict when it exists with another one, or had
        another one a moment ago.  None: as it is, or ``default`` when it is made.  BadInput when there is no such policy."""

    async def head_container(self, path: Path) -> BookMeta: ...

    async def post_container(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Update metadata; a value "" removes the name."""

    async def delete_container(self, path: Path) -> None:
        """ContainerNotFound, ContainerNotEmpty."""

    async def list_container(self, path: Path, query: Query) -> Page: ...

    async def put_account(self, path: Path, metadata: Mapping[str, str]) -> bool: ...

    async def head_account(self, path: Path) -> BookMeta:
        """AccountNotFound until a container or metadata made it."""

    async def post_account(self, path: Path, metadata: Mapping[str, str]) -> None: ...

    async def delete_account(self, path: Path) -> None:
        """AccountNotFound.  From now on it is AccountGone to all of these, and no container can be made in it; what is in it is
        deleted in the background (storage.account.reaper)."""

    async def list_account(self, path: Path, query: Query) -> Page: ...

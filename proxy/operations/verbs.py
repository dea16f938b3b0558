"""The typed operations that both dialects speak, and what comes of them.

``right`` says what the caller must be allowed; the access gate looks at nothing else of an operation but it and ``path``.
Pure.  Neighbours: the dialects make these, gates judge them, objects, books and large.uploads carry them out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

from ring.names import Path
from ring.wire.message import Headers, Piece
from ring.wire.ranges import Multipart
from storage.client.interface import BodySource, Condition, ObjectMeta, Query


class Right(Enum):
    READ_OBJECT = "read an object"
    WRITE_OBJECT = "write an object"
    LIST = "list a container"
    READ_BOOK = "read an account or container"
    OWN = "change an account or container"
    MANAGE = "make or delete an account"  # administrators


# ---- objects


@dataclass(frozen=True, slots=True)
class GetObject:
    path: Path
    range: str = ""  # the Range header
    conditions: Headers | None = None  # the conditional header fields (reads.conditions_of)
    part_number: int | None = None  # of a manifest; instead of a range
    newest: bool = False  # ask all replicas (Swift's X-Newest)
    boundary: str = ""  # set: several ranges are answered, framed with it; else they are answered with the whole body
    right: ClassVar[Right] = Right.READ_OBJECT


@dataclass(frozen=True, slots=True)
class HeadObject:
    path: Path
    range: str = ""
    conditions: Headers | None = None
    part_number: int | None = None
    newest: bool = False
    right: ClassVar[Right] = Right.READ_OBJECT


@dataclass(frozen=True, slots=True)
class PutObject:
    path: Path
    body: BodySource
    content_type: str
    metadata: dict[str, str]
    etag: str = ""  # hex MD5 that the body must have
    condition: Condition | None = None
    right: ClassVar[Right] = Right.WRITE_OBJECT


@dataclass(frozen=True, slots=True)
class CopyObject:
    """A server-side copy.  ``metadata`` None: the source's; else it replaces it.  ``merge``: it is added to the source's."""

    source: Path
    path: Path
    metadata: dict[str, str] | None = None
    merge: bool = False
    content_type: str = ""  # "": the source's
    source_conditions: Headers | None = None
    condition: Condition | None = None
    right: ClassVar[Right] = Right.WRITE_OBJECT


@dataclass(frozen=True, slots=True)
class PostObject:
    path: Path
    metadata: dict[str, str]
    content_type: str = ""
    right: ClassVar[Right] = Right.WRITE_OBJECT


@dataclass(frozen=True, slots=True)
class DeleteObject:
    path: Path
    condition: Condition | None = None
    right: ClassVar[Right] = Right.WRITE_OBJECT


@dataclass(slots=True)
class ObjectRead:
    """The answer to a GET or HEAD that passed its conditions: ``length`` bytes from ``offset`` on of what ``meta`` describes.
    For a HEAD ``body`` is empty.  A body that is not bytes must be closed by whoever got it."""

    meta: ObjectMeta  # as a client sees it: of a manifest the size and ETag of the whole
    offset: int
    length: int
    partial: bool
    body: bytes | AsyncIterator[Piece] = b""
    part_count: int = 0  # of a manifest
    frame: Multipart | None = None  # of several ranges: ``body`` and ``length`` are the framed ones


@dataclass(frozen=True, slots=True)
class ObjectUnread:
    """The answer to a GET or HEAD whose condition fails: 304 or 412."""

    meta: ObjectMeta
    not_modified: bool


@dataclass(frozen=True, slots=True)
class ObjectCopied:
    meta: ObjectMeta  # of the new object, as a client sees it
    source: ObjectMeta


# ---- accounts and containers


@dataclass(frozen=True, slots=True)
class HeadAccount:
    path: Path
    right: ClassVar[Right] = Right.READ_BOOK


@dataclass(frozen=True, slots=True)
class ListAccount:
    path: Path
    query: Query
    right: ClassVar[Right] = Right.READ_BOOK


@dataclass(frozen=True, slots=True)
class PutAccount:
    path: Path
    metadata: Mapping[str, str]
    right: ClassVar[Right] = Right.MANAGE


@dataclass(frozen=True, slots=True)
class DeleteAccount:
    path: Path
    right: ClassVar[Right] = Right.MANAGE


@dataclass(frozen=True, slots=True)
class PostAccount:
    path: Path
    metadata: Mapping[str, str]
    right: ClassVar[Right] = Right.OWN


@dataclass(frozen=True, slots=True)
class PutContainer:
    path: Path
    metadata: Mapping[str, str] = field(default_factory=dict)
    policy: int | None = None  # None: as it is, or the default of the cloud
    right: ClassVar[Right] = Right.OWN


@dataclass(frozen=True, slots=True)
class PostContainer:
    path: Path
    metadata: Mapping[str, str]
    right: ClassVar[Right] = Right.OWN


@dataclass(frozen=True, slots=True)
class DeleteContainer:
    path: Path
    right: ClassVar[Right] = Right.OWN


@dataclass(frozen=True, slots=True)
class HeadContainer:
    path: Path
    right: ClassVar[Right] = Right.LIST


@dataclass(frozen=True, slots=True)
class ListContainer:
    path: Path
    query: Query
    right: ClassVar[Right] = Right.LIST


# ---- uploads in parts


@dataclass(frozen=True, slots=True)
class CreateUpload:
    path: Path
    content_type: str
    metadata: dict[str, str]
    right: ClassVar[Right] = Right.WRITE_OBJECT


@dataclass(frozen=True, slots=True)
class UploadPart:
    path: Path
    upload_id: str
    number: int
    body: BodySource
    etag: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    right: ClassVar[Right] = Right.WRITE_OBJECT


@dataclass(frozen=True, slots=True)
class ListParts:
    path: Path
    upload_id: str
    after: int = 0
    limit: int = 1000
    right: ClassVar[Right] = Right.WRITE_OBJECT


@dataclass(frozen=True, slots=True)
class ListUploads:
    path: Path  # the container
    prefix: str = ""
    after: tuple[str, str] = ("", "")  # key, upload id
    limit: int = 1000
    right: ClassVar[Right] = Right.LIST


@dataclass(frozen=True, slots=True)
class CompleteUpload:
    path: Path
    upload_id: str
    parts: Sequence[tuple[int, str]]  # number, ETag
    condition: Condition | None = None
    right: ClassVar[Right] = Right.WRITE_OBJECT


@dataclass(frozen=True, slots=True)
class AbortUpload:
    path: Path
    upload_id: str
    right: ClassVar[Right] = Right.WRITE_OBJECT


Operation = (
    GetObject
    | HeadObject
    | PutObject
    | CopyObject
    | PostObject
    | DeleteObject
    | HeadAccount
    | ListAccount
    | PostAccount
    | PutAccount
    | DeleteAccount
    | PutContainer
    | PostContainer
    | DeleteContainer
    | HeadContainer
    | ListContainer
    | CreateUpload
    | UploadPart
    | ListParts
    | ListUploads
    | CompleteUpload
    | AbortUpload
)

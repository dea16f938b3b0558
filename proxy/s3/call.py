"""One S3 request taken apart, and what its handlers work with.

Neighbours: app makes Calls; buckets, objects and uploads answer them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from identity.client.interface import Access
from proxy.errors import BadRequest, BucketNotFound, NotSupported
from proxy.large.uploads import UploadVerbs
from proxy.operations.books import BookVerbs
from proxy.operations.buckets import BucketClaims
from proxy.operations.objects import ObjectVerbs
from proxy.operations.verbs import HeadContainer
from proxy.pipeline import Pipeline
from proxy.s3.auth import Signed
from proxy.s3.xml import document, element, escape, text
from ring.names import HIDDEN, Path
from ring.wire.dates import format_iso
from ring.wire.message import Headers, Request, Response
from ring.wire.query import Query as Parameters
from ring.wire.query import quote
from ring.world.interface import Clock

KEYS_MAX = 1000  # of a page, and of one DeleteObjects
# Headers that ask for what is not there.  Ignoring them would be a lie about how the data is kept.
_UNSUPPORTED = (
    "x-amz-server-side-encryption",
    "x-amz-copy-source-server-side-encryption",
    "x-amz-grant-",
    "x-amz-object-lock-",
    "x-amz-bucket-object-lock-enabled",
    "x-amz-object-ownership",
    "x-amz-bypass-governance-retention",
    "x-amz-tagging",
    "x-amz-website-redirect-location",
    "x-amz-write-offset-bytes",
    "x-amz-mfa",
)
_HARMLESS = {
    "x-amz-tagging-directive": frozenset(("COPY",)),
    "x-amz-bucket-object-lock-enabled": frozenset(("false", "False")),
    "x-amz-object-ownership": frozenset(("BucketOwnerEnforced",)),
}
_META = "x-amz-meta-"
_UNSET = Path("")
_OBJECT_META = "x-object-meta-"
_SYSTEM = ("cache-control", "content-disposition", "content-language", "expires")


@dataclass(frozen=True, slots=True)
class Door:
    """The collaborators of every handler."""

    pipeline: Pipeline
    objects: ObjectVerbs
    books: BookVerbs
    uploads: UploadVerbs
    claims: BucketClaims
    clock: Clock
    region: str

    def resolve(self, signed: Signed, bucket: str) -> Path:
        """The container behind a bucket.  BucketNotFound."""
        path = self.claims.path(bucket, signed.project_id)
        if path is None:
            raise BucketNotFound(f"there is no bucket {bucket}")
        return path

    async def check_bucket(self, path: Path) -> None:
        """ContainerNotFound: after an ObjectNotFound, it tells which of the two is missing."""
        await self.books.head_container(HeadContainer(path.parent if path.object else path))


@dataclass(slots=True)
class Call:
    request: Request
    query: Parameters
    signed: Signed
    bucket: str = ""
    key: str = ""
    path: Path = _UNSET  # of the bucket's container, or of the object; not set where the bucket is yet to be made

    @property
    def access(self) -> Access | None:
        return self.signed.access

    @property
    def headers(self) -> Headers:
        return self.request.headers


def object_path(container: Path, key: str) -> Path:
    if HIDDEN in key:
        raise BadRequest("Couldn't parse the specified URI.", code="InvalidURI")
    return Path(container.account, container.container, key)


def check_headers(headers: Headers) -> None:
    """NotSupported for what a write asks that cannot be kept."""
    for name, value in headers.fields:
        if not name.startswith("x-amz-") or name.startswith(_META):
            continue
        if name == "x-amz-acl" and value not in ("private", "bucket-owner-full-control"):
            raise NotSupported("Only the canned ACL private is supported.")
        if name == "x-amz-storage-class" and value != "STANDARD":
            raise BadRequest("The storage class you specified is not valid", code="InvalidStorageClass")
        if name.startswith(_UNSUPPORTED) and value not in _HARMLESS.get(name, ()):
            raise NotSupported(f"A header you provided implies functionality that is not implemented: {name}")


def metadata_of(headers: Headers) -> dict[str, str]:
    """What a PUT, copy or upload sets, in the operations' names."""
    metadata: dict[str, str] = {}
    for name, value in headers.fields:
        if name.startswith(_META):
            name = _OBJECT_META + name[len(_META) :]
            metadata[name] = f"{metadata[name]},{value}" if name in metadata else value
        elif name in _SYSTEM:
            metadata[name] = value
        elif name == "content-encoding":
            codings = [coding.strip() for coding in value.split(",") if coding.strip().lower() != "aws-chunked"]
            if any(codings):
                metadata[name] = ",".join(codings)
    return metadata


def metadata_fields(metadata: Mapping[str, str]) -> list[tuple[str, str]]:
    """What a client sees of an object's metadata."""
    fields = []
    for name, value in metadata.items():
        if name.startswith(_OBJECT_META):
            fields.append((_META + name[len(_OBJECT_META) :], value))
        elif name in _SYSTEM or name == "content-encoding":
            fields.append((name, value))
    return fields


def number(query: Parameters, name: str, default: int, *, most: int | None = None) -> int:
    """BadRequest (InvalidArgument).  Above ``most`` it is ``most``."""
    value = query.get(name)
    if not value:
        return default
    if not (value.isascii() and value.isdigit() and len(value) < 11):
        raise BadRequest(f"Argument {name} must be an integer between 0 and 2147483647", code="InvalidArgument")
    return int(value) if most is None else min(int(value), most)


def url_encoding(query: Parameters) -> bool:
    """Whether names are to be percent-encoded.  BadRequest."""
    kind = query.get("encoding-type")
    if kind and kind != "url":
        raise BadRequest("Invalid Encoding Method specified in Request", code="InvalidArgument")
    return bool(kind)


def name_text(tag: str, name: str, encoded: bool) -> str:
    return f"<{tag}>{quote(name) if encoded else escape(name)}</{tag}>"


def iso(seconds: float) -> str:
    """Rounded up, as the Last-Modified header is: a client that compares its file's time must not find the object older."""
    return f"{format_iso(math.ceil(seconds))}.000Z"


def owner(tag: str, project_id: str) -> str:
    return element(tag, (text("ID", project_id), text("DisplayName", project_id)))


def project_of(path: Path) -> str:
    return path.account.removeprefix("AUTH_")


def answer_xml(root: str, content: str, *, status: int = 200) -> Response:
    return Response(status, Headers([("content-type", "application/xml")]), document(root, content))

"""Swift requests taken apart: paths, metadata headers, listing queries, dates of expiry.  Pure.

Neighbours: app.  Source: Swift API reference (object-store v1).
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.errors import BadRequest, LengthRequired, MetadataTooLarge
from ring.errors import BadInput
from ring.names import HIDDEN, Path
from ring.wire.message import Headers, Request
from ring.wire.query import Query as Parameters
from ring.wire.query import unquote
from storage.client.interface import Query

LISTING_MAX = 10_000
META_VALUE_BYTES_MAX = 256  # of X-{Account,Container,Object}-Meta-*; S3's may be longer
OBJECT_META = "x-object-meta-"
# What of an object a client may set beside X-Object-Meta-*; a POST replaces these too.
OBJECT_HEADERS = frozenset(
    (
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "expires",
        "x-delete-at",
        "x-object-manifest",
        "x-robots-tag",
    )
)
_UNSUPPORTED_HEADERS = ("x-symlink-target",)
_TRUE = frozenset(("true", "1", "yes", "on", "t", "y"))
_TYPES = {
    "txt": "text/plain", "htm": "text/html", "html": "text/html", "css": "text/css", "csv": "text/csv",
    "xml": "application/xml", "js": "text/javascript", "json": "application/json", "pdf": "application/pdf",
    "zip": "application/zip", "tar": "application/x-tar", "gz": "application/gzip", "tgz": "application/x-tar",
    "bz2": "application/x-bzip2", "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "gif": "image/gif",
    "svg": "image/svg+xml", "webp": "image/webp", "ico": "image/vnd.microsoft.icon", "mp3": "audio/mpeg", "mp4": "video/mp4",
    "py": "text/x-python", "sh": "application/x-sh", "md": "text/markdown",
}  # fmt: skip


def path_of(raw_path: str) -> Path:
    """Of "/v1/ACCOUNT[/CONTAINER[/OBJECT]]", still encoded; an object's slashes are its own.  Raises BadRequest."""
    try:
        parts = raw_path.split("/", 4)[2:]
        if "%" in raw_path or not raw_path.isascii():
            parts = [unquote(part) for part in parts]
    except BadInput:
        raise BadRequest("Invalid UTF8 or contains NULL", status=412) from None
    parts += [""] * (3 - len(parts))
    account, container, name = parts
    if not account:
        raise BadRequest("Bad URL", status=404)
    if "/" in account or "/" in container or (name and not container):
        raise BadRequest("Bad URL", status=412)
    if any(HIDDEN in part for part in parts):
        raise BadRequest("Invalid UTF8 or contains NULL", status=412)
    return Path(account, container, name)


def copy_path(text: str, account: str) -> Path:
    """Of "[/]CONTAINER/OBJECT" in X-Copy-From or Destination.  Raises BadRequest."""
    container, _, name = text.removeprefix("/").partition("/")
    if not container or not name:
        raise BadRequest("X-Copy-From and Destination must be of the form <container name>/<object name>", status=412)
    return path_of(f"/v1/{account}/{container}/{name}")


def manifest_target(value: str) -> tuple[str, str]:
    """Container and prefix of X-Object-Manifest: CONTAINER/PREFIX, percent-encoded.  BadRequest."""
    try:
        container, _, prefix = unquote(value).partition("/")
    except BadInput:
        container = prefix = ""
    if not container or not prefix or "?" in value or "&" in value or HIDDEN in container or HIDDEN in prefix:
        raise BadRequest("X-Object-Manifest must be in the format container/prefix")
    return container, prefix


def is_true(text: str) -> bool:
    return text.lower() in _TRUE


@dataclass(frozen=True, slots=True)
class Listing:
    query: Query
    format: str  # "plain", "json", "xml"
    objects_only: bool = False  # ``path`` was given: no pseudo folders


def listing_of(request: Request, parameters: Parameters) -> Listing:
    """Raises BadRequest."""
    limit = LISTING_MAX
    text = parameters.get("limit")
    if text.isascii() and text.isdigit():
        limit = int(text[:18])
        if limit > LISTING_MAX:
            raise BadRequest(f"Maximum limit is {LISTING_MAX}", status=412)
    prefix, delimiter = parameters.get("prefix"), parameters.get("delimiter")
    folder = "path" in parameters
    if folder:
        prefix = parameters.get("path").rstrip("/")
        prefix, delimiter = (f"{prefix}/" if prefix else ""), "/"
    query = Query(
        prefix=prefix,
        delimiter=delimiter,
        marker=parameters.get("marker"),
        end_marker=parameters.get("end_marker"),
        limit=limit,
        reverse=is_true(parameters.get("reverse")),
    )
    if any(HIDDEN in part for part in (query.prefix, query.delimiter, query.marker, query.end_marker)):
        raise BadRequest("Invalid UTF8 or contains NULL", status=412)
    return Listing(query, _format(request, parameters), folder)


def _format(request: Request, parameters: Parameters) -> str:
    asked = parameters.get("format").lower()
    if asked:
        return asked if asked in ("json", "xml") else "plain"
    accept = request.headers.get("accept")
    if not accept or len(accept) > 1024:
        return "plain"
    for choice in accept.split(","):
        kind = choice.partition(";")[0].strip().lower()
        if kind == "application/json":
            return "json"
        if kind in ("application/xml", "text/xml"):
            return "xml"
        if kind in ("text/plain", "text/*", "*/*"):
            return "plain"
    raise BadRequest("Not Acceptable", status=406)


def object_metadata(headers: Headers, now: float) -> dict[str, str]:
    """What a PUT, POST or COPY sets.  Raises BadRequest."""
    metadata: dict[str, str] = {}
    for name, value in headers.fields:
        if name.startswith(OBJECT_META) or name in OBJECT_HEADERS:
            if value:
                metadata[name] = _value(name, value) if name.startswith(OBJECT_META) else value
        elif name in _UNSUPPORTED_HEADERS:
            raise BadRequest(f"{name.title()} is not supported", status=501)
    if "x-object-manifest" in metadata:
        manifest_target(metadata["x-object-manifest"])
    _set_expiry(metadata, headers.get("x-delete-after"), now)
    return metadata


def _value(name: str, value: str) -> str:
    if len(value) > META_VALUE_BYTES_MAX:
        raise MetadataTooLarge(f"Metadata value longer than {META_VALUE_BYTES_MAX}: {name}")
    return value


def _set_expiry(metadata: dict[str, str], after: str, now: float) -> None:
    if after:
        if not (after.isascii() and after.lstrip("-").isdigit()) or len(after) > 12:
            raise BadRequest("Non-integer X-Delete-After")
        if int(after) <= 0:
            raise BadRequest("X-Delete-After in past")
        metadata["x-delete-at"] = str(int(now + int(after)))
    at = metadata.get("x-delete-at")
    if at is not None:
        if not (at.isascii() and at.isdigit()) or len(at) > 12:
            raise BadRequest("Non-integer X-Delete-At")
        if int(at) <= now:
            raise BadRequest("X-Delete-At in past")


def book_metadata(headers: Headers, kind: str) -> dict[str, str]:
    """Of a container or account: what is set, and with "" what is removed."""
    prefix, removal = f"x-{kind}-meta-", f"x-remove-{kind}-meta-"
    metadata: dict[str, str] = {}
    for name, value in headers.fields:
        if name.startswith(prefix):
            metadata[name] = _value(name, value)
        elif name.startswith(removal):
            metadata[prefix + name[len(removal) :]] = ""
        elif kind == "container" and name in ("x-container-read", "x-container-write"):
            metadata[name] = _acl(name, value)
        elif kind == "container" and name in ("x-remove-container-read", "x-remove-container-write"):
            metadata[name.replace("-remove", "")] = ""
    return metadata


def _acl(name: str, value: str) -> str:
    entries = [entry.strip() for entry in value.split(",") if entry.strip()]
    for entry in entries:
        if entry.startswith(".") and (name != "x-container-read" or entry not in (".r:*", ".rlistings")):
            raise BadRequest(f"{name.title()}: the element {entry[:60]!r} is not supported")
    return ",".join(entries)


def content_type(headers: Headers, name: str) -> str:
    """As stated, or guessed from the name's extension."""
    stated = headers.get("content-type")
    if stated:
        return stated
    return _TYPES.get(name.rpartition(".")[2].lower(), "application/octet-stream") if "." in name else "application/octet-stream"


def check_length(request: Request) -> None:
    """A body must say how long it is, or be chunked."""
    if "content-length" not in request.headers and "transfer-encoding" not in request.headers:
        raise LengthRequired("Missing Content-Length header.")


def wants_newest(headers: Headers) -> bool:
    """X-Newest."""
    return headers.get("x-newest").strip().lower() in _TRUE


def expected_etag(headers: Headers) -> str:
    return headers.get("etag").strip().strip('"').lower()

"""S3's API: a request's method, bucket, key and subresource to a handler.

The tables below are all there is.  A parameter that a handler does not name is refused with NotImplemented and never ignored: to
take "DELETE /bucket?lifecycle" for "DELETE /bucket" would delete the bucket.

Source: S3 API reference; "Virtual hosting of buckets", S3 user guide.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from proxy.errors import BadRequest, BucketNotFound, NotSupported
from proxy.operations.buckets import RESERVED
from proxy.s3 import buckets, objects, settings, uploads
from proxy.s3.auth import ANONYMOUS, S3Auth
from proxy.s3.call import Call, Door, object_path
from proxy.s3.errors import answer
from ring.errors import BadInput, RingfortError
from ring.names import HIDDEN
from ring.wire.message import Headers, Request, Response
from ring.wire.query import Query as Parameters
from ring.wire.query import unquote

_Handler = Callable[[Door, Call], Awaitable[Response]]
_SIGNATURE = frozenset(("AWSAccessKeyId", "Signature", "Expires", "content-type", "content-md5", "x-id"))


@dataclass(frozen=True, slots=True)
class _Route:
    handler: _Handler
    parameters: frozenset[str] = frozenset()


def _route(handler: _Handler, *parameters: str) -> _Route:
    return _Route(handler, frozenset(parameters))


_READ_PARAMETERS = ("partNumber", *objects._OVERRIDES)
_LIST_PARAMETERS = ("prefix", "delimiter", "max-keys", "encoding-type")
_UPLOADS_PARAMETERS = ("prefix", "key-marker", "upload-id-marker", "max-uploads", "encoding-type")

# (method, subresource) -> handler and the parameters it knows.
_SERVICE: dict[tuple[str, str], _Route] = {
    ("GET", ""): _route(buckets.list_buckets),
}
_BUCKET: dict[tuple[str, str], _Route] = {
    ("PUT", ""): _route(buckets.create_bucket),
    ("HEAD", ""): _route(buckets.head_bucket),
    ("DELETE", ""): _route(buckets.delete_bucket),
    ("GET", ""): _route(buckets.list_objects, *_LIST_PARAMETERS, "marker"),
    ("GET", "list-type"): _route(buckets.list_objects_v2, *_LIST_PARAMETERS, "continuation-token", "start-after", "fetch-owner"),
    ("GET", "location"): _route(buckets.get_location),
    ("GET", "versioning"): _route(buckets.get_versioning),
    ("GET", "acl"): _route(buckets.get_acl),
    ("GET", "uploads"): _route(uploads.list_uploads, *_UPLOADS_PARAMETERS),
    ("POST", "delete"): _route(buckets.delete_objects),
    **{("GET", name): _route(handler) for name, handler in settings.BUCKET.items()},
}
_OBJECT: dict[tuple[str, str], _Route] = {
    ("GET", ""): _route(objects.get_object, *_READ_PARAMETERS),
    ("HEAD", ""): _route(objects.head_object, *_READ_PARAMETERS),
    ("PUT", ""): _route(objects.put_object),
    ("DELETE", ""): _route(objects.delete_object),
    ("GET", "acl"): _route(objects.get_acl),
    ("POST", "uploads"): _route(uploads.create_upload),
    ("PUT", "uploadId"): _route(uploads.upload_part, "partNumber"),
    ("GET", "uploadId"): _route(uploads.list_parts, "max-parts", "part-number-marker", "encoding-type"),
    ("POST", "uploadId"): _route(uploads.complete_upload),
    ("DELETE", "uploadId"): _route(uploads.abort_upload),
    **{("GET", name): _route(handler) for name, handler in settings.OBJECT.items()},
}
_SUBRESOURCES = frozenset(subresource for table in (_BUCKET, _OBJECT) for _, subresource in table if subresource)


class S3App:
    """A Handler for every request that is S3's.  ``hosts``: the domains below which a bucket may be named in Host."""

    def __init__(self, door: Door, auth: S3Auth, *, hosts: Sequence[str] = ()) -> None:
        self._door = door
        self._auth = auth
        self._suffixes = tuple(f".{host.lower()}" for host in hosts)

    async def __call__(self, request: Request) -> Response:
        try:
            response = await self._answer(request)
        except RingfortError as error:
            response = answer(error, request.raw_path, request.trans_id)
        response.headers.fields.append(("x-amz-request-id", request.trans_id))
        return response

    async def _answer(self, request: Request) -> Response:
        try:
            query = Parameters.parse(request.query_string)
            host_bucket = self.host_bucket(request.headers)
            bucket, key = _split(request.raw_path, host_bucket)
        except BadInput:
            raise BadRequest("Couldn't parse the specified URI.", code="InvalidURI") from None
        call = Call(request, query, ANONYMOUS, bucket, key)
        call.signed = self._auth.identify(request, query.pairs, host_bucket)
        route = _find(request.method, query, bucket, key)
        if bucket and route.handler is not buckets.create_bucket:
            if bucket in RESERVED:
                raise BucketNotFound(f"{bucket} is no bucket")
            container = self._door.resolve(call.signed, bucket)
            call.path = object_path(container, key) if key else container
        return await route.handler(self._door, call)

    def host_bucket(self, headers: Headers) -> str:
        """The bucket that Host names, "" for none."""
        if not self._suffixes:
            return ""
        host = headers.get("host").lower().rpartition(":")[0] or headers.get("host").lower()
        suffix = next((suffix for suffix in self._suffixes if host.endswith(suffix)), None)
        return host[: -len(suffix)] if suffix is not None else ""


def _split(raw_path: str, host_bucket: str) -> tuple[str, str]:
    """Bucket and key, decoded.  BadInput."""
    bucket, key = host_bucket, raw_path[1:]
    if not host_bucket:
        bucket, _, key = key.partition("/")
    if "%" in raw_path or not raw_path.isascii():
        bucket, key = unquote(bucket), unquote(key)
    if HIDDEN in bucket or HIDDEN in key or "/" in bucket or (key and not bucket):
        raise BadInput("a name that no bucket or key has")
    return bucket, key


def _find(method: str, query: Parameters, bucket: str, key: str) -> _Route:
    """NotSupported, BadRequest."""
    table = _OBJECT if key else _BUCKET if bucket else _SERVICE
    names = {name for name, _ in query.pairs}
    names = {name for name in names if name not in _SIGNATURE and not name.lower().startswith("x-amz-")} if names else names
    chosen = names & _SUBRESOURCES
    if len(chosen) > 1:
        raise BadRequest(f"Conflicting query string parameters: {', '.join(sorted(chosen))}", code="InvalidArgument")
    subresource = next(iter(chosen), "")
    route = table.get((method, subresource))
    if route is None:
        if method == "OPTIONS":
            raise BadRequest("CORSResponse: CORS is not enabled for this bucket.", code="AccessForbidden", status=403)
        if not names and method not in {known for known, _ in table}:
            raise BadRequest("The specified method is not allowed against this resource.", code="MethodNotAllowed", status=405)
        raise NotSupported("A header or query you provided implies functionality that is not implemented")
    unknown = names - route.parameters - {subresource}
    if unknown:
        raise NotSupported(
            f"A query you provided implies functionality that is not implemented: {', '.join(sorted(unknown))[:200]}"
        )
    return route

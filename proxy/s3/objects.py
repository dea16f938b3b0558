"""Objects over S3: get, head, put, copy, delete.

Neighbours: app routes here; call has what handlers share; operations.objects does it.
Source: S3 API reference (GetObject, HeadObject, PutObject, CopyObject, DeleteObject).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from proxy.errors import BadRequest, NotSupported
from proxy.operations.objects import DLO
from proxy.operations.reads import conditions_of, write_condition
from proxy.operations.verbs import CopyObject, DeleteObject, GetObject, HeadObject, ObjectRead, ObjectUnread, PutObject
from proxy.s3.auth import Signed, payload
from proxy.s3.buckets import acl_content
from proxy.s3.call import (
    Call,
    Door,
    answer_xml,
    check_headers,
    iso,
    metadata_fields,
    metadata_of,
    number,
    object_path,
    project_of,
)
from proxy.s3.checksums import PREFIX, SYSMETA, content_md5, stated
from proxy.s3.chunked import AwsChunkedBody
from proxy.s3.xml import text
from ring.errors import BadInput
from ring.names import Path
from ring.wire.dates import format_date
from ring.wire.message import Headers, Response
from ring.wire.query import unquote
from storage.client.errors import ObjectNotFound, PreconditionFailed
from storage.client.interface import BodySource, ObjectMeta

DEFAULT_TYPE = "binary/octet-stream"
_COPY_CONDITIONS = "x-amz-copy-source-"
_OVERRIDES = {
    "response-content-type": "content-type",
    "response-content-language": "content-language",
    "response-expires": "expires",
    "response-cache-control": "cache-control",
    "response-content-disposition": "content-disposition",
    "response-content-encoding": "content-encoding",
}


async def get_object(door: Door, call: Call) -> Response:
    headers = call.headers
    operation = GetObject(call.path, headers.get("range"), conditions_of(headers), _part_number(call))
    try:
        result = await door.pipeline.run(call.access, operation, door.objects.get)
    except ObjectNotFound:
        await door.check_bucket(call.path)
        raise
    return _read(call, result)


async def head_object(door: Door, call: Call) -> Response:
    headers = call.headers
    operation = HeadObject(call.path, headers.get("range"), conditions_of(headers), _part_number(call))
    try:
        result = await door.pipeline.run(call.access, operation, door.objects.head)
    except ObjectNotFound:
        await door.check_bucket(call.path)
        raise
    return _read(call, result)


def _part_number(call: Call) -> int | None:
    if not call.query.pairs or "partNumber" not in call.query:
        return None
    if "range" in call.headers:
        raise BadRequest("Cannot specify both Range header and partNumber query parameter")
    return number(call.query, "partNumber", 0)


def _read(call: Call, result: ObjectRead | ObjectUnread) -> Response:
    meta = result.meta
    if DLO in meta.metadata:
        raise NotSupported("This is a dynamic large object, which only Swift's API reads.")
    headers = Headers()
    if isinstance(result, ObjectUnread):
        if not result.not_modified:
            raise PreconditionFailed("a condition does not hold")
        headers.fields = _identity_fields(meta)
        return Response(304, headers, length=meta.size)
    fields = headers.fields = [*_identity_fields(meta), ("content-type", meta.content_type), ("accept-ranges", "bytes")]
    if meta.metadata:
        fields += metadata_fields(meta.metadata)
    if result.partial:
        fields.append(("content-range", f"bytes {result.offset}-{result.offset + result.length - 1}/{meta.size}"))
    if result.part_count and call.query.pairs and "partNumber" in call.query:
        fields.append(("x-amz-mp-parts-count", str(result.part_count)))
    if not result.partial and call.headers.get("x-amz-checksum-mode").upper() == "ENABLED":
        fields += _checksum_fields(meta)
    if call.query.pairs:
        _override(call, headers)
    return Response(206 if result.partial else 200, headers, result.body, result.length)


def _identity_fields(meta: ObjectMeta) -> list[tuple[str, str]]:
    return [("etag", f'"{meta.etag}"'), ("last-modified", format_date(math.ceil(meta.modified.seconds)))]


def _checksum_fields(meta: ObjectMeta) -> list[tuple[str, str]]:
    found = checked_fields(meta.metadata)
    return [*found, ("x-amz-checksum-type", "FULL_OBJECT")] if found else []


def _override(call: Call, headers: Headers) -> None:
    """What a signed link says that the answer shall be called."""
    for parameter, name in _OVERRIDES.items():
        value = call.query.get(parameter)
        if not value:
            continue
        if call.access is None:
            raise BadRequest("Request specific response headers cannot be used for anonymous GET requests.")
        if not value.isprintable():
            raise BadRequest(f"{parameter} holds a control character", code="InvalidArgument")
        headers.replace(name, value.encode().decode("latin-1"))


async def put_object(door: Door, call: Call) -> Response:
    headers = call.headers
    check_headers(headers)
    if "x-amz-copy-source" in headers:
        return await copy_object(door, call)
    body = await payload(call.request, call.signed)
    metadata = metadata_of(headers)
    body = with_checksum(headers, body, metadata)
    operation = PutObject(
        call.path,
        body,
        headers.get("content-type") or DEFAULT_TYPE,
        metadata,
        content_md5(headers),
        write_condition(headers),
    )
    try:
        meta = await door.pipeline.run(call.access, operation, door.objects.put)
    except PreconditionFailed:
        await check_match(door, call)
        raise
    return Response(200, Headers([("etag", f'"{meta.etag}"'), *checked_fields(metadata)]))


def with_checksum(headers: Headers, body: BodySource, metadata: dict[str, str]) -> BodySource:
    """The body, whose checksum goes into ``metadata``: at once, or from its trailer when it has been read and found right."""
    for algorithm, value in stated(headers):
        metadata[SYSMETA + algorithm] = value
    if isinstance(body, AwsChunkedBody):
        body.tell = lambda algorithm, value: metadata.__setitem__(SYSMETA + algorithm, value)
    return body


def checked_fields(metadata: Mapping[str, str]) -> list[tuple[str, str]]:
    """The checksums that a body was found to have, as the answer repeats them."""
    return [(PREFIX + name[len(SYSMETA) :], value) for name, value in metadata.items() if name.startswith(SYSMETA)]


async def check_match(door: Door, call: Call) -> None:
    """ObjectNotFound: an If-Match failed because there is nothing that could match."""
    if "if-match" in call.headers:
        await door.objects.head(HeadObject(call.path))


async def delete_object(door: Door, call: Call) -> Response:
    """What is not there is deleted already."""
    check_headers(call.headers)
    condition = write_condition(call.headers)
    try:
        await door.pipeline.run(call.access, DeleteObject(call.path, condition), door.objects.delete)
    except ObjectNotFound:
        await door.check_bucket(call.path)
        if condition is not None and condition.if_match:
            raise
    return Response(204)


async def get_acl(door: Door, call: Call) -> Response:
    operation = HeadObject(call.path)
    await door.pipeline.run(call.access, operation, door.objects.head)
    return answer_xml("AccessControlPolicy", acl_content(project_of(call.path)))


# ---- copies


async def copy_object(door: Door, call: Call) -> Response:
    headers = call.headers
    source = copy_source(door, call.signed, headers)
    directive = headers.get("x-amz-metadata-directive") or "COPY"
    if directive not in ("COPY", "REPLACE"):
        raise BadRequest("Unknown metadata directive.", code="InvalidArgument")
    if source == call.path and directive == "COPY":
        raise BadRequest(
            "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, "
            "storage class, website redirect location or encryption attributes."
        )
    replaces = directive == "REPLACE"
    operation = CopyObject(
        source,
        call.path,
        metadata_of(headers) if replaces else None,
        content_type=(headers.get("content-type") or DEFAULT_TYPE) if replaces else "",
        source_conditions=copy_conditions(headers),
        condition=write_condition(headers),
    )
    try:
        copied = await door.pipeline.run(call.access, operation, door.objects.copy)
    except ObjectNotFound:
        await door.check_bucket(source)
        raise
    meta = copied.meta
    content = text("LastModified", iso(meta.modified.seconds)) + text("ETag", f'"{meta.etag}"')
    return answer_xml("CopyObjectResult", content)


def copy_source(door: Door, signed: Signed, headers: Headers) -> Path:
    """Of x-amz-copy-source: "[/]BUCKET/KEY", percent-encoded.  BadRequest, BucketNotFound, NotSupported."""
    value, _, version = headers.get("x-amz-copy-source").partition("?")
    if version and version != "versionId=null":
        raise NotSupported("Versions are not supported.")
    try:
        bucket, _, key = unquote(value).removeprefix("/").partition("/")
    except BadInput:
        bucket = key = ""
    if not bucket or not key:
        raise BadRequest("Copy Source must mention the source bucket and key: sourcebucket/sourcekey", code="InvalidArgument")
    return object_path(door.resolve(signed, bucket), key)


def copy_conditions(headers: Headers) -> Headers | None:
    """The conditions on the source, as those of a read."""
    return conditions_of(
        Headers(
            [(name.removeprefix(_COPY_CONDITIONS), value) for name, value in headers if name.startswith(_COPY_CONDITIONS + "if-")]
        )
    )

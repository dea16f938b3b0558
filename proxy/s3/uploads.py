"""Multipart uploads over S3: create, upload part, upload part by copy, list parts, complete, abort, list uploads.

Neighbours: app routes here; large.uploads does it.
Source: S3 API reference (CreateMultipartUpload, UploadPart, UploadPartCopy, ListParts, CompleteMultipartUpload, ...).
"""

from __future__ import annotations

import re

from proxy.errors import BadRequest
from proxy.operations.bodies import PiecesBody
from proxy.operations.reads import write_condition
from proxy.operations.verbs import (
    AbortUpload,
    CompleteUpload,
    CreateUpload,
    GetObject,
    ListParts,
    ListUploads,
    ObjectUnread,
    UploadPart,
)
from proxy.s3.auth import payload
from proxy.s3.call import (
    KEYS_MAX,
    Call,
    Door,
    answer_xml,
    check_headers,
    iso,
    metadata_of,
    name_text,
    number,
    owner,
    project_of,
    url_encoding,
)
from proxy.s3.checksums import check_algorithm, content_md5
from proxy.s3.document import read_document
from proxy.s3.objects import DEFAULT_TYPE, check_match, checked_fields, copy_conditions, copy_source, with_checksum
from proxy.s3.xml import element, malformed, parse, text
from ring.wire.message import Headers, Response
from storage.client.errors import ObjectNotFound, PreconditionFailed

_COMPLETE_BYTES_MAX = 4 << 20  # 10,000 parts with their checksums
_COPY_RANGE = re.compile(r"bytes=\d{1,18}-\d{1,18}")


async def create_upload(door: Door, call: Call) -> Response:
    headers = call.headers
    check_headers(headers)
    algorithm = headers.get("x-amz-checksum-algorithm").lower()
    if algorithm:
        check_algorithm(algorithm)
    operation = CreateUpload(call.path, headers.get("content-type") or DEFAULT_TYPE, metadata_of(headers))
    upload_id = await door.pipeline.run(call.access, operation, door.uploads.create)
    content = text("Bucket", call.bucket) + text("Key", call.key) + text("UploadId", upload_id)
    response = answer_xml("InitiateMultipartUploadResult", content)
    if algorithm:
        response.headers.add("x-amz-checksum-algorithm", algorithm.upper())
    return response


async def upload_part(door: Door, call: Call) -> Response:
    headers = call.headers
    check_headers(headers)
    upload_id, part = call.query.get("uploadId"), number(call.query, "partNumber", 0)
    if "x-amz-copy-source" in headers:
        return await _copy_part(door, call, upload_id, part)
    body = await payload(call.request, call.signed)
    metadata: dict[str, str] = {}
    body = with_checksum(headers, body, metadata)
    operation = UploadPart(call.path, upload_id, part, body, content_md5(headers), metadata)
    meta = await door.pipeline.run(call.access, operation, door.uploads.upload_part)
    return Response(200, Headers([("etag", f'"{meta.etag}"'), *checked_fields(metadata)]))


async def _copy_part(door: Door, call: Call, upload_id: str, part: int) -> Response:
    headers = call.headers
    source = copy_source(door, call.signed, headers)
    extent = headers.get("x-amz-copy-source-range")
    if extent and not _COPY_RANGE.fullmatch(extent):
        raise BadRequest(
            "The x-amz-copy-source-range value must be of the form bytes=first-last, with zero-based offsets",
            code="InvalidArgument",
        )
    operation = GetObject(source, extent, copy_conditions(headers))
    try:
        found = await door.pipeline.run(call.access, operation, door.objects.get)
    except ObjectNotFound:
        await door.check_bucket(source)
        raise
    if isinstance(found, ObjectUnread):
        raise PreconditionFailed("a condition on the source of the copy does not hold")
    body = PiecesBody(found.body, found.length)
    try:
        last = int(extent.rpartition("-")[2]) if extent else None
        if last is not None and last >= found.meta.size:
            raise BadRequest("Range specified is not valid for the source object's size", code="InvalidArgument")
        meta = await door.pipeline.run(call.access, UploadPart(call.path, upload_id, part, body), door.uploads.upload_part)
    finally:
        await body.close()
    content = text("LastModified", iso(meta.timestamp.seconds)) + text("ETag", f'"{meta.etag}"')
    return answer_xml("CopyPartResult", content)


async def list_parts(door: Door, call: Call) -> Response:
    query, encoded = call.query, url_encoding(call.query)
    limit = number(query, "max-parts", KEYS_MAX, most=KEYS_MAX)
    after = number(query, "part-number-marker", 0)
    upload_id = query.get("uploadId")
    page = await door.pipeline.run(call.access, ListParts(call.path, upload_id, after, limit), door.uploads.list_parts)
    project_id = project_of(call.path)
    content = [
        text("Bucket", call.bucket),
        name_text("Key", call.key, encoded),
        text("UploadId", upload_id),
        owner("Initiator", project_id),
        owner("Owner", project_id),
        text("StorageClass", "STANDARD"),
        text("PartNumberMarker", after),
        text("MaxParts", limit),
        text("IsTruncated", str(page.truncated).lower()),
    ]
    if page.truncated and page.numbers:
        content.append(text("NextPartNumberMarker", page.numbers[-1]))
    for at, row in zip(page.numbers, page.parts, strict=True):
        fields = (
            text("PartNumber", at),
            text("LastModified", iso(row.timestamp.seconds)),
            text("ETag", f'"{row.etag}"'),
            text("Size", row.size),
        )
        content.append(element("Part", fields))
    return answer_xml("ListPartsResult", "".join(content))


async def complete_upload(door: Door, call: Call) -> Response:
    check_headers(call.headers)
    document = parse(await read_document(call.request, call.signed, _COMPLETE_BYTES_MAX), "CompleteMultipartUpload")
    parts: list[tuple[int, str]] = []
    for item in document.children("Part"):
        at = item.text("PartNumber").strip()
        if not (at.isascii() and at.isdigit() and len(at) < 6):
            raise malformed()
        parts.append((int(at), item.text("ETag").strip().strip('"').lower()))
    if not parts:
        raise malformed()
    operation = CompleteUpload(call.path, call.query.get("uploadId"), parts, write_condition(call.headers))
    try:
        meta = await door.pipeline.run(call.access, operation, door.uploads.complete)
    except PreconditionFailed:
        await check_match(door, call)
        raise
    location = f"http://{call.headers.get('host')}{call.request.raw_path}"
    content = text("Location", location) + text("Bucket", call.bucket) + text("Key", call.key) + text("ETag", f'"{meta.etag}"')
    return answer_xml("CompleteMultipartUploadResult", content)


async def abort_upload(door: Door, call: Call) -> Response:
    await door.pipeline.run(call.access, AbortUpload(call.path, call.query.get("uploadId")), door.uploads.abort)
    return Response(204)


async def list_uploads(door: Door, call: Call) -> Response:
    query, encoded = call.query, url_encoding(call.query)
    limit = number(query, "max-uploads", KEYS_MAX, most=KEYS_MAX)
    after = (query.get("key-marker"), query.get("upload-id-marker"))
    operation = ListUploads(call.path, query.get("prefix"), after, limit)
    page = await door.pipeline.run(call.access, operation, door.uploads.list_uploads)
    project_id = project_of(call.path)
    content = [
        text("Bucket", call.bucket),
        name_text("KeyMarker", after[0], encoded),
        text("UploadIdMarker", after[1]),
        name_text("Prefix", query.get("prefix"), encoded),
        text("MaxUploads", limit),
        text("IsTruncated", str(page.truncated).lower()),
    ]
    if encoded:
        content.append(text("EncodingType", "url"))
    if page.truncated and page.uploads:
        content.append(name_text("NextKeyMarker", page.uploads[-1].key, encoded))
        content.append(text("NextUploadIdMarker", page.uploads[-1].upload_id))
    for entry in page.uploads:
        fields = (
            name_text("Key", entry.key, encoded),
            text("UploadId", entry.upload_id),
            owner("Initiator", project_id),
            owner("Owner", project_id),
            text("StorageClass", "STANDARD"),
            text("Initiated", iso(entry.begun)),
        )
        content.append(element("Upload", fields))
    return answer_xml("ListMultipartUploadsResult", "".join(content))

"""Buckets over S3: make, look, list, delete, and many objects deleted at once.

Neighbours: app routes here; call has what handlers share; operations.buckets holds the names.
Source: S3 API reference (ListBuckets, CreateBucket, ListObjects, ListObjectsV2, DeleteObjects, ...).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import trio

from identity.client.interface import Unauthorized
from proxy.errors import BadRequest, NotSupported
from proxy.operations.verbs import DeleteContainer, DeleteObject, HeadContainer, ListAccount, ListContainer, PutContainer
from proxy.s3.call import (
    KEYS_MAX,
    Call,
    Door,
    answer_xml,
    check_headers,
    iso,
    name_text,
    number,
    object_path,
    owner,
    project_of,
    url_encoding,
)
from proxy.s3.document import read_document
from proxy.s3.errors import code_of, message_of
from proxy.s3.xml import element, malformed, parse, text
from ring.errors import RingfortError
from ring.names import HIDDEN, Path
from ring.wire.message import Headers, Response
from storage.client.errors import ContainerNotFound, ObjectNotFound
from storage.client.interface import Page, Prefix, Query, Row

_CONFIGURATION_BYTES_MAX = 64 << 10
_DELETE_BYTES_MAX = 2 << 20
_DELETES_AT_ONCE = 8


async def list_buckets(door: Door, call: Call) -> Response:
    access = call.access
    if access is None:
        raise Unauthorized("Access Denied")
    account = Path(access.account)
    names: list[str] = []
    marker = ""
    while True:
        page = await door.pipeline.run(access, ListAccount(account, Query(marker=marker)), door.books.list_account)
        for row in page.items:
            if isinstance(row, Row) and not door.claims.is_held_by_others(row.name, access.project_id):
                names.append(element("Bucket", (text("Name", row.name), text("CreationDate", iso(row.timestamp.seconds)))))
        if not page.truncated or not page.items:
            break
        marker = page.items[-1].name
    return answer_xml("ListAllMyBucketsResult", owner("Owner", access.project_id) + element("Buckets", names))


async def create_bucket(door: Door, call: Call) -> Response:
    """Again by its owner it is 200, as in us-east-1."""
    access = call.access
    if access is None:
        raise Unauthorized("Access Denied")
    check_headers(call.headers)
    data = await read_document(call.request, call.signed, _CONFIGURATION_BYTES_MAX)
    if data:
        parse(data, "CreateBucketConfiguration")
    path = Path(access.account, call.bucket)
    await door.pipeline.admit(access, PutContainer(path))
    path = await door.claims.claim(call.bucket, access.project_id)
    await door.books.put_container(PutContainer(path))
    return Response(200, Headers([("location", f"/{call.bucket}")]))


async def head_bucket(door: Door, call: Call) -> Response:
    await door.pipeline.run(call.access, HeadContainer(call.path), door.books.head_container)
    return Response(200, Headers([("content-type", "application/xml"), ("x-amz-bucket-region", door.region)]))


async def delete_bucket(door: Door, call: Call) -> Response:
    try:
        await door.pipeline.run(call.access, DeleteContainer(call.path), door.books.delete_container)
    except ContainerNotFound:
        # Claimed, and a crash came before the container was made, or after it was deleted: let go of the name.
        await door.claims.release(call.bucket, project_of(call.path))
        raise
    await door.claims.release(call.bucket, project_of(call.path))
    return Response(204)


async def get_location(door: Door, call: Call) -> Response:
    await door.pipeline.run(call.access, HeadContainer(call.path), door.books.head_container)
    return answer_xml("LocationConstraint", "" if door.region == "us-east-1" else door.region)


async def get_versioning(door: Door, call: Call) -> Response:
    """Never been on."""
    await door.pipeline.run(call.access, HeadContainer(call.path), door.books.head_container)
    return answer_xml("VersioningConfiguration", "")


async def get_acl(door: Door, call: Call) -> Response:
    """The owner may all: the only ACL there is."""
    await door.pipeline.run(call.access, HeadContainer(call.path), door.books.head_container)
    return answer_xml("AccessControlPolicy", acl_content(project_of(call.path)))


def acl_content(project_id: str) -> str:
    grantee = (
        '<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser">'
        f"{text('ID', project_id)}{text('DisplayName', project_id)}</Grantee>"
    )
    return owner("Owner", project_id) + element(
        "AccessControlList", (element("Grant", (grantee, text("Permission", "FULL_CONTROL"))),)
    )


# ---- listings


async def list_objects(door: Door, call: Call) -> Response:
    """Version 1: marker."""
    query, encoded = call.query, url_encoding(call.query)
    limit = number(query, "max-keys", KEYS_MAX, most=KEYS_MAX)
    marker = query.get("marker")
    page = await _page(door, call, marker, limit)
    content = [
        text("Name", call.bucket),
        name_text("Prefix", query.get("prefix"), encoded),
        name_text("Marker", marker, encoded),
        *_listing_head(query.get("delimiter"), limit, page, encoded),
    ]
    if page.truncated and page.items:
        content.append(name_text("NextMarker", page.items[-1].name, encoded))
    return answer_xml("ListBucketResult", "".join(content) + _items(page.items, encoded, project_of(call.path)))


async def list_objects_v2(door: Door, call: Call) -> Response:
    query, encoded = call.query, url_encoding(call.query)
    if query.get("list-type") != "2":
        raise BadRequest("Invalid list-type", code="InvalidArgument")
    limit = number(query, "max-keys", KEYS_MAX, most=KEYS_MAX)
    token, start_after = query.get("continuation-token"), query.get("start-after")
    if "continuation-token" in query and not token:
        raise _bad_token()
    page = await _page(door, call, _from_token(token) if token else start_after, limit)
    content = [
        text("Name", call.bucket),
        name_text("Prefix", query.get("prefix"), encoded),
        *_listing_head(query.get("delimiter"), limit, page, encoded),
        text("KeyCount", len(page.items)),
    ]
    if token:
        content.append(text("ContinuationToken", token))
    if start_after:
        content.append(name_text("StartAfter", start_after, encoded))
    if page.truncated and page.items:
        content.append(text("NextContinuationToken", _to_token(page.items[-1].name)))
    fetch_owner = query.get("fetch-owner").lower() == "true"
    return answer_xml(
        "ListBucketResult", "".join(content) + _items(page.items, encoded, project_of(call.path) if fetch_owner else "")
    )


async def _page(door: Door, call: Call, marker: str, limit: int) -> Page:
    query = Query(prefix=call.query.get("prefix"), delimiter=call.query.get("delimiter"), marker=marker, limit=limit)
    if any(HIDDEN in part for part in (query.prefix, query.delimiter, query.marker)):
        raise BadRequest("a parameter holds NUL", code="InvalidArgument")
    return await door.pipeline.run(call.access, ListContainer(call.path, query), door.books.list_container)


def _listing_head(delimiter: str, limit: int, page: Page, encoded: bool) -> list[str]:
    content = [text("MaxKeys", limit), text("IsTruncated", str(page.truncated).lower())]
    if delimiter:
        content.append(name_text("Delimiter", delimiter, encoded))
    if encoded:
        content.append(text("EncodingType", "url"))
    return content


def _items(items: Sequence[Row | Prefix], encoded: bool, owner_id: str) -> str:
    tail = f"<StorageClass>STANDARD</StorageClass>{owner('Owner', owner_id) if owner_id else ''}</Contents>"
    contents = [
        f"<Contents>{name_text('Key', item.name, encoded)}<LastModified>{iso(item.timestamp.seconds)}</LastModified>"
        f"<ETag>&quot;{item.etag}&quot;</ETag><Size>{item.size}</Size>{tail}"
        for item in items
        if isinstance(item, Row)
    ]
    prefixes = [element("CommonPrefixes", (name_text("Prefix", item.name, encoded),)) for item in items if isinstance(item, Prefix)]
    return "".join(contents) + "".join(prefixes)


def _to_token(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def _from_token(token: str) -> str:
    try:
        return base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        raise _bad_token() from None


def _bad_token() -> BadRequest:
    return BadRequest("The continuation token provided is incorrect", code="InvalidArgument")


# ---- many deletes in one


async def delete_objects(door: Door, call: Call) -> Response:
    check_headers(call.headers)
    document = parse(await read_document(call.request, call.signed, _DELETE_BYTES_MAX), "Delete")
    asked = document.children("Object")
    if not 1 <= len(asked) <= KEYS_MAX:
        raise malformed()
    keys = []
    for item in asked:
        key = item.text("Key")
        if not key:
            raise malformed()
        if item.text("VersionId", "null") not in ("null", ""):
            raise NotSupported("Versions are not supported.")
        keys.append(key)
    await door.pipeline.run(call.access, HeadContainer(call.path), door.books.head_container)
    results = [""] * len(keys)
    quiet = document.text("Quiet").strip().lower() == "true"
    todo = iter(list(enumerate(keys)))

    async def delete() -> None:
        for at, key in todo:
            results[at] = await _delete(door, call, key, quiet)

    async with trio.open_nursery() as nursery:
        for _ in range(min(_DELETES_AT_ONCE, len(keys))):
            nursery.start_soon(delete)
    return answer_xml("DeleteResult", "".join(results))


async def _delete(door: Door, call: Call, key: str, quiet: bool) -> str:
    try:
        await door.pipeline.run(call.access, DeleteObject(object_path(call.path, key)), door.objects.delete)
    except ObjectNotFound:
        pass  # then it is as asked
    except RingfortError as error:
        found = code_of(error)
        if found is None:
            raise
        return element("Error", (text("Key", key), text("Code", found[0]), text("Message", message_of(found[0], error))))
    return "" if quiet else element("Deleted", (text("Key", key),))

"""Swift's API: method and path to a verb, the verb's result to status, headers and body.

Decides nothing about data; parse takes requests apart, listing writes pages, errors words failures.
Source: Swift API reference (object-store v1) and what Swift's own proxy answers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Awaitable, Callable, Sequence

from identity.client.interface import Access
from proxy.errors import BadRequest, NotSupported, RangeNotSatisfiable
from proxy.gates.access import owns
from proxy.operations.books import BookVerbs
from proxy.operations.objects import DLO, ObjectVerbs
from proxy.operations.reads import conditions_of, write_condition
from proxy.operations.verbs import (
    CopyObject,
    DeleteAccount,
    DeleteContainer,
    DeleteObject,
    GetObject,
    HeadAccount,
    HeadContainer,
    HeadObject,
    ListAccount,
    ListContainer,
    ObjectRead,
    ObjectUnread,
    PostAccount,
    PostContainer,
    PostObject,
    PutAccount,
    PutContainer,
    PutObject,
    Right,
)
from proxy.pipeline import Pipeline
from proxy.swift import errors, listing
from proxy.swift.bulk import bulk_delete
from proxy.swift.dlo import DynamicLargeObjects
from proxy.swift.parse import (
    OBJECT_META,
    book_metadata,
    check_length,
    content_type,
    copy_path,
    expected_etag,
    is_true,
    listing_of,
    object_metadata,
    path_of,
    wants_newest,
)
from ring.errors import RingfortError
from ring.names import Path
from ring.timestamp import Timestamp
from ring.wire.dates import format_date
from ring.wire.message import Headers, Request, Response
from ring.wire.query import Query as Parameters
from ring.wire.query import quote
from ring.world.interface import Clock
from storage.client.bodies import aclose
from storage.client.errors import AccountGone
from storage.client.interface import BookMeta, ObjectMeta, Page, Prefix, Row

_SHOWN = frozenset(("cache-control", "content-disposition", "content-encoding", "content-language", "expires", "x-robots-tag"))
# Parameters that would make a request another one than the plain verb: they are refused where they would, never ignored.
_UNSUPPORTED = {
    "PUT": ("multipart-manifest", "extract-archive"),
    "POST": ("bulk-delete", "multipart-manifest", "extract-archive"),
    "DELETE": ("bulk-delete", "version-id"),
    "GET": ("versions", "version-id"),
    "HEAD": ("version-id",),
}
_Handler = Callable[["SwiftApp", Request, Access | None, Path, Parameters], Awaitable[Response]]


class SwiftApp:
    """A Handler for everything below /v1/."""

    def __init__(
        self, pipeline: Pipeline, objects: ObjectVerbs, books: BookVerbs, clock: Clock, *, policies: Sequence[str] = ("Policy-0",)
    ) -> None:
        self._pipeline = pipeline
        self._objects = objects
        self._books = books
        self._clock = clock
        self._dlo = DynamicLargeObjects(pipeline, objects, books)
        self._policies = tuple(policies)

    async def __call__(self, request: Request) -> Response:
        path = None
        try:
            path = path_of(request.raw_path)
            access = self._pipeline.identify(request.headers.get("x-auth-token") or request.headers.get("x-storage-token"))
            parameters = Parameters.parse(request.query_string)
            table = _OBJECT if path.object else _CONTAINER if path.container else _ACCOUNT
            handler = table.get(request.method)
            if request.method == "OPTIONS":
                response = _options(request, sorted(table))
            elif request.method in ("POST", "DELETE") and "bulk-delete" in parameters and not path.container:
                response = await bulk_delete(self._pipeline, self._objects, self._books, request, access, path)
            elif handler is None:
                response = errors.page(405)
                response.headers.add("allow", ", ".join(sorted(table)))
            else:
                if parameters.pairs:
                    _check_supported(request.method, parameters)
                response = await handler(self, request, access, path, parameters)
        except AccountGone as error:
            response = errors.gone(error, request.method, of_account=path is not None and not path.container)
        except RingfortError as error:
            response = errors.answer(error, path.account if path is not None else "")
        response.headers.fields.append(("x-trans-id", request.trans_id))
        response.headers.fields.append(("x-openstack-request-id", request.trans_id))
        return response

    # ---- accounts

    async def _head_account(self, request: Request, access: Access | None, path: Path, parameters: Parameters) -> Response:
        book = await self._pipeline.run(access, HeadAccount(path), self._books.head_account)
        fields = [*self._account_fields(book), ("content-type", "text/plain; charset=utf-8")]
        return Response(204, Headers(fields))

    async def _get_account(self, request: Request, access: Access | None, path: Path, parameters: Parameters) -> Response:
        asked = listing_of(request, parameters)
        page = await self._pipeline.run(access, ListAccount(path, asked.query), self._books.list_account)
        return _listing(self._account_fields(page.meta), "account", path.account, page, asked.format, asked.objects_only)

    async def _post_account(self, request: Request, access: Access | None, path: Path, parameters: Parameters) -> Response:
        await self._pipeline.run(access, PostAccount(path, book_metadata(request.headers, "account")), self._books.post_account)
        return Response(204)

    async def _put_account(self, request: Request, access: Access | None, path: Path, parameters: Parameters) -> Response:
        operation = PutAccount(path, book_metadata(request.headers, "account"))
        created = await self._pipeline.run(access, operation, self._books.put_account)
        return Response(201 if created else 202, Headers([("content-type", "text/html; charset=UTF-8")]))

    async def _delete_account(self, request: Request, access: Access | None, path: Path, parameters: Parameters) -> Response:
        if parameters.pairs:  # a mistyped bulk delete, perhaps: not for that
            raise BadRequest("DELETE of an account takes no query")
        await self._pipeline.run(access, DeleteAccount(path), self._books.delete_account)
        return Response(204)

    def _account_fields(self, book: BookMeta) -> list[tuple[str, str]]:
        prefixes = ["x-account"]
        if len(self._policies) == 1:  # with several, nobody adds up who has what
            prefixes.append(f"x-account-storage-policy-{self._policies[0].lower()}")
        fields = []
        for prefix in prefixes:
            fields += [
                (f"{prefix}-container-count", str(book.container_count)),
                (f"{prefix}-object-count", str(book.object_count)),
                (f"{prefix}-bytes-used", str(book.bytes_used)),
            ]
        fields += [("x-timestamp", book.created.normal), ("accept-ranges", "bytes")]
        fields += [item for item in book.metadata.items() if item[0].startswith("x-account-meta-")]
        return fields

    # ---- containers

    async def _head_container(self, request: Request, access: Access | None, path: Path, parameters: Parameters) -> Response:
        book = await self._pipeline.run(access, HeadContainer(path), self._books.head_container)
        fields = [*self._container_fields(book, access, path), ("content-type", "text/plain; charset=utf-8")]
        return Response(204, Headers(fields))

    async def _get_container(self, request: Request, access: Access | None, path: Path, parameters: Parameters) -> Response:
        asked = listing_of(request, parameters)
        page = await self._pipeline.run(access, ListContainer(path, asked.query), self._books.list_container)
        fields = self._container_fields(page.meta, access, path)
        return _listing(fields, "container", path.container, page, asked.format, asked.objects_only)

    async def _put_container(self, request: Request, access: Access | None, path: Path, parameters: Parameters) -> Response:
        policy = self._policy(request.headers.get("x-storage-policy"))
        operation = PutContainer(path, book_metadata(request.headers, "container"), policy)
        created = await self._pipeline.run(access, operation, self._books.put_container)
        return Response(201 if created else 202, Headers([("content-type", "text/html; charset=UTF-8")]))

    async def _post_container(self, request: Request, access: Access | None, path: Path, parameters: Parameters) -> Response:
        operation = PostContainer(path, book_metadata(request.headers, "container"))
        await self._pipeline.run(access, operation, self._books.post_container)
        return Response(204)

    async def _delete_container(self, request: Request, access: Access | None, path: Path, parameters: Parameters) -> Response:
        await self._pipeline.run(access, DeleteContainer(path), self._books.delete_container)
        return Response(204)

    def _policy(self, name: str) -> int | None:
        if not name:
            return None
        for at, known in enumerate(self._policies):
            if known.lower() == name.lower():
                return at
        raise BadRequest(f"Invalid X-Storage-Policy {name[:60]!r}")

    def _container_fields(self, book: BookMeta, access: Access | None, path: Path) -> list[tuple[str, str]]:
        fields = [
            ("x-container-object-count", str(book.object_count)),
            ("x-container-bytes-used", str(book.bytes_used)),
            ("x-timestamp", book.created.normal),
            ("last-modified", _date(book.created)),
            ("accept-ranges", "bytes"),
        ]
        if book.policy < len(self._policies):
            fields.append(("x-storage-policy", self._policies[book.policy]))
        own = access is not None and owns(access, path, Right.OWN)
        for name, value in book.metadata.items():
            if name.startswith("x-container-meta-") or (own and name in ("x-container-read", "x-container-write")):
                fields.append((name, value))
        return fields

    # ---- objects

    async def _get_object(self, request: Request, access: Access | None, path: Path, parameters: Parameters) -> Response:
        headers = request.headers
        wanted = headers.get("range")
        boundary = hashlib.md5(request.trans_id.encode(), usedforsecurity=False).hexdigest() if "," in wanted else ""
        operation = GetObject(path, wanted, conditions_of(headers), boundary=boundary, newest=wants_newest(headers))
        whole = parameters.get("multipart-manifest") != "get"
        try:
            result = await self._pipeline.run(access, operation, self._objects.get)
        except RangeNotSatisfiable as error:
            if whole and DLO in error.meta.metadata:
                return await self._read_dlo(request, access, path, error.meta)
            raise
        if whole and DLO in result.meta.metadata:
            if isinstance(result, ObjectRead) and not isinstance(result.body, bytes):
                await aclose(result.body)
            return await self._read_dlo(request, access, path, result.meta)
        return _read(result)

    async def _read_dlo(self, request: Request, access: Access | None, path: Path, stored: ObjectMeta) -> Response:
        wanted, conditions = request.headers.get("range"), conditions_of(request.headers)
        response = _read(await self._dlo.read(request.method, access, path, stored, wanted, conditions))
        response.headers.replace("etag", f'"{response.headers.get("etag")}"')
        return response

    async def _head_object(self, request: Request, access: Access | None, path: Path, parameters: Parameters) -> Response:
        operation = HeadObject(path, conditions=conditions_of(request.headers), newest=wants_newest(request.headers))
        result = await self._pipeline.run(access, operation, self._objects.head)
        if DLO in result.meta.metadata and parameters.get("multipart-manifest") != "get":
            return await self._read_dlo(request, access, path, result.meta)
        return _read(result)

    async def _put_object(self, request: Request, access: Access | None, path: Path, parameters: Parameters) -> Response:
        headers = request.headers
        source = headers.get("x-copy-from")
        if source:
            return await self._copy(
                request, access, copy_path(source, self._copy_account(headers, "x-copy-from-account", path)), path
            )
        check_length(request)
        operation = PutObject(
            path,
            request.body,
            content_type(headers, path.object),
            object_metadata(headers, self._clock.now()),
            expected_etag(headers),
            write_condition(headers),
        )
        meta = await self._pipeline.run(access, operation, self._objects.put)
        return Response(201, Headers([*_written(meta), ("content-type", "text/html; charset=UTF-8")]))

    async def _post_object(self, request: Request, access: Access | None, path: Path, parameters: Parameters) -> Response:
        operation = PostObject(path, object_metadata(request.headers, self._clock.now()), request.headers.get("content-type"))
        await self._pipeline.run(access, operation, self._objects.post)
        return _accepted()

    async def _delete_object(self, request: Request, access: Access | None, path: Path, parameters: Parameters) -> Response:
        operation = DeleteObject(path, write_condition(request.headers))
        await self._pipeline.run(access, operation, self._objects.delete)
        return Response(204, Headers([("content-type", "text/html; charset=UTF-8")]))

    async def _copy_object(self, request: Request, access: Access | None, path: Path, parameters: Parameters) -> Response:
        target = request.headers.get("destination")
        if not target:
            raise BadRequest("Destination header required", status=412)
        account = self._copy_account(request.headers, "destination-account", path)
        return await self._copy(request, access, path, copy_path(target, account))

    async def _copy(self, request: Request, access: Access | None, source: Path, target: Path) -> Response:
        headers = request.headers
        if request.method == "PUT" and request.body.length:
            raise BadRequest("Copy requests require a zero byte body")
        operation = CopyObject(
            source,
            target,
            object_metadata(headers, self._clock.now()),
            merge=not is_true(headers.get("x-fresh-metadata")),
            content_type=headers.get("content-type"),
            source_conditions=conditions_of(headers),
        )
        copied = await self._pipeline.run(access, operation, self._objects.copy)
        fields = [
            *_written(copied.meta),
            ("content-type", "text/html; charset=UTF-8"),
            ("x-copied-from", quote(f"{source.container}/{source.object}")),
            ("x-copied-from-account", quote(source.account)),
            ("x-copied-from-last-modified", _date(copied.source.modified)),
        ]
        shown = [(name, value) for name, value in copied.meta.metadata.items() if name.startswith(OBJECT_META)]
        return Response(201, Headers([*fields, *shown]))

    def _copy_account(self, headers: Headers, name: str, path: Path) -> str:
        return headers.get(name) or quote(path.account, safe="")


_ACCOUNT: dict[str, _Handler] = {
    "GET": SwiftApp._get_account,
    "HEAD": SwiftApp._head_account,
    "POST": SwiftApp._post_account,
    "PUT": SwiftApp._put_account,
    "DELETE": SwiftApp._delete_account,
}
_CONTAINER: dict[str, _Handler] = {
    "GET": SwiftApp._get_container,
    "HEAD": SwiftApp._head_container,
    "PUT": SwiftApp._put_container,
    "POST": SwiftApp._post_container,
    "DELETE": SwiftApp._delete_container,
}
_OBJECT: dict[str, _Handler] = {
    "GET": SwiftApp._get_object,
    "HEAD": SwiftApp._head_object,
    "PUT": SwiftApp._put_object,
    "POST": SwiftApp._post_object,
    "DELETE": SwiftApp._delete_object,
    "COPY": SwiftApp._copy_object,
}


def _options(request: Request, methods: Sequence[str]) -> Response:
    """What may be asked for here; another origin's page may ask for nothing."""
    if "origin" in request.headers:
        return errors.page(401)
    return Response(200, Headers([("allow", ", ".join(methods))]))


def _check_supported(method: str, parameters: Parameters) -> None:
    for name in _UNSUPPORTED.get(method, ()):
        if name in parameters:
            raise NotSupported(f"{method} with {name} is not supported")


def _listing(fields: list[tuple[str, str]], kind: str, name: str, page: Page, format: str, objects_only: bool) -> Response:
    items: Sequence[Row | Prefix] = page.items
    if objects_only:
        items = [item for item in items if isinstance(item, Row)]
    fields.append(("content-type", listing.TYPES[format]))
    if format == "plain" and not items:
        return Response(204, Headers(fields))
    return Response(200, Headers(fields), listing.write(format, kind, name, items))


def _read(result: ObjectRead | ObjectUnread) -> Response:
    """A GET's or HEAD's answer."""
    headers = Headers()
    fields = headers.fields = _object_fields(result.meta)
    if isinstance(result, ObjectUnread):
        return Response(304, headers, length=result.meta.size) if result.not_modified else _unmet(fields)
    if result.frame is not None:
        headers.replace("content-type", result.frame.header)
    elif result.partial:
        fields.append(("content-range", f"bytes {result.offset}-{result.offset + result.length - 1}/{result.meta.size}"))
    return Response(206 if result.partial else 200, headers, result.body, result.length)


def _unmet(fields: list[tuple[str, str]]) -> Response:
    response = errors.page(412)
    response.headers.fields += [item for item in fields if item[0] in ("etag", "last-modified", "x-timestamp")]
    return response


def _object_fields(meta: ObjectMeta) -> list[tuple[str, str]]:
    fields = [
        ("content-type", meta.content_type),
        ("etag", meta.etag),
        ("last-modified", _date(meta.modified)),
        ("x-timestamp", meta.modified.normal),
        ("accept-ranges", "bytes"),
    ]
    for item in meta.metadata.items():
        name = item[0]
        if name.startswith(OBJECT_META) or name in _SHOWN or name in ("x-delete-at", DLO):
            fields.append(item)
    return fields


def _written(meta: ObjectMeta) -> list[tuple[str, str]]:
    return [("etag", meta.etag), ("last-modified", _date(meta.modified))]


def _date(timestamp: Timestamp) -> str:
    """Rounded up, as Swift does, so that If-Unmodified-Since with it holds."""
    return format_date(math.ceil(timestamp.seconds))


def _accepted() -> Response:
    body = b"<html><h1>Accepted</h1><p>The request is accepted for processing.</p></html>"
    return Response(202, Headers([("content-type", "text/html; charset=UTF-8")]), body)

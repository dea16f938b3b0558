"""Dynamic large objects: an object whose X-Object-Manifest names a container and a prefix reads as what is listed there.

The segments are read as the caller, through the gates, each by the ETag that its listing shows: what may not be read is refused,
and a body whose segments change under it breaks off instead of mixing two.

Neighbours: app.  Source: "Dynamic large objects", Swift's overview of large objects.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace

from identity.client.interface import Access
from proxy.errors import BadRequest
from proxy.operations.books import BookVerbs
from proxy.operations.objects import DLO, ObjectVerbs
from proxy.operations.reads import extent, failed
from proxy.operations.verbs import GetObject, ListContainer, ObjectRead, ObjectUnread
from proxy.pipeline import Pipeline
from proxy.swift.parse import manifest_target
from ring.errors import Unavailable
from ring.names import Path
from ring.wire.message import Headers, Piece
from storage.client.bodies import aclose
from storage.client.errors import ObjectNotFound
from storage.client.interface import ObjectMeta, Query, Row

_SEGMENTS_MAX = 100_000


@dataclass(frozen=True, slots=True)
class _Stretch:
    row: Row
    offset: int
    length: int


class DynamicLargeObjects:
    def __init__(self, pipeline: Pipeline, objects: ObjectVerbs, books: BookVerbs) -> None:
        self._pipeline = pipeline
        self._objects = objects
        self._books = books

    async def read(
        self, method: str, access: Access | None, path: Path, stored: ObjectMeta, range: str, conditions: Headers | None
    ) -> ObjectRead | ObjectUnread:
        """A GET or HEAD of the whole that ``stored`` stands for.  RangeNotSatisfiable, Forbidden, Unauthorized."""
        container, prefix = manifest_target(stored.metadata[DLO])
        rows = await self._segments(access, Path(path.account, container), prefix)
        etag = hashlib.md5("".join([row.etag for row in rows]).encode(), usedforsecurity=False).hexdigest()
        meta = replace(stored, size=sum(row.size for row in rows), etag=etag)
        if (status := failed(method, conditions, meta)) is not None:
            return ObjectUnread(meta, status == 304)
        if method == "HEAD":
            return ObjectRead(meta, 0, meta.size, False)
        wanted = extent(range, conditions, meta)
        body = _Segments(self, access, Path(path.account, container), _cut(rows, wanted.offset, wanted.length))
        await body.start()
        return ObjectRead(meta, wanted.offset, wanted.length, wanted.partial, body)

    async def open(self, access: Access | None, container: Path, stretch: _Stretch) -> AsyncIterator[Piece] | bytes:
        conditions = Headers([("if-match", f'"{stretch.row.etag}"')])
        extent = f"bytes={stretch.offset}-{stretch.offset + stretch.length - 1}"
        operation = GetObject(Path(container.account, container.container, stretch.row.name), extent, conditions)
        try:
            result = await self._pipeline.run(access, operation, self._objects.get)
        except ObjectNotFound as error:
            raise Unavailable("a segment of a large object is not there any more") from error
        if isinstance(result, ObjectUnread):
            raise Unavailable("a segment of a large object has been replaced")
        return result.body

    async def _segments(self, access: Access | None, container: Path, prefix: str) -> list[Row]:
        rows: list[Row] = []
        marker = ""
        while True:
            operation = ListContainer(container, Query(prefix=prefix, marker=marker))
            page = await self._pipeline.run(access, operation, self._books.list_container)
            rows += [row for row in page.items if isinstance(row, Row)]
            if not page.truncated or not page.items:
                return rows
            if len(rows) > _SEGMENTS_MAX:
                raise BadRequest("Too many segments", status=409)
            marker = page.items[-1].name


def _cut(rows: Iterable[Row], offset: int, length: int) -> list[_Stretch]:
    """What of the segments makes up ``length`` bytes from ``offset`` on."""
    found = []
    at, end = 0, offset + length
    for row in rows:
        start, stop = max(offset - at, 0), min(row.size, end - at)
        if start < stop:
            found.append(_Stretch(row, start, stop - start))
        at += row.size
    return found


class _Segments:
    """The body: one segment is open at a time."""

    def __init__(self, owner: DynamicLargeObjects, access: Access | None, container: Path, stretches: list[_Stretch]) -> None:
        self._owner = owner
        self._access = access
        self._container = container
        self._todo = list(reversed(stretches))
        self._open: AsyncIterator[Piece] | None = None
        self._small = b""

    async def start(self) -> None:
        """Open the first segment, so that a failure can still be answered."""
        if self._todo:
            body = await self._owner.open(self._access, self._container, self._todo.pop())
            if isinstance(body, bytes):
                self._small = body
            else:
                self._open = body

    def __aiter__(self) -> _Segments:
        return self

    async def __anext__(self) -> Piece:
        while True:
            if self._small:
                data, self._small = self._small, b""
                return data
            if self._open is not None:
                piece = await anext(self._open, None)
                if piece is not None:
                    return piece
                await self.aclose()
            if not self._todo:
                raise StopAsyncIteration
            await self.start()

    async def aclose(self) -> None:
        reading, self._open = self._open, None
        if reading is not None:
            await aclose(reading)

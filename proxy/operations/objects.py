"""Objects: put, get, head, post, delete, copy.

A plain GET is one call to storage: conditions and the range are judged on the answer's own metadata, so the body is of the version
that was judged.  Manifests (proxy.large) read as the whole they stand for, in every verb.  An object whose X-Delete-At has passed
is not there, whether or not it has been removed yet.

Neighbours: verbs (what comes in and goes out), storage.client, large.reader.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from proxy.errors import BadRequest, NotSupported, PartNotFound
from proxy.large.manifest import PARTS, Manifest, is_manifest, visible
from proxy.large.reader import ManifestReader
from proxy.operations.bodies import PiecesBody, settled
from proxy.operations.reads import Extent, extent, failed, first_guess, several
from proxy.operations.several import SeveralRanges
from proxy.operations.verbs import (
    CopyObject,
    DeleteObject,
    GetObject,
    HeadObject,
    ObjectCopied,
    ObjectRead,
    ObjectUnread,
    PostObject,
    PutObject,
)
from ring.names import Path
from ring.wire.message import Piece
from ring.wire.ranges import ByteRange, Multipart
from ring.world.interface import Clock
from storage.client.bodies import aclose
from storage.client.errors import ContainerNotFound, EntityTooLarge, ObjectNotFound, PreconditionFailed
from storage.client.interface import Condition, NewObject, ObjectMeta, Storage

_ATTEMPTS = 3  # of a read in two steps whose object is replaced in between
SYSTEM = "x-sysmeta-"
DLO = "x-object-manifest"  # of a Swift object that stands for others (swift.dlo); here it is what it holds itself


class ObjectVerbs:
    def __init__(self, storage: Storage, clock: Clock, reader: ManifestReader, *, object_bytes_max: int) -> None:
        self._storage = storage
        self._clock = clock
        self._reader = reader
        self._bytes_max = object_bytes_max

    # ---- reading

    async def get(self, operation: GetObject) -> ObjectRead | ObjectUnread:
        """ObjectNotFound, RangeNotSatisfiable, PartNotFound."""
        guess = first_guess(operation.range) if operation.range else (0, None)
        if guess is None or operation.part_number is not None:
            return await self._get_in_steps(operation)
        offset, length = guess
        reading = await self._storage.get_object(operation.path, offset=offset, length=length, newest=operation.newest)
        stored = reading.meta
        pieces: AsyncIterator[Piece] | None = reading.pieces
        try:
            self._check_live(operation.path, stored)
            meta = visible(stored)
            if (status := failed("GET", operation.conditions, meta)) is not None:
                return ObjectUnread(meta, status == 304)
            wanted = extent(operation.range, operation.conditions, meta)
            if meta is stored and wanted.offset == offset and (length is None or wanted.length <= length):
                body, pieces = pieces, None
                assert body is not None
                return ObjectRead(meta, offset, wanted.length, wanted.partial, await settled(body, wanted.length))
        finally:
            if pieces is not None:
                await aclose(pieces)
        return await self._get_in_steps(operation)

    async def _get_in_steps(self, operation: GetObject) -> ObjectRead | ObjectUnread:
        """Metadata first, then the body of that very version."""
        for attempt in range(_ATTEMPTS):
            stored = await self._storage.head_object(operation.path, newest=operation.newest)
            self._check_live(operation.path, stored)
            meta = visible(stored)
            if (status := failed("GET", operation.conditions, meta)) is not None:
                return ObjectUnread(meta, status == 304)
            try:
                manifest = await self._reader.manifest(operation.path, stored) if is_manifest(stored) else None
                ranges = several(operation.range, operation.conditions, meta) if operation.boundary else []
                if ranges:
                    return await self._get_several(operation, stored, meta, manifest, ranges)
                wanted = _wanted(operation, meta, manifest)
                pieces = await self._open(operation.path, stored, manifest, wanted.offset, wanted.length)
            except ObjectNotFound:
                if attempt == _ATTEMPTS - 1:
                    raise
                continue
            body = await settled(pieces, wanted.length)
            count = len(manifest.parts) if manifest is not None else 0
            return ObjectRead(meta, wanted.offset, wanted.length, wanted.partial, body, count)
        raise AssertionError("the last attempt returns or raises")

    async def _get_several(
        self, operation: GetObject, stored: ObjectMeta, meta: ObjectMeta, manifest: Manifest | None, ranges: Sequence[ByteRange]
    ) -> ObjectRead:
        async def opening(part: ByteRange) -> AsyncIterator[Piece]:
            return await self._open(operation.path, stored, manifest, part.start, part.length)

        frame = Multipart(operation.boundary, meta.content_type, meta.size)
        body = SeveralRanges(frame, ranges, opening)
        await body.start()
        return ObjectRead(meta, 0, body.length, True, body, frame=frame)

    async def _open(
        self, path: Path, stored: ObjectMeta, manifest: Manifest | None, offset: int, length: int
    ) -> AsyncIterator[Piece]:
        """Bytes of that very version.  ObjectNotFound when it has been replaced."""
        if manifest is not None:
            return await self._reader.read(path, manifest, offset, length)
        return (await self._storage.get_object(path, offset=offset, length=length, version=stored.timestamp)).pieces

    async def head(self, operation: HeadObject) -> ObjectRead | ObjectUnread:
        """ObjectNotFound, RangeNotSatisfiable, PartNotFound."""
        stored = await self._storage.head_object(operation.path, newest=operation.newest)
        self._check_live(operation.path, stored)
        meta = visible(stored)
        if (status := failed("HEAD", operation.conditions, meta)) is not None:
            return ObjectUnread(meta, status == 304)
        manifest = None
        if operation.part_number is not None and is_manifest(stored):
            manifest = await self._reader.manifest(operation.path, stored)
        wanted = _wanted(operation, meta, manifest)
        return ObjectRead(meta, wanted.offset, wanted.length, wanted.partial, part_count=int(stored.metadata.get(PARTS, "0")))

    # ---- writing

    async def put(self, operation: PutObject) -> ObjectMeta:
        """ContainerNotFound, BadDigest, EntityTooLarge, PreconditionFailed, and what the body raises."""
        length = operation.body.length
        if length is not None and length > self._bytes_max:
            raise EntityTooLarge(f"the object is larger than {self._bytes_max} bytes")
        new = NewObject(
            content_type=operation.content_type,
            metadata=operation.metadata,
            etag=operation.etag,
            condition=await self.stored_condition(operation.path, operation.condition),
            size_max=self._bytes_max,
        )
        return (await self._storage.put_object(operation.path, new, operation.body)).meta

    async def post(self, operation: PostObject) -> None:
        """ObjectNotFound."""
        await self._storage.post_object(operation.path, operation.metadata, content_type=operation.content_type)

    async def delete(self, operation: DeleteObject) -> None:
        """ObjectNotFound, PreconditionFailed.  A manifest's parts are removed later, by large.sweeper."""
        condition = await self.stored_condition(operation.path, operation.condition)
        await self._storage.delete_object(operation.path, condition=condition)

    async def copy(self, operation: CopyObject) -> ObjectCopied:
        """ObjectNotFound (of the source), ContainerNotFound (of the target), PreconditionFailed, EntityTooLarge.

        Onto itself only metadata is written, whatever the size."""
        if operation.source == operation.path:
            return await self._copy_onto_itself(operation)
        source = await self.get(GetObject(operation.source, conditions=operation.source_conditions))
        if isinstance(source, ObjectUnread):
            raise PreconditionFailed("a condition on the source of the copy does not hold")
        if DLO in source.meta.metadata:
            await _close(source)
            raise NotSupported("A dynamic large object cannot be copied; copy its segments.")
        body = PiecesBody(source.body, source.length)
        try:
            metadata = _copied_metadata(operation, source.meta.metadata)
            content_type = operation.content_type or source.meta.content_type
            put = PutObject(operation.path, body, content_type, metadata, condition=operation.condition)
            return ObjectCopied(await self.put(put), source.meta)
        finally:
            await body.close()

    async def _copy_onto_itself(self, operation: CopyObject) -> ObjectCopied:
        stored = await self._storage.head_object(operation.path)
        self._check_live(operation.path, stored)
        meta = visible(stored)
        if failed("GET", operation.source_conditions, meta) is not None:
            raise PreconditionFailed("a condition on the source of the copy does not hold")
        if operation.condition is not None:
            raise BadRequest("a conditional copy of an object onto itself", code="NotImplemented", status=501)
        metadata = _copied_metadata(operation, stored.metadata)
        await self._storage.post_object(operation.path, metadata, content_type=operation.content_type)
        return ObjectCopied(visible(await self._storage.head_object(operation.path)), meta)

    async def stored_condition(self, path: Path, condition: Condition | None) -> Condition | None:
        """A condition as storage must see it: a manifest's ETag for clients becomes that of its stored body."""
        if condition is None or not any("-" in tag for tag in (*condition.if_match, *condition.if_none_match)):
            return condition
        try:
            stored = await self._storage.head_object(path)
        except (ObjectNotFound, ContainerNotFound):
            return condition
        if not is_manifest(stored):
            return condition
        shown = visible(stored).etag

        def swap(tags: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(stored.etag if tag == shown else tag for tag in tags)

        return Condition(swap(condition.if_match), swap(condition.if_none_match))

    def _check_live(self, path: Path, meta: ObjectMeta) -> None:
        at = meta.metadata.get("x-delete-at")
        if at is not None and int(at) <= self._clock.now():
            raise ObjectNotFound(f"{path} has expired")


async def _close(read: ObjectRead) -> None:
    if not isinstance(read.body, bytes):
        await aclose(read.body)


def _wanted(operation: GetObject | HeadObject, meta: ObjectMeta, manifest: Manifest | None) -> Extent:
    number = operation.part_number
    if number is None:
        return extent(operation.range, operation.conditions, meta)
    span = manifest.span(number) if manifest is not None else (0, meta.size) if number == 1 else None
    if span is None:
        raise PartNotFound(f"the object has no part {number}")
    return Extent(span[0], span[1], partial=True)


def _copied_metadata(operation: CopyObject, source: Mapping[str, str]) -> dict[str, str]:
    """The client's metadata of the copy.  The system's own tell of the source's storage and stay behind."""
    kept = {name: value for name, value in source.items() if not name.startswith(SYSTEM)}
    if operation.metadata is None:
        return kept
    return {**kept, **operation.metadata} if operation.merge else dict(operation.metadata)
